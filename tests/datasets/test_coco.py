"""What a dataset keeps in memory, which every worker of every dataloader would get a copy of."""

import gc
import json

import numpy as np
import pytest

from benchmarks._synthetic import coco_truth
from mpvit.datasets.annotations import forget
from mpvit.errors import UserError


@pytest.fixture(scope='module')
def annotations(tmp_path_factory):
    content = coco_truth(40)
    for annotation in content['annotations']:
        annotation['segmentation'] = [[123.25, 1, 2, 3, 4, 5]]
    path = tmp_path_factory.mktemp('coco') / 'truth.json'
    path.write_text(json.dumps(content))
    return path, '', [category['name'] for category in content['categories']]


def test_records_are_one_array_and_nothing_else_is_kept(annotations, build_dataset):
    dataset = build_dataset(*annotations)
    assert isinstance(dataset.data_bytes, np.ndarray)
    assert dataset.data_list == []
    assert not hasattr(dataset, 'coco')
    forget()  # as it happens before workers are forked
    # Python objects are written to whenever they are looked at, which copies their memory page in
    # each worker; a record's dicts must not outlive the reading of the file
    gc.collect()
    dicts = [o for o in gc.get_objects() if type(o) is dict]
    left = [o for o in dicts if 'iscrowd' in o and isinstance(o.get('bbox'), list)]
    assert left == []
    assert len(dataset) == 40
    assert dataset.get_data_info(3)['img_id'] == 19


def test_masks_are_kept_only_on_request(annotations, build_dataset):
    plain, masked = build_dataset(*annotations), build_dataset(*annotations, masks=True)
    counts = {'plain': 0, 'masked': 0}
    for name, dataset in (('plain', plain), ('masked', masked)):
        for index in range(len(dataset)):
            instances = dataset.get_data_info(index)['instances']
            counts[name] += sum(instance.pop('mask', None) is not None for instance in instances)
            assert instances == [
                {key: value for key, value in instance.items() if key != 'mask'}
                for instance in plain.get_data_info(index)['instances']
            ]
    assert counts['plain'] == 0
    assert counts['masked'] > 200
    assert plain.data_bytes.nbytes < masked.data_bytes.nbytes


def test_a_filter_that_leaves_no_image_is_refused(annotations, build_dataset):
    with pytest.raises(UserError, match='filter_cfg leaves no image'):
        build_dataset(*annotations, filter_cfg=dict(min_size=10_000))
