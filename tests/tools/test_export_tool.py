"""tools/export.py as a user runs it, and tools/test.py on what it writes."""

import json


def test_export_then_test(tool, tiny, trained, tmp_path):
    config, places = tiny
    checkpoint, file = trained / 'epoch_2.pth', tmp_path / 'tiny.onnx'
    result = tool('export', config, checkpoint, '--format', 'onnx', '--out', file)
    assert result.status == 0, result.err
    assert f'{file}: largest difference from PyTorch over 7 images in 4 batches' in result.out
    assert [path.name for path in tmp_path.iterdir()] == ['tiny.onnx']

    arguments = ('--work-dir', tmp_path, '--cfg-options', *places)
    result = tool('test', config, file, *arguments)
    assert result.status == 0, result.err
    assert json.loads((tmp_path / 'metrics.json').read_text())['checkpoint'] == str(file)

    before = file.read_bytes()
    result = tool('export', config, checkpoint, '--out', file)
    assert result.status == 1
    assert str(file) in result.err
    assert file.read_bytes() == before
    result = tool('test', config, file, '--dtype', 'bf16', *arguments)
    assert result.status == 1
    assert '--dtype' in result.err


def test_detector_of_another_kind(tool, tmp_path):
    import torch
    from mmdet.registry import MODELS
    from mmengine.registry import init_default_scope

    init_default_scope('mmdet')
    config = tmp_path / 'fcos.py'
    config.write_text(
        "model = dict(type='FCOS', data_preprocessor=dict(type='DetDataPreprocessor'),"
        "backbone=dict(type='ResNet', depth=18, num_stages=1, strides=(1,), dilations=(1,),"
        'out_indices=(0,)),'
        "neck=dict(type='FPN', in_channels=[64], out_channels=32, num_outs=5),"
        "bbox_head=dict(type='FCOSHead', num_classes=2, in_channels=32, feat_channels=32))"
    )
    from mmengine.config import Config

    model = MODELS.build(Config.fromfile(config).model)
    checkpoint = tmp_path / 'fcos.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    result = tool('export', config, checkpoint)
    assert result.status == 1
    assert 'FCOS is not a Deformable DETR' in result.err
