"""A classifier over any encoder that transformers loads: pooled last hidden state, one linear head."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from stillroom import layout
from stillroom.data.labels import check_labels
from stillroom.errors import InputError
from stillroom.files import read_json, write_json
from stillroom.problem import ProblemType
from stillroom.teacher.attention import use_training_attention

Pooling = Literal["mean", "cls"]
WEIGHTS = "model.safetensors"
DESCRIPTION = "teacher.json"
TOKENISER = "tokenizer.json"


class Description(BaseModel):
    """teacher.json: all that the weights don't say. Metrics are of the validation rows."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    name: str
    params: int
    problem_type: ProblemType = "single_label"
    labels: tuple[str, ...]
    pooling: Pooling
    max_length: int
    temperature: float
    """Scalar that calibrates the logits (Guo et al., arXiv 1706.04599), fitted on validation."""
    precision: Literal["fp32", "bf16"]
    pad: int
    """Id of the padding token."""
    ready: bool = False
    """The checkpoint classified already and was not fine-tuned."""
    metrics: dict[str, dict[str, float]]
    history: tuple[dict[str, float], ...] = ()
    tokens_per_second: float | None = None


class EncoderClassifier(nn.Module):
    """Token ids and mask [rows, tokens] to logits [rows, classes] and the pooled hidden state [rows, width]."""

    encoder: Any

    def __init__(self, encoder: Any, width: int, classes: int, pooling: Pooling, dropout: float = 0.0):
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.judge(self.states(ids, mask), mask)

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The last hidden states, [rows, tokens, width]."""
        hidden: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def judge(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and pooled state of last hidden states."""
        pooled = pool(hidden, mask, self.pooling).to(self.head.weight.dtype)
        return self.head(self.dropout(pooled)), pooled


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector per text, [rows, width], from hidden states [rows, tokens, width]."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


class ReadyClassifier(nn.Module):
    """A classification checkpoint as it is, with its outputs in the order of the data's labels.

    Same interface as EncoderClassifier; the pooled state is the mean of the last hidden states.
    """

    order: torch.Tensor

    def __init__(self, checkpoint: Any, order: Sequence[int]):
        super().__init__()
        self.checkpoint = checkpoint
        self.register_buffer("order", torch.tensor(order))

    @property
    def encoder(self) -> Any:
        """The checkpoint's encoder, without its head."""
        return self.checkpoint.base_model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.checkpoint(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        return outputs.logits[:, self.order], pool(outputs.hidden_states[-1], mask, "mean")


Classifier = EncoderClassifier | ReadyClassifier


class LogitsOnly(nn.Module):
    """A classifier for export: ids and mask [texts, tokens] to logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(input_ids, attention_mask)[0]
        return logits


def load_encoder(folder: Path, dropout: float = 0.0) -> Any:
    """Load a checkpoint's encoder in fp32, with the attention that trains fast.

    Raises InputError for a folder that transformers can't load.
    """
    from transformers import AutoModel

    encoder = _load(AutoModel, folder, dropout, "eager", needs_pooler=False)
    use_training_attention(encoder)
    return encoder


def layers_of(encoder: nn.Module) -> tuple[nn.Module, str, nn.ModuleList]:
    """The one list of layers of an encoder: its owner, its name in the owner, the list."""
    wanted = getattr(encoder.config, "num_hidden_layers", None)
    found = [
        (owner, name, child)
        for owner in encoder.modules()
        for name, child in owner.named_children()
        if isinstance(child, nn.ModuleList) and len(child) == wanted
    ]
    if len(found) != 1:
        raise InputError(
            f"{type(encoder).__name__}: has {len(found)} lists of {wanted} layers, so its layers can be neither sliced "
            "nor frozen; BERT, RoBERTa, XLM-RoBERTa, MPNet, DistilBERT, DeBERTa and ModernBERT encoders can. With this "
            "one use another family of students, and teacher.freeze_layers 0"
        )
    return found[0]


def load_ready(folder: Path, labels: Sequence[str], problem: ProblemType) -> ReadyClassifier:
    """Load a checkpoint that already classifies; its labels must be the data's, in any order, and so its problem."""
    from transformers import AutoModelForSequenceClassification

    checkpoint = _load(AutoModelForSequenceClassification, folder, 0.0, None, needs_pooler=True)
    found = [checkpoint.config.id2label[index] for index in range(len(checkpoint.config.id2label))]
    check_labels(found, labels, str(folder))
    told = checkpoint.config.problem_type
    if told not in (None, f"{problem}_classification"):
        raise InputError(
            f"{folder}: the checkpoint was trained for {told}, the data are {problem}; set data.problem_type to what "
            "the data are, or teacher.fine_tune to true"
        )
    return ReadyClassifier(checkpoint, [found.index(label) for label in labels])


def load_masked(folder: Path, shown: str) -> Any:
    """Load a checkpoint with its masked-language head. Raises InputError if it has none."""
    from transformers import AutoModelForMaskedLM

    try:
        return _load(AutoModelForMaskedLM, folder, 0.0, None, needs_pooler=False).eval()
    except InputError as error:
        raise InputError(
            f"{shown}: the teacher has no masked-language head; use drop, mask or mix in growth.methods ({error})"
        ) from error


def _load(factory: Any, folder: Path, dropout: float, attention: str | None, needs_pooler: bool) -> Any:
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _set_dropout(config, dropout)
        model, found = factory.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:
        told = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: not a checkpoint that transformers loads ({told})") from error
    if config.is_encoder_decoder:
        raise InputError(f"{folder}: {config.model_type} is an encoder with a decoder; bring an encoder")
    lacking = sorted(name for name in found["missing_keys"] if needs_pooler or "pooler" not in name)
    if lacking:
        raise InputError(
            f"{folder}: its weights lack {len(lacking)} tensors of {type(model).__name__}, {lacking[0]} first; "
            "they would be random, so bring a whole checkpoint"
        )
    return model


def _set_dropout(config: Any, dropout: float) -> None:
    for name in vars(config):
        if name.endswith(("dropout", "dropout_prob", "dropout_rate")) and isinstance(getattr(config, name), float):
            setattr(config, name, dropout)


def count_params(model: nn.Module) -> int:
    """Number of distinct weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def save_teacher(folder: Path, model: Classifier, tokeniser: Any, description: Description) -> None:
    """Publish into an existing folder: safetensors, the encoder's config, the tokeniser, the description last."""
    state = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    carrier: Any = model.checkpoint if isinstance(model, ReadyClassifier) else model.encoder
    carrier.config.save_pretrained(folder)
    tokeniser.save(str(folder / TOKENISER))
    write_json(folder / DESCRIPTION, description.model_dump(mode="json"))


def read_description(folder: Path) -> Description:
    """The description of a published teacher."""
    try:
        return Description.model_validate(read_json(folder / DESCRIPTION))
    except ValidationError as error:
        raise InputError(
            f"{folder / DESCRIPTION}: not the description of a teacher; run the stage teach again"
        ) from error


def members_of(folder: Path) -> list[Path]:
    """Folders of the other teachers of an ensemble, below that of the first, in their order."""
    return sorted((folder / layout.MEMBERS).glob("*"), key=lambda path: int(path.name))


def teachers_of(folder: Path) -> list[Path]:
    """Folders of all teachers of a workspace, that of the first before the others."""
    return [folder, *members_of(folder)]


def load_teacher(folder: Path) -> tuple[Classifier, Description]:
    """Load a published teacher in fp32, for inference, with the fastest attention that its architecture has.

    Raises InputError if the folder is not as it was published.
    """
    description = read_description(folder)
    try:
        weights = load_file(folder / WEIGHTS)
        _refuse_other_outputs(weights, description, folder)
        model = _untrained(folder, description)
        model.load_state_dict(weights)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: not a whole teacher ({told}); run the stage teach again") from error
    return model.eval(), description


def _refuse_other_outputs(weights: Mapping[str, torch.Tensor], description: Description, folder: Path) -> None:
    """Raise InputError unless the teacher has an output for every label."""
    outputs = weights.get("order" if description.ready else "head.bias")
    if outputs is not None and len(outputs) != len(description.labels):
        raise InputError(
            f"{folder}: the teacher gives {len(outputs)} outputs, its {DESCRIPTION} names {len(description.labels)} "
            "labels; run the stage teach again"
        )


def _untrained(folder: Path, description: Description) -> Classifier:
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if description.ready:
        checkpoint = AutoModelForSequenceClassification.from_config(config)
        return ReadyClassifier(checkpoint, range(len(description.labels)))
    encoder = AutoModel.from_config(config)
    return EncoderClassifier(encoder, config.hidden_size, len(description.labels), description.pooling)
