"""Exported files of strangers, which may give anything."""

import json

import numpy as np
import onnx
import pytest
import torch
from mmdet.structures import DetDataSample
from onnx import TensorProto, helper, numpy_helper

from mpvit.errors import UserError
from mpvit.models.exported import ExportedDetector

PREPROCESSOR = dict(type='mmdet.DetDataPreprocessor', mean=[0.0], std=[1.0])
FACTS = dict(classes=['a', 'b'], mean=[0.0], std=[1.0], channel_order='BGR')
FINE = dict(
    boxes=np.array([[[1, 1, 6, 7]]], np.float32),
    scores=np.array([[0.5]], np.float32),
    labels=np.array([[1]]),
)


def exported(folder, arrays, rank=4):
    """A file that gives arrays, whatever the images are; a name instead of one gives its shape."""
    nodes, values = [], []
    for name, value in arrays.items():
        kind = 'Shape' if isinstance(value, str) else 'Identity'
        nodes.append(helper.make_node(kind, [value if kind == 'Shape' else f'_{name}'], [name]))
        if kind == 'Identity':
            values.append(numpy_helper.from_array(np.asarray(value), f'_{name}'))
    kinds = {value.name[1:]: value.data_type for value in values}
    shapes = dict(images=['b', 3, 'h', 'w'][:rank], sizes=['b', 2])
    inputs = [
        helper.make_tensor_value_info(name, kind, shapes[name])
        for name, kind in (('images', TensorProto.UINT8), ('sizes', TensorProto.INT64))
    ]
    outputs = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.INT64), None)
        for name in arrays
    ]
    graph = helper.make_graph(nodes, 'graph', inputs, outputs, initializer=values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=8)
    for name, fact in FACTS.items():
        model.metadata_props.add(key=f'mpvit.{name}', value=json.dumps(fact))
    onnx.save(model, folder / 'x.onnx')
    return ExportedDetector(str(folder / 'x.onnx'), PREPROCESSOR, dict(num_classes=2))


def detect(model):
    sample = DetDataSample(metainfo=dict(img_shape=(8, 8), ori_shape=(16, 16)))
    (found,) = model.predict(torch.zeros(1, 3, 8, 8), [sample])
    return found.pred_instances


def test_what_fits_is_taken(tmp_path):
    found = detect(exported(tmp_path, FINE))
    assert found.bboxes.tolist() == [[2, 2, 12, 14]]
    assert (found.scores.tolist(), found.labels.tolist()) == ([0.5], [1])


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(labels=np.array([[2]])), 'gives labels beyond its 2 classes'),
        (dict(labels=np.array([[-1]])), 'gives labels beyond its 2 classes'),
        (dict(labels=np.array([[1.0]])), 'gives arrays of another kind'),
        (dict(labels=np.array([[1, 1]])), 'gives arrays of another size'),
        (dict(labels='sizes'), 'gives arrays of another size'),
        (dict(scores=np.array([['x']], object)), 'gives arrays of another kind'),
        (dict(scores=np.zeros((1, 3), np.float32)), 'gives arrays of another kind'),
        (dict(boxes=np.float32(1)), 'gives arrays of another kind'),
        ({name: np.repeat(value, 2, 0) for name, value in FINE.items()}, 'another size'),
        (dict(boxes=FINE['boxes'] * np.float32('inf')), 'gives NaN or infinity'),
        (dict(boxes=FINE['boxes'] * np.float32(1e37)), 'gives boxes far from the image'),
        (dict(scores=FINE['scores'] * 3), 'scores beyond 0 to 1'),
        (dict(labels=None), 'does not run .*labels'),
    ],
)
def test_what_no_detector_gives_is_refused(tmp_path, change, words):
    arrays = {name: value for name, value in (FINE | change).items() if value is not None}
    model = exported(tmp_path, arrays)
    with pytest.raises(UserError, match=rf'x\.onnx .*{words}'):
        detect(model)


def test_what_takes_no_images_is_refused(tmp_path):
    with pytest.raises(UserError, match=r'x\.onnx was not written by mpvit export'):
        exported(tmp_path, FINE, rank=3)
