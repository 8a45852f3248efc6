"""Snapshot: everything that a run reads, fetched, checked and laid into its workspace."""

import datetime
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stillroom import layout
from stillroom.data.manifest import SOURCE_RECORD, DataSource, FileSource
from stillroom.data.sources.address import Address, parse, shown
from stillroom.data.sources.disk import ensure_room, size_on_disk
from stillroom.data.sources.fetching import Fetched, fetch_into, source_store
from stillroom.data.sources.store import Store
from stillroom.data.sources.teacher import TeacherPin, check_teacher, labels_of
from stillroom.errors import InputError, TryAgain
from stillroom.files import atomic_folder, read_json, sha256_file, write_json
from stillroom.governance.card import read_card
from stillroom.governance.check import assess, assess_scan, enforce
from stillroom.params import DataParams, Params
from stillroom.student_params import AutoParams, PretrainedParams

log = logging.getLogger("stillroom")


@dataclass(frozen=True)
class Snapshot:
    """What a run reads. `changed` tells whether anything had to be written into the workspace."""

    data: Path
    teacher: Path
    source: DataSource
    pin: TeacherPin
    changed: bool


def snapshot(params: Params, workspace: Path) -> Snapshot:
    """Fetch data and teacher and lay sources/data and sources/teacher.json into the workspace.

    Everything is fetched and checked before anything is written, and only what differs is written, whole.
    Raises InputError and TryAgain as `fetch` does, and InputError for a rule of governance that stops, rows that
    ingest would refuse, a broken checkpoint, a ready one with other labels, a scan for personal data that cannot be
    made, or a disk without room for the run.
    """
    _check_scan(params.data)
    addresses = _addresses(params.data)
    teacher_address = parse(params.teacher.source, "teacher.source")
    store = source_store()
    with store.scratch() as scratch:
        files = {
            split: _data_file(store, address, sha256, what, scratch)
            for split, (what, address, sha256) in addresses.items()
        }
        teacher = fetch_into(store, teacher_address, params.teacher.sha256, "teacher.source", scratch)
        starts = _checkpoints(params, store, scratch)
    cards = {part: read_card(folder) for part, folder in {"teacher": teacher.path, **starts}.items()}
    enforce(assess(params, cards, datetime.datetime.now(datetime.UTC).date()))
    source = _source(files, params.data.licence)
    pin = TeacherPin(
        uri=params.teacher.source,
        sha256=teacher.listing.digest,
        licence=params.teacher.licence,
        files=teacher.listing.files,
    )
    data, pin_path = workspace / layout.SOURCE_DATA, workspace / layout.SOURCE_TEACHER
    stale_data, stale_pin = not _holds(store, data, source), _differs(pin_path, pin.model_dump(mode="json"))
    changed = stale_data or stale_pin
    if stale_pin:
        check_teacher(teacher.path, f"teacher.source: {shown(params.teacher.source)}")
    _check_growth(params, teacher.path)
    if stale_pin or not (workspace / layout.TEACHER).exists():
        _check_students(params, teacher.path, starts)
    if changed:
        _check_rows(files, params, teacher.path)
        data_bytes = sum(size_on_disk(fetched.path) for fetched in files.values())
        ensure_room(layout.state(), workspace, params.teacher.members * size_on_disk(teacher.path), data_bytes)
    _check_slices(files, params)
    if stale_data:
        _lay(files, source, data)
    if stale_pin:
        write_json(pin_path, pin.model_dump(mode="json"))
    return Snapshot(data, pin_path, source, pin, changed)


def _checkpoints(params: Params, store: Store, scratch: Path) -> dict[str, Path]:
    """Fetch and check the encoders that students start from; their digests are in params, so none needs a pin."""
    folders = {}
    for name, student in params.students.items():
        if isinstance(student, PretrainedParams | AutoParams) and student.checkpoint is not None:
            part = f"students.{name}.checkpoint"
            what = f"{part}.source"
            address = parse(student.checkpoint.source, what)
            found = fetch_into(store, address, student.checkpoint.sha256, what, scratch)
            check_teacher(found.path, f"{what}: {shown(address.uri)}")
            folders[part] = found.path
    return folders


def _addresses(data: DataParams) -> dict[str, tuple[str, Address, str | None]]:
    """Parameter, address and digest of each file that is given, by split; all checked before any is asked."""
    given: dict[str, tuple[str, str | None, str | None]] = {
        "train": ("data.source", data.source, data.sha256),
        "validation": ("data.validation", data.validation, data.validation_sha256),
        "test": ("data.test", data.test, data.test_sha256),
        "unlabelled": ("data.unlabelled", data.unlabelled, data.unlabelled_sha256),
        "cases": ("data.cases", data.cases, data.cases_sha256),
    }
    return {
        split: (what, _data_address(uri, what), sha256)
        for split, (what, uri, sha256) in given.items()
        if uri is not None
    }


def _data_address(uri: str, what: str) -> Address:
    from stillroom.data.reading import FORMATS

    address = parse(uri, what)
    suffix = PurePosixPath(address.name).suffix.lower()
    if suffix not in FORMATS:
        raise InputError(
            f"{what}: {shown(uri)}: {f'{suffix} is' if suffix else 'no ending is'} no known format; "
            f"give a file that ends in {', '.join(FORMATS)}"
        )
    return address


def _data_file(store: Store, address: Address, sha256: str | None, what: str, scratch: Path) -> Fetched:
    fetched = fetch_into(store, address, sha256, what, scratch)
    if not fetched.path.is_file():
        raise InputError(f"{what}: {shown(address.uri)}: is a folder; give the one file that holds the rows")
    return fetched


def _source(files: dict[str, Fetched], licence: str | None) -> DataSource:
    records = {
        split: FileSource(
            uri=fetched.address.uri,
            sha256=fetched.listing.digest,
            file=f"{split}{PurePosixPath(fetched.address.name).suffix.lower()}",
        )
        for split, fetched in files.items()
    }
    return DataSource.model_validate({**records, "licence": licence})


def _holds(store: Store, folder: Path, source: DataSource) -> bool:
    if _differs(folder / SOURCE_RECORD, source.model_dump(mode="json")):
        return False
    wanted = {record.file: record.sha256 for record in source.files().values()}
    present = store.listing(folder).files
    return {name: digest for name, digest in present.items() if name != SOURCE_RECORD} == wanted


def _differs(path: Path, value: object) -> bool:
    try:
        return bool(read_json(path) != value)
    except InputError:
        return True


def _check_rows(files: dict[str, Fetched], params: Params, teacher: Path) -> None:
    """Refuse here what ingest would refuse, a rule about its scan included, so that no bad file is written or pushed.

    So is a teacher that is ready but gives other labels than the rows have.
    """
    from stillroom.data.intake import take_in
    from stillroom.data.labels import check_labels

    given = {split: (shown(fetched.address.uri), fetched.path) for split, fetched in files.items()}
    rows = take_in(given, params.data)
    if rows.personal_data is not None:
        # Ingest, which asks again, is what logs the warnings.
        enforce([one for one in assess_scan(params.governance, rows.personal_data.hits()) if one.severity == "stop"])
    if not params.teacher.fine_tune:
        wanted = rows.examples["train"].label_counts()
        check_labels(labels_of(teacher), wanted, f"teacher.source: {shown(params.teacher.source)}")


def _check_slices(files: dict[str, Fetched], params: Params) -> None:
    """Refuse slices of which no row can come into the test set, before a teacher is trained."""
    if not params.gate.slices:
        return
    from stillroom.data.checks import check_texts
    from stillroom.data.personal.scan import open_scanner
    from stillroom.data.reading import read_columns, read_table
    from stillroom.gate.slices import asked_columns, select_rows

    fetched, asked = files.get("test", files["train"]), asked_columns(params.gate.slices)
    uri = shown(fetched.address.uri)
    texts = check_texts(read_table(fetched.path, params.data.text, None, uri), params.data.max_chars)
    scanner = open_scanner(params.data.personal_data_scan)
    if scanner is not None and scanner.asked.redact and len(asked) < len(params.gate.slices):
        texts = scanner.over("test" if "test" in files else "train", texts)  # as the stage select will see them
    columns = read_columns(fetched.path, asked, uri) if asked else {}
    select_rows(params.gate.slices, texts, columns, f"rows of {uri}", quoting=scanner is None)


def _check_scan(data: DataParams) -> None:
    """Refuse a scan for personal data whose libraries lack, or of countries that they do not know."""
    from stillroom.data.personal.scan import open_scanner

    open_scanner(data.personal_data_scan)


def _check_growth(params: Params, teacher: Path) -> None:
    """Refuse a teacher that lacks what a method of growth needs of it."""
    where = f"teacher.source: {shown(params.teacher.source)}"
    if params.growth.uses("mask"):
        from stillroom.teacher.tokeniser import mask_token

        mask_token(teacher, where)
    if params.growth.uses("replace"):
        from stillroom.teacher.model import load_masked

        load_masked(teacher, where)


def _check_students(params: Params, teacher: Path, starts: dict[str, Path]) -> None:
    """Refuse students that the encoders which they are cut from do not allow, before a teacher is trained."""
    cut = any(getattr(student, "layers", None) is not None for student in params.students.values())
    if cut or any(signal.startswith("hidden.") for signal in params.capture.signals):
        from stillroom.students.allowed import check_allowed

        check_allowed(params, teacher, starts)


def _lay(files: dict[str, Fetched], source: DataSource, folder: Path) -> None:
    with atomic_folder(folder) as temporary:
        for split, record in source.files().items():
            copy = temporary / record.file
            shutil.copyfile(files[split].path, copy)
            if sha256_file(copy) != record.sha256:
                raise TryAgain(f"{record.uri}: changed while it was read; run again when it is at rest")
        write_json(temporary / SOURCE_RECORD, source.model_dump(mode="json"))
    log.info("%s: %s", folder, ", ".join(record.file for record in source.files().values()))
