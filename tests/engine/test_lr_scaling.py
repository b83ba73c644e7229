"""What the learning rate is multiplied with; the line and the runs are in tests/tools."""

import pytest

from mpvit.engine.runner import lr_factor
from mpvit.errors import UserError


def test_rules():
    assert lr_factor(32, 16, 'linear') == 2
    assert lr_factor(4, 16, 'linear') == 0.25
    assert lr_factor(64, 16, 'sqrt') == 2
    assert lr_factor(4, 16, 'sqrt') == 0.5
    assert lr_factor(16, 16, 'linear') == lr_factor(16, 16, 'sqrt') == 1


@pytest.mark.parametrize(
    ('base', 'rule', 'message'),
    [(16, 'cubic', "'cubic' is unknown; choose linear or sqrt"), (0, 'sqrt', 'must be positive')],
)
def test_mistakes(base, rule, message):
    with pytest.raises(UserError, match=message):
        lr_factor(2, base, rule)
