"""From file to tensor against the numbers of the official code."""

import json

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.registry import init_default_scope
from PIL import Image

from mpvit.config.reading import load_config
from mpvit.datasets.transforms import ShortSideResize, official_size


@pytest.fixture(scope='module')
def parity(root):
    return root / 'tests' / 'data' / 'parity'


@pytest.fixture(scope='module')
def fixture(parity):
    return dict(np.load(parity / 'transforms.npz'))


@pytest.fixture(scope='module')
def config(root):
    init_default_scope('mmdet')
    return load_config(root / 'configs' / 'deformable_detr' / 'r50_ddetr_50e.py')


CASES = range(7)


def test_every_size_of_the_official_table(parity):
    rows = json.loads((parity / 'resize_table.json').read_text())['rows']
    assert len(rows) == 1440
    for width, height, short, longest, new_width, new_height in rows:
        assert official_size(height, width, short, longest) == (new_height, new_width)


@pytest.mark.parametrize('case', CASES)
def test_resized_pixels_are_bit_identical(fixture, case):
    _, _, short, longest = (int(n) for n in fixture[f'resize{case}.hw_size_max'])
    results = dict(
        img=fixture[f'resize{case}.in_rgb'],
        gt_bboxes=HorizontalBoxes(fixture[f'resize{case}.in_boxes']),
    )
    results = ShortSideResize((short, longest))(results)
    np.testing.assert_array_equal(results['img'], fixture[f'resize{case}.out_rgb'])
    assert results['img_shape'] == results['img'].shape[:2]
    boxes = results['gt_bboxes'].tensor.numpy()
    np.testing.assert_allclose(boxes, fixture[f'resize{case}.out_boxes'], atol=1e-4)


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('top', [0, 7])
def test_a_view_is_resized_like_its_copy(flip, top):
    """Decoded images are BGR views of RGB arrays, then flipped and cropped without copying."""
    view = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)[..., ::-1]
    view = (np.flip(view, 1) if flip else view)[top:, top:]
    resized = [ShortSideResize((97, 150))(dict(img=img))['img'] for img in (view, view.copy())]
    np.testing.assert_array_equal(*resized)
    assert resized[0].shape == (97, 133 if top else 129, 3)


@pytest.mark.parametrize('case', CASES)
def test_file_to_tensor_through_the_config(config, fixture, case, tmp_path):
    """Decoding, resizing, normalisation and colour order, by the evaluation pipeline itself."""
    _, _, short, longest = (int(n) for n in fixture[f'resize{case}.hw_size_max'])
    Image.fromarray(fixture[f'resize{case}.in_rgb']).save(tmp_path / 'image.png')
    steps = [step for step in config.test_pipeline if step.type != 'LoadAnnotations']
    resize = next(step for step in steps if step.type == 'ShortSideResize')
    resize.scale = (short, longest)
    packed = Compose(steps)(dict(img_path=str(tmp_path / 'image.png'), img_id=1))
    preprocess = MODELS.build(config.model.data_preprocessor)
    batch = dict(inputs=[packed['inputs']], data_samples=[packed['data_samples']])
    tensor = preprocess(batch)['inputs'][0]
    expected = fixture[f'resize{case}.norm']
    np.testing.assert_allclose(tensor[:, ::4, ::4], expected, atol=2e-6)


def test_batch_is_padded_with_zeros_after_normalisation(config):
    preprocess = MODELS.build(config.model.data_preprocessor)
    from mmdet.structures import DetDataSample

    images = [torch.randint(0, 255, (3, h, w), dtype=torch.uint8) for h, w in ((20, 31), (25, 9))]
    samples = [DetDataSample(metainfo=dict(img_shape=tuple(i.shape[1:]))) for i in images]
    inputs = preprocess(dict(inputs=images, data_samples=samples))['inputs']
    assert inputs.shape == (2, 3, 25, 31)  # the maximum of each side, no divisor
    assert inputs[0, :, 20:].abs().max() == 0
    assert inputs[1, :, :, 9:].abs().max() == 0
    assert inputs[0, :, :20].abs().min() > 0


@pytest.mark.parametrize('case', CASES)
def test_flip_and_crop_of_boxes(fixture, case):
    from mmdet.datasets.transforms import RandomCrop, RandomFlip

    image = fixture[f'resize{case}.in_rgb']
    boxes = fixture[f'resize{case}.in_boxes']

    def sample():
        return dict(
            img=image.copy(),
            img_shape=image.shape[:2],
            gt_bboxes=HorizontalBoxes(boxes.copy()),
            gt_bboxes_labels=np.arange(len(boxes)),
            gt_ignore_flags=np.zeros(len(boxes), bool),
        )

    flipped = RandomFlip(prob=1.0)(sample())['gt_bboxes'].tensor.numpy()
    np.testing.assert_allclose(flipped, fixture[f'flip{case}.out_boxes'], atol=1e-4)

    top, left, height, width = (int(n) for n in fixture[f'crop{case}.region_ijhw'])
    crop = RandomCrop((width, height), crop_type='absolute', allow_negative_crop=True)
    crop._rand_offset = lambda margin: (top, left)
    cropped = crop(sample())
    np.testing.assert_array_equal(cropped['gt_bboxes_labels'], fixture[f'crop{case}.kept_labels'])
    np.testing.assert_allclose(
        cropped['gt_bboxes'].tensor.numpy(), fixture[f'crop{case}.out_boxes'], atol=1e-4
    )


def test_annotations_kept_for_training(parity, tmp_path, build_dataset):
    facts = json.loads((parity / 'annotations.json').read_text())
    width, height = facts['image_wh']
    ids = sorted({a['category_id'] for a in facts['annotations']})
    annotations = [
        dict(annotation, id=i, image_id=7)
        for i, annotation in enumerate(facts['annotations'], start=1)
    ]
    content = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=width, height=height) for i in (9, 7, 8)],
        annotations=annotations,
        categories=[dict(id=i, name=f'c{i}') for i in ids],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    dataset = build_dataset(tmp_path / 'truth.json', '', [f'c{i}' for i in ids])
    # by ascending id, and images without annotations stay
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [7, 8, 9]
    kept = [i for i in dataset.get_data_info(0)['instances'] if not i['ignore_flag']]
    np.testing.assert_allclose([i['bbox'] for i in kept], facts['kept_boxes'], atol=1e-5)
    assert [ids[i['bbox_label']] for i in kept] == facts['kept_labels']


def test_training_augmentation_has_the_official_distribution(config):
    """Which sizes come out, how often, over many draws."""
    pipeline = [step for step in config.train_pipeline if step.type.startswith('Random')]
    compose = Compose(pipeline)
    np.random.seed(0)
    image = np.zeros((480, 640, 3), np.uint8)
    shorts, plain, flips = [], 0, 0
    draws = 300
    for _ in range(draws):
        results = compose(dict(img=image, img_shape=(480, 640)))
        height, width = results['img'].shape[:2]
        shorts.append(min(height, width))
        plain += (height, width) == official_size(480, 640, min(height, width), 1333)
        flips += bool(results.get('flip'))
    assert set(shorts) <= set(range(480, 801, 32)) | {s for s in shorts if s < 480}
    assert set(range(480, 801, 32)) <= set(shorts)
    # four standard deviations of a fair coin
    assert abs(flips - draws / 2) < 4 * draws**0.5 / 2
    # crops of 4:3 images rarely keep 4:3, so about half of the images are uncropped
    assert abs(plain - draws / 2) < 4 * draws**0.5 / 2
