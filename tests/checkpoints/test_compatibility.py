"""A checkpoint that does not fit is refused with examples."""

import pytest
import torch

from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.formats import weights_of
from mpvit.errors import UserError

MODEL = {'a.weight': torch.zeros(2, 3), 'a.bias': torch.zeros(2), 'head.weight': torch.zeros(5)}


def test_same_tensors_fit_with_or_without_wrapping():
    check_fit(MODEL, MODEL)
    check_fit({'state_dict': MODEL, 'meta': {}}, MODEL)
    wrapped = {f'module.{name}': value for name, value in MODEL.items()}
    check_fit({'state_dict': wrapped}, MODEL)
    assert set(weights_of({'state_dict': wrapped})) == set(MODEL)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'a.bias': None}, r'1 missing \(a.bias\) of 3 tensors'),
        ({'b': torch.zeros(1)}, r'1 unexpected \(b\) of 3'),
        ({'a.weight': torch.zeros(3, 2)}, r'1 of another shape \(a.weight \(3, 2\) instead of'),
        ({'a.weight': 'text'}, r'a.weight \(\) instead of \(2, 3\)'),
        ({c: torch.zeros(1) for c in 'bcdef'}, r'5 unexpected \(b, c, d, ...\)'),
    ],
)
def test_difference_is_named(change, message):
    found = {k: v for k, v in {**MODEL, **change}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        check_fit(found, MODEL)


def test_what_is_one_tensor_in_the_model_must_be_one_in_the_file():
    shared = torch.zeros(2)
    model = {'a': shared, 'b': shared}
    check_fit({'a': torch.ones(2), 'b': torch.ones(2)}, model)
    with pytest.raises(UserError, match='b and a'):
        check_fit({'a': torch.ones(2), 'b': torch.zeros(2)}, model)
