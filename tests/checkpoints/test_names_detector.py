"""Names, copies and class rows of official detectors."""

import json

import pytest
import torch

from mpvit.checkpoints.class_layers import official_rows
from mpvit.checkpoints.coco_categories import COCO_IDS, COCO_NAMES
from mpvit.checkpoints.conversion import to_ours
from mpvit.checkpoints.names_detector import copies_of, detector_name_from_official
from mpvit.errors import UserError

DETECTORS = [
    'r50',
    'r50_refine',
    'r50_refine_two_stage',
    'mpvit_small',
    'coat_lite_small',
    'coat_small',
]


def test_coco_table_is_that_of_the_libraries():
    from mmdet.datasets import CocoDataset
    from parity_fill import COCO_IDS as EXPECTED

    assert COCO_IDS == EXPECTED
    assert COCO_NAMES == CocoDataset.METAINFO['classes']


@pytest.mark.parametrize('name', DETECTORS)
def test_copies_are_those_of_the_released_files(keys, name):
    listed = keys(f'detector_{name}')
    copies = copies_of(listed['keys'])
    # the list may name either of a pair as the original
    pairs = {frozenset(pair) for pair in copies.items()}
    assert pairs == {frozenset(pair) for pair in listed['aliases'].items()}


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


@pytest.mark.parametrize(
    'name', ['backbone.0.other.conv1.weight', 'backbone.0.backbone.x', 'transformer.x', 'x']
)
def test_unknown_name_is_an_error(name):
    with pytest.raises(KeyError, match='is not a tensor of'):
        detector_name_from_official(name)


def test_a_missing_repeated_tensor_is_named(root):
    """An official file without the first of the class layers that share their weights."""
    text = (root / 'tests/data/parity/keys/detector_r50.json').read_text()
    weights = {name: torch.zeros(1) for name in json.loads(text)['keys']}
    del weights['class_embed.0.weight']
    with pytest.raises(UserError, match=r'class_embed\.0\.weight, which class_embed\.\d\.weight'):
        to_ours({'model': weights})
