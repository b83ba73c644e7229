"""What a training can be asked for, through the tool, on a handful of images."""

import json
import pickle

import pytest
import torch


def losses_of(work):
    (path,) = work.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [record['loss'] for record in records if 'loss' in record]


def test_bf16_trains_on_any_device(tiny_run, tmp_path):
    options = ['default_hooks.logger.interval=1', 'train_cfg.max_epochs=1']
    found = {}
    for name, flags in (('fp32', []), ('bf16', ['--amp', 'bf16'])):
        tiny_run('train', *flags, work=tmp_path / name, options=options)
        found[name] = losses_of(tmp_path / name)
    assert len(found['bf16']) == 2
    assert found['bf16'] != found['fp32']
    assert found['bf16'] == pytest.approx(found['fp32'], rel=0.05)
    state = torch.load(tmp_path / 'bf16' / 'epoch_1.pth', weights_only=False)
    assert 'loss_scaler' not in state['optimizer']
    assert {t.dtype for t in state['state_dict'].values()} == {torch.float32, torch.int64}


def test_average_of_the_weights_is_evaluated_saved_and_resumed(tool, tiny_run, tiny, tmp_path):
    config, places = tiny
    (tmp_path / 'ema.py').write_text(
        f"_base_ = '{config}'\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='SharedWeightsEMA', "
        'momentum=0.5)]\n'
        "val_evaluator = [dict(type='CocoBoxMetric', ann_file=''), dict(type='DumpDetResults', "
        f"out_file_path='{tmp_path}/validated.pkl')]\n"
    )
    listed = [place.replace('val_evaluator.', 'val_evaluator.0.') for place in places]
    work = tmp_path / 'work'  # a run writes its config there
    common = ('--work-dir', work, '--cfg-options', *listed)
    tool('train', tmp_path / 'ema.py', *common, 'train_cfg.max_epochs=1')
    first = torch.load(work / 'epoch_1.pth', weights_only=False)
    weight = 'bbox_head.cls_branches.0.weight'
    averaged, trained = first['state_dict'][weight], first['ema_state_dict'][f'module.{weight}']
    assert not torch.equal(averaged, trained)

    tool('train', tmp_path / 'ema.py', '--resume', *common)
    second = torch.load(work / 'epoch_2.pth', weights_only=False)
    assert second['ema_state_dict']['steps'] == 2 * first['ema_state_dict']['steps']
    # two steps on, the average lies between where it was and where the weights went
    assert not torch.equal(second['state_dict'][weight], averaged)

    tiny_run('test', work / 'epoch_2.pth', '--out', tmp_path / 'tested.pkl')
    validated, tested = (
        [found['pred_instances']['scores'] for found in pickle.loads(path.read_bytes())]
        for path in (tmp_path / 'validated.pkl', tmp_path / 'tested.pkl')
    )
    assert len(validated) == 6
    torch.testing.assert_close(validated, tested)  # so it was the average that was evaluated
