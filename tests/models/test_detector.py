"""What the detector adds to mmdet's: other widths, checkpointing, mixed precision."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.models import DeformableDETR
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from mpvit.config.reading import load_config
from mpvit.models.detector import AnyWidthDeformableDETR


def test_proposal_embedding_is_mmdets_at_256_and_fits_other_widths():
    proposals = torch.randn(2, 5, 4)
    model = AnyWidthDeformableDETR.__new__(AnyWidthDeformableDETR)
    torch.nn.Module.__init__(model)
    model.embed_dims = 256
    expected = DeformableDETR.get_proposal_pos_embed(proposals)
    assert torch.equal(model.get_proposal_pos_embed(proposals), expected)
    model.embed_dims = 96
    assert model.get_proposal_pos_embed(proposals).shape == (2, 5, 192)


CONFIG = Path(__file__).resolve().parents[1] / 'data' / 'tiny.py'


def detector(**encoder) -> AnyWidthDeformableDETR:
    """That of the toy config, with dropout and one more encoder layer."""
    init_default_scope('mmdet')
    model = load_config(CONFIG).model
    model.encoder.update(num_layers=2, **encoder)
    model.encoder.layer_cfg.ffn_cfg.ffn_drop = 0.2
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    with torch.no_grad():  # the last box layers start at 0 and would hide what is before them
        for parameter in built.bbox_head.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return built.train()


def fixed(model):
    """Norms and dropout do not look at the batch; mmdet wants the detector itself in training."""
    model.eval().training = True
    return model


def samples(*counts):
    generator = torch.Generator().manual_seed(3)
    found = []
    for count in counts:
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values * 128
        sample = DetDataSample(metainfo=dict(img_shape=(128, 128), batch_input_shape=(128, 128)))
        sample.gt_instances = InstanceData(
            bboxes=corners.flatten(1), labels=torch.arange(count) % 6
        )
        found.append(sample)
    return found


def images(count):
    return torch.randn(count, 3, 128, 128, generator=torch.Generator().manual_seed(4))


def gradients(model, batch, truth):
    model.zero_grad()
    torch.manual_seed(1)  # of dropout
    losses = model.loss(batch, truth)
    sum(losses.values()).backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return sum(losses.values()).item(), found


def test_checkpointed_encoder_gives_the_same_gradients_and_stores_less():
    plain, checkpointed = detector(), detector(num_cp=2)
    checkpointed.load_state_dict(plain.state_dict())  # names are the same
    stored = []
    results = []
    for model in (plain, checkpointed):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            results.append(gradients(model, images(1), samples(3)))
        stored.append(sum(sizes))
    (loss, expected), (other, found) = results
    assert loss == other
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    assert any('encoder' in name for name in expected)
    assert stored[1] < 0.8 * stored[0]


def test_copy_of_a_checkpointed_detector_stands_alone():
    model = detector(num_cp=2)
    copied = copy.deepcopy(model)
    for parameter in model.encoder.parameters():
        torch.nn.init.zeros_(parameter)
    before = gradients(copied, images(1), samples(3))[0]
    for parameter in copied.encoder.parameters():
        torch.nn.init.zeros_(parameter)
    assert gradients(copied, images(1), samples(3))[0] != before


def test_bfloat16_autocast_keeps_boxes_in_float32():
    model = fixed(detector())
    seen = {}
    model.bbox_head.register_forward_hook(lambda _, __, out: seen.update(out=out))
    model.encoder.register_forward_hook(lambda _, __, out: seen.update(memory=out))
    model.encoder.layers[0].ffn.register_forward_hook(lambda _, __, out: seen.update(ffn=out))
    exact = sum(model.loss(images(2), samples(3, 0)).values())
    with torch.autocast('cpu', dtype=torch.bfloat16):
        losses = model.loss(images(2), samples(3, 0))
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert [tensor.dtype for tensor in seen['out']] == [torch.float32] * 2
    assert seen['ffn'].dtype == torch.bfloat16
    torch.testing.assert_close(sum(losses.values()), exact, rtol=0.03, atol=0)


def test_accumulating_two_batches_of_one_is_a_batch_of_two_of_equal_box_counts():
    """Losses are divided by the boxes of a batch, so only equal counts make it the same step."""
    model = fixed(detector())
    batch, truth = images(2), samples(3, 3)
    together = gradients(model, batch, truth)[1]
    apart = [gradients(model, batch[i : i + 1], truth[i : i + 1])[1] for i in range(2)]
    for name, gradient in together.items():
        mean = (apart[0][name] + apart[1][name]) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=2e-5)
    unequal = samples(1, 5)
    together = gradients(model, batch, unequal)[1]
    first = gradients(model, batch[:1], unequal[:1])[1]
    second = gradients(model, batch[1:], unequal[1:])[1]
    name = 'bbox_head.reg_branches.0.4.bias'
    assert ((first[name] + second[name]) / 2 - together[name]).abs().max() > 1e-3


@pytest.mark.parametrize('warn_only', [False, True])
def test_masks_are_counted_where_only_deterministic_algorithms_are_allowed(monkeypatch, warn_only):
    """On a GPU torch refuses to count them; the rest stays strict."""
    strict = []

    def pre_transformer(*inputs):
        strict.append(torch.are_deterministic_algorithms_enabled())
        return {}, {}

    monkeypatch.setattr(DeformableDETR, 'pre_transformer', pre_transformer)
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        AnyWidthDeformableDETR.pre_transformer(object.__new__(AnyWidthDeformableDETR), ())
        strict.append(torch.are_deterministic_algorithms_enabled())
        assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only
    finally:
        torch.use_deterministic_algorithms(False)
    assert strict == [False, True]
