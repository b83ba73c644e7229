"""The page as users meet it: tools/app.py in a process of its own, Chromium, crafted requests."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote

import httpx
import numpy as np
import pytest
from app_checkpoint import CLASSES, write_checkpoint
from PIL import Image
from runs import environment, wait_for
from web import browser_page

from mpvit.inference import Detector
from mpvit.inference.queries import record

SECONDS = 900  # for what takes few on an idle machine
NAME = 'tiny/epoch_1.pth'


@contextmanager
def started(root, temporary, *words, **variables):
    """The tool in a process of its own, once it says where the page is."""
    log = temporary / 'log'
    with log.open('w') as file:
        process = subprocess.Popen(
            [sys.executable, 'tools/app.py', *map(str, words)],
            cwd=root,
            env=environment(root, TMPDIR=str(temporary), **variables),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: process.poll() or 'The page is at' in log.read_text(), 'the page', SECONDS)
        found = re.search(r'The page is at (\S+)', log.read_text())
        assert found, log.read_text()
        yield SimpleNamespace(url=found[1], process=process, temporary=temporary, log=log)
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope='module')
def served(root, toy, tmp_path_factory):
    """The tool, started on a free port."""
    work_dirs, temporary = tmp_path_factory.mktemp('work_dirs'), tmp_path_factory.mktemp('tmp')
    checkpoint = write_checkpoint(root / 'tests/data/tiny.py', work_dirs / 'tiny')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    words = ['--work-dirs', work_dirs, '--images', toy / 'val2017', '--port', port]
    # a proxy that does not answer must not be asked about an address of this machine
    proxy = dict(HTTP_PROXY='http://127.0.0.1:9', NO_PROXY='')
    words += ['--max-upload', 1, '--device', 'cpu']
    with started(root, temporary, *words, **proxy) as page:
        page.pictures = sorted((toy / 'val2017').iterdir())
        page.checkpoint, page.config = checkpoint, checkpoint.with_name('tiny.py')
        yield page


@pytest.fixture(scope='module')
def detector(served):
    """The same detector, called in Python."""
    return Detector(served.config, served.checkpoint, 'cpu', threshold=0.05)


def upload(page, path):
    page.set_input_files('#upload input[type=file]', path)


def rows(page):
    return [row.split('\t') for row in page.locator('#table tbody tr').all_inner_texts()]


def wait_for_rows(page, count):
    page.wait_for_function(f"document.querySelectorAll('#table tbody tr').length == {count}")


def test_from_a_picture_to_what_its_detections_look_at(served, detector, tmp_path):
    picture = tmp_path / 'photo.png'
    Image.open(served.pictures[0]).save(picture)
    found = detector(picture)
    requests, failures = [], []
    with browser_page(seconds=SECONDS) as page:
        page.on('request', lambda request: requests.append(request.url))
        page.on('pageerror', lambda error: failures.append(error))
        page.goto(served.url)
        upload(page, picture)
        page.wait_for_selector('#picture .box')
        check_download(page, found)
        check_filters(page, found)
        check_click(page, detector, picture, found)
        check_keyboard(page, detector, picture, found)
        # names are text, nothing came from elsewhere, nothing broke
        assert page.locator('#evil').count() == 0
        assert page.evaluate('window.evil') is None
        assert page.locator('#picture img').get_attribute('alt').startswith('photo.png')
    own = (served.url, 'data:', 'blob:')
    assert [url for url in requests if not url.startswith(own)] == []
    assert failures == []


def check_download(page, found):
    """Detections and JSON are those of the detector."""
    kept = found.scores >= 0.3
    assert len(rows(page)) == kept.sum() > 5
    with page.expect_download() as download:
        page.click('#table .download')
    content = json.loads(Path(download.value.path()).read_text())
    annotations = content['annotations']
    assert [c['name'] for c in content['categories']] == CLASSES
    assert [a['category_id'] for a in annotations] == (found.labels[kept] + 1).tolist()
    np.testing.assert_allclose([a['score'] for a in annotations], found.scores[kept], atol=1e-4)
    x, y, width, height = np.transpose([a['bbox'] for a in annotations])
    corners = np.stack([x, y, x + width, y + height], axis=1)
    np.testing.assert_allclose(corners, found.boxes[kept], atol=0.05)


def check_filters(page, found):
    """The threshold and the classes filter what was found."""
    kept = found.scores >= 0.6
    slider = page.get_by_label('number input for Lowest score')
    slider.fill('0.6')
    slider.press('Enter')
    wait_for_rows(page, kept.sum())
    best = found.labels[0]
    page.get_by_role('checkbox', name=CLASSES[best], exact=True).uncheck()
    wait_for_rows(page, (kept & (found.labels != best)).sum())
    assert CLASSES[best] not in [row[0] for row in rows(page)]


def check_click(page, detector, picture, found):
    """A click shows the samples of the last decoder layer, as recorded in Python."""
    page.locator('#picture .box').first.click(force=True)  # or one that lies above it
    page.wait_for_selector('#picture .sample')
    (pressed,) = page.locator('#picture .box[aria-pressed=true]').all()
    index = int(pressed.get_attribute('data-detection'))
    check_samples(page, record(detector.model, picture, -1), found.queries[index])


def check_keyboard(page, detector, picture, found):
    """The table does what the picture does; the keyboard stays where it is; again closes it."""
    other = page.locator('#table tbody button[aria-pressed=false]').first
    index = int(other.get_attribute('data-detection'))
    other.focus()
    page.keyboard.press('Enter')
    chosen = f'#table button[data-detection="{index}"]'
    page.wait_for_selector(f'{chosen}[aria-pressed=true]')
    page.wait_for_function(f"document.activeElement.dataset.detection == '{index}'")
    layer = page.get_by_label('number input for Decoder layer')
    layer.fill('1')
    layer.press('Enter')
    page.wait_for_selector('figcaption:has-text("decoder layer 1 of 2")')
    check_samples(page, record(detector.model, picture, 0), found.queries[index])
    page.click(chosen)
    page.wait_for_selector('#picture .sample', state='detached')


def check_samples(page, points, query):
    """Compare the dots on the page with locations in percent of the picture."""
    styles = page.locator('#picture .sample').evaluate_all(
        'dots => dots.map(dot => [parseFloat(dot.style.left), parseFloat(dot.style.top)])'
    )
    weights = points.weights[query]
    expected = 100 * points.locations[query] / np.array(points.size)
    expected = expected[weights > 1e-3 * weights.max()]  # others cannot be seen
    assert len(styles) == len(expected) > 4
    distances = np.abs(np.array(styles)[:, None] - expected).max(-1)
    assert max(distances.min(0).max(), distances.min(1).max()) < 0.05


def test_what_cannot_be_used_is_told_in_the_page(served, tmp_path):
    (tmp_path / 'text.png').write_text('text')
    (tmp_path / 'big.png').write_bytes(os.urandom(2**21))
    with browser_page(seconds=SECONDS) as page:
        page.goto(served.url)
        page.wait_for_selector('#upload input[type=file]', state='attached')
        upload(page, tmp_path / 'text.png')
        page.wait_for_selector('text=text.png cannot be read: it is no image of the kinds')
        upload(page, tmp_path / 'big.png')
        page.wait_for_selector('text=exceed the maximum allowed size')
        # and the page goes on
        upload(page, served.pictures[0])
        page.wait_for_selector('#picture .box')
    assert 'Traceback' not in served.log.read_text()


def test_on_a_phone_with_a_picture_that_is_offered(served):
    with browser_page(400, SECONDS) as page:
        page.goto(served.url)
        page.get_by_role('button', name='Thumbnail 2 of').click()
        page.wait_for_selector('#picture .box')
        assert page.evaluate('document.documentElement.scrollWidth') <= 400
        name = served.pictures[1].name
        assert page.locator('#picture img').get_attribute('alt').startswith(f'{name} with')


def call(served, name, values, event=None, session=None):
    """Send an event as the page does, with any values, and wait for what comes of it."""
    dependencies = httpx.get(f'{served.url}config').json()['dependencies']
    number = next(d['id'] for d in dependencies if d['api_name'] == name)
    session = session or uuid.uuid4().hex
    sent = dict(fn_index=number, data=values, event_data=event, session_hash=session)
    httpx.post(f'{served.url}gradio_api/queue/join', json=sent).raise_for_status()
    address = f'{served.url}gradio_api/queue/data'
    messages = []
    with httpx.stream('GET', address, params=dict(session_hash=session), timeout=SECONDS) as answer:
        for line in answer.iter_lines():
            if line.startswith('data:'):
                messages.append(json.loads(line[5:]))
                if messages[-1]['msg'] == 'process_completed':
                    break
    told = ' '.join(m['log'] for m in messages if m['msg'] == 'log')
    return messages[-1], told


def file(path):
    return dict(path=str(path), meta=dict(_type='gradio.FileData'))


def test_crafted_requests_reach_no_other_file(served, tmp_path):
    elsewhere = served.pictures[0]  # offered, but only by its number
    for path in (elsewhere, served.checkpoint, '/etc/passwd'):
        answer, _ = call(served, 'on_upload', [file(path), NAME, 0.3])
        assert not answer['success'], answer
    for source in (str(served.checkpoint), '../x.pth', '/etc/passwd', None):
        answer, told = call(served, 'on_example', [source, 0.3], dict(index=0))
        assert not answer['success'] or 'there is no checkpoint' in told, answer
    for index in (-1, 99, '../x.png', None):
        answer, told = call(served, 'on_example', [NAME, 0.3], dict(index=index))
        assert 'there is no picture' in told, answer
    paths = [served.checkpoint, served.config, elsewhere, served.log, '/etc/passwd', 'setup.py']
    for path in paths:
        for route in ('gradio_api/file=', 'gradio_api/file/', 'gradio_api/proxy=', 'static/'):
            answer = httpx.get(f'{served.url}{route}{quote(str(path))}')
            assert answer.status_code in (400, 403, 404), (route, path)


def test_large_uploads_are_refused_by_the_server_too(served):
    content = dict(files=('x.png', b'0' * 2**21))
    answer = httpx.post(f'{served.url}gradio_api/upload', files=content)
    assert answer.status_code == 413
    assert not [p for p in served.temporary.rglob('x.png') if p.stat().st_size > 2**20]


def test_other_names_and_other_pages_are_refused(served):
    for headers in (
        {'host': 'evil.example'},
        {'host': f'evil.example:{httpx.URL(served.url).port}'},
        {'origin': 'http://evil.example'},
        {'origin': 'null'},
    ):
        for path in ('', 'config', 'gradio_api/info', 'theme.css'):
            assert httpx.get(f'{served.url}{path}', headers=headers).status_code == 403
        content = dict(files=('x.png', b'0'))
        answer = httpx.post(f'{served.url}gradio_api/upload', files=content, headers=headers)
        assert answer.status_code == 403
    own = served.url.rstrip('/')
    assert httpx.get(f'{served.url}config', headers={'origin': own}).status_code == 200


def test_nothing_is_fetched_from_elsewhere(served):
    """Addresses of the local network are refused by Gradio itself; this one is not."""
    address = 'http://198.51.100.1/x.png'
    answer, _ = call(served, 'on_upload', [file(address), NAME, 0.3])
    assert not answer['success']
    assert f'{address} is no upload' in served.log.read_text()
    assert httpx.get(f'{served.url}gradio_api/file={address}').status_code == 403


def test_several_users_at_once_get_what_is_theirs(served, detector):
    count = 4
    sessions = [uuid.uuid4().hex for _ in range(count)]

    def look(number):
        return call(served, 'on_example', [NAME, 0.3], dict(index=number), sessions[number])[0]

    with ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(look, range(count)))
    for answer, picture in zip(answers, served.pictures, strict=False):
        number = int((detector(picture).scores >= 0.3).sum())
        assert f'alt="{picture.name} with {number} detection' in answer['output']['data'][3]
    # each still has its own picture afterwards; a new user has none
    for session, picture in zip(sessions, served.pictures, strict=False):
        labels = [int(label) for label in set(detector(picture).labels)]
        values = [None, 0.99, labels, 2]
        answer, _ = call(served, 'on_select', values, dict(detection=0), session)
        assert f'alt="{picture.name} with' in answer['output']['data'][1]
    answer, _ = call(served, 'on_select', [None, 0.99, [], 2], dict(detection=0))
    assert answer['success']
    assert 'alt=' not in json.dumps(answer['output']['data'])


def test_it_listens_on_this_machine_only(served):
    lines = served.log.read_text()
    assert lines.startswith('Starting ...\n')
    assert 'there is no password' not in lines
    port = int(served.url.rstrip('/').rpartition(':')[2])
    with pytest.raises(OSError, match='refused'):
        socket.create_connection(('127.0.0.2', port))


def test_nothing_stays_on_disk(served):
    assert list(served.temporary.glob('mpvit-app-*'))
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(SECONDS) == 0, served.log.read_text()
    assert not list(served.temporary.glob('mpvit-app-*'))


def test_what_only_shows_at_the_start(refused, root, tmp_path, monkeypatch):
    files = (tmp_path / 'tiny.py', write_checkpoint(root / 'tests/data/tiny.py', tmp_path))
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = f'error: port {port} of 127.0.0.1 is in use; choose another --port'
        refused('app', *files, '--port', port, says=[words])
    words = 'error: cannot listen on 203.0.113.1'
    refused('app', *files, '--host', '203.0.113.1', says=[words])
    for name in ('GRADIO_TEMP_DIR', 'GRADIO_ANALYTICS_ENABLED', 'NO_PROXY'):
        monkeypatch.setenv(name, '')  # to be as before afterwards
    refused('app', *files, '--device', 'toaster', says=['error: device toaster'])
    monkeypatch.setitem(sys.modules, 'gradio', None)
    words = ['pages in the browser need gradio (', "pip install 'mpvit[app]'"]
    refused('app', *files, says=words)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.slow  # a page of its own; the others hold what happens on any address
def test_an_address_that_others_reach_is_warned_of(root, tmp_path):
    checkpoint = write_checkpoint(root / 'tests/data/tiny.py', tmp_path)
    words = [tmp_path / 'tiny.py', checkpoint, '--host', '0.0.0.0']
    with started(root, tmp_path, *words) as page:
        assert 'warning: whoever reaches 0.0.0.0 can use the page' in page.log.read_text()
        page.process.send_signal(signal.SIGTERM)
        assert page.process.wait(SECONDS) == 0, page.log.read_text()
