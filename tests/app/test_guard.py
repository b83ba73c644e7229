"""Whom the page answers, and how much it keeps; without Gradio."""

import os
import socket

import anyio
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

from mpvit.app import guard as module
from mpvit.app.guard import Guard, make_room

MAX_UPLOAD = 2**16


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Builds a client of a page that listens on a host."""
    monkeypatch.setattr(socket, 'gethostname', lambda: 'lab-7')
    monkeypatch.setattr(socket, 'getfqdn', lambda: 'lab-7.example.org')

    async def answer(request):
        return PlainTextResponse(f'{len(await request.body())} bytes')

    async def talk(websocket):
        await websocket.accept()
        await websocket.close()

    routes = [Route('/{path:path}', answer, methods=['GET', 'POST']), WebSocketRoute('/ws', talk)]

    def build(host='127.0.0.1'):
        guard = Middleware(Guard, host=host, folder=tmp_path, max_upload=MAX_UPLOAD)
        return TestClient(Starlette(routes=routes[::-1], middleware=[guard]))

    return build


LOCAL = ['localhost', 'LOCALHOST:7860', 'localhost.', '127.0.0.1:7860', '[::1]:7860', '10.0.0.7']
OF_MACHINE = ['lab-7:7860', 'lab-7.local', 'lab-7.example.org']
STRANGE = ['evil.example', 'localhost.evil.example:7860', '127.0.0.1.evil.example', '', '[', 'a b']


@pytest.mark.parametrize('host', ['127.0.0.1', '::1', 'localhost', '0.0.0.0', '192.0.2.1'])
def test_only_names_of_the_machine_are_answered(client, host):
    page, open_to_others = client(host), host in ('0.0.0.0', '192.0.2.1')
    for name in LOCAL:
        assert page.get('/', headers={'host': name}).status_code == 200, name
    for name in OF_MACHINE:
        expected = 200 if open_to_others else 403
        assert page.get('/', headers={'host': name}).status_code == expected, name
    for name in STRANGE:
        assert page.get('/', headers={'host': name}).status_code == 403, name


def test_the_name_that_it_listens_on_is_answered(client):
    headers = {'host': 'gpu.example.com:7860', 'origin': 'http://gpu.example.com:7860'}
    assert client('gpu.example.com').post('/', headers=headers).status_code == 200
    assert client().post('/', headers=headers).status_code == 403


@pytest.mark.parametrize(
    ('origin', 'status'),
    [
        ('http://localhost:7860', 200),
        ('http://localhost:9999', 403),  # another server of this machine
        ('http://evil.example', 403),
        ('http://evil.example:7860', 403),
        ('http://[', 403),
        ('null', 403),
    ],
)
def test_other_pages_are_not_answered(client, origin, status):
    headers = {'host': 'localhost:7860', 'origin': origin}
    page = client()
    assert page.post('/', headers=headers, content=b'x').status_code == status
    assert page.get('/', headers=headers).status_code == status
    if status == 403:
        with pytest.raises(WebSocketDenialResponse), page.websocket_connect('/ws', headers=headers):
            pass


def test_a_request_has_a_length_and_a_limit(client):
    page = client()
    page.headers['host'] = 'localhost'
    assert page.post('/', content=b'x' * MAX_UPLOAD).text == f'{MAX_UPLOAD} bytes'
    assert page.post('/', content=b'x' * (MAX_UPLOAD + 2**16 + 1)).status_code == 413
    assert page.post('/', content=iter([b'x'])).status_code == 411
    for length in ('-1', '1e9', '9' * 30):
        assert page.post('/', headers={'content-length': length}).status_code == 413
    assert page.get('/gradio_api/file=http://example.org/x').status_code == 403


def write(folder, count, size):
    for index in range(count):
        path = folder / 'uploads' / str(index) / 'x.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'0' * size)
        os.utime(path, (index, index))


def test_the_oldest_uploads_make_room(client, tmp_path):
    page = client()
    page.headers['host'] = 'localhost'
    write(tmp_path, 60, MAX_UPLOAD)
    page.get('/')  # brings nothing
    assert len(list(tmp_path.rglob('*.png'))) == 60
    page.post('/', content=b'x' * MAX_UPLOAD)
    left = {int(path.parent.name) for path in tmp_path.rglob('*.png')}
    assert left == set(range(11, 60))  # 49, and the one that comes


def test_room_is_made_to_the_byte(tmp_path):
    write(tmp_path, 4, 10)
    own = tmp_path / 'thumbnail.webp'
    own.write_bytes(b'0' * 99)
    os.utime(own, (0, 0))
    make_room(tmp_path, 40, {own})
    assert len(list(tmp_path.rglob('*.png'))) == 4
    assert own.exists()
    own.unlink()
    make_room(tmp_path, 30)
    assert len(list(tmp_path.rglob('*.png'))) == 3
    make_room(tmp_path, 29)
    assert len(list(tmp_path.rglob('*.png'))) == 2
    make_room(tmp_path, 0)
    assert not list(tmp_path.rglob('*.png'))


@pytest.fixture(params=['page', 'bare'])
def guard(request, tmp_path, monkeypatch):
    """One in front of a page that reads the whole request, and waits for little time."""
    monkeypatch.setattr(module, '_SILENT', 0.2)

    async def read(request):
        return PlainTextResponse(f'{len(await request.body())} bytes')

    page = Starlette(routes=[Route('/', read, methods=['POST'])])
    if request.param == 'bare':  # as what stands between the guard and the page

        async def page(scope, receive, send):
            while (await receive()).get('more_body'):
                pass

    return Guard(page, '127.0.0.1', tmp_path, MAX_UPLOAD)


async def ask(guard, length, *parts):
    """Announce bytes and send some; the status, and whether the connection is kept."""
    headers = [(b'host', b'localhost'), (b'content-length', str(length).encode())]
    scope = dict(type='http', method='POST', path='/', headers=headers, query_string=b'')
    messages = [dict(type='http.request', body=part, more_body=True) for part in parts]
    answers = []

    async def receive():
        if not messages:
            await anyio.sleep(60)
        return messages.pop(0)

    async def send(message):
        answers.append(message)

    await guard(scope, receive, send)
    return answers[0]['status'], (b'connection', b'close') not in answers[0]['headers']


def test_what_is_announced_and_does_not_come_takes_no_room(guard, tmp_path):
    write(tmp_path, 49, MAX_UPLOAD)
    statuses = []

    async def announce(*parts):
        statuses.append(await ask(guard, MAX_UPLOAD, *parts))

    async def attack():
        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(announce)
                tasks.start_soon(announce, b'x')
            await anyio.sleep(0.1)
            assert await ask(guard, 1000, b'x' * 1000) == (408, False)  # room, but no end of it

    anyio.run(attack)
    assert len(list(tmp_path.rglob('*.png'))) == 49
    assert statuses == [(408, False)] * 200
    assert (guard._came, guard._due) == (0, 0)


def test_what_comes_together_has_a_limit(guard, monkeypatch):
    monkeypatch.setattr(module, '_SILENT', 120)
    statuses = []

    async def bring():
        statuses.append((await ask(guard, MAX_UPLOAD, *[b'x' * (MAX_UPLOAD // 4)] * 3))[0])

    async def attack():
        async with anyio.create_task_group() as tasks:
            for _ in range(80):
                tasks.start_soon(bring)
            with anyio.fail_after(60):
                while 503 not in statuses:
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

    anyio.run(attack)
    assert set(statuses) == {503}
    assert (guard._came, guard._due) == (0, 0)


def test_room_is_made_while_an_upload_comes(guard, tmp_path):
    write(tmp_path, 500, MAX_UPLOAD // 10)
    seen = []

    async def app(scope, receive, send):
        for _ in range(16):
            await receive()
            seen.append(len(list(tmp_path.rglob('*.png'))))

    guard.app = app

    async def upload():
        with pytest.raises(IndexError):  # nothing was answered
            await ask(guard, MAX_UPLOAD, *[b'x' * (MAX_UPLOAD // 16)] * 16)

    anyio.run(upload)
    assert seen == sorted(seen, reverse=True)
    for count, left in enumerate(seen, 1):
        assert left * (MAX_UPLOAD // 10) + count * MAX_UPLOAD // 16 <= 50 * MAX_UPLOAD
    assert 485 <= seen[-1] < seen[0]
