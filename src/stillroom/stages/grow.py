"""Stage grow: artifacts/split → artifacts/grown, texts for the teacher to label; none unless growth.factor says so."""

import logging

from stillroom import layout
from stillroom.data.grown import write_grown
from stillroom.data.growth import grow
from stillroom.data.splits import read_split
from stillroom.params import Params

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Publish the grown texts; returns how many there are and how many came too near a held-out text."""
    rows = {name: read_split(layout.SPLIT, name).text for name in ("train", "validation", "test")}
    held_out = rows["validation"] + rows["test"]
    texts, refused = grow(rows["train"], held_out, params.growth, params.data.near_duplicate, params.seed)
    write_grown(texts, layout.GROWN)
    if params.growth.factor:
        log.info("grow: %d texts from %d rows; %d refused near held-out rows", len(texts), len(rows["train"]), refused)
    return {"grown_texts": float(len(texts)), "refused_texts": float(refused)}
