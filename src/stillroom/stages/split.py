"""Stage split: artifacts/ingested → artifacts/split, no text in two splits."""

import logging

from stillroom import layout
from stillroom.data.examples import read_examples
from stillroom.data.manifest import read_report
from stillroom.data.splits import write_splits
from stillroom.data.splitting import split_examples
from stillroom.params import Params

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Drop leaks and duplicates and cut what is not given; returns row counts, kept and dropped."""
    report = read_report(layout.INGESTED)
    source = report.source.labelled()
    given = {split: read_examples(layout.INGESTED / f"{split}.parquet") for split in source.files()}
    splits = split_examples(given, params.data, params.seed)
    manifest = write_splits(splits, source, list(report.findings), layout.SPLIT)
    for finding in manifest.findings:
        log.info("%s", finding)
    return {
        **{f"{name}_rows": float(count) for name, count in manifest.rows.items()},
        **{f"dropped_{reason}": float(count) for reason, count in manifest.dropped.items()},
        "findings": float(len(manifest.findings)),
    }
