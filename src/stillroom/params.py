"""params.yaml as frozen models: the one typed description of a run, shared by stages, flows and editors."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from stillroom.cost_params import CostParams
from stillroom.errors import ParamsError
from stillroom.gate_params import GateParams
from stillroom.governance_params import GovernanceParams
from stillroom.personal_data_params import PersonalDataParams
from stillroom.problem import ProblemType
from stillroom.quantise_params import QuantiseParams
from stillroom.section import Fraction, Section, Sha256, check_given_name
from stillroom.student_params import Student

SIGNAL = re.compile(r"(?P<name>logits)|(?P<vectors>embedding|hidden\.[1-9][0-9]{0,2})(?::(?P<codec>int8))?")
"""How a signal of the teacher is asked for."""


class DataParams(Section):
    """Where the rows come from and how they are cut."""

    source: str
    """Training rows: a path, s3://, hf://, https:// or pypi://package==version/path (CSV, TSV, TAB, JSONL, Parquet)."""
    sha256: Sha256 | None = None
    """Expected sha256 of the training file; required for https://."""
    validation: str | None = None
    """Validation rows; cut from the training rows where none are given."""
    validation_sha256: Sha256 | None = None
    test: str | None = None
    """Test rows; cut from the training rows where none are given."""
    test_sha256: Sha256 | None = None
    unlabelled: str | None = None
    """Texts without labels, which the teacher alone labels; a column of labels there is ignored."""
    unlabelled_sha256: Sha256 | None = None
    cases: str | None = None
    """Must-not-change cases: texts that every package must answer exactly as labelled there or, without a column of
    labels, as the teacher does."""
    cases_sha256: Sha256 | None = None
    text: str = "text"
    """Name of the column with the text."""
    label: str = "label"
    """Name of the column with the label."""
    problem_type: ProblemType = "single_label"
    """Whether a text has one label, or any number of them, none included (multi_label)."""
    label_separator: Annotated[str, Field(min_length=1)] = ";"
    """What stands between the labels of a text in one cell, where it has several; a list of them needs none."""
    licence: str | None = None
    """Licence of the data as its owner declares it (SPDX identifier or words)."""
    validation_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.1
    test_fraction: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.2
    max_chars: Annotated[int, Field(ge=1)] = 100_000
    """A longer text is refused: it is a broken row, not an example."""
    near_duplicate: Annotated[float, Field(gt=0.0, le=1.0)] = 0.9
    """Jaccard similarity of word 3-shingles from which two texts count as near duplicates."""
    personal_data_scan: PersonalDataParams | None = None
    """What is looked for in all texts, and whether it is taken out; null, for no scan."""


class TeacherParams(Section):
    """The model that sets the quality."""

    source: str
    """A checkpoint folder in transformers' format: a path, s3://, hf://name@revision or pypi://package==version/path."""
    sha256: Sha256 | None = None
    """Expected tree digest of the checkpoint (`stillroom source` prints it)."""
    name: str | None = None
    """What reports and cards call it; default, the last part of its source."""
    licence: str | None = None
    fine_tune: bool = True
    """False: the checkpoint already classifies the labels and is only evaluated."""
    pooling: Literal["mean", "cls"] = "mean"
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    """Tokens read of each text, special tokens included."""
    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-4
    head_learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    warmup_fraction: Fraction = 0.1
    dropout: Fraction = 0.0
    """Dropout while fine-tuning; on a CPU its random numbers cost more than the matrix products."""
    train_embeddings: bool = False
    """Also train the token embedding table: half of a small encoder's parameters."""
    members: Annotated[int, Field(ge=1, le=9)] = 1
    """Teachers that are fine-tuned, each with a seed of its own. Students learn from the mean of their logits; the
    first alone is the teacher that they are judged beside."""
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    """Lower layers, and the embeddings under them, that stay as they are: no backward pass goes through them."""
    batch_tokens: Annotated[int, Field(ge=64)] = 2048
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation accuracy before training stops; default, it goes on to its end, whose small
    steps are the best (docs/adr/0016-no-early-stop.md)."""

    @model_validator(mode="after")
    def _members_differ(self) -> Self:
        if self.members > 1 and not self.fine_tune:
            raise ValueError("members above 1 need fine_tune: a checkpoint that is ready is the same each time")
        return self

    @model_validator(mode="after")
    def _table_learns_with_all_above_it(self) -> Self:
        if self.train_embeddings and self.freeze_layers:
            raise ValueError("train_embeddings needs freeze_layers 0: the token table lies under every layer")
        return self


Method = Literal["drop", "mask", "mix", "replace"]


class GrowthParams(Section):
    """Texts made from the training rows, which the teacher alone labels: a larger transfer set."""

    factor: Annotated[int, Field(ge=0, le=100)] | Literal["auto"] = 0
    """Grown texts for each training row; 0 turns growth off, auto doubles them until a quick student gains no more."""
    methods: tuple[Method, ...] = ("drop",)
    """How, in turn: drop leaves words out, mask puts the teacher's mask token in their place, replace a word that the
    checkpoint's masked-language head proposes, mix keeps one run of neighbouring words."""
    word_drop: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the words that drop leaves out, mask covers and replace changes."""

    @field_validator("methods")
    @classmethod
    def _each_once(cls, value: tuple[Method, ...]) -> tuple[Method, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError("name each method once, one at least")
        return value

    def uses(self, method: Method) -> bool:
        """Whether texts are made in this way."""
        return self.factor != 0 and method in self.methods


class CaptureParams(Section):
    """The teacher's pass over the transfer set."""

    signals: tuple[str, ...] = ("logits", "embedding")
    """What is kept of each answer, all from one pass: logits; embedding, the pooled last hidden state; hidden.N, the
    states of every token after layer N. Kept in fp16, the last two with :int8 behind them in int8."""
    batch_tokens: Annotated[int, Field(ge=64)] = 2048
    """Padded tokens that the teacher reads at a time; on a GPU more are faster."""
    shard_entries: Annotated[int, Field(ge=1, le=1 << 23)] = 16_384
    """Answers in one file of the cache, at most."""
    spot_check: Annotated[int, Field(ge=1)] = 64
    """Entries recomputed by the live teacher when capture closes."""
    store: str | None = None
    """A cache that machines share (s3://bucket/prefix or a folder): it is read first, and what is new is sent there."""
    engine: Literal["local", "ray"] = "local"
    """Where the teacher computes: in this process, or on the workers of a Ray cluster (extra `ray`)."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Ray workers, each with a teacher of its own; 0 takes as many as the cluster has room for."""
    ray_address: str | None = None
    """Address of the Ray cluster; default, RAY_ADDRESS, or else workers on this machine."""

    @field_validator("store")
    @classmethod
    def _store_is_somewhere(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("s3://", "/", "~")):
            raise ValueError(f"{value!r} is no place that machines share; use s3://bucket/prefix or an absolute path")
        return value

    @field_validator("signals")
    @classmethod
    def _logits_always(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for asked in value:
            if not SIGNAL.fullmatch(asked):
                raise ValueError(f"{asked!r} is no signal; use logits, embedding, hidden.N, or the last two with :int8")
        names = [asked.partition(":")[0] for asked in value]
        if "logits" not in names or len(set(names)) != len(names):
            raise ValueError("name each signal once, logits among them")
        return value


class RegistryParams(Section):
    """Where results are recorded."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)] = "stillroom"
    """Name of the registered model in MLflow; it names files of the ledger, too."""
    experiment: str = "stillroom"
    remote: str | None = None
    """DVC remote for the raw snapshot: s3://bucket/prefix or a folder; default, a folder in the state folder."""


class ComputeParams(Section):
    """The machine."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of training and capture; auto measures both once and takes the faster."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of a stage; 0 takes every core."""


def is_search(student: Mapping[str, Any]) -> bool:
    """Whether a student, as params.yaml holds it, is to be searched."""
    return student.get("family") == "auto"


class Params(Section):
    """A whole run."""

    data: DataParams
    teacher: TeacherParams
    students: dict[str, Student] = Field(min_length=1)
    growth: GrowthParams = GrowthParams()
    capture: CaptureParams = CaptureParams()
    quantise: QuantiseParams = QuantiseParams()
    gate: GateParams = GateParams()
    governance: GovernanceParams = GovernanceParams()
    cost: CostParams = CostParams()
    registry: RegistryParams = RegistryParams()
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    compute: ComputeParams = ComputeParams()

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, raw: Any) -> Any:
        """`students: auto` is short for one student of that name and family; a search packages as the run does, and
        asks for what its gate asks for.

        Students carry all that they depend on, since DVC reads a student's own section for its stages.
        """
        if not isinstance(raw, Mapping):
            return raw
        students = {"auto": {"family": "auto"}} if raw.get("students") == "auto" else raw.get("students")
        of_run = _what_searches_repeat(raw)
        if not isinstance(students, Mapping) or not of_run:
            return {**raw, "students": students} if "students" in raw else raw
        completed = {
            name: {**of_run, **student} if isinstance(student, Mapping) and is_search(student) else student
            for name, student in students.items()
        }
        return {**raw, "students": completed}

    @model_validator(mode="after")
    def _student_names(self) -> Self:
        seen: dict[str, str] = {}
        for name in self.students:
            check_given_name(name, "students", "student")
            twin = seen.setdefault(name.lower(), name)
            if twin != name:
                raise ValueError(f"students: {twin!r} and {name!r} differ in case only; rename one")
        return self

    @model_validator(mode="after")
    def _searches_ask_enough(self) -> Self:
        for name, student in self.students.items():
            if student.family != "auto":
                continue
            for metric, wanted in self.gate.retention.items():
                asked = student.retained.get(metric)
                if asked is None or asked < wanted:
                    told = "does not name it" if asked is None else f"asks for {asked:g}"
                    raise ValueError(
                        f"students.{name}.retention {told}, and the gate wants {wanted:g} of the teacher's {metric}; a "
                        "search must ask for no less than gate.retention, so leave its own out or write it by metric"
                    )
            if student.quantise != self.quantise:
                raise ValueError(
                    f"students.{name}.quantise differs from quantise; a search packages its trials as the run packages "
                    f"its students, so give both the same"
                )
        return self

    @model_validator(mode="after")
    def _recipes_suit_data_and_teacher(self) -> Self:
        for name, student in self.students.items():
            if student.dissent > 0 and self.teacher.members == 1:
                raise ValueError(
                    f"students.{name}.dissent is {student.dissent:g}, and there is one teacher; set teacher.members to "
                    "two or more, or dissent to 0"
                )
            if student.family == "auto":
                continue
            if self.data.problem_type == "multi_label" and student.objective == "dkd":
                raise ValueError(
                    f"students.{name}.objective is dkd, which sets one class against all others; where a text has "
                    "several labels (data.problem_type), use kl or mse"
                )
            if student.max_length > self.teacher.max_length:
                raise ValueError(
                    f"students.{name}.max_length is {student.max_length}; the teacher reads {self.teacher.max_length} "
                    "tokens (teacher.max_length)"
                )
        return self

    @model_validator(mode="after")
    def _signals_suffice(self) -> Self:
        captured = {asked.partition(":")[0] for asked in self.capture.signals}
        for name, student in self.students.items():
            for signal in student.signals:
                if signal not in captured:
                    raise ValueError(
                        f"students.{name} learns from the signal {signal}; add it to capture.signals{_or(student)}"
                    )
        return self


def in_long_form(raw: Mapping[str, Any]) -> bool:
    """Whether params, as a file holds them, leave out nothing that DVC must find there: see `Params._long_form`."""
    if not raw.keys() >= Params.model_fields.keys() or not isinstance(raw["students"], Mapping):
        return False
    searches = [student for student in raw["students"].values() if isinstance(student, Mapping) and is_search(student)]
    return all(search.keys() >= _what_searches_repeat(raw).keys() for search in searches)


def _what_searches_repeat(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What of the run's other sections a search has as its own settings, since they decide what it finds."""
    gate = raw.get("gate")
    found = {"quantise": raw.get("quantise"), "retention": gate.get("retention") if isinstance(gate, Mapping) else None}
    return {key: value for key, value in found.items() if value}


def validate(raw: Mapping[str, Any], where: str) -> Params:
    """Check a mapping against the models; the first few mistakes are told in one line."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        told = "; ".join(_in_words(problem) for problem in error.errors()[:3])
        more = error.error_count() - 3
        raise ParamsError(f"{where}: {told}" + (f"; and {more} more" if more > 0 else "")) from error


def json_schema() -> dict[str, Any]:
    """The JSON schema of params.yaml, for editors and for the form of a Prefect deployment."""
    schema = Params.model_json_schema()
    students = schema["properties"]["students"]
    described = {key: students.pop(key) for key in ("title", "description") if key in students}
    schema["properties"]["students"] = described | {"anyOf": [{"const": "auto"}, students]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Stillroom params.yaml"
    return schema


def _in_words(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    if location[:1] == ["students"]:
        del location[2:3]  # the family, which pydantic puts between a student's name and its key
    name = ".".join(location)
    value = problem.get("input")
    kind = problem["type"]
    if kind == "extra_forbidden":
        known = _known_keys(location)
        near = difflib.get_close_matches(location[-1], known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{name} is not a known key; {hint}"
    if kind == "missing":
        return f"{name} is missing"
    if kind == "value_error":
        text = str(problem["ctx"]["error"])
        return f"{name}: {text}" if name else text
    return f"{name} is {value!r}; {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _or(student: Student) -> str:
    """What else there is to do about a signal that lacks."""
    return {"sliced": ", or set cosine_weight to 0", "auto": ", or leave sliced out of families"}.get(
        student.family, ""
    )


def _known_keys(location: Sequence[str]) -> list[str]:
    """Keys of the section that a key stands in; names that people give, of students for one, are no section."""
    models: list[type[BaseModel]] = [Params]
    for key in location[:-1]:
        inner = [
            model for one in models if key in one.model_fields for model in _models(one.model_fields[key].annotation)
        ]
        models = inner or models
    return sorted({key for model in models for key in model.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a type names anywhere."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
