"""The HTML report: self-contained, complete, safe, and honest about what is missing."""

import json
import re
import shutil

import pytest
from synthetic_detections import detections_file, found_in, make_up
from web import Elements, browser_page

from mpvit.engine.run_folder import find_run
from mpvit.visualization.report import data_facts, write_report

ODD = '<script>alert("x")</script> & co'
STATS = [f'coco/bbox_mAP{part}' for part in ('', '_50', '_75', '_s', '_m', '_l')]
STATS += [f'coco/bbox_AR@{limit}' for limit in (1, 10, 100)]
STATS += [f'coco/bbox_AR_{size}@100' for size in 'sml']


@pytest.fixture
def run(toy, tmp_path):
    """A work folder with everything in it; a class has an odd name."""
    work = tmp_path / 'my run'
    (work / '20260102_030405' / 'vis_data').mkdir(parents=True)
    records = [dict(loss=9 / i, loss_cls=1 / i, lr=0.1, epoch=1, step=i) for i in range(1, 30)]
    records.append({'coco/bbox_mAP': 0.25, 'step': 1})
    log = '\n'.join(map(json.dumps, records))
    (work / '20260102_030405' / 'vis_data' / 'scalars.json').write_text(log)
    (work / '20260102_030405' / 'run.log').write_text(
        '2026/01/02 03:04:05 - mmengine - INFO - start\n'
        '2026/01/02 04:04:05 - mmengine - INFO - end\n'
    )
    truth = json.loads((toy / 'annotations' / 'instances_val2017.json').read_text())
    truth['categories'][0]['name'] = ODD
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    nothing = [
        dict(image_id=image['id'], category_id=1, bbox=[1, 1, 9, 9], score=0.5)
        for image in truth['images']
    ]
    detections_file(work, found_in(tmp_path / 'truth.json') + nothing)
    config = dict(
        model=dict(
            type='D', backbone=dict(type='MPViT', arch='tiny'), bbox_head=dict(num_classes=6)
        ),
        train_cfg=dict(max_epochs=3),
        train_dataloader=dict(
            batch_size=7,
            dataset=dict(ann_file=str(toy / 'annotations' / 'instances_train2017.json')),
        ),
    )
    lines = [f'{key} = {value!r}' for key, value in config.items()]
    (work / 'tiny.py').write_text('\n'.join(lines))
    data = dict(annotations=str(tmp_path / 'truth.json'), images=str(toy / 'val2017'), classes=None)
    record = dict(
        checkpoint='epoch_3.pth',
        inference=dict(dtype='bf16'),
        software=dict(mpvit='1.2', revision='abc123-dirty', device='a device'),
        data=data,
        metrics=dict(other=3.0, **dict(zip(STATS, [*range(11), -1], strict=True))),
    )
    (work / 'metrics.json').write_text(json.dumps(record))
    (work / 'run.json').write_text('{"seed": 42, "software": {"revision": "my revision"}}')
    return work


def test_a_whole_report(run):
    path, missing = write_report(run)
    assert path == run / 'report.html'
    assert not missing
    page = Elements(path.read_text())
    for text in (
        'my run', 'tiny.py', 'MPViT tiny', '1 of 3 planned', '1:00:00', '2026-01-02 03:04', 'bf16',
        'abc123-dirty', 'my revision', 'epoch_3.pth', ODD, 'mpvit test',
    ):  # fmt: skip
        assert text in page.text, text
    tiles = re.findall(r'class="tile"><b>(.*?)</b><span><strong>(.*?)</strong>', path.read_text())
    assert tiles[::11] == [('0.000', 'AP'), ('–', 'ARl')]
    assert tiles[8] == ('8.000', 'AR100')
    assert f"{run / 'tiny.py'}' --work-dir NEW_FOLDER" in page.text  # quoted: it has a space
    assert len(page.named('svg')) == 7
    assert len(page.named('img')) > 6
    assert all(image['src'].startswith('data:image/jpeg') for image in page.named('img'))
    assert all(image['alt'] for image in page.named('img'))
    assert path.stat().st_size < 3e6
    rows = re.findall(r'<td class="name">.*</tr>', path.read_text())
    assert len(rows) == 6


def test_it_loads_nothing_and_runs_no_foreign_code(run):
    path, _ = write_report(run)
    text = path.read_text()
    page = Elements(text)
    assert ODD not in text  # but escaped
    assert len(page.named('script')) == 1
    for tag in ('link', 'iframe', 'object'):
        assert not page.named(tag)
    for _, attributes in page.found:
        for name in ('src', 'href', 'xlink:href'):
            assert attributes.get(name, '#').startswith(('#', 'data:'))
    ids = [attributes['id'] for _, attributes in page.found if 'id' in attributes]
    assert len(ids) == len(set(ids))
    links = {link['href'][1:] for link in page.named('a')}
    assert links <= {*ids}


@pytest.mark.parametrize(
    ('lost', 'said'),
    [
        (
            'detections.bbox.json',
            'has no detections.bbox.json; evaluate first: mpvit test',
        ),
        ('metrics.json', 'does not say what was evaluated'),
        ('20260102_030405', 'has no log of a training'),
        ('tiny.py', 'There is no config in the folder'),
        ('../truth.json', 'truth.json of'),
    ],
)
def test_what_is_missing_is_said_in_its_place(run, lost, said):
    place = run / lost
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    path, missing = write_report(run, run / 'other.html')
    assert said in Elements(path.read_text()).text
    assert missing


def test_images_that_are_gone_are_said_to_be(run):
    record = json.loads((run / 'metrics.json').read_text())
    record['data']['images'] = '/nowhere'
    (run / 'metrics.json').write_text(json.dumps(record))
    path, _ = write_report(run)
    assert re.search(r'\d+ of the images shown could not be read in /nowhere', path.read_text())


def test_sizes_are_counted_by_the_annotated_area(run):
    truth = run.parent / 'truth.json'
    content = json.loads(truth.read_text())
    areas = [10, 32**2, 100, 96**2, 500, None]
    content['annotations'] = content['annotations'][: len(areas)]
    for entry, area in zip(content['annotations'], areas, strict=True):
        entry.update(area=area, bbox=[0, 0, 40, 40])
    truth.write_text(json.dumps(content))
    data, _ = data_facts(find_run(run))
    assert data[1]['by_size'] == dict(small=3, medium=2, large=1)


def test_many_classes(tmp_path):
    truth, _ = make_up(tmp_path, 30, 80)
    record = dict(data=dict(annotations=str(truth), images=''), metrics={})
    (tmp_path / 'metrics.json').write_text(json.dumps(record))
    path, _ = write_report(tmp_path)
    assert len(re.findall(r'<td class="name">', path.read_text())) == 80
    assert path.stat().st_size < 3e6


def test_in_a_browser(run):
    path, _ = write_report(run)
    requests, faults = [], []
    with browser_page() as page:
        page.on('request', lambda request: requests.append(request.url))
        page.on('pageerror', lambda fault: faults.append(fault))
        page.on('console', lambda message: faults.append(message.text))
        for width in (400, 1280):
            page.set_viewport_size(dict(width=width, height=900))
            page.goto(path.as_uri())
            assert page.evaluate('document.documentElement.scrollWidth') == width
        names = page.locator('#class-table tbody td:first-child').all_inner_texts
        ap = page.locator('#class-table tbody td:nth-child(4)').all_inner_texts
        in_order = names()
        page.get_by_role('button', name='AP', exact=True).click()
        values = [-1 if value == '–' else float(value) for value in ap()]
        assert values == sorted(values, reverse=True)
        page.get_by_role('button', name='class').click()
        assert sorted(names()) == sorted(in_order)
        assert names() != in_order  # the odd name comes first or last, not where it was
    assert [url for url in requests if not url.startswith(('data:', 'file:'))] == []
    assert faults == []
