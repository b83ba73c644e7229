"""Whole detectors against the official ones: outputs, detections, matching, losses, gradients."""

import numpy as np
import pytest
from parity_detector import CONFIGS, TOLERANCES, DetectorParity


def check(name: str, double: bool) -> None:
    parity = DetectorParity(name, double)
    errors = parity.errors()
    print({key: f'{error:.1e}' for key, error in errors.items()})
    assert errors.keys() == TOLERANCES.keys()
    for key, error in errors.items():
        assert np.isfinite(error), key
        assert error < TOLERANCES[key][double], f'{key}: {error:.1e}'
    assert parity.match_differences() == 0


@pytest.mark.parametrize('name', CONFIGS)
def test_detector_equals_the_official_one(name):
    check(name, double=False)


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_detector_equals_the_official_one_in_double_precision(name):
    """Float32 hides small mistakes in its noise; here gradients agree to 1e-6."""
    check(name, double=True)
