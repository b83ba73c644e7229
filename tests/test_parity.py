"""Whole detectors against the official ones: outputs, detections, matching, losses, gradients."""

import numpy as np
import parity_check
import parity_encoding
import parity_fill
import pytest
from parity_detector import CONFIGS, PARITY, TOLERANCES, DetectorParity


def check(name: str, double: bool, device: str = 'cpu') -> None:
    parity = DetectorParity(name, double, device)
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


@pytest.mark.parametrize('name', CONFIGS)
def test_the_encoding_given_in_double_precision_is_the_official_one(name):
    """All that the fixtures store of it is the same to the last bit."""
    fixture = parity_check.Fixture(PARITY / f'detector_{name}.npz')
    level_embed = parity_fill.fill('transformer.level_embed', (4, 256), seed=0)
    encodings, masks = [], []
    height, width = fixture['img_shapes'].max(0)
    for level, (h, w) in enumerate(fixture['spatial_shapes']):
        rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
        mask = np.stack(
            [(rows[:, None] >= image[0]) | (columns >= image[1]) for image in fixture['img_shapes']]
        )
        encoding = parity_encoding.official(mask) + level_embed[level][:, None, None]
        encodings.append(encoding.reshape(2, 256, -1))
        masks.append(mask.reshape(2, -1))
    encoding = np.concatenate(encodings, 2).transpose(0, 2, 1)
    encoding[np.concatenate(masks, 1)] = 0
    assert fixture.slice_error('lvl_pos_embed', encoding) == 0
