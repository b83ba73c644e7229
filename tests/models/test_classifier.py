"""ImageNet classifiers equal the official ones, from an official file to the logits."""

import pytest
import torch
from parity_classifier import CONFIGS, TOLERANCE, classifier, largest_error, official_weights

# the others differ in widths and depths alone
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in list(CONFIGS)[1:]]


@pytest.fixture
def official_file(tmp_path):
    """An official file of a size, as it was released."""

    def write(name):
        torch.save({'model': official_weights(name)}, tmp_path / f'{name}.pth')
        return tmp_path / f'{name}.pth'

    return write


@pytest.mark.parametrize('name', ['mpvit_tiny', *SLOW])
def test_logits_equal_the_official_ones(name, official_file):
    model = classifier(name, official_file(name))
    error = largest_error(name, model)
    print(f'{name}: {error:.1e}')
    assert error < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize('name', CONFIGS)
def test_logits_equal_the_official_ones_in_double_precision(name, official_file):
    error = largest_error(name, classifier(name, official_file(name)).double())
    print(f'{name}: {error:.1e}')
    assert error < 1e-10
