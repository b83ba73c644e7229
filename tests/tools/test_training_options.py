"""What a training can be asked for, through the tool, on a handful of images."""

import torch

EVERY_PARAMETER = [
    'optim_wrapper.constructor=DefaultOptimWrapperConstructor',
    'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult=0.5',
]


def log_of(work):
    return '\n'.join(path.read_text() for path in sorted(work.glob('*/*.log')))


def test_resuming_a_training_with_a_group_for_every_parameter(tool, tiny, tmp_path):
    config, places = tiny
    common = (config, '--work-dir', tmp_path, '--cfg-options', *places)
    result = tool('train', *common, *EVERY_PARAMETER, 'train_cfg.max_epochs=1')
    assert result.status == 0, result.err
    result = tool('train', config, '--resume', *common[1:], EVERY_PARAMETER[1])
    assert result.status == 0, result.err
    assert 'groups of the checkpoint merged into 2.' in log_of(tmp_path)
    state = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    lrs = [group['lr'] for group in state['optimizer']['param_groups']]
    assert len(lrs) == 2
    assert min(lrs) == max(lrs) / 2
