"""Official names of CoaT's tensors, to ours and back."""

import json

import pytest

from mpvit.checkpoints.names_coat import coat_from_official, coat_layers, coat_to_official
from mpvit.models.coat import ARCHS, CoaT

FOREIGN = [
    'layer1.0.conv1.weight',
    'patch_embed.proj.weight',
    'patch_embed5.proj.weight',
    'cls_token',
    'cls_token1.weight',
    'serial_blocks1.0.attn.qkv.weight',
    'parallel_blocks.0.norm11.weight',
    'cpe1.proj.weight.extra',
    'backbone.0.backbone.cls_token1',
]


@pytest.fixture(params=ARCHS)
def official(request, root):
    """Arch, shapes and aliases of the official file."""
    path = root / 'tests' / 'data' / 'parity' / 'keys' / f'backbone_coat_{request.param}.json'
    keys = json.loads(path.read_text())
    return request.param, keys['keys'], keys['aliases']


def test_every_official_name_is_known(official):
    arch, shapes, aliases = official
    ours = {name: coat_from_official(name) for name in shapes}
    assert {name for name, our in ours.items() if our is None} == set(aliases)
    named = {our: shapes[name] for name, our in ours.items() if our is not None}
    assert named == {name: list(v.shape) for name, v in CoaT(arch).state_dict().items()}


def test_round_trip(official):
    arch, shapes, aliases = official
    ours = CoaT(arch).state_dict()
    layers = coat_layers(ours)
    assert layers == (ARCHS[arch]['num_layers'], ARCHS[arch]['parallel_layers'])
    back = []
    for name in ours:
        canonical, *copies = coat_to_official(name, layers)
        assert coat_from_official(canonical) == name
        assert {aliases[copy] for copy in copies} <= {canonical}
        back += [canonical, *copies]
    assert sorted(back) == sorted(shapes)


@pytest.mark.parametrize('name', ['norm1.weight', 'norm4.bias', 'head.weight', 'aggregate.bias'])
def test_classifier_is_left_out(name):
    assert coat_from_official(name) is None


@pytest.mark.parametrize('name', FOREIGN)
def test_foreign_names_are_refused(name):
    with pytest.raises(KeyError, match='official CoaT'):
        coat_from_official(name)


@pytest.mark.parametrize('name', ['cpe1.proj.weight', 'stages.0.aggregate.conv.weight', ''])
def test_names_that_are_not_ours_are_refused(name):
    with pytest.raises(KeyError, match='our CoaT'):
        coat_to_official(name, ((2, 2, 2, 2), 6))
