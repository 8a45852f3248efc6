"""What a family of students is: a module of this shape, named in FAMILIES (students/distil.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from stillroom.batching import Tokens
from stillroom.student_params import StudentParams
from stillroom.students.losses import distillation_loss
from stillroom.students.material import Material
from stillroom.training import Batches, ByRow, Learner, text_batches


@dataclass(frozen=True)
class Cost:
    """What a student will cost, known before it is trained.

    params: weights, as count_params counts them; flops_per_token: of the forward pass, two for a multiplication and
    its addition, and flops_per_text: what comes once a text; bytes_per_token: int8 weights that one token reads when
    it comes alone, which is the floor of a short text.
    """

    params: int
    flops_per_token: int
    flops_per_text: int
    bytes_per_token: int

    def flops(self, tokens: float) -> float:
        """Of a text of so many tokens."""
        return tokens * self.flops_per_token + self.flops_per_text


class Family(Protocol):
    """The functions of a family's module. Settings are the family's own section of params."""

    @property
    def SPECIAL_TOKENS(self) -> bool:
        """Whether it reads the tokens that the teacher puts around every text."""

    def cost(self, material: Material, settings: Any) -> Cost:
        """What a student of these settings costs."""

    def build(self, material: Material, settings: Any) -> Any:
        """A student that starts from the teacher."""

    def describe(self, student: Any, folder: Path) -> dict[str, Any]:
        """What `load` needs beside the weights; may write files into the folder."""

    def load(self, folder: Path, shape: dict[str, Any]) -> Any:
        """An untrained student of a described shape."""

    def graph(self, student: Any) -> nn.Module:
        """The form that is exported: padded ids and mask [texts, tokens] to logits [texts, classes]."""

    def learner(self, student: Any, settings: Any, total_steps: int, seed: int) -> "StudentLearner":
        """What trains it."""

    def batches(
        self, tokens: Tokens, settings: Any, pad: int, seed: int | None, columns: Mapping[str, ByRow]
    ) -> Batches:
        """Random batches for training, in order for validation (seed None)."""


class StudentLearner(Learner):
    """Trains a student on labels and the teacher's answers. `logits_of(batch)` is the family's.

    calibration: temperature at which the teacher is as sure as it is right.
    """

    student: Any
    calibration: float = 1.0

    def __init__(self, student: nn.Module, settings: StudentParams, total_steps: int, warmup: float = 0.05) -> None:
        super().__init__(total_steps, warmup, settings.weight_decay, settings.averaging)
        self.student = student
        self.settings = settings

    def logits_of(self, batch: Any) -> torch.Tensor:
        """Logits [rows, classes] of a batch, in training and in validation."""
        raise NotImplementedError

    def loss(self, batch: Any) -> torch.Tensor:
        return self.imitation(self.logits_of(batch), batch)

    def imitation(self, logits: torch.Tensor, batch: Any) -> torch.Tensor:
        """The loss that every family has."""
        progress = min(1.0, self.global_step / max(1, self.total_steps - 1))
        heard = {"teacher": batch.get("logits"), "disagreement": batch.get("disagreement")}
        return distillation_loss(
            logits.float(),
            batch["label"],
            settings=self.settings,
            progress=progress,
            calibration=self.calibration,
            **heard,
        )

    def predict_logits(self, batch: Any) -> torch.Tensor:
        return self.logits_of(batch)

    def labels_of(self, batch: Any) -> torch.Tensor:
        labels: torch.Tensor = batch["label"]
        return labels

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [{"params": list(self.student.parameters()), "lr": self.settings.learning_rate}]


def kept_at_random(ids: torch.Tensor, dropout: float, seed: int, step: int) -> torch.Tensor:
    """Which tokens stay when some are dropped: bool of the ids' shape, the same for one seed and step."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    return (torch.rand(ids.shape, generator=generator) >= dropout).to(ids.device)


def without_some_tokens(
    ids: torch.Tensor, mask: torch.Tensor, dropout: float, seed: int, step: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and mask [texts, tokens] with tokens dropped at random; those that stay close up to the left."""
    stays = kept_at_random(ids, dropout, seed, step) & mask.bool()
    order = stays.long().argsort(dim=1, descending=True, stable=True)
    return ids.gather(1, order), stays.long().gather(1, order)


class TokenLearner(StudentLearner):
    """Trains a student that reads padded ids and mask, with words dropped at random.

    What is dropped depends on seed and step, so that a resumed run is the same.
    """

    def __init__(
        self, student: nn.Module, settings: StudentParams, total_steps: int, word_dropout: float, seed: int
    ) -> None:
        super().__init__(student, settings, total_steps)
        self._word_dropout = word_dropout
        self._seed = seed

    def logits_of(self, batch: Any) -> torch.Tensor:
        ids, mask = batch["ids"], batch["mask"]
        if self.training and self._word_dropout:
            ids, mask = without_some_tokens(ids, mask, self._word_dropout, self._seed, self.global_step)
        logits: torch.Tensor = self.student(ids, mask)
        return logits


def itself(student: nn.Module) -> nn.Module:
    """The form that is exported, of a student that reads padded ids and mask: the student itself."""
    return student


def token_learner(student: nn.Module, settings: Any, total_steps: int, seed: int) -> TokenLearner:
    """What trains it."""
    return TokenLearner(student, settings, total_steps, settings.word_dropout, seed)


def padded_batches(tokens: Tokens, settings: Any, pad: int, seed: int | None, columns: Mapping[str, ByRow]) -> Batches:
    """Padded batches within the token budget, random for training, by length for validation (seed None)."""
    return text_batches(tokens, settings.batch_tokens, pad, seed, columns)
