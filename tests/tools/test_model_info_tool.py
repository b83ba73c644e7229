"""tools/model_info.py as a user meets it."""

import json
import re

import pytest
import torch

TOY = 'configs/deformable_detr/mpvit_t_ddetr_toy.py'
COAT = 'configs/deformable_detr/coat_s_ddetr_50e.py'


def test_tables_and_file(tool, tmp_path):
    words = ['--size', 96, 128, '--size', 64, 64, '--per-module', '--runs', 2]
    result = tool('model_info', TOY, *words, '--json', tmp_path / 'info.json')
    assert 'Traceback' not in result.err
    rows = [line for line in result.out.splitlines() if line.startswith('| mpvit_t_ddetr_toy')]
    assert len(rows) == 2
    assert re.match(r'\| mpvit_t_ddetr_toy \| +1.5M \| +96x128 \| ', rows[0])
    assert 'Measured on ' in result.out
    assert result.out.count('| backbone.stages.2 ') == 2
    assert 'not counted' not in result.out

    (model,) = json.loads((tmp_path / 'info.json').read_text())
    assert [found['size'] for found in model['sizes']] == [[96, 128], [64, 64]]
    for found in model['sizes']:
        assert len(found['seconds']) == 2
        assert found['peak'] > 0
        parts = found['parts']
        total = parts.pop('total')
        assert total['parameters'] == 1_516_654
        outermost = [figures for name, figures in parts.items() if '.' not in name]
        for key, value in total.items():
            assert sum(figures[key] for figures in outermost) == pytest.approx(value), key


def test_counting_alone_measures_nothing(tool, tmp_path):
    target = tmp_path / 'info.json'
    words = ['--size', 96, 128, '--no-latency', '--no-memory', '--json', target]
    result = tool('model_info', TOY, *words)
    assert 'Measured on' not in result.out
    ((found,),) = [model['sizes'] for model in json.loads(target.read_text())]
    assert found['peak'] is None
    assert found['seconds'] == []
    assert found['parts']['total']['kept'] is None
    assert found['parts']['total']['multiply_adds'] > 0


def test_a_config_that_describes_no_detector(refused, tmp_path):
    config = tmp_path / 'own.py'
    config.write_text("model = dict(type='NoSuchDetector')\n")
    refused('model_info', config, '--no-latency', '--no-memory', says=['does not build'])


@pytest.mark.parametrize(
    'error',
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB.'),
    ],
)
def test_memory_that_runs_out_is_one_line(refused, monkeypatch, error):
    def fail(*arguments):
        raise error

    monkeypatch.setattr('mpvit.model_info.info.kept_for_backward', fail)
    words = 'out of memory; choose a smaller --size, or only count with --no-memory --no-latency'
    refused('model_info', TOY, '--size', 64, 64, says=[words])
