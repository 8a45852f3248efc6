"""One scalar that makes probabilities mean what they say."""

import numpy as np
import numpy.typing as npt

from stillroom.problem import problem_of

_LOWEST, _HIGHEST = 0.05, 20.0


def log_loss(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """Mean negative log-likelihood of labels under logits [n, classes].

    Of each row's class, for class ids [n]; of each decision, for 0 and 1 [n, classes].
    """
    from scipy.special import logsumexp

    if problem_of(labels) == "multi_label":
        return float(np.logaddexp(0.0, np.where(labels == 1, -logits, logits)).mean())
    return float(np.mean(logsumexp(logits, axis=1) - logits[np.arange(len(labels)), labels]))


def fit_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """The temperature that minimises the `log_loss` of logits [n, classes] ÷ temperature.

    Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        return log_loss(logits * np.exp(-log_temperature), labels)

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))
