"""One scalar that makes probabilities mean what they say."""

import numpy as np
import numpy.typing as npt

_LOWEST, _HIGHEST = 0.05, 20.0


def fit_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
    """The temperature that minimises the negative log-likelihood of logits [n, classes] ÷ temperature.

    Guo et al., On Calibration of Modern Neural Networks, arXiv 1706.04599.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = logits.astype(np.float64)
    chosen = logits[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        scale = np.exp(-log_temperature)
        return float(np.mean(logsumexp(logits * scale, axis=1) - chosen * scale))

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def softmax(logits: npt.NDArray[np.floating], temperature: float = 1.0) -> npt.NDArray[np.float32]:
    """Probabilities, float32 [n, classes]."""
    from scipy.special import softmax as scipy_softmax

    result: npt.NDArray[np.float32] = scipy_softmax(logits.astype(np.float32) / temperature, axis=1)
    return result
