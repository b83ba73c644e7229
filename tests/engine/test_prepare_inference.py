"""Detectors made ready for inference: nothing but precision and speed may change."""

import copy
import os
import shutil

import pytest
import torch
from agreement import agreement, detections
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from parity_detector import TOLERANCES, DetectorParity
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mpvit.config.reading import load_config
from mpvit.engine.hooks.prepare_inference import PrepareInferenceHook, prepare
from mpvit.errors import UserError


@pytest.fixture(scope='module')
def tiny(root):
    """The tiny detector with batch norm statistics that are not those of the start."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(load_config(root / 'tests' / 'data' / 'tiny.py').model)
    model.init_weights()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


@pytest.mark.parametrize('name', ['mpvit_small', 'coat_small', 'r50'])
def test_folded_detectors_equal_the_official_ones(name):
    parity = DetectorParity(name)
    norms = sum(isinstance(m, _BatchNorm) for m in parity.model.modules())
    assert (norms > 0) == (name != 'coat_small')  # CoaT has layer norms only
    prepare(parity.model)
    assert not any(isinstance(m, _BatchNorm) for m in parity.model.modules())
    with torch.no_grad():
        parity.forward()
    errors = {**parity.forward_errors(), **parity.detection_errors()}
    print({key: f'{error:.1e}' for key, error in errors.items()})
    assert len(errors) == 6
    for key, error in errors.items():
        assert error < TOLERANCES[key][0], f'{key}: {error:.1e}'


@pytest.mark.parametrize(
    ('name', 'dtype', 'share', 'difference'),
    # measured: 97.5% and 0.0061, 100% and 0.0023, 100% and 0.0008
    [
        ('mpvit_small', 'bf16', 0.94, 0.02),
        ('r50', 'bf16', 0.97, 0.01),
        ('mpvit_small', 'fp16', 0.99, 0.003),
    ],
)
def test_lower_precision_finds_the_same(name, dtype, share, difference):
    parity = DetectorParity(name)
    parity.model.eval()
    expected = detections(parity)
    prepare(parity.model, dtype)
    actual = detections(parity)
    assert all(parameter.dtype != torch.float64 for parameter in parity.model.parameters())
    assert parity.logits.dtype == parity.boxes.dtype == torch.float32
    found, worst = agreement(expected, actual)
    print(f'{found:.1%} agree, scores differ by {worst:.4f}')
    assert 0 < worst < difference  # 0 would mean that nothing was computed in lower precision
    assert found > share


def test_agreement_counts_each_counterpart_once():
    def found(boxes, scores, labels):
        return InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32),
            scores=torch.tensor(scores),
            labels=torch.tensor(labels),
        )

    box, shifted, far = [0, 0, 100, 100], [2, 0, 102, 100], [50, 0, 150, 100]
    references = [found([box, box, far, far], [0.9, 0.8, 0.7, 0.6], [1, 1, 1, 1])]
    others = [found([shifted, far, far], [0.85, 0.7, 0.6], [1, 1, 2])]
    share, difference = agreement(references, others)
    assert share == 2 / 4
    assert difference == pytest.approx(0.05, abs=1e-6)


def test_what_can_be_folded_is_and_the_rest_stays(tiny):
    model = prepare(copy.deepcopy(tiny))
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    convolutions = [
        m for m in model.modules() if isinstance(m, nn.Conv2d) and m.kernel_size > (1, 1)
    ]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in convolutions)
    assert all(isinstance(m.conv.bias, nn.Parameter) for m in model.backbone.modules()
               if isinstance(m, ConvModule))  # fmt: skip
    assert any(isinstance(m, nn.GroupNorm) for m in model.neck.modules())
    assert any(isinstance(m, nn.LayerNorm) for m in model.encoder.modules())
    kept = prepare(copy.deepcopy(tiny), fold=False)
    assert kept.state_dict().keys() == tiny.state_dict().keys()


def test_sampling_locations_and_boxes_stay_exact(tiny, monkeypatch):
    seen = []

    def attention(value, shapes, locations, weights):
        seen.append((value.dtype, locations.dtype))
        return value.new_zeros(*locations.shape[:2], value.shape[2] * value.shape[3])

    monkeypatch.setattr('mpvit.ops.msda.module.ms_deform_attn', attention)
    model = prepare(copy.deepcopy(tiny), 'bf16')
    inputs = model.data_preprocessor(batch_of(120, 100))
    with torch.no_grad():
        results = model(**inputs, mode='predict')
    assert seen == [(torch.bfloat16, torch.float32)] * 3  # one layer of the encoder, two after it
    assert results[0].pred_instances.bboxes.dtype == torch.float32
    assert results[0].pred_instances.scores.dtype == torch.float32


def batch_of(*size):
    from mmdet.structures import DetDataSample

    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 255, (3, *size), generator=generator, dtype=torch.uint8)
    sample = DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1, 1)))
    return dict(inputs=[image], data_samples=[sample])


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which(os.environ.get('CXX', 'g++')) is None, reason='needs g++, a C++ compiler'
)
def test_compiled_detector_gives_the_same_for_any_size(tiny):
    eager, compiled = prepare(copy.deepcopy(tiny)), prepare(copy.deepcopy(tiny), compile=True)
    for size in ((120, 100), (128, 260)):
        outputs = []
        for model in (eager, compiled):
            with torch.no_grad():
                outputs.append(model(**model.data_preprocessor(batch_of(*size)), mode='tensor'))
        for expected, actual in zip(*outputs, strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_compiling_needs_a_compiler(tiny, monkeypatch):
    monkeypatch.setenv('CXX', '/nowhere/g++')
    with pytest.raises(UserError, match='/nowhere/g'):
        prepare(copy.deepcopy(tiny), compile=True)


def test_what_cannot_be_prepared_is_refused(tiny):
    with pytest.raises(UserError, match='int8.*bf16'):
        prepare(copy.deepcopy(tiny), 'int8')
    with pytest.raises(UserError, match='Conv2d'):
        prepare(nn.Conv2d(3, 3, 1), 'bf16')


def test_hook_reaches_the_detector_inside_its_wrappers(tiny):
    from types import SimpleNamespace

    from mmdet.models import DetTTAModel
    from mmengine.logging import MMLogger

    model = copy.deepcopy(tiny)
    wrapped = DetTTAModel(module=model, tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5)))
    runner = SimpleNamespace(model=wrapped, logger=MMLogger.get_current_instance())
    PrepareInferenceHook().before_test(runner)
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
