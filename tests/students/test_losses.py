import math

import pytest
import torch
from torch.nn import functional as F

from stillroom.students.losses import NO_LABEL, cosine_loss, distillation_loss, soft_target_loss

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(6, 4, generator=GENERATOR) * 3 for _ in range(2))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_soft_targets_are_the_divergence_from_the_teacher_times_temperature_squared(temperature: float) -> None:
    expected = 0.0
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        p = [math.exp(value / temperature) for value in teacher]
        q = [math.exp(value / temperature) for value in student]
        expected += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    found = float(soft_target_loss(STUDENT, TEACHER, temperature))
    assert found == pytest.approx(expected / 6 * temperature**2, rel=1e-4)


def test_who_answers_as_the_teacher_up_to_a_constant_has_no_loss_and_anyone_else_some() -> None:
    assert float(soft_target_loss(TEACHER + 5, TEACHER, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(soft_target_loss(STUDENT, TEACHER, 2.0)) > 0.01


def test_hard_and_soft_are_mixed_by_weight() -> None:
    hard, soft = F.cross_entropy(STUDENT, LABELS), soft_target_loss(STUDENT, TEACHER, 2.0)
    for weight in (0.0, 0.25, 1.0):
        found = distillation_loss(STUDENT, LABELS, TEACHER, 2.0, weight)
        assert float(found) == pytest.approx(float(weight * hard + (1 - weight) * soft), rel=1e-6)


def test_without_a_teacher_the_labels_alone_count() -> None:
    for weight in (0.0, 0.5):
        found = distillation_loss(STUDENT, LABELS, None, 2.0, weight)
        assert float(found) == pytest.approx(float(F.cross_entropy(STUDENT, LABELS)))


def test_a_row_without_a_label_hears_the_teacher_alone() -> None:
    some = torch.tensor([0, NO_LABEL, 2, NO_LABEL, NO_LABEL, 1])
    labelled = some != NO_LABEL
    hard = F.cross_entropy(STUDENT[labelled], some[labelled], reduction="sum") / 6
    found = distillation_loss(STUDENT, some, TEACHER, 2.0, 0.25)
    assert float(found) == pytest.approx(float(0.25 * hard + 0.75 * soft_target_loss(STUDENT, TEACHER, 2.0)), rel=1e-6)
    none = torch.full((6,), NO_LABEL)
    assert float(distillation_loss(STUDENT, none, TEACHER, 2.0, 1.0)) == 0.0


def test_extreme_logits_give_finite_losses_and_gradients() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = distillation_loss(student, torch.tensor([1]), torch.tensor([[-1e4, 1e4, 0.0]]), 1.0, 0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]


def test_the_cosine_loss_is_0_along_1_across_and_2_against() -> None:
    teacher = torch.tensor([[1.0, 0.0]])
    for student, expected in (([3.0, 0.0], 0), ([0.0, 2.0], 1), ([-5.0, 0.0], 2)):
        assert float(cosine_loss(torch.tensor([student]), teacher)) == pytest.approx(expected, abs=1e-6)
