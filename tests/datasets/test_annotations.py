"""The one reader of annotation files: how often it reads, and what it refuses."""

import json
import os

import pytest
from torch.utils.data import DataLoader

from mpvit.datasets import annotations
from mpvit.datasets.annotations import forget, read_annotations
from mpvit.datasets.data_files import DataFiles
from mpvit.errors import UserError


@pytest.fixture
def reads(monkeypatch):
    """The files that are parsed, in order."""
    forget()
    parsed = []
    parse = annotations._parse

    def parse_and_count(file, data):
        parsed.append(os.path.basename(file))
        return parse(file, data)

    monkeypatch.setattr(annotations, '_parse', parse_and_count)
    yield parsed
    forget()


def test_each_file_is_parsed_once_before_the_first_step(toy, root, tmp_path, reads, monkeypatch):
    """By the search for the data, the datasets, the evaluators and the quick check together."""
    from mpvit.engine.runner import PortableRunner
    from mpvit.engine.train import train

    monkeypatch.setattr(PortableRunner, 'train', lambda runner: None)
    for path in (toy / 'annotations').iterdir():
        os.utime(path, (0, 0))  # what was just written is not kept
    train(root / 'tests/data/tiny.py', data=DataFiles(str(toy)), work_dir=str(tmp_path))
    assert sorted(reads) == ['instances_train2017.json', 'instances_val2017.json']
    assert annotations._kept == {}  # nothing is left for the training itself


def test_a_file_is_read_again_when_it_is_written_again(toy, tmp_path, reads):
    path = tmp_path / 'truth.json'
    content = json.loads((toy / 'annotations/instances_val2017.json').read_text())
    for names in (['a', 'b'], ['b', 'a']):  # as many bytes
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(names, start=1)]
        path.write_text(json.dumps(content))
        assert read_annotations(path).names == names
        os.utime(path, (0, len(reads)))
        assert read_annotations(path) is read_annotations(path)
    assert len(reads) == 4


def test_a_few_files_are_kept_and_none_for_workers(toy, tmp_path, reads):
    truth = (toy / 'annotations/instances_val2017.json').read_bytes()
    for index in range(5):
        (tmp_path / f'{index}.json').write_bytes(truth)
        os.utime(tmp_path / f'{index}.json', (0, 0))  # what was just written is not kept
        read_annotations(tmp_path / f'{index}.json')
    assert len(annotations._kept) == 3
    assert list(DataLoader(_Kept(), num_workers=1, batch_size=None)) == [0]
    assert annotations._kept == {}


class _Kept:
    """A dataset whose one item is how many files a worker has a copy of."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return len(annotations._kept)


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        (lambda c: c.pop('annotations'), 'annotations'),
        (lambda c: c.update(images={}), 'images'),
        (lambda c: c['images'][2].update(id='7'), r"images\[2\]: id is '7'"),
        (lambda c: c['annotations'][3].pop('image_id'), r'annotations\[3\]: image_id is missing'),
        (lambda c: c['categories'][0].update(name=1), r'categories\[0\]: name is 1'),
        (lambda c: c['categories'][0].update(name='a\ud800'), r"categories\[0\]: name is 'a.ud800"),
    ],
)
def test_a_malformed_file_is_refused_in_one_wording(toy, tmp_path, change, reason):
    path = tmp_path / 'truth.json'
    content = json.loads((toy / 'annotations/instances_val2017.json').read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f'truth.json is not in COCO format: .*{reason}'):
        read_annotations(path)
