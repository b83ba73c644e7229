"""What becomes int8, and what decides it."""

import sys

import openvino
import pytest

from mpvit.config.reading import load_config
from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.files import export
from mpvit.export.int8 import parts_of, within


def test_layers_that_boxes_pass_through_stay_in_float(openvino_file):
    parts = parts_of(openvino.Core().read_model(openvino_file))
    # in the order in which they are left in float
    assert list(parts) == [
        'encoder attention',
        'encoder',
        'values of the decoder',
        'neck',
        *(f'backbone.{part}' for part in ('stem', 'stages.0', 'stages.1', 'stages.2')),
    ]
    layers = [name for names in parts.values() for name in names]
    assert len(layers) == len(set(layers)) > 30
    decoder = [name for name in layers if not name.startswith(('/backbone', '/neck', '/encoder'))]
    assert decoder == [f'/decoder/layers.{n}/cross_attn/value_proj/MatMul' for n in range(2)]


def test_parts_are_left_in_float_until_the_ap_is_within_the_bound():
    aps = {(): 0.40, ('a',): 0.44, ('a', 'b'): 0.496}
    asked = []

    def attempt(left):
        asked.append(tuple(left))
        return aps[tuple(left)]

    assert within(0.5, attempt, ['a', 'b', 'c'], 0.005) == (0.496, ['a', 'b'])
    assert asked == list(aps)
    assert within(0.5, attempt, ['a', 'b', 'c'], 0.1) == (0.40, [])
    with pytest.raises(UserError, match=r'0\.500 by 0\.4 points .* only c .* --max-drop'):
        within(0.5, attempt, ['a', 'b', 'c'], 0.003)


def quantized(config, checkpoint, tmp_path, **settings):
    target = str(tmp_path / 'int8.xml')
    return export(config, checkpoint, format='openvino', dtype='int8', target=target, **settings)


@pytest.fixture
def config(tiny, findable, tmp_path):
    """The tiny config on data that is there."""
    load_config(tiny[0], findable).dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def test_without_nncf_it_says_what_to_install(config, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'nncf', None)
    with pytest.raises(UserError, match=r"nncf .*pip install 'mpvit\[int8\]'"):
        quantized(config, checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            "test_dataloader = dict(dataset=dict(_delete_=True, type='CocoDataset', "
            "ann_file='no.json', metainfo=dict(classes=tuple('abcdef'))))",
            'no.json',
        ),
        ('test_dataloader = test_evaluator = test_cfg = None', 'test_dataloader'),
    ],
)
def test_without_data_it_says_so(line, message, tiny, checkpoint, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{tiny[0]}'\n{line}")
    with pytest.raises(UserError, match=message):
        quantized(config, checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.slow
def test_file_in_int8_has_the_ap_that_was_told(
    config, tiny, checkpoint, findable, openvino_file, tmp_path
):
    pytest.importorskip('nncf', reason='needs nncf')
    file, found = quantized(config, checkpoint, tmp_path, max_drop=100)
    print(found)
    assert found.left == ()
    assert found.images == 6
    options = dict(work_dir=str(tmp_path / 'tested'), cfg_options=findable)
    for name, ap in ((checkpoint, found.float32), (str(file), found.int8)):
        assert evaluate(tiny[0], name, **options)['coco/bbox_mAP'] == ap > 0
    sizes = [path.with_suffix('.bin').stat().st_size for path in (file, openvino_file)]
    assert sizes[0] < 0.9 * sizes[1]  # most of so small a detector is the decoder
    kinds = {
        node.get_friendly_name(): node.input_value(1).get_node().get_type_name()
        for node in openvino.Core().read_model(file).get_ordered_ops()
        if node.get_type_name() == 'MatMul'
    }
    assert kinds['/decoder/layers.0/ffn/layers/layers.1/MatMul'] == 'Constant'
    assert kinds['/encoder/layers.0/ffn/layers/layers.1/MatMul'] != 'Constant'
