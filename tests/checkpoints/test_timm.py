"""timm's ImageNet files of CoaT: timm's own model against our backbone with the same file."""

import pytest
import safetensors.torch
import timm
import torch

from mpvit.checkpoints import loading
from mpvit.checkpoints.loading import load_from_local
from mpvit.models.coat import CoaT

SIZE = (64, 96)  # where both agree to the last bits: multiples of 32
MAPS = ['x1_nocls', 'x2_nocls', 'x3_nocls', 'x4_nocls']


def saved(model, kind, folder):
    """The model's classifier in a file, which holds shared tensors several times or once."""
    file = folder / f'model.{"bin" if kind == "bin" else "safetensors"}'
    weights = model.state_dict()
    if kind == 'bin':
        torch.save(weights, file)
    elif kind == 'copies':
        safetensors.torch.save_file({n: value.clone() for n, value in weights.items()}, file)
    else:
        safetensors.torch.save_model(model, str(file))  # one name of each tensor, any of them
    return file


@pytest.fixture(scope='module', params=['lite_small', 'small'])
@torch.no_grad()
def classifier(request):
    """Arch of a model of timm, and the model, none of whose tensors is all zeros or ones."""
    torch.manual_seed(0)
    model = timm.create_model(f'coat_{request.param}', img_size=SIZE)
    for value in model.parameters():  # shared ones once
        value.add_(0.05 * torch.randn_like(value))
    return request.param, model


@torch.no_grad()
def test_file_of_timm_gives_the_features_of_timm(classifier, tmp_path):
    arch, model = classifier
    theirs = timm.create_model(
        f'coat_{arch}', img_size=SIZE, return_interm_layers=True, out_features=MAPS
    ).eval()
    theirs.load_state_dict(model.state_dict(), strict=False)  # this one has no head
    checkpoint = str(saved(model, 'once', tmp_path))
    init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    ours = CoaT(arch, out_indices=(0, 1, 2, 3), init_cfg=init_cfg).eval()
    ours.init_weights()
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    expected = theirs(images)
    for name, found in zip(MAPS, ours(images), strict=True):
        largest = expected[name].abs().max()
        error = ((found - expected[name]).abs().max() / largest).item()
        print(f'{arch} {name}: largest difference {error:.1e} of the largest, {largest:.1f}')
        assert error < 1e-5, name


def test_every_kind_of_file_holds_the_same(classifier, tmp_path, monkeypatch):
    arch, model = classifier
    lines: list[str] = []
    monkeypatch.setattr(loading, 'print_log', lambda line, **_: lines.append(line))
    kinds = ('bin', 'copies', 'once')
    found = [load_from_local(str(saved(model, kind, tmp_path)))['state_dict'] for kind in kinds]
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], value) for name, value in found[0].items())
    left_out = {'lite_small': 4, 'small': 10}[arch]  # head, norms, and what joins three maps
    assert sum(f'{left_out} dropped: ImageNet classifier' in line for line in lines) == 3
