"""Whole checkpoints, there and back."""

import argparse
import math

import numpy as np
import pytest
import torch
from parity_detector import CONFIGS

from mpvit.checkpoints.class_layers import (
    UNUSED_BIAS,
    class_names,
    official_rows,
    other_rows,
    remap_classes,
)
from mpvit.checkpoints.coco_categories import COCO_IDS, COCO_NAMES
from mpvit.checkpoints.compatibility import check_fit
from mpvit.checkpoints.conversion import convert_file, to_hugging_face, to_official, to_ours
from mpvit.checkpoints.formats import weights_of
from mpvit.checkpoints.loading import load_from_local
from mpvit.checkpoints.reading import read
from mpvit.errors import UserError

BACKBONES = [
    *('mpvit_tiny', 'mpvit_xsmall', 'mpvit_small', 'mpvit_base'),
    *('coat_lite_small', 'coat_small', 'resnet50'),
]

MODEL = {'a.weight': torch.zeros(2, 3), 'a.bias': torch.zeros(2), 'head.weight': torch.zeros(5)}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize('name', CONFIGS)
def test_detector_comes_back_bit_for_bit(official, detector, name, tmp_path):
    weights = official(f'detector_{name}')
    ours, report = to_ours({'model': weights, 'epoch': 49, 'args': argparse.Namespace(lr=1)})
    check_fit(ours, detector(name).state_dict())
    assert len(class_names(ours)) == 80
    assert report.matched + sum(map(len, report.dropped.values())) == len(weights)
    torch.save(ours, tmp_path / 'ours.pth')
    back, report = to_official(torch.load(tmp_path / 'ours.pth', weights_only=True))
    assert_equal(back['model'], weights)
    assert 'the others are those of the official file' in ' '.join(report.lines())


@pytest.mark.parametrize('name', BACKBONES)
def test_backbone_comes_back_bit_for_bit(official, name):
    weights = official(f'backbone_{name}')
    ours, _ = to_ours({'model': weights})
    back, _ = to_official(ours)
    # torchvision's own files may have the counters; the list of names has none
    assert_equal(back['model'], weights)


@pytest.mark.parametrize('name', [name for name in CONFIGS if name.startswith('r50')])
def test_detector_comes_back_from_hugging_face_bit_for_bit(official, name):
    weights = official(f'detector_{name}')
    theirs, _ = to_hugging_face(to_ours({'model': weights})[0])
    assert 'model.decoder.layers.5.self_attn.v_proj.bias' in theirs
    ours, report = to_ours(theirs)
    assert report.lines()[0].startswith('Hugging Face detector')
    assert_equal(to_official(ours)[0]['model'], weights)


def test_tensors_alone_are_written_as_safetensors(official, tmp_path):
    source, target = tmp_path / 'official.pth', tmp_path / 'ours.safetensors'
    weights = official('detector_r50_refine')
    name = 'input_proj.3.0.weight'  # as a training leaves it
    weights[name] = weights[name].to(memory_format=torch.channels_last)
    torch.save({'model': weights}, source)
    report = convert_file(source, target)
    assert 'left out: .safetensors holds tensors only' in report.lines()[-1]
    ours, _ = to_ours({'model': official('detector_r50_refine')})
    assert_equal(read(target), ours['state_dict'])
    assert read(target, 'cpu').keys() == load_from_local(str(target)).keys()
    convert_file(target, tmp_path / 'official.safetensors', to='official')
    found = read(tmp_path / 'official.safetensors')
    assert_equal(to_ours(found)[0]['state_dict'], ours['state_dict'])


def test_classifier_comes_back_bit_for_bit(official):
    weights = official('backbone_mpvit_tiny')
    head = {'cls_head.cls.weight': torch.rand(1000, 216), 'cls_head.cls.bias': torch.rand(1000)}
    ours, report = to_ours({'model': weights | head})
    assert ours['state_dict']['head.fc.bias'] is head['cls_head.cls.bias']
    rest = [name for name in ours['state_dict'] if not name.startswith('backbone.')]
    assert rest == ['head.fc.weight', 'head.fc.bias']
    assert 'official classifier' in report.lines()[0]
    back, _ = to_official(ours)
    assert_equal(back['model'], weights | head)


def test_imagenet_classifier_and_counters_are_dropped_and_told(official):
    weights = official('backbone_coat_lite_small')
    _, report = to_ours({'model': weights | {'head.weight': torch.zeros(2)}})
    assert '1 dropped: ImageNet classifier (head.weight, ...)' in '\n'.join(report.lines())
    weights = official('backbone_mpvit_tiny')
    _, report = to_ours({'model': weights | {'stem.total_ops': torch.zeros(1)}})
    text = '\n'.join(report.lines())
    assert '1 dropped: counter of a profiler (stem.total_ops, ...)' in text
    assert '322 dropped: copy of another tensor, verified equal' in text


def test_moving_average_is_taken_only_when_asked_for(official):
    weights = official('backbone_mpvit_tiny')
    average = {name: value + 1 for name, value in weights.items()}
    checkpoint = {'model': weights, 'model_ema': average}
    name = 'stem.0.conv.weight'
    assert torch.equal(to_ours(checkpoint)[0]['state_dict'][name], weights[name])
    assert torch.equal(to_ours(checkpoint, ema=True)[0]['state_dict'][name], average[name])
    with pytest.raises(UserError, match='model_ema'):
        to_ours({'model': weights}, ema=True)
    with pytest.raises(UserError, match='EMA'):
        to_ours({'model_ema': average})


def test_mmengine_saves_the_moving_average_as_the_weights(official):
    ours, _ = to_ours({'model': official('backbone_mpvit_tiny')})
    plain = {f'module.{name}': value + 1 for name, value in ours['state_dict'].items()}
    checkpoint = {**ours, 'ema_state_dict': {**plain, 'steps': torch.tensor(3)}}
    for ema in (False, True):
        assert_equal(to_official(checkpoint, ema)[0]['model'], official('backbone_mpvit_tiny'))
    assert_equal(weights_of({**ours, 'ema_state_dict': 5}), weights_of(ours))  # no average


def test_unknown_names_are_an_error(official):
    weights = official('detector_r50')
    weights['transformer.extra.weight'] = torch.zeros(1)
    with pytest.raises(UserError, match=r'1 unexpected tensors \(transformer\.extra\.weight\)'):
        to_ours({'model': weights})


def test_other_forms_are_left_alone():
    assert to_ours({'state_dict': {'bbox_head.x': torch.zeros(1), 'backbone.x': 0}}) is None
    assert to_ours({'anything': 1}) is None
    with pytest.raises(UserError, match='found official detector'):
        to_official({'model': {'transformer.x': 0, 'class_embed.0.bias': 0}})


def test_rows_without_a_known_value_are_never_detected(official):
    ours, _ = to_ours({'model': official('detector_r50')})
    back, report = to_official({'state_dict': ours['state_dict']})
    bias = back['model']['class_embed.0.bias']
    assert bias[other_rows()].eq(UNUSED_BIAS).all()
    assert back['model']['class_embed.0.weight'][other_rows()].eq(0).all()
    assert 'weight 0 and bias -13.8' in ' '.join(report.lines())


def test_class_layers_of_another_size_stay(official):
    weights = {
        name: value[:21] if name.startswith('class_embed.') else value
        for name, value in official('detector_r50').items()
    }
    ours, report = to_ours({'model': weights})
    assert len(ours['state_dict']['bbox_head.cls_branches.0.bias']) == 21
    assert class_names(ours) is None
    assert 'class layers of 21 channels' in ' '.join(report.lines())
    assert_equal(to_official(ours)[0]['model'], weights)


def test_classes_of_the_same_name_keep_their_rows():
    old = {f'bbox_head.cls_branches.{i}.bias': torch.arange(3.0) + 10 * i for i in (5, 6)}
    old['memory_trans_fc.weight'] = torch.zeros(1)  # two stages: layer 6 scores proposals
    model = {**old} | {name: torch.full((4,), -4.595) for name in old if 'cls' in name}
    result, kept = remap_classes(old, model, ['a', 'b', 'c'], ['b', 'x', 'a', 'c'])
    assert kept == ['b', 'a', 'c']
    decoder, proposals = (result[f'bbox_head.cls_branches.{i}.bias'].tolist() for i in (5, 6))
    assert decoder == pytest.approx([51, -4.595, 50, 52])
    # channel 0 means 'object' and stays; 'a' had no channel of its own
    assert proposals == pytest.approx([60, -4.595, -4.595, 62])
    result, kept = remap_classes(old, model, None, ['b', 'x', 'a', 'c'])
    assert kept == []
    assert result['bbox_head.cls_branches.5.bias'].tolist() == pytest.approx([-4.595] * 4)


def test_coco_table_is_that_of_the_libraries():
    from mmdet.datasets import CocoDataset
    from parity_fill import COCO_IDS as EXPECTED

    assert COCO_IDS == EXPECTED
    assert COCO_NAMES == CocoDataset.METAINFO['classes']


def test_class_rows_are_taken_by_category_id(official):
    weights = official('detector_r50')
    ours = to_ours({'model': weights})[0]['state_dict']['bbox_head.cls_branches.5.weight']
    assert torch.equal(ours[0], weights['class_embed.5.weight'][1])  # person
    assert torch.equal(ours[79], weights['class_embed.5.weight'][90])  # toothbrush
    assert official_rows() == list(COCO_IDS)


def test_objectness_of_proposals_stays_the_first_channel(official):
    weights = official('detector_r50_refine_two_stage')
    ours = to_ours({'model': weights})[0]['state_dict']
    proposals, decoder = (ours[f'bbox_head.cls_branches.{i}.bias'] for i in (6, 5))
    # proposals are ranked by channel 0, which means 'object' in the official file
    assert proposals[0] == weights['class_embed.6.bias'][0]
    assert proposals[1] == weights['class_embed.6.bias'][2]
    assert decoder[0] == weights['class_embed.5.bias'][1]


@pytest.mark.parametrize(
    ('name', 'copy'),
    [
        ('r50', 'bbox_embed.3.layers.1.weight'),
        ('r50_refine', 'transformer.decoder.bbox_embed.2.layers.0.bias'),
        ('r50_refine_two_stage', 'transformer.decoder.class_embed.6.bias'),
        (
            'mpvit_small',
            'backbone.0.backbone.mhca_stages.1.mhca_blks.2.MHCA_layers.1.crpe.conv_list.0.weight',
        ),
    ],
)
def test_copy_with_other_values_is_an_error(official, name, copy):
    weights = official(f'detector_{name}')
    weights[copy] = weights[copy] + 1
    with pytest.raises(UserError, match=copy):
        to_ours({'model': weights})


def test_same_tensors_fit_with_or_without_wrapping():
    check_fit(MODEL, MODEL)
    check_fit({'state_dict': MODEL, 'meta': {}}, MODEL)
    wrapped = {f'module.{name}': value for name, value in MODEL.items()}
    check_fit({'state_dict': wrapped}, MODEL)
    assert set(weights_of({'state_dict': wrapped})) == set(MODEL)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'a.bias': None}, r'1 missing \(a.bias\) of 3 tensors'),
        ({'b': torch.zeros(1)}, r'1 unexpected \(b\) of 3'),
        ({'a.weight': torch.zeros(3, 2)}, r'1 of another shape \(a.weight \(3, 2\) instead of'),
        ({'a.weight': 'text'}, r'a.weight \(\) instead of \(2, 3\)'),
        ({c: torch.zeros(1) for c in 'bcdef'}, r'5 unexpected \(b, c, d, ...\)'),
    ],
)
def test_difference_is_named(change, message):
    found = {k: v for k, v in {**MODEL, **change}.items() if v is not None}
    with pytest.raises(UserError, match=message):
        check_fit(found, MODEL)


ODD = torch.zeros(2, 3)
ODD[1, 2] = math.nan


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (ODD, 'a.weight holds NaN or infinity in 1 of 6 values'),
        (torch.full((2, 3), math.inf), 'a.weight holds NaN or infinity in 6 of 6'),
        (torch.full((2, 3), 1e300, dtype=torch.double), 'infinity in 6 of 6'),  # in 32 bits
        (torch.zeros(2, 3).to_sparse(), 'a.weight is sparse'),
        (torch.zeros(2, 3, device='meta'), 'a.weight is sparse or without values'),
        (torch.tensor([[math.inf, -math.inf, 0]] * 2), 'in 4 of 6'),
        (ODD.half(), 'in 1 of 6'),
        (torch.zeros(2, 3, dtype=torch.bool), 'a.weight holds numbers of the kind bool'),
        (torch.zeros(2, 3, dtype=torch.int8), 'int8, where the model has float32'),
        (torch.zeros(2, 3, dtype=torch.complex64), 'complex64'),
        (torch.zeros(2, 3).to(torch.float8_e4m3fn), 'float8_e4m3fn'),
        (np.zeros((2, 3), np.float32), 'a.weight is a ndarray, not a tensor'),
    ],
)
def test_what_is_no_weight_is_refused_by_name(value, message):
    with pytest.raises(UserError, match=message):
        check_fit({**MODEL, 'a.weight': value}, MODEL)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_fit(dtype):
    """Also where their sum is beyond the type, as it is with half precision."""
    check_fit({name: torch.full_like(w, 60_000, dtype=dtype) for name, w in MODEL.items()}, MODEL)
    counter = dict(seen=torch.tensor(3))
    check_fit(dict(seen=torch.tensor(3, dtype=dtype)), counter)
    check_fit(dict(seen=torch.tensor(3, dtype=torch.int32)), counter)
    with pytest.raises(UserError, match='seen holds numbers of the kind bool'):
        check_fit(dict(seen=torch.tensor(True)), counter)


def test_what_is_one_tensor_in_the_model_must_be_one_in_the_file():
    shared = torch.zeros(2)
    model = {'a': shared, 'b': shared}
    check_fit({'a': torch.ones(2), 'b': torch.ones(2)}, model)
    with pytest.raises(UserError, match='b and a'):
        check_fit({'a': torch.ones(2), 'b': torch.zeros(2)}, model)
