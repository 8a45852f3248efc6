"""What a student is asked to imitate."""

import torch
from torch.nn import functional as F

NO_LABEL = -1
"""Stands for the label of a text that the teacher alone has judged."""


def soft_target_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence from the teacher's softened answer, times temperature² (Hinton et al., arXiv 1503.02531).

    Logits [rows, classes] of both; mean over rows.
    """
    student_log = F.log_softmax(student / temperature, dim=1)
    teacher_log = F.log_softmax(teacher / temperature, dim=1)
    return F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True) * temperature**2


def distillation_loss(
    student: torch.Tensor,
    labels: torch.Tensor,
    teacher: torch.Tensor | None,
    temperature: float,
    hard_weight: float,
) -> torch.Tensor:
    """Soft targets and hard labels mixed; without a teacher, the labels alone. A row without one adds 0 to those."""
    hard = F.cross_entropy(student, labels, ignore_index=NO_LABEL, reduction="sum") / len(labels)
    if teacher is None:
        return hard
    return hard_weight * hard + (1 - hard_weight) * soft_target_loss(student, teacher, temperature)


def cosine_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 − cosine of pooled hidden states [rows, width], mean over rows (DistilBERT, arXiv 1910.01108)."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()
