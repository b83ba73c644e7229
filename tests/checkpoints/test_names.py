"""Official names of tensors, to ours and back."""

import pytest
from mmdet.registry import MODELS

from mpvit.checkpoints.names import official_names, our_name
from mpvit.models.coat import ARCHS as COAT
from mpvit.models.mpvit import ARCHS as MPVIT

BACKBONES = [('MPViT', arch) for arch in MPVIT] + [('CoaT', arch) for arch in COAT]


@pytest.mark.parametrize(('kind', 'arch'), BACKBONES)
def test_names_of_a_backbone(keys, kind, arch):
    listed = keys(f'backbone_{kind.lower()}_{arch}')
    shapes, aliases = listed['keys'], listed['aliases']
    model = MODELS.build(dict(type=kind, arch=arch, out_indices=(0, 1, 2, 3))).state_dict()
    ours = {our_name(name): shape for name, shape in shapes.items()}
    assert ours == {name: list(value.shape) for name, value in model.items()}
    back = official_names(model)
    assert sorted(name for names in back.values() for name in names) == sorted(shapes)
    for canonical, *copies in back.values():
        assert canonical not in aliases
        assert {aliases[copy] for copy in copies} <= {canonical}


@pytest.mark.parametrize(
    'name',
    [
        *('norm1.weight', 'aggregate.bias', 'head.weight', 'fc.bias'),
        'backbone.0.backbone.cls_head.cls.weight',
    ],
)
def test_classifier_is_left_out(name):
    assert our_name(name) is None


def test_head_of_mpvits_classifier_has_a_name():
    assert our_name('cls_head.cls.bias') == 'head.fc.bias'
    assert official_names(['head.fc.bias']) == {'head.fc.bias': ['cls_head.cls.bias']}


@pytest.mark.parametrize(
    'name',
    [
        *('', 'x', 'transformer.x', 'backbone.0.other.conv1.weight', 'backbone.0.backbone.x'),
        *('patch_embed5.proj.weight', 'cls_token', 'cls_token1.weight', 'stages.0.local.x'),
    ],
)
def test_foreign_names_are_refused(name):
    with pytest.raises(KeyError, match='is not the name of a known tensor'):
        our_name(name)


@pytest.mark.parametrize('name', ['cpe1.proj.weight', 'stages.x', ''])
def test_names_that_are_not_ours_are_refused(name):
    with pytest.raises(KeyError, match='is not the name of a known tensor'):
        official_names([name])
