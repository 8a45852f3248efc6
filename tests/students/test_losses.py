import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from stillroom.student_params import StaticParams
from stillroom.students.losses import (
    contradicted,
    cosine_loss,
    decoupled_loss,
    distillation_loss,
    logit_loss,
    relation_loss,
    soft_decision_loss,
    soft_target_loss,
    state_loss,
)
from stillroom.supervision import NO_LABEL

GENERATOR = torch.Generator().manual_seed(0)
STUDENT, TEACHER = (torch.randn(6, 4, generator=GENERATOR) * 3 for _ in range(2))
LABELS = torch.tensor([0, 1, 2, 3, 0, 1])


def settings(**changes: Any) -> StaticParams:
    return StaticParams(family="static", **changes)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_soft_targets_are_the_divergence_from_the_teacher_times_temperature_squared(temperature: float) -> None:
    expected = 0.0
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        p = [math.exp(value / temperature) for value in teacher]
        q = [math.exp(value / temperature) for value in student]
        expected += sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
    found = float(soft_target_loss(STUDENT, TEACHER, temperature).mean())
    assert found == pytest.approx(expected / 6 * temperature**2, rel=1e-4)


def test_who_answers_as_the_teacher_up_to_a_constant_has_no_loss_and_anyone_else_some() -> None:
    assert float(soft_target_loss(TEACHER + 5, TEACHER, 2.0).mean()) == pytest.approx(0, abs=1e-6)
    assert float(soft_target_loss(STUDENT, TEACHER, 2.0).mean()) > 0.01


def test_hard_and_soft_are_mixed_by_weight() -> None:
    hard, soft = F.cross_entropy(STUDENT, LABELS), soft_target_loss(STUDENT, TEACHER, 2.0).mean()
    for weight in (0.0, 0.25, 1.0):
        found = distillation_loss(STUDENT, LABELS, TEACHER, settings(hard_weight=weight), 0.5)
        assert float(found) == pytest.approx(float(weight * hard + (1 - weight) * soft), rel=1e-6)


def test_without_a_teacher_the_labels_alone_count() -> None:
    for changes in ({"hard_weight": 0.0}, {"objective": "mse"}, {"objective": "dkd", "final_hard_weight": 0.0}):
        found = distillation_loss(STUDENT, LABELS, None, settings(**changes), 0.5)
        assert float(found) == pytest.approx(float(F.cross_entropy(STUDENT, LABELS)))


def test_a_row_without_a_label_hears_the_teacher_alone() -> None:
    some = torch.tensor([0, NO_LABEL, 2, NO_LABEL, NO_LABEL, 1])
    labelled = some != NO_LABEL
    hard = F.cross_entropy(STUDENT[labelled], some[labelled], reduction="sum") / 6
    found = distillation_loss(STUDENT, some, TEACHER, settings(hard_weight=0.25), 0.0)
    assert float(found) == pytest.approx(
        float(0.25 * hard + 0.75 * soft_target_loss(STUDENT, TEACHER, 2.0).mean()), rel=1e-6
    )
    none = torch.full((6,), NO_LABEL)
    assert float(distillation_loss(STUDENT, none, TEACHER, settings(hard_weight=1.0), 0.0)) == 0.0


@pytest.mark.parametrize("objective", ["kl", "mse", "dkd"])
@pytest.mark.parametrize("label", [0, 1, NO_LABEL])
def test_extreme_logits_give_finite_losses_and_gradients(objective: str, label: int) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    given = settings(objective=objective, temperature=1.0)
    loss = distillation_loss(student, torch.tensor([label]), torch.tensor([[-1e4, 1e4, 0.0]]), given, 0.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]


def test_the_logits_loss_is_their_mean_squared_difference_but_for_a_rows_constant() -> None:
    expected = 0.0
    for student, teacher in zip(STUDENT.tolist(), TEACHER.tolist(), strict=True):
        of_student, of_teacher = sum(student) / 4, sum(teacher) / 4
        expected += sum((a - of_student - b + of_teacher) ** 2 for a, b in zip(student, teacher, strict=True))
    assert float(logit_loss(STUDENT, TEACHER).mean()) == pytest.approx(expected / 24, rel=1e-5)
    shifts = torch.arange(6.0).unsqueeze(1)
    assert float(logit_loss(TEACHER + shifts, TEACHER).mean()) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_decoupled_parts_weighed_by_the_teachers_doubt_are_the_divergence_row_by_row(temperature: float) -> None:
    doubt = 1 - F.softmax(TEACHER / temperature, dim=1)[torch.arange(6), LABELS]
    for row in range(6):
        one = slice(row, row + 1)
        found = decoupled_loss(STUDENT[one], TEACHER[one], LABELS[one], temperature, float(doubt[row])).mean()
        assert float(found) == pytest.approx(
            float(soft_target_loss(STUDENT[one], TEACHER[one], temperature).mean()), rel=1e-4
        )


def test_beta_weighs_what_the_other_classes_share_among_themselves() -> None:
    of_others = TEACHER.clone()
    others = ~F.one_hot(LABELS, 4).bool()
    of_others[others] = TEACHER[others].view(6, 3).flip(1).flatten()  # the same sum, shared out in another way
    low, high = (float(decoupled_loss(of_others, TEACHER, LABELS, 2.0, beta).mean()) for beta in (1.0, 3.0))
    assert low > 0.01
    assert high == pytest.approx(3 * low, rel=1e-4)
    assert float(decoupled_loss(TEACHER + 5, TEACHER, LABELS, 2.0, 8.0).mean()) == pytest.approx(0, abs=1e-5)


def test_two_classes_have_no_others_to_share_among() -> None:
    student, teacher, labels = STUDENT[:, :2], TEACHER[:, :2], LABELS % 2
    expected = float(soft_target_loss(student, teacher, 2.0).mean())
    for beta in (1.0, 8.0):
        assert float(decoupled_loss(student, teacher, labels, 2.0, beta).mean()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("objective", "soft"),
    [
        ("kl", soft_target_loss(STUDENT, TEACHER, 3.0).mean()),
        ("mse", logit_loss(STUDENT, TEACHER).mean()),
        ("dkd", decoupled_loss(STUDENT, TEACHER, LABELS, 3.0, 5.0).mean()),
    ],
)
def test_the_objective_says_how_the_teacher_is_imitated(objective: str, soft: torch.Tensor) -> None:
    given = settings(objective=objective, temperature=3.0, dkd_beta=5.0, hard_weight=0.0)
    assert float(distillation_loss(STUDENT, LABELS, TEACHER, given, 0.0)) == float(soft)


def test_without_a_label_the_teachers_first_class_is_the_target() -> None:
    given = settings(objective="dkd", hard_weight=0.0, dkd_beta=5.0)
    found = distillation_loss(STUDENT, torch.full((6,), NO_LABEL), TEACHER, given, 0.0)
    assert float(found) == float(decoupled_loss(STUDENT, TEACHER, TEACHER.argmax(dim=1), 2.0, 5.0).mean())


@pytest.mark.parametrize(("progress", "temperature", "weight"), [(0.0, 4.0, 0.2), (0.25, 3.25, 0.35), (1.0, 1.0, 0.8)])
def test_temperature_and_mixing_move_evenly_from_first_to_last(
    progress: float, temperature: float, weight: float
) -> None:
    moving = settings(temperature=4.0, final_temperature=1.0, hard_weight=0.2, final_hard_weight=0.8)
    still = settings(temperature=temperature, hard_weight=weight)
    found, expected = (distillation_loss(STUDENT, LABELS, TEACHER, given, progress) for given in (moving, still))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_the_cosine_loss_is_0_along_1_across_and_2_against() -> None:
    teacher = torch.tensor([[1.0, 0.0]])
    for student, expected in (([3.0, 0.0], 0), ([0.0, 2.0], 1), ([-5.0, 0.0], 2)):
        assert float(cosine_loss(torch.tensor([student]), teacher)) == pytest.approx(expected, abs=1e-6)


STATES = torch.randn(3, 5, 8, generator=GENERATOR)
KNOWN = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 5])


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(width, width, generator=GENERATOR)).Q


def test_relations_are_0_for_equal_states_and_the_same_however_states_are_turned() -> None:
    other = torch.randn(3, 5, 4, generator=GENERATOR)
    for parts in (1, 2):
        assert float(relation_loss(STATES, STATES, KNOWN, parts)) == pytest.approx(0, abs=1e-6)
        turn = torch.block_diag(*(rotation(8 // parts) for _ in range(parts)))
        assert float(relation_loss(STATES @ turn, STATES, KNOWN, parts)) == pytest.approx(0, abs=1e-5)
        loss = float(relation_loss(other, STATES, KNOWN, parts))
        assert loss > 0.05
        assert float(relation_loss(other, STATES @ turn, KNOWN, parts)) == pytest.approx(loss, rel=1e-4)
    assert float(relation_loss(STATES @ rotation(8), STATES, KNOWN, 2)) > 0.01


def test_relations_are_the_divergence_of_what_tokens_pay_to_one_another() -> None:
    student = torch.randn(3, 5, 4, generator=GENERATOR)
    divergences = []
    for row, length in ((0, 5), (1, 3)):
        theirs, ours = (
            (states[row, :length] @ states[row, :length].T / states.shape[2] ** 0.5).softmax(dim=1)
            for states in (STATES, student)
        )
        divergences.append((theirs * (theirs / ours).log()).sum(dim=1))
    found = float(relation_loss(student, STATES, KNOWN, 1))
    assert found == pytest.approx(float(torch.cat(divergences).mean()), rel=1e-4)


@pytest.mark.parametrize("loss", [state_loss, lambda *given: relation_loss(*given, 2)])
def test_what_is_not_known_says_nothing(loss: Any) -> None:
    student = torch.randn(3, 5, 8, generator=GENERATOR).requires_grad_()
    found = []
    for hidden in (0.0, 7.0, torch.nan):
        teacher = STATES.masked_fill(~KNOWN[..., None], hidden)
        (gradient,) = torch.autograd.grad(loss(student, teacher, KNOWN), student)
        assert (gradient[~KNOWN] == 0).all()
        assert (gradient[KNOWN] != 0).any()
        found.append(float(loss(student, teacher, KNOWN).detach()))
    assert found[0] == found[1] == found[2] > 0
    nothing = loss(student, STATES * torch.nan, torch.zeros_like(KNOWN))
    assert float(nothing.detach()) == 0
    nothing.backward()
    assert (student.grad == 0).all()


def test_states_differ_by_the_mean_of_their_squares() -> None:
    student = torch.randn(3, 5, 8, generator=GENERATOR)
    expected = F.mse_loss(torch.cat([student[0], student[1, :3]]), torch.cat([STATES[0], STATES[1, :3]]))
    assert float(state_loss(student, STATES, KNOWN)) == pytest.approx(float(expected), rel=1e-5)


SEVERAL = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [-1, -1, -1, -1], [1, 0, 0, 1]])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_decisions_diverge_like_distributions_over_two_classes(temperature: float) -> None:
    expected = sum(
        soft_target_loss(
            torch.stack([torch.zeros(6), STUDENT[:, c]], dim=1),
            torch.stack([torch.zeros(6), TEACHER[:, c]], dim=1),
            temperature,
        ).mean()
        for c in range(4)
    )
    torch.testing.assert_close(soft_decision_loss(STUDENT, TEACHER, temperature).mean(), expected)
    assert float(soft_decision_loss(TEACHER, TEACHER, temperature).mean()) == pytest.approx(0, abs=1e-6)


def test_a_constant_in_all_logits_counts_where_classes_are_decided_alone() -> None:
    for changes in ({}, {"objective": "mse"}):
        moved = [
            float(distillation_loss(TEACHER + shift, SEVERAL, TEACHER, settings(hard_weight=0, **changes), 0.5))
            for shift in (0, 1)
        ]
        assert abs(moved[0]) < 1e-6
        assert moved[1] > 0.01


def test_several_labels_are_learned_by_the_sum_of_their_decisions() -> None:
    known = SEVERAL[:, 0] != NO_LABEL
    expected = F.binary_cross_entropy_with_logits(STUDENT[known], SEVERAL[known].float(), reduction="sum") / 6
    torch.testing.assert_close(distillation_loss(STUDENT, SEVERAL, None, settings(), 0.5), expected)
    for weight in (0.0, 0.25, 1.0):
        found = distillation_loss(STUDENT, SEVERAL, TEACHER, settings(hard_weight=weight), 0.5)
        torch.testing.assert_close(
            found, weight * expected + (1 - weight) * soft_decision_loss(STUDENT, TEACHER, 2.0).mean()
        )


def test_only_the_decisions_that_a_sure_teacher_contradicts_are_doubted() -> None:
    teacher = torch.where(SEVERAL == 1, 5.0, -5.0)
    teacher[0, 1], teacher[3, 1], teacher[5, 3] = 5.0, -5.0, -1.0  # the last is no sure contradiction
    doubted = torch.zeros(6, 4)
    doubted[0, 1] = doubted[3, 1] = 1.0
    torch.testing.assert_close(contradicted(SEVERAL, teacher)[SEVERAL != NO_LABEL], doubted[SEVERAL != NO_LABEL])


@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
def test_a_teacher_contradicts_by_what_it_is_sure_of_once_calibrated(labels: torch.Tensor) -> None:
    sure = 20 * TEACHER
    told, asked = settings(doubt=1.0, hard_weight=1.0), settings(hard_weight=1.0)
    whole = distillation_loss(STUDENT, labels, sure, asked, 0.5)
    assert distillation_loss(STUDENT, labels, sure, told, 0.5) < whole
    torch.testing.assert_close(distillation_loss(STUDENT, labels, sure, told, 0.5, calibration=1e6), whole)
    soft = settings(doubt=1.0, hard_weight=0.0)
    torch.testing.assert_close(
        distillation_loss(STUDENT, labels, sure, soft, 0.5, calibration=9.0),
        distillation_loss(STUDENT, labels, sure, soft, 0.5),
    )


@pytest.mark.parametrize("labels", [LABELS, SEVERAL])
def test_a_text_that_teachers_disagree_on_weighs_less_by_that(labels: torch.Tensor) -> None:
    disagreement = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.25])
    told = settings(dissent=0.5)
    found = distillation_loss(STUDENT, labels, TEACHER, told, 0.5, disagreement)
    alone = [
        distillation_loss(STUDENT[row : row + 1], labels[row : row + 1], TEACHER[row : row + 1], told, 0.5)
        for row in range(6)
    ]
    torch.testing.assert_close(found, ((1 - 0.5 * disagreement) * torch.stack(alone)).mean())
    unweighted = distillation_loss(STUDENT, labels, TEACHER, settings(), 0.5, disagreement)
    torch.testing.assert_close(unweighted, distillation_loss(STUDENT, labels, TEACHER, settings(), 0.5))
