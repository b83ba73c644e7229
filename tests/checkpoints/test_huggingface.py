"""Hugging Face's Deformable DETR: its own class against our detector with the same file."""

import os

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from parity_detector import CONFIGS
from random_weights import randomise, rank_padding_last

from mpvit.checkpoints.coco_categories import COCO_IDS
from mpvit.checkpoints.conversion import convert_file, to_hugging_face, to_ours
from mpvit.checkpoints.loading import load_from_local
from mpvit.checkpoints.reading import read
from mpvit.config.reading import load_config
from mpvit.engine.hooks.checkpoint_fit import check_loadable
from mpvit.errors import UserError

os.environ['HF_HUB_OFFLINE'] = '1'
transformers = pytest.importorskip('transformers', reason='transformers needs Python 3.11')

VARIANTS = {
    'r50': {},
    'r50_refine': {'with_box_refine': True},
    'r50_refine_two_stage': {'with_box_refine': True, 'two_stage': True},
}
FILES = {  # both kinds that transformers reads
    'r50': 'pytorch_model.bin',
    'r50_refine': 'model.safetensors',
    'r50_refine_two_stage': 'model.safetensors',
}
SIZES = (64, 96), (80, 64)  # of a padded batch
LAYERS, QUERIES = 2, 30  # for speed
LOGITS, BOXES = 1e-4, 1e-5


def their_config(name):
    return transformers.DeformableDetrConfig(
        num_labels=91,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        num_queries=QUERIES,
        two_stage_num_proposals=QUERIES,
        **VARIANTS[name],
    )


@pytest.fixture(scope='module')
def batch():
    """Images of two sizes, padded, and where they are."""
    height, width = (max(sizes) for sizes in zip(*SIZES, strict=True))
    images, mask = torch.zeros(2, 3, height, width), torch.zeros(2, height, width).long()
    generator = torch.Generator().manual_seed(1)
    for image, inside, (h, w) in zip(images, mask, SIZES, strict=True):
        image[:, :h, :w] = torch.randn(3, h, w, generator=generator)
        inside[:h, :w] = 1
    return images, mask


@pytest.fixture(scope='module', params=VARIANTS)
def saved(request, tmp_path_factory, batch):
    """Name of a variant, a folder that transformers saved it in, and its logits and boxes.

    Beside ``model.safetensors``, in the names of version 4 and without copies, the folder holds
    ``state_dict.bin``, in those of version 5 and with copies.
    """
    torch.manual_seed(0)
    model = transformers.DeformableDetrForObjectDetection(their_config(request.param))
    if request.param == 'r50_refine':  # as in the published file; transformers ties them
        model.class_embed = torch.nn.ModuleList(torch.nn.Linear(256, 91) for _ in range(LAYERS))
    randomise(model)
    if 'two_stage' in request.param:
        inner = model.model
        rank_padding_last(inner.enc_output_norm, inner.enc_output, model.class_embed[-1])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    torch.save(model.state_dict(), folder / 'state_dict.bin')
    return request.param, folder, their_outputs(model, batch)


def their_outputs(model, batch):
    """Logits and boxes of the last layer of transformers' model."""
    images, mask = batch
    with torch.no_grad():
        outputs = model.eval()(pixel_values=images, pixel_mask=mask)
    return outputs.logits, outputs.pred_boxes


def our_outputs(root, name, weights, batch):
    """Logits and boxes of our detector built from the variant's config, after `check_loadable`."""
    images, mask = batch
    config = load_config(root / 'configs' / 'deformable_detr' / f'{CONFIGS[name]}.py').model
    config.num_queries = QUERIES
    for part in (config.encoder, config.decoder):
        part.num_layers = LAYERS
    config.backbone.pop('init_cfg')
    init_default_scope('mmdet')
    model = MODELS.build(config).eval()
    check_loadable(weights, model)
    model.load_state_dict(weights['state_dict'])
    sizes = dict(batch_input_shape=tuple(images.shape[-2:]))
    samples = [DetDataSample(metainfo=dict(img_shape=size, **sizes)) for size in SIZES]
    with torch.no_grad():
        logits, boxes = model._forward(images, samples)
    return logits[-1], boxes[-1]


def assert_same(name, found, expected):
    """Same logits and boxes, which differ from query to query and from layer to layer."""
    (logits, boxes), (their_logits, their_boxes) = found, expected
    assert (logits - their_logits).abs().max() < LOGITS, name
    assert (boxes - their_boxes).abs().max() < BOXES, name
    print(
        f'{name}: largest difference of logits {(logits - their_logits).abs().max():.1e}, '
        f'of boxes {(boxes - their_boxes).abs().max():.1e}; deviation between queries '
        f'{their_logits.std(1).mean():.2f}, {their_boxes.std(1).mean():.2f}'
    )


def with_our_classes(outputs):
    return outputs[0][..., COCO_IDS], outputs[1]


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert not [name for name, value in expected.items() if not torch.equal(found[name], value)]


def test_their_file_gives_their_outputs(root, saved, batch):
    name, folder, theirs = saved
    weights = load_from_local(str(folder / 'model.safetensors'))
    assert_same(name, our_outputs(root, name, weights, batch), with_our_classes(theirs))
    assert len(weights['meta']['dataset_meta']['classes']) == 80
    # names of version 5, and copies
    assert_equal(
        load_from_local(str(folder / 'state_dict.bin'))['state_dict'], weights['state_dict']
    )


def test_our_file_is_read_by_their_class(saved, tmp_path):
    name, folder, _ = saved
    ours, theirs = tmp_path / 'ours.pth', tmp_path / FILES[name]
    convert_file(folder / 'model.safetensors', ours)
    convert_file(ours, theirs, to='huggingface')
    their_config(name).save_pretrained(tmp_path)
    model, info = transformers.DeformableDetrForObjectDetection.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not any(info.values()), info
    assert_equal(model.state_dict(), torch.load(folder / 'state_dict.bin'))
    assert_equal(load_from_local(str(theirs))['state_dict'], read(ours)['state_dict'])


def test_copies_that_a_file_leaves_out(saved):
    """A file of the hub may hold the box layers of the decoder alone or those of the head alone."""
    name, folder, _ = saved
    weights = torch.load(folder / 'state_dict.bin')
    ours = to_ours(weights)[0]['state_dict']
    copies = ['class_embed.1.', 'bbox_embed.1.'] if name == 'r50' else ['model.decoder.bbox_embed.']
    for beginning in copies + ['model.decoder.class_embed.'] * name.endswith('two_stage'):
        fewer = {n: value for n, value in weights.items() if not n.startswith(beginning)}
        assert len(fewer) < len(weights)
        assert_equal(to_ours(fewer)[0]['state_dict'], ours)


def test_only_detectors_with_a_resnet_have_this_form(official):
    ours, _ = to_ours({'model': official('detector_mpvit_small')})
    with pytest.raises(UserError, match='with a ResNet only'):
        to_hugging_face(ours)
    ours, _ = to_ours({'model': official('backbone_resnet50')})
    with pytest.raises(UserError, match='detectors only, found official backbone'):
        to_hugging_face(ours)
