"""Backends timed on a GPU that is not there: the clock is given, and so is what it reads."""

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from mpvit.errors import UserError
from mpvit.ops.msda import selection as choice

CUDA = torch.device('cuda', 0)
KIND = choice.Kind('forward', 'float32', 'float32', 32, 8, 4, 4, 14, 'float32')


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU of some name whose candidates return how long they take."""
    machine = SimpleNamespace(name='card', capturing=False, measured=0, folder=tmp_path / 'cache')

    def time(run):
        machine.measured += 1
        return run()

    monkeypatch.setenv(choice.VARIABLE, str(machine.folder))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: machine.name)
    monkeypatch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: machine.capturing)
    monkeypatch.setattr(choice, 'cuda_milliseconds', time)
    forget()
    yield machine
    forget()


def forget():
    """As a new process would."""
    choice.chosen.clear()
    choice.record.cache_clear()


def candidates(triton=1.0, cuda=2.0):
    return {'cuda': lambda: cuda, 'triton': lambda: triton}


def test_the_fastest_is_measured_once_and_kept_for_later_processes(gpu):
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'
    assert choice.fastest(KIND, candidates(triton=3.0), CUDA) == 'triton'
    assert gpu.measured == 2
    forget()
    assert choice.fastest(KIND, candidates(triton=3.0), CUDA) == 'triton'
    assert gpu.measured == 2
    (file,) = gpu.folder.rglob('*.json')
    kept = json.loads(file.read_text())
    assert kept['versions']['gpu'] == 'card'
    assert kept['versions']['torch'] == torch.__version__
    (entry,) = kept['choices'].values()
    assert entry == {'fastest': 'triton', 'milliseconds': {'cuda': 2.0, 'triton': 1.0}}


@pytest.mark.parametrize('field', ['direction', 'values', 'locations', 'rows', 'sums'])
def test_every_kind_of_input_is_measured(gpu, field):
    choice.fastest(KIND, candidates(), CUDA)
    value = 1 if field == 'rows' else 'other'
    other = KIND._replace(**{field: value})
    assert choice.fastest(other, candidates(triton=3.0), CUDA) == 'cuda'
    forget()
    assert choice.fastest(KIND, {'cuda': None, 'triton': None}, CUDA) == 'triton'


def test_other_candidates_are_measured_anew(gpu):
    choice.fastest(KIND, candidates(), CUDA)
    assert choice.fastest(KIND, {'cuda': lambda: 1.0}, CUDA) == 'cuda'


def test_another_card_and_other_versions_are_measured_anew(gpu, monkeypatch):
    choice.fastest(KIND, candidates(), CUDA)
    gpu.name = 'other card'
    forget()
    assert choice.fastest(KIND, candidates(triton=3.0), CUDA) == 'cuda'
    monkeypatch.setattr(torch, '__version__', '2.99')
    forget()
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'
    assert len(list(gpu.folder.rglob('*.json'))) == 3


@pytest.mark.parametrize(
    'content',
    [
        *('', '{', '[]', '{"choices": 3}', '{"choices": {"a": 1}}', '\0', '[' * 100_000),
        '{"choices": {"NAME": {"fastest": []}}}',
    ],
)
def test_a_broken_file_is_measured_over(gpu, content):
    file = choice.record(CUDA)
    file.parent.mkdir(parents=True)
    file.write_text(content.replace('NAME', choice._name(KIND, candidates())))
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'
    assert json.loads(file.read_text())['choices']


def test_a_folder_that_cannot_be_written_costs_the_record_alone(gpu):
    gpu.folder.write_text('no folder')
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'
    assert gpu.folder.read_text() == 'no folder'


@pytest.mark.parametrize('folder', ['~nobody-of-this-name/cache', 'off'])
def test_nothing_is_kept_where_that_is_turned_off_or_there_is_no_home(gpu, monkeypatch, folder):
    monkeypatch.setenv(choice.VARIABLE, folder)
    assert choice.record(CUDA) is None
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'


def test_the_folder_is_the_users_cache(gpu, monkeypatch, tmp_path):
    monkeypatch.delenv(choice.VARIABLE)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'own'))
    assert choice.record(CUDA).is_relative_to(tmp_path / 'own' / 'mpvit')
    choice.record.cache_clear()
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert choice.record(CUDA).is_relative_to(tmp_path / '.cache' / 'mpvit')


def test_while_a_graph_is_recorded_nothing_is_measured(gpu):
    gpu.capturing = True
    assert choice.fastest(KIND, candidates(), CUDA) == 'cuda'
    assert gpu.measured == 0
    gpu.capturing = False
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'
    gpu.capturing = True
    assert choice.fastest(KIND, candidates(), CUDA) == 'triton'


def test_failing_candidates_are_left_out_and_not_remembered(gpu):
    def fail():
        raise RuntimeError('no C compiler')

    with pytest.warns(UserWarning, match=r'triton backend fails here.*no C compiler'):
        assert choice.fastest(KIND, {'triton': fail, 'cuda': lambda: 1.0}, CUDA) == 'cuda'
    with pytest.warns(UserWarning, match='no C compiler'):
        assert choice.fastest(KIND, {'triton': fail}, CUDA) is None
    assert choice.fastest(KIND, {'triton': fail}, CUDA) is None  # without another warning
    assert not gpu.folder.exists()


def test_memory_that_only_one_candidate_has_is_enough_for_now(gpu):
    def exhaust():
        raise torch.OutOfMemoryError('CUDA out of memory')

    with pytest.raises(torch.OutOfMemoryError):
        choice.fastest(KIND, {'triton': exhaust}, CUDA)
    assert not choice.chosen
    assert choice.fastest(KIND, {'triton': exhaust, 'cuda': lambda: 2.0}, CUDA) == 'cuda'
    assert not gpu.folder.exists()


def test_a_wrong_setting_is_said_and_is_no_failure_of_a_backend(gpu):
    def refuse():
        raise UserError('MPVIT_MSDA_ATOMICS=nativ is no choice')

    with pytest.raises(UserError, match='nativ is no choice'):
        choice.fastest(KIND, {'triton': refuse, 'cuda': lambda: 2.0}, CUDA)


class FakeGpu:
    """Work takes a millisecond on its clock, and ten more if Python starts it."""

    def __init__(self, records):
        self.clock = 0
        self.records = records
        self.modes = []
        self.stream = 'own'

    def work(self):
        self.clock += 11

    def event(self, enable_timing):
        event = SimpleNamespace(synchronize=lambda: None)
        event.record = lambda: setattr(event, 'at', self.clock)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def graph(self, graph, capture_error_mode):
        self.modes.append(capture_error_mode)
        return self.recording()

    @contextmanager
    def recording(self):
        self.stream = 'of the recording'
        yield
        if not self.records:  # as torch does, which then does not put the stream back
            raise RuntimeError('operation failed due to a previous error during capture')
        self.stream = 'own'

    def set_stream(self, stream):
        self.stream = stream

    def new_graph(self):
        return SimpleNamespace(replay=lambda: setattr(self, 'clock', self.clock + 1))


@pytest.mark.parametrize(('records', 'milliseconds'), [(True, 1), (False, 11)])
def test_time_is_that_of_the_gpu_where_work_can_be_recorded(monkeypatch, records, milliseconds):
    fake = FakeGpu(records)
    monkeypatch.setattr(torch.cuda, 'Event', fake.event)
    monkeypatch.setattr(torch.cuda, 'graph', fake.graph)
    monkeypatch.setattr(torch.cuda, 'CUDAGraph', fake.new_graph)
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: fake.stream)
    monkeypatch.setattr(torch.cuda, 'set_stream', fake.set_stream)
    assert choice.cuda_milliseconds(fake.work) == milliseconds
    assert fake.modes == ['thread_local']
    assert fake.stream == 'own'
