"""What becomes int8, and what decides it."""

import sys

import onnx
import openvino
import pytest

from mpvit.config.reading import load_config
from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.files import SUFFIXES, export
from mpvit.export.int8 import parts_of, within
from mpvit.export.quantizers import OnnxQuantizer, OpenVinoQuantizer


def test_layers_that_boxes_pass_through_stay_in_float(openvino_file, onnx_file):
    parts = parts_of(OpenVinoQuantizer(openvino_file).layers)
    in_onnx = parts_of(OnnxQuantizer(onnx_file).layers)
    assert {part: sorted(layers) for part, layers in in_onnx.items()} == {
        part: sorted(name.removesuffix('/WithoutBiases') for name in layers)
        for part, layers in parts.items()
    }
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


def quantized(config, checkpoint, tmp_path, format='openvino', **settings):
    target = str(tmp_path / f'int8{SUFFIXES[format]}')
    return export(config, checkpoint, format=format, dtype='int8', target=target, **settings)


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


def integers_in_openvino(file):
    """Linear layers, and whether their weights are kept as integers."""
    return {
        node.get_friendly_name(): node.input_value(1).get_node().get_type_name() != 'Constant'
        for node in openvino.Core().read_model(file).get_ordered_ops()
        if node.get_type_name() == 'MatMul'
    }


def integers_in_onnx(file):
    """The same of ONNX."""
    graph = onnx.load(file).graph
    written = {name for node in graph.node for name in node.output if 'Dequantize' in node.op_type}
    return {n.name: n.input[1] in written for n in graph.node if n.op_type == 'MatMul'}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('format', 'integers', 'share'),
    [('openvino', integers_in_openvino, 0.9), ('onnx', integers_in_onnx, 0.95)],  # with the graph
)
def test_file_in_int8_has_the_ap_that_was_told(
    format, integers, share, config, tiny, checkpoint, findable, openvino_file, onnx_file, tmp_path
):
    if format == 'openvino':
        pytest.importorskip('nncf', reason='needs nncf')
    file, found = quantized(config, checkpoint, tmp_path, format, max_drop=100)
    print(found)
    assert found.left == ()
    assert found.images == 6
    options = dict(work_dir=str(tmp_path / 'tested'), cfg_options=findable)
    for name, ap in ((checkpoint, found.float32), (str(file), found.int8)):
        assert evaluate(tiny[0], name, **options)['coco/bbox_mAP'] == ap > 0
    weights = dict(openvino=openvino_file.with_suffix('.bin'), onnx=onnx_file)[format]
    smaller = file.with_suffix(weights.suffix).stat().st_size
    assert smaller < share * weights.stat().st_size  # most of so small a detector is the decoder
    is_integer = integers(file)
    assert not is_integer['/decoder/layers.0/ffn/layers/layers.1/MatMul']
    assert is_integer['/encoder/layers.0/ffn/layers/layers.1/MatMul']
