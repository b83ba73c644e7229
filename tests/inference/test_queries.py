"""Sampling points against the paper's equation, from nothing but a layer's inputs and weights."""

import copy
import threading

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection
from mmdet.apis import inference_detector
from PIL import Image
from torch import nn

from mpvit.config.reading import load_config
from mpvit.engine.hooks.prepare_inference import prepare
from mpvit.errors import UserError
from mpvit.inference import queries as sampling_points
from mpvit.inference.queries import record
from mpvit.model_info.info import random_detector
from mpvit.ops.msda import module as attention_module
from mpvit.visualization.queries import draw, draw_sheet

WIDTH, HEIGHT = 150, 90  # resized to 128 x 77 and padded to 128 x 128


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def detector(root):
    """Build tiny detectors with weights that are not those of the start."""

    def build(two_stage: bool = True, refine: bool = True) -> nn.Module:
        cfg = load_config(root / 'tests' / 'data' / 'tiny.py')
        cfg.model.update(as_two_stage=two_stage, with_box_refine=refine)
        torch.manual_seed(0)
        model = random_detector(cfg)
        with torch.no_grad():
            for parameter in (*model.decoder.parameters(), *model.bbox_head.parameters()):
                parameter.add_(0.05 * torch.randn_like(parameter))
        model.cfg, model.dataset_meta = cfg, dict(classes=tuple('abcdef'))
        return model.eval()

    return build


@pytest.fixture(scope='module')
def prepared(detector):
    return prepare(detector())


def by_the_paper(model, image, layer):
    """Equation 3 and appendix A.4 in numpy: locations in [0, 1] of each padded level, weights."""
    attention = model.decoder.layers[layer].cross_attn
    seen = {}
    hook = attention.register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    inference_detector(model, image)
    hook.remove()
    numpy = {k: v.numpy() for k, v in seen.items() if isinstance(v, torch.Tensor)}
    query = (numpy['query'] + numpy['query_pos'])[0].astype(np.float64)
    heads, levels, points = attention.num_heads, attention.num_levels, attention.num_points
    linear = [
        query @ part.weight.double().numpy().T + part.bias.double().numpy()
        for part in (attention.sampling_offsets, attention.attention_weights)
    ]
    offsets = linear[0].reshape(-1, heads, levels, points, 2)
    weights = np.exp(linear[1].reshape(-1, heads, levels * points))
    weights /= weights.sum(-1, keepdims=True)
    locations = np.empty_like(offsets)
    for level in range(levels):
        reference = numpy['reference_points'][0, :, level, None, None]
        if reference.shape[-1] == 2:
            scale = 1 / numpy['spatial_shapes'][level, ::-1]
        else:
            scale = reference[..., 2:] / (2 * points)
        locations[:, :, level] = reference[..., :2] + offsets[:, :, level] * scale
    return locations, weights.reshape(offsets.shape[:-1]), numpy['reference_points'][0]


@pytest.mark.parametrize('layer', [0, -1])
@pytest.mark.parametrize(
    ('two_stage', 'refine'), [(False, False), (False, True), (True, True)], ids=str
)
def test_points_are_those_of_the_paper(detector, image, two_stage, refine, layer):
    model = prepare(detector(two_stage, refine))
    found = record(model, image, layer)
    assert found.layer == layer % 2
    assert found.size == (WIDTH, HEIGHT)
    locations, weights, references = by_the_paper(model, image, layer)
    # strides of 8 and 16: 77 of 128 rows are 10 of 16, or 5 of 8 cells; all columns are used
    valid = np.array([1.0, 10 / 16])
    wanted = locations / valid * (WIDTH, HEIGHT)
    assert np.ptp(wanted) > 50
    np.testing.assert_allclose(found.locations, wanted, atol=1e-3)
    np.testing.assert_allclose(found.weights, weights, atol=1e-6)
    references = (references[:, 0].reshape(30, -1, 2) / valid * (WIDTH, HEIGHT)).reshape(30, -1)
    np.testing.assert_allclose(found.references, references, atol=1e-3)
    assert references.shape[1] == (4 if two_stage or (refine and layer) else 2)
    np.testing.assert_allclose(found.strides, [WIDTH / 16, WIDTH / 8], rtol=1e-6)


def test_points_are_those_that_the_operator_is_given(prepared, image, monkeypatch):
    given = []

    def spy(value, shapes, locations, weights):
        given.append((locations, weights))
        return original(value, shapes, locations, weights)

    original = attention_module.ms_deform_attn
    monkeypatch.setattr(attention_module, 'ms_deform_attn', spy)
    found = record(prepared, image, 0)
    locations, weights = given[1]  # one encoder layer before it
    scale = torch.tensor([WIDTH, HEIGHT / (10 / 16)])
    np.testing.assert_allclose(found.locations, locations[0] * scale, atol=1e-4)
    assert np.array_equal(found.weights, weights[0])


def test_reference_boxes_of_a_layer_lead_to_the_detections(prepared, image):
    """Of a query, the last layer's reference box lies near the box that it is refined to."""
    found = record(prepared, image)
    centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    shift = np.abs(centres - found.references[found.queries, :2])
    others = np.abs(centres - found.references[found.queries[::-1], :2])
    assert np.median(shift) < np.median(others)


@pytest.mark.parametrize('settings', [{}, dict(dtype='bf16'), dict(fold=False), dict(compile=True)])
def test_detections_are_those_without_recording(detector, image, settings):
    model = prepare(detector(), **settings)
    found = record(model, image)
    if settings.get('compile'):  # takes minutes; what is not compiled computes the same
        model = prepare(detector())
    plain = inference_detector(model, image).pred_instances
    if settings.get('compile'):  # linear layers are others
        np.testing.assert_allclose(found.boxes, plain.bboxes, atol=1e-2)
        np.testing.assert_allclose(found.scores, plain.scores, atol=1e-5)
    else:
        for ours, theirs in (('boxes', 'bboxes'), ('scores', 'scores'), ('labels', 'labels')):
            assert np.array_equal(getattr(found, ours), plain[theirs]), ours
    assert np.isfinite(found.locations).all()
    np.testing.assert_allclose(found.weights.sum((2, 3)), 1, atol=1e-3)


def test_nothing_stays_in_the_detector(detector, prepared, image, tmp_path, monkeypatch):
    model = detector()  # whose config no other test has changed

    def hooks():
        return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in prepared.modules()]

    before = hooks()
    record(prepared, image)
    assert hooks() == before
    cfg = copy.deepcopy(model.cfg.to_dict())
    record(model, image)
    assert model.cfg.to_dict() == cfg
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'image.png')
    inference_detector(model, str(tmp_path / 'image.png'))  # files as before

    def fail(*args):
        raise RuntimeError('out of memory')

    monkeypatch.setattr(sampling_points, 'inference_detector', fail)
    with pytest.raises(RuntimeError):
        record(prepared, image)
    assert hooks() == before


def test_another_thread_may_use_the_detector_meanwhile(prepared, image, monkeypatch):
    def beside(model, pixels, pipeline):
        sample = inference_detector(model, pixels, pipeline)
        arguments = (model, pixels[::-1].copy(), pipeline)
        other = threading.Thread(target=inference_detector, args=arguments)
        other.start()
        other.join()
        return sample

    alone = record(prepared, image)
    monkeypatch.setattr(sampling_points, 'inference_detector', beside)
    assert np.array_equal(record(prepared, image).locations, alone.locations)


def test_mistakes_are_explained(prepared, image):
    with pytest.raises(UserError, match='layer 2'):
        record(prepared, image, 2)
    with pytest.raises(UserError, match='Linear'):
        record(nn.Linear(1, 1), image)
    line = np.zeros((1, 900, 3), np.uint8)  # no pixel high once it is resized
    with pytest.raises(UserError, match=r'900 x 1 pixels does not go through'):
        record(prepared, line)


def test_pictures_show_the_points(prepared, image):
    found = record(prepared, image)
    assert draw(image, found).size == (640, 384)  # enlarged
    figure = draw_sheet(image, found, top=3)
    overview, *panels = figure.axes
    assert [axes.get_title() for axes in panels[:3]] == [found.name(i) for i in range(3)]
    (dots,) = (c for c in panels[1].collections if isinstance(c, PathCollection))
    query = found.queries[1]
    order = found.weights[query].ravel().argsort()
    wanted = found.locations[query].reshape(-1, 2)[order]
    np.testing.assert_allclose(np.asarray(dots.get_offsets()), wanted)
    assert (np.diff(dots.get_sizes()) >= 0).all()  # the strongest on top
    assert dots.get_sizes()[-1] == max(dots.get_sizes()) > 50
