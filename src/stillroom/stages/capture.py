"""capture: the teacher's answers for the transfer set → a verified snapshot of the teacher cache."""

from stillroom import compute, layout
from stillroom.batching import load_tokeniser
from stillroom.cache.capture import capture
from stillroom.cache.store import export
from stillroom.data.grown import read_grown
from stillroom.data.splits import read_split
from stillroom.files import atomic_folder
from stillroom.params import Params
from stillroom.teacher.model import TOKENISER, load_teacher


def run(params: Params) -> dict[str, float]:
    """Compute what the shared store lacks, then hand out the answers for this run's texts alone."""
    import torch

    compute.prepare(params.compute)
    precision = compute.precision(params.compute)
    model, description = load_teacher(layout.TEACHER)
    model.to(compute.device(params.compute), torch.bfloat16 if precision == "bf16" else torch.float32)
    captured = capture(
        model,
        load_tokeniser(layout.TEACHER / TOKENISER, description.max_length),
        description.max_length,
        description.pad,
        layout.TEACHER,
        precision,
        [*read_split(layout.SPLIT, "train").text, *read_grown(layout.GROWN)],
        params.capture,
        layout.state() / "cache",
        params.seed,
    )
    with atomic_folder(layout.CACHE) as folder:
        manifest = export(captured.reader, captured.keys, folder, params.capture.shard_entries)
    return {
        "entries": float(manifest.entries),
        "computed": float(captured.computed),
        "tokens_per_second": captured.tokens / captured.seconds if captured.computed else 0.0,
    }
