"""Reading annotations and detections: what is taken, and what is refused in one line."""

import json

import numpy as np
import pytest
from synthetic_detections import detections_file, truth_file

from mpvit.errors import UserError
from mpvit.evaluation.result_files import read_results

GOOD = dict(image_id=1, category_id=1, bbox=[1, 2, 30, 40], score=0.5)


@pytest.fixture
def truth(tmp_path):
    objects = [dict(image_id=1, category_id=label, bbox=[1, 2, 30, 40]) for label in (1, 2)]
    return truth_file(tmp_path, objects, ['cat', 'dog'], images=3)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('', 'is no JSON'),
        ('{"images": []}', 'is an annotation file; COCO results are a list'),
        ('3', 'is something else'),
        ('[{"image_id": 1}]', 'each needs image_id, category_id, bbox'),
        ('[[1]]', 'each needs image_id'),
        (json.dumps([dict(GOOD, bbox=[1, 2, 3])]), 'each needs image_id'),
        (json.dumps([GOOD, dict(GOOD, bbox=[1, 2, 3])]), 'each needs image_id'),
        (json.dumps([dict(GOOD, score='high')]), 'each needs image_id'),
        (json.dumps([GOOD, dict(GOOD, score=float('nan'))]), 'number 2 is not finite'),
        (json.dumps([dict(GOOD, image_id=77)]), 'have a image_id, such as 77'),
        (json.dumps([GOOD, dict(GOOD, category_id=9)]), '1 of 2 detections have a category_id'),
    ],
)
def test_bad_detections_are_refused_in_one_line(truth, tmp_path, content, message):
    path = tmp_path / 'bad.json'
    path.write_text(content)
    with pytest.raises(UserError, match='bad.json') as error:
        read_results(truth, path)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_files_of_which_nothing_can_be_used(truth, tmp_path):
    with pytest.raises(UserError, match='cannot be read: No such file'):
        read_results(truth, tmp_path / 'none.json')
    with pytest.raises(UserError, match='annotation file .* is it a file of detections?'):
        read_results(detections_file(tmp_path, [GOOD]), truth)
    with pytest.raises(UserError, match='annotation file .* has no images'):
        read_results(truth_file(tmp_path, [], ['cat'], images=0), truth)


def test_classes_that_count(truth, tmp_path):
    found = detections_file(tmp_path, [GOOD, dict(GOOD, category_id=2, score=0.7)])
    results = read_results(truth, found, classes=['dog'])
    assert results.names == ('dog',)
    assert results.objects.label.tolist() == [0]
    assert results.detected.score.tolist() == [0.7]
    with pytest.raises(UserError, match="no class 'dgo'; did you mean dog"):
        read_results(truth, found, classes=['dgo'])


def test_ids_need_not_be_in_order(tmp_path):
    truth = truth_file(tmp_path, [dict(image_id=9, category_id=7, bbox=[0, 0, 9, 9])], ['a', 'b'])
    content = json.loads(truth.read_text())
    content['images'] = [dict(id=id_, file_name=f'{id_}.jpg') for id_ in (9, 4)]
    content['categories'] = [dict(id=7, name='a'), dict(id=2, name='b')]
    truth.write_text(json.dumps(content))
    found = detections_file(
        tmp_path, [dict(GOOD, image_id=4, category_id=2), dict(GOOD, image_id=9, category_id=7)]
    )
    results = read_results(truth, found, tmp_path)
    assert results.detected.image.tolist() == [0, 1]
    assert results.detected.label.tolist() == [0, 1]
    assert results.files[0] == tmp_path.resolve() / '9.jpg'
    assert np.isnan(results.sizes).all()


@pytest.mark.parametrize(('every', 'kept'), [(3, 150), (999, 101)])  # 100 cats and the dogs
def test_the_best_hundred_of_an_image_and_class_count(truth, tmp_path, every, kept):
    scores = np.random.default_rng(0).permutation(np.linspace(0.01, 0.99, 150))
    entries = [dict(GOOD, category_id=1 + (i % every == 0), score=s) for i, s in enumerate(scores)]
    detected = read_results(truth, detections_file(tmp_path, entries)).detected
    assert len(detected.score) == kept
    assert (np.diff(detected.score) <= 0).all()
    cats = sorted((entry['score'] for entry in entries if entry['category_id'] == 1), reverse=True)
    assert detected.score[detected.label == 0].tolist() == cats[:100]
