"""What a student is asked to imitate."""

import torch
from torch.nn import functional as F

from stillroom.student_params import StudentParams
from stillroom.supervision import NO_LABEL, label_loss, mean_over_rows

_CONFIDENT = 0.9


def soft_target_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence from the teacher's softened answer, times temperature² (Hinton et al., arXiv 1503.02531).

    Logits [rows, classes] of both; [rows].
    """
    student_log = F.log_softmax(student / temperature, dim=1)
    teacher_log = F.log_softmax(teacher / temperature, dim=1)
    return _divergence(student_log, teacher_log) * temperature**2


def soft_decision_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same where every class is decided by itself: KL divergence of each decision, added up over the classes.

    Logits [rows, classes] of both, each through a sigmoid; [rows].
    """
    student, teacher = student / temperature, teacher / temperature
    target = torch.sigmoid(teacher)
    crossed, own = (F.binary_cross_entropy_with_logits(it, target, reduction="none") for it in (student, teacher))
    return (crossed - own).sum(dim=1) * temperature**2


def logit_loss(student: torch.Tensor, teacher: torch.Tensor, several: bool = False) -> torch.Tensor:
    """Mean squared difference of logits, as Kim et al. advise for clean labels (arXiv 2105.08919).

    Logits [rows, classes] of both, each less its row's mean, which no probability depends on unless a row has several
    labels; [rows].
    """
    if several:  # added up over the classes, as the labels' loss is
        return F.mse_loss(student, teacher, reduction="none").sum(dim=1)
    student, teacher = (logits - logits.mean(dim=1, keepdim=True) for logits in (student, teacher))
    return F.mse_loss(student, teacher, reduction="none").mean(dim=1)


def decoupled_loss(
    student: torch.Tensor, teacher: torch.Tensor, target: torch.Tensor, temperature: float, beta: float
) -> torch.Tensor:
    """The two parts of the KL divergence with weights of their own, times temperature² (DKD, arXiv 2203.08679).

    The first compares how much goes to the target class; the second, how the rest is shared out among the others,
    which plain KL weighs by 1 − the teacher's confidence. target: class ids [rows]; beta: weight of the second; [rows].
    """
    of_target = F.one_hot(target, student.shape[1]).bool()

    def parts(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        log = F.log_softmax(logits / temperature, dim=1)
        mine = log[of_target].unsqueeze(1)
        rest = torch.logsumexp(log.masked_fill(of_target, -torch.inf), dim=1, keepdim=True)
        others = log[~of_target].view(len(log), -1)
        return torch.cat([mine, rest], dim=1), F.log_softmax(others, dim=1)

    student_parts, teacher_parts = parts(student), parts(teacher)
    first, second = (_divergence(*both) for both in zip(student_parts, teacher_parts, strict=True))
    return (first + beta * second) * temperature**2


def distillation_loss(
    student: torch.Tensor,
    labels: torch.Tensor,
    teacher: torch.Tensor | None,
    settings: StudentParams,
    progress: float,
    disagreement: torch.Tensor | None = None,
    calibration: float = 1.0,
) -> torch.Tensor:
    """Imitation of the teacher and hard labels mixed; without a teacher, the labels alone.

    Logits [rows, classes] of both; labels as in stillroom.supervision. progress: share of the training that is
    done, by which temperature and mixing move. disagreement: of an ensemble of teachers, 0 to 1 [rows]. calibration:
    the temperature at which the teacher is as sure as it is right, at which its contradictions are judged. A row
    without a label adds 0 to the labels' part.
    """
    several = labels.dim() == 2
    hard = label_loss(student, labels)
    if teacher is None:
        return mean_over_rows(hard)
    if settings.doubt:
        hard = hard * (1 - settings.doubt * contradicted(labels, teacher / calibration))
    if several:
        hard = hard.sum(dim=1)
    weight = _moved(settings.hard_weight, settings.final_hard_weight, progress)
    temperature = _moved(settings.temperature, settings.final_temperature, progress)
    if settings.objective == "mse":
        soft = logit_loss(student, teacher, several)
    elif settings.objective == "dkd":
        target = torch.where(labels == NO_LABEL, teacher.argmax(dim=1), labels)
        soft = decoupled_loss(student, teacher, target, temperature, settings.dkd_beta)
    else:
        soft = (soft_decision_loss if several else soft_target_loss)(student, teacher, temperature)
    loss = weight * hard + (1 - weight) * soft
    return (loss if disagreement is None else loss * (1 - settings.dissent * disagreement)).mean()


def _divergence(student_log: torch.Tensor, teacher_log: torch.Tensor) -> torch.Tensor:
    """KL divergence of log-probabilities [rows, classes], [rows]."""
    return F.kl_div(student_log, teacher_log, reduction="none", log_target=True).sum(dim=1)


def contradicted(labels: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 where the teacher gives another class than the label's nine tenths or more, else 0; in the labels' shape.

    Such labels are wrong more often than not (Northcutt et al., arXiv 1911.00068).
    """
    if labels.dim() == 2:
        against = torch.where(labels == 1, -teacher, teacher).sigmoid()
        return (against >= _CONFIDENT).to(teacher.dtype)
    confidence, chosen = teacher.softmax(dim=1).max(dim=1)
    return ((chosen != labels) & (confidence >= _CONFIDENT)).to(teacher.dtype)


def _moved(first: float, last: float | None, progress: float) -> float:
    return first if last is None else first + (last - first) * progress


def cosine_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """1 − cosine of pooled hidden states [rows, width], mean over rows (DistilBERT, arXiv 1910.01108)."""
    return (1 - F.cosine_similarity(student, teacher, dim=1)).mean()


def state_loss(student: torch.Tensor, teacher: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of hidden states [rows, tokens, width] where they are known (TinyBERT, arXiv 1909.10351).

    known: bool [rows, tokens]; 0 where none is.
    """
    return F.mse_loss(student[known], teacher[known], reduction="sum") / (known.sum() * teacher.shape[2]).clamp(min=1)


def relation_loss(student: torch.Tensor, teacher: torch.Tensor, known: torch.Tensor, parts: int) -> torch.Tensor:
    """KL divergence between the attention that a text's tokens pay to one another by their states alone.

    softmax(HHᵀ ÷ √width of a part) in each of so many parts of a state [rows, tokens, width], as MiniLMv2 compares
    them (arXiv 2012.15828, section 3.1) of queries, keys and values: those are linear in the states, which are what a
    cache keeps. Widths may differ. known: bool [rows, tokens], tokens of which the teacher's state is known; mean over
    them, 0 where none is.
    """
    with torch.autocast(student.device.type, enabled=False):
        student_log, teacher_log = (_relations(states.float(), known, parts) for states in (student, teacher))
        divergence = F.kl_div(student_log, teacher_log, reduction="none", log_target=True)
        both = known[:, None, :, None] & known[:, None, None, :]
        return divergence.masked_fill(~both, 0.0).sum() / (known.sum() * parts).clamp(min=1)


def _relations(states: torch.Tensor, known: torch.Tensor, parts: int) -> torch.Tensor:
    """Logarithms of the relations, [rows, parts, tokens, tokens]; finite, with sense where both tokens are known."""
    states = states.masked_fill(~known[..., None], 0.0)
    rows, tokens, width = states.shape
    split = states.view(rows, tokens, parts, width // parts).transpose(1, 2)
    scores = split @ split.transpose(2, 3) * (width // parts) ** -0.5
    return F.log_softmax(scores.masked_fill(~known[:, None, None, :], torch.finfo(scores.dtype).min), dim=3)
