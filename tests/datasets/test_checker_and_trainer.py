"""The checker and the dataset that trainings build agree about any annotation file."""

import json
import random
from collections import Counter

import pytest
from damage import damage, written

from mpvit.datasets.annotations import forget
from mpvit.datasets.check import Split, inspect_dataset
from mpvit.errors import UserError

SEED, FILES = 0, 200
CLASSES = (('cat', 'dog', 'owl'), ('cat', 'owl'), ('owl',), ('dog', 'cat'))


def refusal(build, *arguments, **options):
    """The dataset, or the line that refuses it; any other error fails the test."""
    try:
        return build(*arguments, **options), None
    except UserError as error:
        return None, str(error)


@pytest.mark.filterwarnings('error')
def test_the_checker_says_what_the_training_gets(clean_dataset, tmp_path, build_dataset):
    rng = random.Random(SEED)
    clean = (clean_dataset / 'train.json').read_text()
    outcomes = Counter()
    for number in range(FILES):
        content = json.loads(clean)
        for _ in range(rng.choice((0, 1, 1, 2))):
            damage(content, rng)
        path = tmp_path / 'train.json'
        path.write_bytes(written(content, rng))
        forget()
        classes = rng.choices(CLASSES, (6, 3, 3, 1))[0]
        filters = dict(filter_empty_gt=rng.random() < 0.3, min_size=rng.choice([0, 0, 0, 40, 50]))
        images = clean_dataset / 'train'
        found = inspect_dataset(
            Split(path, images), classes=classes, filter_cfg=filters, quick=True, workers=1
        )
        fatal = [one for one in found.problems if one.severity == 'fatal']
        options = dict(filter_cfg=filters, serialize_data=False)  # packing collects all garbage
        dataset, reason = refusal(build_dataset, path, images, classes, **options)
        where = f'file {number} of seed {SEED}'
        if reason is not None:
            assert fatal, f'{where}: the checker lets pass what the training refuses: {reason}'
            outcomes['refused'] += 1
        elif not fatal:
            assert found.used['train'] == (len(dataset), dataset.box_count), where
            outcomes['whole' if dataset.box_count == 36 else 'in part'] += 1
        else:  # loads, but would learn the wrong thing
            outcomes['refused by the checker alone'] += 1
    assert min(outcomes[kind] for kind in ('refused', 'in part', 'whole')) > FILES / 20, outcomes
