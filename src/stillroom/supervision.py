"""Labels in training: how well logits [rows, classes] answer them, for one class a text or any number.

Labels are class ids [rows], or 0 and 1 [rows, classes], as in stillroom.problem; NO_LABEL stands where there is none.
"""

import torch
from torch.nn import functional as F

NO_LABEL = -1
"""Stands for the label of a text that the teacher alone has judged."""


def label_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of the labels: [rows], or [rows, classes] where each class is decided by itself.

    0 where there is no label.
    """
    if labels.dim() == 1:
        return F.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="none")
    known = labels != NO_LABEL
    loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return loss * known


def mean_over_rows(loss: torch.Tensor) -> torch.Tensor:
    """Of what `label_loss` gives, that of a row's classes added up."""
    return loss.sum() / len(loss)


def hits(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which rows are answered rightly, with every class where there are several; bool [rows]."""
    if labels.dim() == 1:
        return logits.argmax(dim=1) == labels
    return ((logits >= 0).to(labels.dtype) == labels).all(dim=1)
