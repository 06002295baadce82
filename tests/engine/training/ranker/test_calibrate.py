import numpy as np
import pytest
from scipy.special import expit

from engine.training.ranker.calibrate import calibration_report, fit_calibration


def clicks(seed: int, n: int = 200_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a ranker, and clicks whose log odds are 0.5 * logit - 4."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, n)
    return logits, (rng.random(n) < expit(0.5 * logits - 4)).astype(np.float64)


def test_finds_slope_and_intercept() -> None:
    logits, clicked = clicks(0)
    calibration = fit_calibration(logits, clicked, np.ones(len(logits)))
    assert calibration.slope == pytest.approx(0.5, abs=0.03)
    assert calibration.intercept == pytest.approx(-4, abs=0.1)


def test_weights_undo_the_sampling_of_negatives() -> None:
    logits, clicked = clicks(1)
    kept = (clicked == 1) | (np.random.default_rng(2).random(len(logits)) < 0.1)
    weights = np.where(clicked == 1, 1.0, 10.0)[kept]
    calibration = fit_calibration(logits[kept], clicked[kept], weights)
    assert calibration.intercept == pytest.approx(-4, abs=0.15)


def test_improves_log_loss_and_calibration_error_on_other_data() -> None:
    logits, clicked = clicks(3)
    calibration = fit_calibration(logits, clicked, np.ones(len(logits)))
    logits, clicked = clicks(4)
    report = calibration_report(calibration, logits, clicked, np.ones(len(logits)))
    assert report.log_loss_after < 0.5 * report.log_loss_before
    assert report.ece_after < 0.1 * report.ece_before
    assert report.click_rate == pytest.approx(clicked.mean())


def test_the_slope_stays_positive_against_the_data() -> None:
    logits, clicked = clicks(5, n=5000)
    assert fit_calibration(-logits, clicked, np.ones(len(logits))).slope > 0


@pytest.mark.parametrize("clicked", [0.0, 1.0])
def test_nothing_to_learn_from_is_the_identity(clicked: float) -> None:
    calibration = fit_calibration(np.arange(5.0), np.full(5, clicked), np.ones(5))
    assert (calibration.slope, calibration.intercept) == (1.0, 0.0)
