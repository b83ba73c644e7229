"""A tiny detector as a checkpoint and as exported files."""

import json

import pytest
import torch
from mmdet.apis import inference_detector
from torch import nn

from mpvit.config.reading import load_config
from mpvit.datasets.toy import CLASSES
from mpvit.export.files import export
from mpvit.inference import load_detector
from mpvit.model_info.info import random_detector


@pytest.fixture(scope='session')
def untrained():
    """Build the detector of a config with random weights whose detections differ in score."""

    def build(cfg) -> nn.Module:
        torch.manual_seed(0)
        model = random_detector(cfg)
        for layer in model.bbox_head.cls_branches:
            nn.init.normal_(layer.weight, std=0.1)
        for layer in model.bbox_head.reg_branches:
            nn.init.normal_(layer[-1].weight, std=0.05)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture(scope='session')
def checkpoint(tiny, untrained, tmp_path_factory):
    """Checkpoint file of a tiny detector."""
    file = tmp_path_factory.mktemp('checkpoint') / 'tiny.pth'
    state = untrained(load_config(*tiny)).state_dict()
    torch.save(dict(state_dict=state, meta=dict(dataset_meta=dict(classes=CLASSES))), file)
    return str(file)


@pytest.fixture
def detector(tiny, checkpoint):
    """The tiny detector in PyTorch; `inference_detector` of an array changes its config."""
    return load_detector(tiny[0], checkpoint)


@pytest.fixture(scope='session')
def onnx_file(tiny, checkpoint, tmp_path_factory):
    """ONNX file of the tiny detector, any batch and size."""
    target = tmp_path_factory.mktemp('exported') / 'tiny.onnx'
    return export(tiny[0], checkpoint, target=str(target))[0]


@pytest.fixture(scope='session')
def openvino_file(tiny, checkpoint, tmp_path_factory):
    """OpenVINO file of the tiny detector, any batch and size."""
    target = tmp_path_factory.mktemp('exported') / 'tiny.xml'
    return export(tiny[0], checkpoint, format='openvino', target=str(target))[0]


@pytest.fixture(scope='session')
def findable(tiny, checkpoint, toy, tmp_path_factory):
    """Overrides that test on objects near detections of the tiny detector: its AP is not 0."""
    detector = load_detector(tiny[0], checkpoint)
    truth = json.loads((toy / 'annotations' / 'instances_val2017.json').read_text())
    truth['annotations'] = []
    for image in truth['images']:
        found = inference_detector(detector, str(toy / 'val2017' / image['file_name']))
        instances = found.pred_instances
        for index in range(0, 40, 4):  # not the best ones only
            left, top, right, bottom = instances.bboxes[index].tolist()
            shift = (right - left) * 0.01 * (index % 7)  # overlaps of 0.9 and less
            size = [right - left, bottom - top]
            truth['annotations'].append(
                dict(
                    id=len(truth['annotations']) + 1,
                    image_id=image['id'],
                    category_id=truth['categories'][int(instances.labels[index])]['id'],
                    bbox=[left + shift, top, *size],
                    area=size[0] * size[1],
                    iscrowd=0,
                )
            )
    file = tmp_path_factory.mktemp('truth') / 'findable.json'
    file.write_text(json.dumps(truth))
    return [
        *tiny[1],
        f'test_evaluator.ann_file={file}',
        f'test_dataloader.dataset.ann_file={file}',
    ]
