"""Stage ingest: sources/data → artifacts/ingested, every row checked."""

import logging

from stillroom import layout
from stillroom.data.cases import FILE, write_cases
from stillroom.data.examples import write_examples
from stillroom.data.grown import write_texts
from stillroom.data.intake import take_in
from stillroom.data.manifest import CASES, INGEST_REPORT, UNLABELLED, IngestReport, read_source
from stillroom.files import atomic_folder, write_json
from stillroom.governance.check import assess_scan, enforce
from stillroom.params import Params

log = logging.getLogger("stillroom")


def run(params: Params) -> dict[str, float]:
    """Read and check the raw files; returns row and class counts."""
    source = read_source(layout.SOURCE_DATA)
    files = {split: (record.uri, layout.SOURCE_DATA / record.file) for split, record in source.files().items()}
    ingested = take_in(files, params.data)
    scan = ingested.personal_data
    if scan is not None:
        enforce(assess_scan(params.governance, scan.hits()))
    with atomic_folder(layout.INGESTED) as folder:
        for split, examples in ingested.examples.items():
            write_examples(examples, folder / f"{split}.parquet")
        if ingested.unlabelled is not None:
            write_texts(ingested.unlabelled, folder / f"{UNLABELLED}.parquet")
        write_cases(ingested.cases, folder / FILE)
        report = IngestReport(
            source=source, files=ingested.files, findings=tuple(ingested.findings), personal_data=scan
        )
        write_json(folder / INGEST_REPORT, report.model_dump(mode="json"))
    for name in (UNLABELLED, CASES):
        for finding in ingested.files.get(name, {}).get("findings", ()):
            log.info("%s: %s", name, finding)
    metrics = {f"{split}_rows": float(told["rows"]) for split, told in ingested.files.items()}
    return metrics | {
        "labels": float(len(ingested.examples["train"].label_counts())),
        "findings": float(len(ingested.findings)),
        **({f"{kind}_hits": float(count) for kind, count in scan.hits().items()} if scan is not None else {}),
    }
