"""The lean layers equal those that they stand in for."""

import copy

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.cnn.bricks.transformer import FFN, MultiheadAttention
from mmdet.models.layers.transformer import DeformableDetrTransformerEncoderLayer
from mmdet.registry import MODELS
from torch import nn

from mpvit.models.detector import LeanEncoderLayer, use_lean_encoder
from mpvit.models.layers import (
    ConvPositionEncoding,
    ConvRelativePositionEncoding,
    TransformerLayer,
)
from mpvit.models.lean import (
    LeanAttention,
    LeanConvModule,
    LeanFFN,
    use_lean_layers,
)
from mpvit.ops.lean.linear import PointwiseLinear


def lean_and_mmcvs(**settings):
    torch.manual_seed(0)
    mmcvs = FFN(32, 64, **settings)
    lean = copy.deepcopy(mmcvs)
    use_lean_layers(lean)
    return lean, mmcvs


@pytest.mark.parametrize('training', [True, False])
def test_equals_mmcvs_without_dropout(training):
    lean, mmcvs = lean_and_mmcvs(ffn_drop=0.0 if training else 0.5)
    assert type(lean) is LeanFFN
    results = []
    for ffn in (lean.train(training), mmcvs.train(training)):
        inputs = torch.randn(2, 50, 32, generator=torch.Generator().manual_seed(1))
        inputs.requires_grad_()
        output = ffn(inputs)
        gradients = torch.autograd.grad(output.sin().sum(), [inputs, *ffn.parameters()])
        with torch.no_grad():
            results.append([output, *gradients, ffn(inputs), ffn(inputs, inputs + 1)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_dropout_has_the_same_mean():
    lean, mmcvs = lean_and_mmcvs(ffn_drop=0.3)
    inputs = torch.randn(1, 32).expand(20000, 32).contiguous()
    with torch.no_grad():
        ours, theirs = lean(inputs), mmcvs(inputs)
    error = theirs.std(dim=0) / 20000**0.5
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 7 * error).all()
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0.1, atol=0.01)


@pytest.mark.parametrize(
    'settings',
    [
        dict(act_cfg=dict(type='GELU')),
        dict(num_fcs=3),
        dict(add_identity=False),
        dict(layer_scale_init_value=0.1),
    ],
    ids=str,
)
def test_unusual_networks_stay_mmcvs(settings):
    lean, mmcvs = lean_and_mmcvs(**settings)
    assert type(lean) is FFN
    inputs = torch.randn(5, 32)
    torch.testing.assert_close(lean.eval()(inputs), mmcvs.eval()(inputs), rtol=1e-4, atol=1e-5)


def kept_by(call):
    """How many numbers are kept for the backward pass, beside parameters, and the output."""
    kept = {}

    def keep(tensor):
        if not (tensor.is_leaf and tensor.requires_grad):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // 4
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = call()
    return sum(kept.values()), output


MASKS = {
    'no mask': None,
    'one mask': torch.arange(50) > torch.arange(50)[:, None] + 20,
    'a bias for each head': torch.linspace(-9, 9, 8 * 50 * 50).view(8, 50, 50),
}


@pytest.mark.parametrize('mask', MASKS)
def test_attention_among_queries_equals_mmcvs_and_keeps_less(mask):
    torch.manual_seed(0)
    mmcvs = MultiheadAttention(32, 4, attn_drop=1e-9, batch_first=True)  # which drops nothing
    lean = copy.deepcopy(mmcvs)
    use_lean_layers(lean)
    assert type(lean.attn) is LeanAttention
    query, position = (torch.randn(2, 50, 32, requires_grad=True) for _ in range(2))
    results, kept = [], []
    for layer in (lean, mmcvs):
        count, output = kept_by(
            lambda layer=layer: layer(query, query_pos=position, attn_mask=MASKS[mask])
        )
        grads = torch.autograd.grad(output.sin().sum(), [query, position, *layer.parameters()])
        kept.append(count)
        with torch.autocast('cpu', torch.bfloat16):
            half = layer(query, query_pos=position, attn_mask=MASKS[mask])
        results.append([output, *grads, layer.eval()(query, attn_mask=MASKS[mask])])
        assert (half - output).norm() < 0.02 * output.norm()
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    weights = 2 * 4 * 50 * 50
    assert kept[1] - kept[0] > 1.9 * weights  # the mask and the product


@pytest.mark.parametrize(
    'settings', [dict(bias=False), dict(add_bias_kv=True), dict(kdim=16, vdim=16)], ids=str
)
def test_unusual_attention_stays_mmcvs(settings):
    layer = MultiheadAttention(32, 4, attn_drop=0.1, **settings)
    use_lean_layers(layer)
    assert type(layer.attn) is nn.MultiheadAttention


@pytest.mark.parametrize('drop', [0.0, 0.3])
@pytest.mark.parametrize(
    'norm', [dict(), dict(bias=False), dict(elementwise_affine=False)], ids=str
)
def test_encoder_layer_equals_mmdets_and_keeps_no_norm(drop, norm):
    torch.manual_seed(0)
    attention = dict(embed_dims=32, num_heads=4, num_levels=1, dropout=drop)
    sizes = dict(embed_dims=32, feedforward_channels=64, ffn_drop=drop)
    mmdets = DeformableDetrTransformerEncoderLayer(attention, sizes, dict(type='LN', **norm))
    use_lean_layers(mmdets)
    lean = copy.deepcopy(mmdets)
    use_lean_encoder(lean)
    assert type(lean) is LeanEncoderLayer
    query, position = (torch.randn(2, 35, 32, requires_grad=True) for _ in range(2))
    inputs = dict(
        spatial_shapes=torch.tensor([[5, 7]]),
        level_start_index=torch.tensor([0]),
        reference_points=torch.rand(2, 35, 1, 2),
    )
    results, kept = [], []
    for layer in (lean, mmdets):
        torch.manual_seed(1)
        count, output = kept_by(lambda layer=layer: layer(query, position, None, **inputs))
        grads = torch.autograd.grad(output.sin().sum(), [query, position, *layer.parameters()])
        kept.append(count)
        results.append([output, *grads, layer.eval()(query, position, None, **inputs)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    less = 2 * 35 * 32 if drop and not norm else 0
    assert abs(kept[1] - kept[0] - less) <= 2 * 2 * 35  # mean and deviation of each token


def test_transformer_layer_equals_the_plain_one():
    """Output and gradients, where maps are large enough to go image by image and where not."""
    torch.manual_seed(0)
    plain = TransformerLayer(64, 8, 4, drop_path=0.0)
    encodings = ConvPositionEncoding(64), ConvRelativePositionEncoding(8, {3: 2, 5: 3, 7: 3})
    lean = copy.deepcopy(plain)
    use_lean_layers(lean)
    assert list(lean.state_dict()) == list(plain.state_dict())
    for size in ((5, 7), (30, 31)):
        tokens = torch.randn(2, size[0] * size[1], 64, requires_grad=True)
        results = []
        for layer in (lean, plain):
            output = layer(tokens, size, *encodings)
            inputs = [tokens, *layer.parameters(), *encodings[1].parameters()]
            gradients = torch.autograd.grad(output.sin().mean(), inputs)
            with torch.no_grad():
                results.append([output, *gradients, layer(tokens, size, *encodings)])
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_autocast_drops_what_float32_drops():
    """So the results, of one seed, are as near to float32 as bfloat16 is."""
    torch.manual_seed(0)
    ffn = FFN(64, 256, ffn_drop=0.3)
    use_lean_layers(ffn)
    inputs = torch.randn(2, 400, 64)
    results = []
    for enabled in (True, False):
        torch.manual_seed(1)
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            output = ffn(inputs)
        results.append([output, *torch.autograd.grad(output.sin().sum(), ffn.parameters())])
    for half, full in zip(*results, strict=True):
        assert half.dtype == full.dtype
        assert (half - full).norm() < 0.05 * full.norm()  # other masks: about 1


def test_convolution_norm_and_hardswish_equal_mmcvs():
    torch.manual_seed(0)
    mmcvs = ConvModule(6, 8, 3, norm_cfg=dict(type='BN'), act_cfg=dict(type='HSwish'))
    lean = copy.deepcopy(mmcvs)
    use_lean_layers(lean)
    assert type(lean) is LeanConvModule
    maps = 3 * torch.randn(2, 6, 9, 9)
    results = []
    for layer in (lean, mmcvs):
        outputs = [layer(maps), layer(maps, activate=False), layer.eval()(maps)]
        grads = torch.autograd.grad(outputs[0].sin().sum(), layer.parameters())
        results.append([*outputs, *grads])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    'changes', [dict(norm_cfg=None), dict(act_cfg=None), dict(act_cfg=dict(type='ReLU'))], ids=str
)
def test_other_convolutions_stay_mmcvs(changes):
    settings = dict(norm_cfg=dict(type='BN'), act_cfg=dict(type='HSwish'))
    layer = ConvModule(6, 8, 3, **{**settings, **changes})
    use_lean_layers(layer)
    assert type(layer) is ConvModule


def test_only_layers_of_exactly_the_known_classes_change_and_names_stay():
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict(
        dict(plain=nn.Linear(4, 4), own=Own(4, 4), attn=nn.MultiheadAttention(4, 2), ffn=FFN(4, 8))
    )
    names = list(model.state_dict())
    use_lean_layers(model)
    use_lean_layers(model)
    assert type(model['plain']) is type(model['ffn'].layers[1]) is PointwiseLinear
    assert type(model['own']) is Own
    assert type(model['attn'].out_proj) is nn.modules.linear.NonDynamicallyQuantizableLinear
    assert list(model.state_dict()) == names


@pytest.mark.parametrize('kind', ['MPViT', 'CoaT'])
def test_backbones_come_with_lean_layers(kind):
    kinds = {type(module) for module in MODELS.build(dict(type=kind)).modules()}
    assert PointwiseLinear in kinds
    assert not kinds & {nn.Linear, TransformerLayer}
