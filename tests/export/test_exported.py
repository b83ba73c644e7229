"""Exported files in the place of a checkpoint, and what is refused."""

import json
import shutil
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.apis import inference_detector
from onnx import TensorProto, helper

from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.files import export
from mpvit.inference import Detector, load_detector
from mpvit.models.runtimes import default_device


def metrics(config, checkpoint, work_dir, options, **settings):
    return evaluate(
        config, str(checkpoint), work_dir=str(work_dir), cfg_options=options, **settings
    )


@pytest.fixture(scope='module')
def expected(tiny, checkpoint, findable, tmp_path_factory):
    """Metrics of the checkpoint."""
    return metrics(tiny[0], checkpoint, tmp_path_factory.mktemp('torch'), findable)


@pytest.mark.parametrize(('format', 'runtime'), [('onnx', 'onnxruntime'), ('openvino',) * 2])
def test_ap_is_that_of_the_checkpoint(format, runtime, tiny, expected, findable, tmp_path, request):
    file = request.getfixturevalue(f'{format}_file')
    actual = metrics(tiny[0], file, tmp_path, findable)
    assert 0.2 < expected['coco/bbox_mAP'] < 0.95
    assert len(expected) >= 12
    assert actual == pytest.approx(expected, abs=1e-6)
    record = json.loads((tmp_path / 'metrics.json').read_text())
    assert record['checkpoint'] == str(file)
    assert record['inference'] == {'runtime': runtime}


@pytest.mark.slow
def test_test_time_augmentation(tiny, checkpoint, onnx_file, findable, tmp_path):
    settings = dict(options=findable, tta=True)
    expected = metrics(tiny[0], checkpoint, tmp_path, **settings)
    assert metrics(tiny[0], onnx_file, tmp_path, **settings) == pytest.approx(expected, abs=1e-6)


def test_inference_detector_takes_it(tiny, detector, onnx_file, toy):
    paths = [str(path) for path in sorted((toy / 'val2017').glob('*'))[:3]]
    exported = load_detector(tiny[0], onnx_file)
    assert exported.dataset_meta['classes'] == tuple(detector.dataset_meta['classes'])
    results = (inference_detector(model, paths) for model in (detector, exported))
    for one, other in zip(*results, strict=True):
        one, other = one.pred_instances, other.pred_instances
        assert (one.scores - other.scores).abs().max() < 1e-5
        assert (one.bboxes - other.bboxes).abs().max() < 1e-2


def test_what_does_not_fit_the_file_is_refused(root, tiny, onnx_file, tmp_path):
    for setting in (dict(dtype='fp16'), dict(compile=True), dict(fold=False)):
        with pytest.raises(UserError, match='export'):
            load_detector(tiny[0], onnx_file, **setting)
    with pytest.raises(UserError, match=r'has 6 classes .* config has 80'):
        load_detector(root / 'configs/deformable_detr/mpvit_s_ddetr_50e.py', onnx_file)
    config = tmp_path / 'other.py'
    config.write_text(
        f"_base_ = '{tiny[0]}'\nmodel = dict(data_preprocessor=dict(mean=[0., 0., 0.]))"
    )
    with pytest.raises(UserError, match=r'with mean \[123.675.* config says \[0.0'):
        load_detector(config, onnx_file)


def foreign(path):
    """A valid ONNX file of something else."""
    node = helper.make_node('Identity', ['x'], ['y'])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in 'xy']
    graph = helper.make_graph([node], 'other', [values[0]], [values[1]])
    opsets = [helper.make_opsetid('', 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def test_files_that_cannot_be_used(tiny, onnx_file, openvino_file, tmp_path):
    empty, cut, other = (tmp_path / f'{name}.onnx' for name in ('empty', 'cut', 'other'))
    empty.touch()
    cut.write_bytes(onnx_file.read_bytes()[:10_000])
    foreign(other)
    garbage, alone = tmp_path / 'garbage.xml', tmp_path / 'alone.xml'
    capital = tmp_path / 'CAPITAL.XML'
    shutil.copy(openvino_file, capital)
    garbage.write_text('<net')
    garbage.with_suffix('.bin').touch()
    shutil.copy(openvino_file, alone)
    for path, message in (
        (tmp_path / 'none.onnx', 'not found'),
        (empty, 'cannot be read'),
        (cut, 'cannot be read'),
        (other, 'mpvit export'),
        (garbage, 'cannot be read'),
        (alone, 'alone.bin'),
        (capital, 'CAPITAL.bin'),
        ('https://a.org/a.onnx', 'https://a.org/a.onnx'),
    ):
        with pytest.raises(UserError, match=message):
            load_detector(tiny[0], path)


@pytest.mark.parametrize('value', ['', 'no json', '{}', '[1, 2]', '[' * 100_000])
def test_what_a_file_says_of_itself_may_be_anything(tiny, onnx_file, tmp_path, value):
    network = onnx.load(onnx_file)
    (classes,) = (entry for entry in network.metadata_props if entry.key == 'mpvit.classes')
    classes.value = value
    onnx.save(network, tmp_path / 'edited.onnx')
    with pytest.raises(UserError, match=r'edited.onnx: its classes cannot be read'):
        load_detector(tiny[0], tmp_path / 'edited.onnx')


def test_configs_that_are_none_are_told(tiny, onnx_file, tmp_path):
    config = tmp_path / 'other.py'
    config.write_text(f"_base_ = '{tiny[0]}'\nmodel = dict(data_preprocessor=None)")
    with pytest.raises(UserError, match=r'other.py does not build'):
        load_detector(config, onnx_file)


def test_weights_of_nan_are_told(tiny, onnx_file, tmp_path, toy):
    network = onnx.load(onnx_file)
    floats = [w for w in network.graph.initializer if w.data_type == TensorProto.FLOAT]
    weights = max(floats, key=lambda one: len(one.raw_data))
    weights.raw_data = np.full(len(weights.raw_data) // 4, np.nan, np.float32).tobytes()
    onnx.save(network, tmp_path / 'nan.onnx')
    detector = Detector(tiny[0], tmp_path / 'nan.onnx', 'cpu')
    with pytest.raises(UserError, match=r'nan.onnx gives NaN or infinity'):
        detector(next((toy / 'val2017').iterdir()))


def test_files_in_the_home_folder(tiny, onnx_file, checkpoint, monkeypatch):
    monkeypatch.setenv('HOME', str(onnx_file.parent))
    load_detector(tiny[0], f'~/{onnx_file.name}')
    with pytest.raises(UserError, match=f'{onnx_file} exists already'):
        export(tiny[0], f'~/{onnx_file.stem}.pth')
    with pytest.raises(UserError, match=f'{onnx_file} exists already'):
        export(tiny[0], checkpoint, target=f'~/{onnx_file.name}')


def test_device_that_the_runtime_lacks_is_refused(tiny, onnx_file, openvino_file):
    for file in (onnx_file, openvino_file):
        with pytest.raises(UserError, match='device cuda:0'):
            load_detector(tiny[0], file, 'cuda:0')


def test_default_device_is_one_that_runs_the_file(tiny, onnx_file, openvino_file, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: ['CPUExecutionProvider'])
    for file in (onnx_file, openvino_file):
        Detector(tiny[0], file)  # which refuses a device that does not run it
    both = ['CUDAExecutionProvider', 'CPUExecutionProvider']
    monkeypatch.setattr(onnxruntime, 'get_available_providers', lambda: both)
    assert (default_device(onnx_file), default_device(openvino_file)) == ('cuda', 'cpu')


def test_missing_runtime_names_the_extra(tiny, onnx_file, monkeypatch):
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(UserError, match=r"onnxruntime .*pip install 'mpvit\[export\]'"):
        load_detector(tiny[0], onnx_file)


def test_fixed_batch_and_size_are_told(tiny, checkpoint, tmp_path):
    target = str(tmp_path / 'fixed.onnx')
    file, _ = export(tiny[0], checkpoint, target=target, size=(128, 128), batch=1)
    model = load_detector(tiny[0], file)
    image = np.zeros((100, 100, 3), np.uint8)
    assert len(inference_detector(model, image).pred_instances) == 100
    with pytest.raises(UserError, match='batches of 1'):
        metrics(tiny[0], file, tmp_path, tiny[1])
    model.cfg.test_dataloader.dataset.pipeline[1].scale = (256, 256)
    with pytest.raises(UserError, match=r'up to 128x128 .* but one is 256x256'):
        inference_detector(model, image)
