"""tools/export.py as a user runs it, and tools/test.py on what it writes."""

import json


def test_export_then_test(tool, tiny_run, refused, tiny, trained, tmp_path):
    checkpoint, file = trained / 'epoch_2.pth', tmp_path / 'tiny.onnx'
    result = tool('export', tiny[0], checkpoint, '--format', 'onnx', '--out', file)
    assert f'{file}: largest difference from PyTorch over 7 images in 4 batches' in result.out
    assert [path.name for path in tmp_path.iterdir()] == ['tiny.onnx']

    tiny_run('test', file, work=tmp_path)
    assert json.loads((tmp_path / 'metrics.json').read_text())['checkpoint'] == str(file)

    before = file.read_bytes()
    refused('export', tiny[0], checkpoint, '--out', file, says=[str(file)])
    assert file.read_bytes() == before
    tiny_run('test', file, '--dtype', 'bf16', work=tmp_path, run=refused, says=['--dtype'])


def test_detector_of_another_kind(refused, tmp_path):
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
    refused('export', config, checkpoint, says=['FCOS is not a Deformable DETR'])
