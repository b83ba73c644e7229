"""mmcv without compiled ops: what is provided is right, what is not says so."""

import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import ClassVar

import attention_cases
import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention, batched_nms, multi_scale_deform_attn
from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss

from mpvit.ops import fallbacks, mmcv_bridge
from mpvit.ops.msda import reference
from mpvit.ops.msda.reference import forward as ms_deform_attn

needs_substitute = pytest.mark.skipif(
    not mmcv_bridge.is_substituted(), reason='mmcv has its compiled ops, which are used untouched'
)


@pytest.fixture
def attention_inputs():
    """In float64; some samples lie outside the map."""
    _, value, shapes, *others = attention_cases.make_inputs(
        'partly outside', torch.float64, queries=10
    )
    return value, shapes, *(t.double() for t in others)


def bilinear_by_hand(maps, x, y):
    """One sample of a (H, W, C) map at pixel coordinates, zeros outside."""
    height, width, channels = maps.shape
    total = torch.zeros(channels, dtype=maps.dtype)
    x0, y0 = int(torch.floor(x)), int(torch.floor(y))
    for row in (y0, y0 + 1):
        for column in (x0, x0 + 1):
            if 0 <= row < height and 0 <= column < width:
                total += maps[row, column] * (1 - abs(x - column)) * (1 - abs(y - row))
    return total


def test_reference_is_the_equation(attention_inputs):
    value, shapes, locations, weights = attention_inputs
    output = ms_deform_attn(*attention_inputs).unflatten(-1, (3, -1))
    starts = [0, 48]
    for batch, query, head in [(0, 0, 0), (1, 9, 2), (0, 4, 1)]:
        expected = 0
        for level, (height, width) in enumerate(shapes.tolist()):
            maps = value[batch, starts[level] :, head][: height * width].view(height, width, -1)
            for point, (x, y) in enumerate(locations[batch, query, head, level]):
                sample = bilinear_by_hand(maps, x * width - 0.5, y * height - 0.5)
                expected += weights[batch, query, head, level, point] * sample
        torch.testing.assert_close(output[batch, query, head], expected)


def test_reference_equals_mmcvs_own_fallback(attention_inputs):
    ours = ms_deform_attn(*attention_inputs)
    with mmcv_bridge.stock_attention():
        theirs = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(*attention_inputs)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(
    mmcv_bridge.compiled_attention() is not None, reason="mmcv's op for GPUs is used untouched"
)
def test_stock_function_for_gpus_is_mmcvs_plain_version(attention_inputs):
    """What mmcv calls on CUDA, here on the CPU."""
    value, shapes, locations, weights = attention_inputs
    with mmcv_bridge.stock_attention():
        function = multi_scale_deform_attn.MultiScaleDeformableAttnFunction
        output = function.apply(value, shapes, torch.tensor([0, 48]), locations, weights, 64)
    torch.testing.assert_close(output, ms_deform_attn(*attention_inputs))
    assert multi_scale_deform_attn.MultiScaleDeformableAttnFunction is not function


@pytest.fixture
def calls(monkeypatch):
    """Names of what computed attention, in order."""
    names = []

    def record(*inputs):
        names.append('ours')
        return ms_deform_attn(*inputs)

    monkeypatch.setattr(reference, 'forward', record)
    monkeypatch.setenv('MPVIT_MSDA', 'reference')
    return names


def attend(sizes=((6, 8), (3, 4))):
    module = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=2)
    return module(
        torch.rand(10, 2, 32),
        value=torch.rand(60, 2, 32),
        reference_points=torch.rand(2, 10, 2, 2),
        spatial_shapes=sizes,
        level_start_index=torch.tensor([0, 48]),
    )


def test_mmcvs_module_calls_our_attention_unless_stock_is_asked_for(calls):
    attend()
    with mmcv_bridge.stock_attention():
        attend()
    assert calls == ['ours']
    attend(torch.tensor([[6, 8], [3, 4]]))
    assert calls == ['ours', 'ours']


@pytest.mark.parametrize('version', ['13.0', 'not available'])
def test_an_extension_compiled_without_cuda_has_no_attention(mmcv_ext, version):
    mmcv_ext.contents = dict(
        ms_deform_attn_forward=None, get_compiling_cuda_version=lambda: version
    )
    mmcv_bridge.install()
    assert (mmcv_bridge.compiled_attention() is None) == (version == 'not available')


def test_module_and_state_dict_stay_mmcvs():
    module = MultiScaleDeformableAttention(embed_dims=32, num_heads=4, num_levels=2)
    assert module.__module__ == 'mmcv.ops.multi_scale_deform_attn'
    assert {name.split('.')[0] for name in module.state_dict()} == {
        'sampling_offsets',
        'attention_weights',
        'value_proj',
        'output_proj',
    }


@needs_substitute
@pytest.mark.parametrize('weighted', [False, True])
def test_focal_loss_through_mmcv_equals_mmdets_python_version(weighted):
    from mmcv.ops import sigmoid_focal_loss

    torch.manual_seed(0)
    logits = (3 * torch.randn(20, 7)).requires_grad_()
    target = torch.randint(0, 8, (20,))  # 7 is background
    weight = torch.rand(7) if weighted else None
    ours = sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    one_hot = torch.nn.functional.one_hot(target, 8)[:, :7]
    theirs = py_sigmoid_focal_loss(logits, one_hot, reduction='none')
    if weighted:
        theirs = theirs * torch.cat([weight, torch.ones(1)])[target, None]
    torch.testing.assert_close(ours, theirs)
    direction = torch.rand_like(logits)
    (a,) = torch.autograd.grad(ours, logits, direction)
    (b,) = torch.autograd.grad(theirs, logits, direction)
    torch.testing.assert_close(a, b)


def test_nms_keeps_the_best_of_overlapping_boxes_per_class():
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60], [0, 0, 10, 10]])
    scores = torch.tensor([0.8, 0.9, 0.5, 0.7])
    classes = torch.tensor([0, 0, 0, 1])
    _, kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    assert kept.tolist() == [1, 3, 2]


def test_inclusive_pixels_in_nms():
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 0, 14, 9]])  # IoU 1/3 with offset 1, 0.286 without
    scores = torch.tensor([0.9, 0.8])
    assert fallbacks.nms(boxes, scores, 0.3, offset=1).tolist() == [0]
    assert fallbacks.nms(boxes, scores, 0.3, offset=0).tolist() == [0, 1]


@needs_substitute
def test_any_other_op_names_itself_and_the_remedy():
    from mmcv.ops import roi_pool

    with pytest.raises(RuntimeError, match=r'roi_pool_forward.*docs/install.md'):
        roi_pool(torch.rand(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 2, 2]]), (2, 2))


@pytest.fixture
def mmcv_ext(monkeypatch):
    """Pretend that mmcv has a compiled extension; its `create` makes it, or fails to."""
    monkeypatch.delitem(sys.modules, 'mmcv._ext')

    class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
        create = staticmethod(ModuleType)
        contents: ClassVar[dict] = {}

        def find_spec(self, name, path=None, target=None):
            return ModuleSpec(name, self) if name == 'mmcv._ext' else None

        def create_module(self, spec):
            return self.create(spec.name)

        def exec_module(self, module):
            vars(module).update(self.contents)

    finder = Finder()
    monkeypatch.setattr(sys, 'meta_path', [finder, *sys.meta_path])
    return finder


def test_a_compiled_extension_is_used_untouched(mmcv_ext):
    mmcv_bridge.install()
    assert not mmcv_bridge.is_substituted()
    assert type(sys.modules['mmcv._ext']) is ModuleType


def test_an_extension_that_does_not_load_is_replaced_with_a_warning(mmcv_ext):
    def fail(name):
        raise ImportError('undefined symbol: _ZN2at')

    mmcv_ext.create = fail
    with pytest.warns(UserWarning, match=r'do not load \(undefined symbol: _ZN2at\)'):
        mmcv_bridge.install()
    assert mmcv_bridge.is_substituted()
    assert sys.modules['mmcv._ext'].nms is fallbacks.nms


def test_roi_align_through_mmcv_has_torchvisions_values_and_right_gradients():
    from mmcv.ops import RoIAlign
    from torchvision.ops import roi_align

    maps = torch.randn(2, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[0, 4, 4, 60, 50], [1, 0, 10, 88, 64]], dtype=torch.float64)
    layer = RoIAlign(output_size=(3, 4), spatial_scale=1 / 8, sampling_ratio=0)
    expected = roi_align(maps, rois, (3, 4), 1 / 8, 0, aligned=True)
    assert torch.equal(layer(maps, rois), expected)
    assert torch.autograd.gradcheck(lambda m: layer(m, rois), maps)
