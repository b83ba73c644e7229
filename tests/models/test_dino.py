"""Our DINO against mmdet's stock one: tensors, detections, losses and gradients."""

import copy
from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.models import DINOHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader
from mmengine.structures import InstanceData

from mpvit.checkpoints.class_layers import class_names
from mpvit.config.reading import load_config
from mpvit.engine.hooks.checkpoint_fit import check_loadable

ROOT = Path(__file__).resolve().parents[2]
STOCK = Path(mmdet.__file__).parent / '.mim/configs/dino/dino-4scale_r50_8xb2-12e_coco.py'
WIDTH = 'decoder.ref_point_head.layers.0.weight'


@pytest.fixture(scope='module')
def configs() -> dict:
    init_default_scope('mmdet')
    found = dict(
        ours=load_config(ROOT / 'configs/dino/r50_dino_12e.py'), stock=Config.fromfile(STOCK)
    )
    for config in found.values():
        config.model.backbone.init_cfg = None
    return found


def test_the_recipe_is_mmdets(configs):
    ours, stock = configs['ours'], configs['stock']
    for key in ('optimizer', 'clip_grad', 'paramwise_cfg'):
        assert ours.optim_wrapper[key] == stock.optim_wrapper[key]
    assert ours.param_scheduler == stock.param_scheduler
    assert ours.train_cfg.max_epochs == stock.train_cfg.max_epochs
    assert ours.auto_scale_lr.base_batch_size == stock.auto_scale_lr.base_batch_size
    for key in ('dn_cfg', 'num_queries', 'positional_encoding', 'test_cfg', 'data_preprocessor'):
        assert ours.model[key] == stock.model[key]


def test_published_checkpoints_of_mmdet_fit(configs):
    """The names are stock's; the width is that of the published files, not of this mmdet."""
    with torch.device('meta'):
        ours, stock = (
            MODELS.build(copy.deepcopy(configs[name].model)).state_dict()
            for name in ('ours', 'stock')
        )
    assert list(ours) == list(stock)
    assert ours[WIDTH].shape == (256, 512)  # open-mmlab/mmdetection, pull request 9149
    assert [name for name in ours if ours[name].shape != stock[name].shape] in ([], [WIDTH])


def small(config: Config):
    """Everything of the config but its size."""
    model = copy.deepcopy(config.model)
    model.num_queries = 12
    model.test_cfg.max_per_img = 40  # of 60 pairs of query and class
    model.backbone.update(depth=18, base_channels=16)
    model.neck.in_channels = [32, 64, 128]
    for part in (model.encoder, model.decoder):
        part.num_layers = 2
        part.layer_cfg.ffn_cfg.feedforward_channels = 64
    model.bbox_head.num_classes = 5
    torch.manual_seed(0)
    built = MODELS.build(model)
    built.init_weights()
    return built


@pytest.fixture(scope='module')
def both(configs):
    """Ours and stock with the same weights."""
    ours, stock = small(configs['ours']), small(configs['stock'])
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: value + 0.03 * torch.randn(value.shape, generator=generator)
        if value.is_floating_point() and not name.endswith('running_var')
        else value
        for name, value in ours.state_dict().items()
    }
    ours.load_state_dict(weights)
    stock.load_state_dict({**weights, WIDTH: widened(weights[WIDTH], stock.state_dict()[WIDTH])})
    return ours, stock


def widened(narrow, wide):
    """The same function of box coordinates in a layer that sees each at twice the wavelengths.

    Of the pairs of sine and cosine that the wide layer gets, every other one has a wavelength
    of the narrow one.
    """
    if wide.shape == narrow.shape:
        return narrow
    result = torch.zeros_like(wide).unflatten(1, (4, -1, 2))
    result[:, :, ::2] = narrow.unflatten(1, (4, -1, 2))
    return result.flatten(1)


def batch(*counts):
    generator = torch.Generator().manual_seed(2)
    samples = []
    for count, shape in zip(counts, ((128, 160), (96, 128)), strict=True):
        corners = torch.rand(count, 2, 2, generator=generator).sort(dim=1).values
        boxes = (corners * torch.tensor([shape[1], shape[0]])).flatten(1)
        metas = dict(img_shape=shape, ori_shape=shape, batch_input_shape=(128, 160))
        sample = DetDataSample(metainfo={**metas, 'scale_factor': (1.0, 1.0)})
        labels = torch.arange(count) % 5
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return torch.randn(2, 3, 128, 160, generator=generator), samples


def test_detections_are_those_of_stock(both):
    results = []
    for model in both:
        with torch.no_grad():
            results.append(model.eval().predict(*batch(1, 1)))
    for sample, stock in zip(*results, strict=True):
        ours, stock = sample.pred_instances, stock.pred_instances
        assert len(ours) == len(stock) > 10
        assert stock.scores.unique().numel() > 10
        torch.testing.assert_close(ours.scores, stock.scores, rtol=2e-5, atol=1e-6)
        assert torch.equal(ours.labels, stock.labels)
        height, width = sample.ori_shape
        limits = torch.tensor([width, height, width, height])
        clipped = ours.bboxes.clamp(min=torch.zeros(4), max=limits)  # as mmdet does
        torch.testing.assert_close(clipped, stock.bboxes, rtol=0, atol=2e-3)


@pytest.mark.parametrize('counts', [(3, 7), (0, 2), (0, 0)], ids=str)
def test_losses_and_gradients_are_those_of_stock(both, counts):
    results = []
    for model in both:
        model.train().zero_grad()
        torch.manual_seed(5)  # of the noise
        losses = model.loss(*batch(*counts))
        sum(weight * loss.sum() for weight, loss in enumerate(losses.values(), 1)).backward()
        results.append((losses, dict(model.named_parameters())))
    (ours, parameters), (stock, others) = results
    assert list(ours) == list(stock)
    assert len(ours) == 3 * 5  # two layers, theirs of denoising, and proposals
    for name, loss in ours.items():
        torch.testing.assert_close(loss, stock[name].view(()), rtol=2e-5, atol=1e-6)
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            wanted, found = others[name].grad, parameter.grad
            assert (found is None) == (wanted is None), name
            if name == WIDTH and found.shape != wanted.shape:
                wanted = wanted.unflatten(1, (4, -1, 2))[:, :, ::2].flatten(1)
            if found is not None:
                assert (found - wanted).norm() <= 5e-3 * wanted.norm() + 1e-6, name


def test_a_file_as_mmdet_publishes_it_is_read_unchanged(both, tmp_path):
    weights = both[0].state_dict()
    meta = dict(dataset_meta=dict(CLASSES=('a', 'b', 'c', 'd', 'e')), mmdet_version='3.0.0')
    torch.save(dict(state_dict=weights, meta=meta), tmp_path / 'dino.pth')
    found = CheckpointLoader.load_checkpoint(str(tmp_path / 'dino.pth'), 'cpu')
    check_loadable(found, both[0])
    assert found['state_dict'].keys() == weights.keys()
    assert all(torch.equal(found['state_dict'][name], weights[name]) for name in weights)
    assert class_names(found) == list('abcde')


def test_every_parameter_has_a_gradient_where_no_image_has_an_object(both):
    """DistributedDataParallel waits for all of them."""
    model = both[0].train()
    model.zero_grad()
    sum(loss.sum() for loss in model.loss(*batch(0, 0)).values()).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_losses_say_that_images_are_not_finite(both):
    """What follows is decided for all processes together (mpvit.engine.hooks.finite_steps)."""
    images, samples = batch(2, 1)
    images[0, 0, 3, 3] = float('nan')
    losses = both[0].train().loss(images, samples)
    assert not sum(loss.sum() for loss in losses.values()).isfinite()


def test_other_losses_of_the_config(both):
    """Those whose targets are overlaps of boxes go mmdet's way."""
    head = copy.deepcopy(both[0].bbox_head)
    head.loss_cls = MODELS.build(dict(type='QualityFocalLoss', use_sigmoid=True))
    _, samples = batch(3, 2)
    truth = [sample.gt_instances for sample in samples]
    metas = [sample.metainfo for sample in samples]
    meta = dict(num_denoising_queries=12, num_denoising_groups=2)
    generator = torch.Generator().manual_seed(3)
    inputs = [
        torch.rand(*shape, channels, generator=generator)
        for shape in ((2, 2, 24), (2, 12))
        for channels in (5, 4)
    ]
    losses = head.loss_by_feat(*inputs, truth, metas, meta)
    assert losses == DINOHead.loss_by_feat(head, *inputs, truth, metas, meta)
