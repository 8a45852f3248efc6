import numpy as np
import pytest
from scipy.special import log_softmax

from stillroom.calibration import fit_temperature, log_loss
from stillroom.problem import probabilities


def drawn(temperature: float, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels drawn from them at a temperature, so that dividing by it calibrates them."""
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(rows, 4)) * 2 * temperature
    uniform = generator.gumbel(size=logits.shape)
    return logits.astype(np.float32), (logits / temperature + uniform).argmax(axis=1)


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_the_temperature_that_made_the_logits_is_found(temperature: float) -> None:
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    for factor in (0.9, 1.1):
        assert loss(logits, labels, found) < loss(logits, labels, found * factor)


def test_scaling_the_logits_scales_the_temperature_and_not_the_probabilities() -> None:
    logits, labels = drawn(1.0)
    one, ten = fit_temperature(logits, labels), fit_temperature(10 * logits, labels)
    assert ten == pytest.approx(10 * one, rel=1e-3)
    np.testing.assert_allclose(
        probabilities(logits, "single_label", one), probabilities(10 * logits, "single_label", ten), atol=1e-4
    )


def test_a_model_that_is_always_right_or_knows_nothing_stays_within_bounds() -> None:
    labels = np.arange(30) % 3
    for logits in (np.eye(3)[labels], -np.eye(3)[labels], np.zeros((30, 3)), 1e4 * np.eye(3)[labels]):
        assert 0.05 <= fit_temperature(logits, labels) <= 20.0


def test_decisions_are_calibrated_like_classes() -> None:
    generator = np.random.default_rng(6)
    logits = generator.normal(size=(3000, 3)) * 6
    labels = (generator.random(logits.shape) < 1 / (1 + np.exp(-logits / 3))).astype(np.int64)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(3.0, rel=0.1)
    for factor in (0.9, 1.1):
        assert log_loss(logits / found, labels) < log_loss(logits / (found * factor), labels)


def test_two_classes_and_one_decision_have_the_same_loss() -> None:
    margin = np.random.default_rng(7).normal(size=50) * 3
    labels = (margin > 0.5).astype(np.int64)
    both = np.stack([np.zeros(50), margin], axis=1)
    assert log_loss(both, labels) == pytest.approx(log_loss(margin[:, None], labels[:, None]))
