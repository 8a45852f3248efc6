"""Stage ingest: sources/data → artifacts/ingested, every row checked."""

from stillroom import layout
from stillroom.data.examples import write_examples
from stillroom.data.intake import take_in
from stillroom.data.manifest import INGEST_REPORT, IngestReport, read_source
from stillroom.files import atomic_folder, write_json
from stillroom.params import Params


def run(params: Params) -> dict[str, float]:
    """Read and check the raw files; returns row and class counts."""
    source = read_source(layout.SOURCE_DATA)
    files = {split: (record.uri, layout.SOURCE_DATA / record.file) for split, record in source.files().items()}
    ingested = take_in(files, params.data)
    with atomic_folder(layout.INGESTED) as folder:
        for split, examples in ingested.examples.items():
            write_examples(examples, folder / f"{split}.parquet")
        report = IngestReport(source=source, files=ingested.files, findings=tuple(ingested.findings))
        write_json(folder / INGEST_REPORT, report.model_dump(mode="json"))
    metrics = {f"{split}_rows": float(len(examples)) for split, examples in ingested.examples.items()}
    return metrics | {
        "labels": float(len(ingested.examples["train"].label_counts())),
        "findings": float(len(ingested.findings)),
    }
