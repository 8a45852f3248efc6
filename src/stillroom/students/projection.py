"""A transformer encoder made narrower: the weights of its own kind with fewer layers, heads and units.

A hidden state keeps its coordinates in an orthonormal basis of the directions that the teacher's states use most
(SliceGPT, arXiv 2401.15024, rotates pre-norm decoders so); heads and feed-forward units are those with the largest
weights. What a dimension of a weight is, its size tells, and where queries and the attention's output have the same,
which of them reads the layer's input.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stillroom.errors import InputError
from stillroom.teacher.model import layers_of

_ATTENTION_AND_FEED_FORWARD = Counter(
    {("heads", "hidden"): 3, ("hidden", "heads"): 1, ("units", "hidden"): 1, ("hidden", "units"): 1}
)
"""Linear maps of one layer by what they give and read."""
_CAN = "BERT, RoBERTa, XLM-RoBERTa, MPNet, DistilBERT and DeBERTa encoders can"
_UNITS = ("intermediate_size", "hidden_dim")
"""Names that configs have for the width of the feed-forward layer."""

Axes = tuple[str, ...]


@dataclass(frozen=True)
class Sizes:
    """Of an encoder: width of a hidden state, attention heads, feed-forward units."""

    width: int
    heads: int
    units: int


def sizes_of(encoder: Any) -> Sizes:
    """Raises InputError for an encoder that cannot be made narrow."""
    config = encoder.config
    units = next((getattr(config, name) for name in _UNITS if hasattr(config, name)), None)
    width, heads = config.hidden_size, config.num_attention_heads
    if not isinstance(units, int) or width % heads or len({width, heads, units}) != 3:
        raise _refused(encoder, f"its sizes (width {width}, heads {heads}, feed-forward {units}) do not tell it apart")
    return Sizes(width, heads, units)


def narrow_config(encoder: Any, width: int, layers: int, vocabulary: int, pad: int) -> Any:
    """The config of an encoder of this kind: heads of the same width, as many units per width as there are now.

    Raises InputError for a width that is not a multiple of the heads' or beyond the encoder's, for too many layers, and
    for an encoder that cannot be made narrow.
    """
    axes_of(encoder)
    sizes = sizes_of(encoder)
    _, _, found = layers_of(encoder)
    if layers > len(found):
        raise InputError(f"layers is {layers}; the teacher has {len(found)}")
    head = sizes.width // sizes.heads
    if width % head or width > sizes.width:
        below = min(max(width // head, 1), sizes.heads)
        nearest = [str(count * head) for count in (below, below + 1) if count <= sizes.heads]
        raise InputError(
            f"width is {width}; the teacher's heads are {head} wide and its states {sizes.width}, "
            f"so use {' or '.join(nearest)}"
        )
    config = copy.deepcopy(encoder.config)
    config.hidden_size, config.num_attention_heads = width, width // head
    config.num_hidden_layers, config.vocab_size, config.pad_token_id = layers, vocabulary, pad
    setattr(config, next(name for name in _UNITS if hasattr(config, name)), sizes.units * width // sizes.width)
    return config


def principal_basis(states: torch.Tensor, width: int) -> tuple[torch.Tensor, float]:
    """An orthonormal basis [width of a state, width] of the directions that states [n, width of a state] use most.

    It stands as near as it can to some of the coordinates themselves (all of them if width is that of a state, when it
    is the identity), because the norms between layers weigh coordinates. Also the share of the squares that it keeps.
    """
    moment = states.double().T @ states.double()
    values, vectors = torch.linalg.eigh(moment)
    span = vectors[:, -width:]
    chosen = (span**2).sum(dim=1).topk(width).indices.sort().values
    left, _, right = torch.linalg.svd(span[chosen].T, full_matrices=False)
    return (span @ (left @ right)).float(), float(values[-width:].sum() / values.sum())


def project(
    teacher: Any, student: Any, source: Sequence[int], kept: torch.Tensor, basis: torch.Tensor, share: float
) -> None:
    """Give an untrained encoder of a narrow config the teacher's weights. source: the teacher's layer of each of its.

    kept: the teacher's rows of the token table. share: of the squares of a state that the basis keeps.
    Raises InputError for an encoder with weights of which it is not known what they do.
    """
    axes = axes_of(teacher)
    weights = dict(teacher.named_parameters())
    own, theirs = sizes_of(student), sizes_of(teacher)
    head = theirs.width // theirs.heads
    prefix = _layers_name(teacher)
    names = [f"{prefix}{layer}." for layer in source]
    inside = [{name: axes[name] for name in axes if name.startswith(start)} for start in names]
    strengths = [_strength(weights, layer, "heads").view(-1, head).sum(dim=1) for layer in inside]
    heads = _largest(torch.stack(strengths).sum(dim=0), own.heads)  # the same in every layer: tables may be shared
    of_heads = (heads[:, None] * head + torch.arange(head)).flatten()
    gain = (share * theirs.width / own.width) ** 0.5
    units = [_largest(_strength(weights, layer, "units"), own.units) for layer in inside]
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            number = _number(name, prefix)
            original = name if number is None else names[number] + name.removeprefix(f"{prefix}{number}.")
            value = weights[original].detach()
            for axis, kind in enumerate(axes[original]):
                if kind == "hidden":
                    value = torch.tensordot(value, basis, dims=([axis], [0])).movedim(-1, axis)
                elif kind == "gain":
                    value = gain * (value @ basis**2)
                elif kind != "rows":
                    rows = {"token": kept, "head": heads, "heads": of_heads}.get(kind)
                    value = value.index_select(axis, units[number or 0] if rows is None else rows)
            parameter.copy_(value)


def axes_of(encoder: Any) -> dict[str, Axes]:
    """What every dimension of every weight is: hidden, heads (all of them, side by side), head, units, token or rows.

    `gain` is the weight of a norm. Sends a few tokens through the encoder. Raises InputError as `project`.
    """
    sizes = sizes_of(encoder)
    readers = _readers_of_hidden(encoder)
    prefix = _layers_name(encoder)
    layers: dict[int, Counter[Axes]] = {}
    axes: dict[str, Axes] = {}
    for path, module in encoder.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own or path.startswith("pooler"):
            continue
        shapes = {name: tuple(value.shape) for name, value in own.items()}
        kinds: dict[str, Axes] = {}
        if isinstance(module, nn.Embedding):
            rows = "token" if module is encoder.get_input_embeddings() else "rows"
            kinds = {"weight": (rows, {sizes.width: "hidden", sizes.heads: "head"}.get(shapes["weight"][1], "?"))}
        elif isinstance(module, nn.LayerNorm) and shapes.get("weight") == (sizes.width,):
            kinds = {"weight": ("gain",), "bias": ("hidden",)}
        elif isinstance(module, nn.Linear) and (number := _number(path, prefix)) is not None:
            named = {sizes.width: "hidden", sizes.units: "units"}
            gives, reads = (named.get(size, "?") for size in shapes["weight"])
            if gives == reads == "hidden":
                gives, reads = ("heads", "hidden") if module in readers else ("hidden", "heads")
            layers.setdefault(number, Counter())[gives, reads] += 1
            kinds = {"weight": (gives, reads), "bias": (gives,)}
        for name in own:
            if name not in kinds or "?" in kinds[name]:
                raise _refused(encoder, f"{path}.{name} {list(shapes[name])} is no weight that it knows")
            axes[f"{path}.{name}"] = kinds[name]
    if any(found != _ATTENTION_AND_FEED_FORWARD for found in layers.values()) or not layers:
        raise _refused(encoder, "its layers are not queries, keys, values, their output and two feed-forward maps")
    return axes


def _readers_of_hidden(encoder: Any) -> set[nn.Module]:
    """The linear maps that read a hidden state itself, as a layer is given it or a norm gives it."""
    _, _, layers = layers_of(encoder)
    ids = torch.arange(4)[None]
    hidden: list[torch.Tensor] = []
    found: dict[nn.Module, bool] = {}

    def given(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden.append(next(value for value in (*positional, *named.values()) if isinstance(value, torch.Tensor)))

    def normed(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        hidden.append(output)

    def read(module: nn.Module, inputs: Any) -> None:
        found.setdefault(module, any(inputs[0].data_ptr() == state.data_ptr() for state in hidden))

    hooks = [layer.register_forward_pre_hook(given, with_kwargs=True) for layer in layers]
    hooks += [part.register_forward_hook(normed) for part in encoder.modules() if isinstance(part, nn.LayerNorm)]
    hooks += [part.register_forward_pre_hook(read) for part in encoder.modules() if isinstance(part, nn.Linear)]
    try:
        with torch.inference_mode():
            encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    return {module for module, reads in found.items() if reads}


def _strength(weights: Mapping[str, torch.Tensor], layer: Mapping[str, Axes], kind: str) -> torch.Tensor:
    """For each place along a kind of dimension within a layer, the product of the norms of what goes in and out."""
    result = torch.ones(())
    for gives in (True, False):
        kinds = (kind, "hidden") if gives else ("hidden", kind)
        squares = sum(
            weights[name].detach().square().sum(dim=1 if gives else 0) for name, axes in layer.items() if axes == kinds
        )
        result = result * squares
    return result.sqrt()


def _largest(strength: torch.Tensor, count: int) -> torch.Tensor:
    return strength.topk(count).indices.sort().values


def _layers_name(encoder: Any) -> str:
    _, _, layers = layers_of(encoder)
    names: list[str] = [name for name, module in encoder.named_modules() if module is layers]
    return f"{names[0]}."


def _number(path: str, prefix: str) -> int | None:
    """The number of the layer that a name is inside of."""
    return int(path.removeprefix(prefix).partition(".")[0]) if path.startswith(prefix) else None


def _refused(encoder: Any, why: str) -> InputError:
    return InputError(f"{type(encoder).__name__}: cannot be made narrow: {why}; {_CAN}, for others use family: sliced")
