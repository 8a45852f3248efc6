"""The families of students in params.yaml: what every student has, and what each family adds."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillroom.gate_params import Kept, Retention
from stillroom.quantise_params import QuantiseParams
from stillroom.section import Fraction, Section, Sha256, Share


class StudentParams(Section):
    """What every family has."""

    epochs: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)]
    objective: Literal["kl", "mse", "dkd"] = "kl"
    """How the teacher's answer is imitated: kl, softened distributions (Hinton et al., arXiv 1503.02531); mse, the
    logits themselves (Kim et al., arXiv 2105.08919); dkd, kl with the classes other than the label's by themselves
    (Zhao et al., arXiv 2203.08679)."""
    temperature: Annotated[float, Field(gt=0.0, le=100.0)] = 2.0
    """Softens teacher and student in kl and dkd."""
    final_temperature: Annotated[float, Field(gt=0.0, le=100.0)] | None = None
    """Temperature of the last step, approached evenly; default, the same throughout."""
    hard_weight: Share = 0.5
    """Weight of the labels' cross-entropy beside the teacher's soft targets, which weigh 1 − it."""
    final_hard_weight: Share | None = None
    """Weight of the last step, approached evenly; default, the same throughout."""
    dkd_beta: Annotated[float, Field(gt=0.0)] = 4.0
    """Weight of the other classes' part in dkd."""
    doubt: Share = 0.0
    """Share of its weight that a label loses where the teacher is sure of another class (nine tenths or more)."""
    dissent: Share = 0.0
    """Share of the weight of its label and its answer that a text loses where the members of the teacher disagree as
    much as they can."""
    averaging: Fraction = 0.0
    """Decay of a moving average of the weights, which is validated and kept in their place; 0 keeps the last ones."""
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    max_vocabulary: Annotated[int, Field(ge=64)] = 30_000
    """Entries kept of the teacher's vocabulary: the most frequent pieces of the transfer set."""
    piece_dropout: Share = 0.0
    """Chance of each piece of a training text to be spelled by smaller ones, as words that the vocabulary lacks will
    be (docs/adr/0017-piece-dropout.md)."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.01
    patience: Annotated[int, Field(ge=1)] | None = None
    """Epochs without a better validation accuracy before training stops; default, it goes on to its end, whose small
    steps are the best (docs/adr/0016-no-early-stop.md)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    """Of this student's training; default, the run's. Students that differ in it alone show how much it matters."""

    @property
    def signals(self) -> tuple[str, ...]:
        """The teacher's signals that the loss reads."""
        return ("logits",)

    @property
    def keeps_unseen(self) -> bool:
        """Whether its vocabulary has pieces that no text of the transfer set has."""
        return False


class StaticParams(StudentParams):
    """Token embeddings from the teacher (PCA), learned token weights, mean pooling, a small head."""

    family: Literal["static"]
    epochs: Annotated[int, Field(ge=1)] = 30
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-3
    dimensions: Annotated[int, Field(ge=2)] = 256
    hidden: Annotated[int, Field(ge=2)] = 512
    ngram_buckets: Annotated[int, Field(ge=0, le=1 << 22)] = 0
    """Rows of a second table, for hashed pairs of neighbouring tokens; 0 leaves it out."""
    word_dropout: Fraction = 0.15
    batch_rows: Annotated[int, Field(ge=1)] = 64


class CnnParams(StudentParams):
    """Convolutions over trimmed token embeddings, the largest of each filter over the text (Kim, arXiv 1408.5882)."""

    family: Literal["cnn"]
    epochs: Annotated[int, Field(ge=1)] = 20
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-3
    dimensions: Annotated[int, Field(ge=2)] = 128
    filters: Annotated[int, Field(ge=1)] = 128
    """Of each width."""
    widths: Annotated[tuple[Annotated[int, Field(ge=1, le=9)], ...], Field(min_length=1)] = (2, 3, 4)
    """Tokens that a filter sees."""
    word_dropout: Fraction = 0.1
    batch_tokens: Annotated[int, Field(ge=64)] = 1024


class BilstmParams(StudentParams):
    """One layer of LSTM in both directions over trimmed token embeddings (Tang et al., arXiv 1903.12136)."""

    family: Literal["bilstm"]
    epochs: Annotated[int, Field(ge=1)] = 15
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 3e-3
    dimensions: Annotated[int, Field(ge=2)] = 128
    hidden: Annotated[int, Field(ge=2)] = 128
    """Units of each direction."""
    word_dropout: Fraction = 0.1
    batch_tokens: Annotated[int, Field(ge=64)] = 1024


class EncoderParams(StudentParams):
    """What every transformer encoder has."""

    unseen_pieces: bool = False
    """Fill max_vocabulary with pieces that no text of the transfer set has: words that texts bring later keep what
    pretraining taught the encoder of them, and take room (docs/adr/0015-longer-runs-and-unseen-pieces.md)."""
    batch_tokens: Annotated[int, Field(ge=64)] = 2048

    @property
    def keeps_unseen(self) -> bool:
        return self.unseen_pieces


class SlicedParams(EncoderParams):
    """The teacher's own lower layers with DistilBERT's losses (arXiv 1910.01108)."""

    family: Literal["sliced"]
    epochs: Annotated[int, Field(ge=1)] = 3
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-4
    layers: Annotated[int, Field(ge=1)] = 2
    cosine_weight: Share = 0.2
    """Weight of 1 − cosine between the pooled hidden states of student and teacher."""

    @property
    def signals(self) -> tuple[str, ...]:
        return ("logits", "embedding") if self.cosine_weight > 0 else ("logits",)


class NarrowParams(EncoderParams):
    """Fewer and narrower layers of the teacher's kind, projected from its own, which imitate its states and relations.

    TinyBERT (arXiv 1909.10351) and MiniLM (arXiv 2012.15828).
    """

    family: Literal["narrow"]
    epochs: Annotated[int, Field(ge=1)] = 10
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 5e-4
    layers: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=8)] = 192
    """Of a hidden state; a multiple of the width of the teacher's attention heads."""
    hidden_layer: Annotated[int, Field(ge=1)] | None = None
    """Layer of the teacher whose states the last layer imitates: needs its signal hidden.N; default, none."""
    hidden_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the mean squared difference from those states, after a learned projection to the teacher's width."""
    relation_weight: Annotated[float, Field(ge=0.0)] = 1.0
    """Weight of the difference between relations of tokens (softmax of scaled products of their states) there; says
    little where states are short, as in the last layer of all-mpnet-base-v2, more in the middle."""

    @property
    def signals(self) -> tuple[str, ...]:
        return ("logits",) if self.hidden_layer is None else ("logits", f"hidden.{self.hidden_layer}")

    @model_validator(mode="after")
    def _tokens_are_the_teachers(self) -> Self:
        if self.hidden_layer is not None and self.piece_dropout > 0:
            raise ValueError("piece_dropout: 0 with a hidden_layer, whose states are compared token by token")
        return self


class Checkpoint(Section):
    """A smaller pretrained encoder, in transformers' format."""

    source: str
    """Its address, as teacher.source has it."""
    sha256: Sha256
    """Tree digest of its folder; `stillroom source --of ADDRESS` prints it."""
    licence: str | None = None
    pooling: Literal["mean", "cls"] = "mean"


class PretrainedParams(EncoderParams):
    """Another, smaller encoder that was pretrained by itself (Turc et al., arXiv 1908.08962)."""

    family: Literal["pretrained"]
    checkpoint: Checkpoint
    epochs: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 2e-4
    layers: Annotated[int, Field(ge=1)] | None = None
    """Lower layers that are kept of it; default, all."""


FixedStudent = Annotated[
    StaticParams | CnnParams | BilstmParams | SlicedParams | NarrowParams | PretrainedParams,
    Field(discriminator="family"),
]
"""A student whose settings are given."""


class AutoParams(Section):
    """A search: families from cheap to dear, few settings each, until a package holds what is asked on validation."""

    family: Literal["auto"]
    families: Annotated[tuple[Literal["static", "cnn", "bilstm", "sliced", "narrow"], ...], Field(min_length=1)] = (
        "static",
        "cnn",
        "bilstm",
        "sliced",
    )
    """Those that are tried."""
    checkpoint: Checkpoint | None = None
    """A smaller pretrained encoder, which is tried beside them."""
    retention: Kept | Retention = 0.97
    """Package ÷ teacher on the validation rows, at least: for each metric, or a number for accuracy alone. Default,
    the run's gate.retention."""
    margin: Share = 0.01
    """What is asked beyond it, since validation rows are few and the gate wants a lower bound."""
    max_latency_p95_ms: Annotated[float, Field(gt=0.0)] | None = None
    max_package_bytes: Annotated[int, Field(gt=0)] | None = None
    trials: Annotated[int, Field(ge=1, le=9)] = 4
    """Settings tried of a level, at most; the first by itself, the others by successive halving."""
    quantise: QuantiseParams = QuantiseParams()
    """How trials are packaged: as the section quantise says of the run, which must be the same."""
    max_length: Annotated[int, Field(ge=8, le=8192)] = 128
    """Tokens read of each text, or as many as the teacher reads."""
    max_vocabulary: Annotated[int, Field(ge=64)] = 30_000
    unseen_pieces: bool = False
    """Of the encoders that are tried."""
    doubt: Share = 0.0
    """Of every student that is tried, as dissent is."""
    dissent: Share = 0.0

    @property
    def signals(self) -> tuple[str, ...]:
        """Of every student that may be tried."""
        return ("logits", "embedding") if "sliced" in self.families else ("logits",)

    @property
    def retained(self) -> Retention:
        """`retention`, by metric."""
        return self.retention if isinstance(self.retention, dict) else {"accuracy": self.retention}

    @model_validator(mode="after")
    def _each_family_once(self) -> Self:
        if len(set(self.families)) != len(self.families):
            raise ValueError("families: name each once")
        return self


Student = Annotated[
    StaticParams | CnnParams | BilstmParams | SlicedParams | NarrowParams | PretrainedParams | AutoParams,
    Field(discriminator="family"),
]
