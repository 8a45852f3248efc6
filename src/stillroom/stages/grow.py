"""Stage grow: artifacts/split and unlabelled rows → artifacts/grown, texts for the teacher alone to label.

None unless data.unlabelled or growth.factor says so. With growth.factor auto the teacher labels step after step, and a
quick student tells when to stop. The checkpoint, as it is before fine-tuning, is opened only if a method needs its mask
token or its masked-language head.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from stillroom import compute, layout
from stillroom.data.grown import read_texts, write_grown
from stillroom.data.growth import Grown, Proposals, grow
from stillroom.data.manifest import UNLABELLED
from stillroom.data.sources.teacher import teacher_folder
from stillroom.data.splits import Rows, read_snapshot, read_split
from stillroom.files import sha256_file
from stillroom.params import Params
from stillroom.teacher.tokeniser import mask_token

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish the texts; returns how many there are and how many came too near a held-out text, in all and by kind."""
    rows = {name: read_split(layout.SPLIT, name) for name in ("train", "validation", "test")}
    unlabelled: list[str] = []
    if params.data.unlabelled is not None:
        unlabelled = read_texts(layout.INGESTED / f"{UNLABELLED}.parquet", "ingest")
    mask, proposals = None, None
    if params.growth.uses("mask"):
        mask = mask_token(teacher_folder(layout.SOURCE_TEACHER), str(layout.SOURCE_TEACHER))
    if params.growth.uses("replace"):
        proposals = _proposals(params)
    held_out = rows["validation"].text + rows["test"].text

    @functools.lru_cache(maxsize=2)  # of a step and the one before it
    def grown_by(factor: int) -> Grown:
        texts, near = rows["train"].text, params.data.near_duplicate
        return grow(texts, held_out, params.growth, near, params.seed, unlabelled, mask, proposals, factor=factor)

    factor, curve = params.growth.factor, list[dict[str, float]]()
    if factor == "auto":
        factor, curve = _until_it_pays_no_more(params, rows, lambda step: grown_by(step).texts)
    grown = grown_by(factor)
    told = {"kept": grown.kept, "refused": grown.refused, "factor": factor, "curve": curve}
    write_grown(grown.texts, layout.GROWN, told)
    _tell(grown, len(rows["train"].text), len(unlabelled))
    repeated = len(unlabelled) - grown.kept.get(UNLABELLED, 0) - grown.refused.get(UNLABELLED, 0)
    return {
        "grown_texts": float(len(grown.texts)),
        "factor": float(factor),
        "refused_texts": float(sum(grown.refused.values())),
        **{f"{kind}_texts": float(count) for kind, count in grown.kept.items()},
        **{f"{kind}_refused": float(count) for kind, count in grown.refused.items()},
        **({f"{UNLABELLED}_repeated": float(repeated)} if unlabelled else {}),
    }


def _until_it_pays_no_more(
    params: Params, rows: Mapping[str, Rows], grown: Callable[[int], Sequence[str]]
) -> tuple[int, list[dict[str, float]]]:
    """The factor, and what each step gave.

    What the teacher says is kept in the store of answers, where the stage capture finds it.
    """
    from stillroom.cache.capture import capture
    from stillroom.cache.identity import entry_keys
    from stillroom.cache.live import load_live
    from stillroom.cache.texts import Listed
    from stillroom.students.material import gather
    from stillroom.students.probe import Step, climb, probe_settings, scored
    from stillroom.teacher.model import WEIGHTS
    from stillroom.training import Scratch, training_key

    train, validation = rows["train"], rows["validation"]
    compute.prepare(params.compute)
    teacher = load_live(layout.TEACHER, params.compute, params.capture.batch_tokens)
    inputs = [read_snapshot(layout.SPLIT).sha256, sha256_file(layout.TEACHER / WEIGHTS), params.seed, teacher.precision]
    tried = Scratch(training_key("grow", inputs))

    def score(factor: int) -> Step:
        texts = grown(factor)
        heard = Listed([*train.text, *texts])
        store = layout.state() / "cache"
        answers = capture(teacher, heard, params.capture, store, params.seed, params.compute).reader.folder
        settings = probe_settings(factor, teacher.max_length)
        told = settings, False, ("logits",)
        material = gather(layout.TEACHER, answers, train, texts, validation, *told, members=False)
        heard_key = hashlib.sha256(entry_keys(texts).tobytes()).hexdigest()[:32]
        scratch = Scratch(f"{tried.key}/{factor}-{heard_key}")
        return scored(material, settings, train, validation, factor, params.seed, params.compute, scratch)

    chosen, steps = climb(score)
    tried.discard()
    return chosen, [asdict(step) for step in steps]


def _proposals(params: Params) -> Proposals:
    from stillroom.teacher.proposals import MaskedHead

    compute.prepare(params.compute)
    where = compute.device(params.compute)
    return MaskedHead(teacher_folder(layout.SOURCE_TEACHER), where, str(layout.SOURCE_TEACHER))


def _tell(grown: Grown, rows: int, unlabelled: int) -> None:
    if sum(grown.kept.values()) + sum(grown.refused.values()):
        kept, refused = (
            ", ".join(f"{kind} {count}" for kind, count in counts.items()) for counts in (grown.kept, grown.refused)
        )
        given = f"{rows} rows" + (f" and {unlabelled} unlabelled ones" if unlabelled else "")
        log.info("grow: %d texts from %s (%s); refused near held-out rows: %s", len(grown.texts), given, kept, refused)
    if unlabelled and not grown.kept[UNLABELLED]:
        log.warning(
            "data.unlabelled: none of its %d rows is new: %d come near validation or test rows, "
            "the others repeat training rows; give other texts",
            unlabelled,
            grown.refused[UNLABELLED],
        )
