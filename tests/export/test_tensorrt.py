"""Engines of TensorRT, with a stand-in for it that keeps and runs the ONNX graph on the CPU."""

import ctypes
import enum
import json
import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.apis import inference_detector

from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.files import export
from mpvit.inference import load_detector
from mpvit.models import runtimes
from mpvit.models.runtimes import default_device

NAMES = ('boxes', 'scores', 'labels')


class Context:
    def __init__(self, session, profile):
        self.session, self.profile, self.shapes, self.addresses = session, profile, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        low, _, high = self.profile[name]
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    def _run(self, feeds):
        return dict(zip(NAMES, self.session.run(NAMES, feeds), strict=True))

    def get_tensor_shape(self, name):
        kinds = dict(images=np.uint8, sizes=np.int64)
        return self._run({n: np.ones(self.shapes[n], kinds[n]) for n in kinds})[name].shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        feeds = {}
        for name, kind in dict(images=ctypes.c_uint8, sizes=ctypes.c_int64).items():
            shape = self.shapes[name]
            memory = (kind * int(np.prod(shape))).from_address(self.addresses[name])
            feeds[name] = np.ctypeslib.as_array(memory).reshape(shape)
        for name, values in self._run(feeds).items():
            values = np.ascontiguousarray(values)
            ctypes.memmove(self.addresses[name], values.ctypes.data, values.nbytes)
        return True


class Engine:
    def __init__(self, plan):
        content = json.loads(plan.decode())
        graph = bytes.fromhex(content['graph'])
        self.profile = content['profile']
        self.session = onnxruntime.InferenceSession(graph, providers=['CPUExecutionProvider'])

    def get_tensor_shape(self, name):
        low, _, high = self.profile[name]
        return [a if a == b else -1 for a, b in zip(low, high, strict=True)]

    def get_tensor_profile_shape(self, name, profile):
        return self.profile[name]

    def create_execution_context(self):
        return Context(self.session, self.profile)


class Builder:
    def __init__(self, logger):
        self.profile = {}

    def create_network(self, flags):
        assert flags == 1 << 1
        return SimpleNamespace()

    def create_builder_config(self):
        return SimpleNamespace(clear_flag=cleared.append, add_optimization_profile=lambda p: None)

    def create_optimization_profile(self):
        return SimpleNamespace(set_shape=lambda name, *shapes: self.profile.update({name: shapes}))

    def build_serialized_network(self, network, config):
        if refused == 'build':
            return None
        return json.dumps(dict(graph=network.graph.hex(), profile=self.profile)).encode()


class Parser:
    num_errors = 1

    def __init__(self, network, logger):
        self.network = network

    def parse(self, graph):
        self.network.graph = graph
        return refused != 'parse'

    def get_error(self, place):
        return f'node {place}: no importer for GridSample'


cleared, refused = [], ''
STAND_IN = SimpleNamespace(
    __version__='11.4.0',
    Logger=type('Logger', (), dict(ERROR=1, __init__=lambda self, level: None)),
    NetworkDefinitionCreationFlag=enum.IntEnum('Flag', dict(STRONGLY_TYPED=1)),
    BuilderFlag=SimpleNamespace(TF32='TF32'),
    Builder=Builder,
    OnnxParser=Parser,
    Runtime=lambda logger: SimpleNamespace(
        deserialize_cuda_engine=lambda plan: None if refused == 'load' else Engine(plan)
    ),
)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU with TensorRT; its memory is that of the CPU."""
    monkeypatch.setitem(sys.modules, 'tensorrt', STAND_IN)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device', lambda device: nullcontext())
    stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: stream)
    monkeypatch.setattr(runtimes, '_gpu', lambda name: torch.device('cpu'))


def exported_engine(tiny, checkpoint, folder, **settings):
    target = str(folder / 'tiny.engine')
    return export(tiny[0], checkpoint, format='tensorrt', target=target, **settings)


def test_an_engine_stands_in_the_place_of_a_checkpoint(
    tiny, checkpoint, detector, findable, toy, tmp_path, gpu, monkeypatch
):
    cleared.clear()
    file, found = exported_engine(tiny, checkpoint, tmp_path)
    assert cleared == ['TF32']
    assert found.lost == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ['tiny.engine', 'tiny.json']
    facts = json.loads((tmp_path / 'tiny.json').read_text())
    assert facts['classes'][0] == 'circle'
    assert default_device(file) == 'cuda'
    engine = load_detector(tiny[0], str(file), 'cuda')
    path = str(min((toy / 'val2017').glob('*')))
    ours, theirs = (inference_detector(m, path).pred_instances for m in (engine, detector))
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)  # others ask it too
    settings = dict(work_dir=str(tmp_path / 'test'), cfg_options=findable)
    assert evaluate(tiny[0], str(file), **settings)['coco/bbox_mAP'] > 0.2
    record = json.loads((tmp_path / 'test' / 'metrics.json').read_text())
    assert record['inference'] == {'runtime': 'tensorrt'}


@pytest.mark.slow
def test_float16_is_that_of_the_graph_and_compared(tiny, checkpoint, tmp_path, gpu):
    """TensorRT 11 takes precision from nowhere else."""
    file, found = exported_engine(tiny, checkpoint, tmp_path, dtype='fp16', size=(128, 384))
    assert 0 < found.scores < 1e-2
    graph = onnx.load_from_string(bytes.fromhex(json.loads(file.read_text())['graph'])).graph
    kinds = {weight.data_type for weight in graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert json.loads(file.read_text())['profile']['images'] == [
        [n, 3, 128, 384] for n in (1, 1, 4)
    ]


@pytest.mark.slow
def test_an_engine_takes_what_it_was_built_for(tiny, checkpoint, tmp_path, gpu):
    file, _ = exported_engine(tiny, checkpoint, tmp_path, batch=1)
    network = runtimes.open_network(file, 'cuda')
    assert network.shape == [1, 3, None, None]
    image, sizes = np.zeros((1, 3, 16, 64), np.uint8), np.array([[16, 64]])
    with pytest.raises(
        ValueError, match=r'images of shape \(1, 3, 16, 64\) do not fit .* \(1, 3, 32, 32\) to '
    ):
        network(image, sizes)
    (tmp_path / 'tiny.json').unlink()
    with pytest.raises(UserError, match=r'what is known of it, tiny\.json, is not beside'):
        runtimes.open_network(file, 'cuda')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('place', 'says'),
    [
        ('parse', 'TensorRT 11.4.0 does not take the graph .*no importer for GridSample'),
        ('build', 'TensorRT 11.4.0 builds no engine'),
        ('load', 'an engine runs with the version'),
    ],
)
def test_what_tensorrt_refuses_is_said_and_nothing_written(
    place, says, tiny, checkpoint, tmp_path, gpu, monkeypatch
):
    monkeypatch.setattr(sys.modules[__name__], 'refused', place)
    with pytest.raises(UserError, match=says):
        exported_engine(tiny, checkpoint, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu_one_line_and_no_work(tiny, tmp_path, monkeypatch):
    with pytest.raises(UserError, match='PyTorch sees none') as refusal:
        export(tiny[0], str(tmp_path / 'none.pth'), format='tensorrt')
    assert '\n' not in str(refusal.value)
    (tmp_path / 'a.engine').touch()
    (tmp_path / 'a.json').write_text('{}')
    for device in ('cpu', 'cuda'):
        with pytest.raises(UserError, match=f'device {device}: TensorRT engines run on an NVIDIA'):
            runtimes.open_network(tmp_path / 'a.engine', device)


def test_without_tensorrt_the_extra_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setitem(sys.modules, 'tensorrt', None)
    with pytest.raises(UserError, match=r"pip install 'mpvit\[tensorrt\]'"):
        export(tiny[0], str(tmp_path / 'none.pth'), format='tensorrt')
