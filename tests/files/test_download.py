import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import web

from mpvit.files import download as module
from mpvit.files.download import DownloadError, download

HEAD = b'HTTP/1.1 200 OK\r\n'


@contextmanager
def answering(*parts, endless=None, pause=0.0):
    """A server that gives one answer, whatever it is asked, and the address."""
    with socket.create_server(('127.0.0.1', 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                try:
                    for part in parts:
                        connection.sendall(part)
                    while endless:
                        connection.sendall(endless)
                        time.sleep(pause)
                except OSError:  # the reader has gone
                    pass

        threading.Thread(target=answer, daemon=True).start()
        yield f'http://127.0.0.1:{listener.getsockname()[1]}/weights.pth'


def refused(url, folder, words):
    """The error of a download, after which nothing lies in the folder."""
    with pytest.raises(DownloadError, match=words) as caught:
        download(url, folder / 'weights.pth')
    assert list(folder.iterdir()) == []
    assert '\n' not in str(caught.value)
    assert url in str(caught.value)


def test_a_whole_file(tmp_path):
    source, target = tmp_path / 'web', tmp_path / 'here'
    source.mkdir(), target.mkdir()
    (source / 'a b.pth').write_bytes(bytes(range(256)) * 1000)
    (target / 'x.pth').write_text('old')
    with web.serving(source) as url:
        download(f'{url}/a b.pth', target / 'x.pth', progress=True)
    assert (target / 'x.pth').read_bytes() == (source / 'a b.pth').read_bytes()
    assert [path.name for path in target.iterdir()] == ['x.pth']


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_what_a_check_refuses_is_not_kept(tmp_path, error):
    def check(path):
        assert path.read_bytes() == b'page'
        raise error

    with answering(HEAD, b'\r\npage') as url, pytest.raises(error):
        download(url, tmp_path / 'weights.pth', check=check)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_ends(tmp_path, monkeypatch):
    monkeypatch.setenv('MPVIT_MAX_BYTES', '100000')
    with answering(HEAD, b'\r\n', endless=b'x' * 4096) as url:
        refused(url, tmp_path, 'more than 100,000 bytes; MPVIT_MAX_BYTES')
    monkeypatch.setenv('MPVIT_MAX_BYTES', '100')
    with answering(HEAD, b'Content-Length: 5000\r\n\r\n', endless=b'x' * 4096) as url:
        refused(url, tmp_path, 'more than 100 bytes')
    monkeypatch.setattr(module, 'DOWNLOAD_SECONDS', 0.2)
    with answering(HEAD, b'\r\n', endless=b'x', pause=0.02) as url:
        start = time.monotonic()
        refused(url, tmp_path, 'takes more than 0.2 s .*MPVIT_MAX_SECONDS')
        assert time.monotonic() - start < 5


def test_headers_that_never_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'DOWNLOAD_SECONDS', 0.3)
    with answering(HEAD, endless=b'X', pause=0.02) as url:
        refused(url, tmp_path, 'no answer after 0.3 s')


def test_a_server_that_falls_silent(tmp_path, monkeypatch):
    monkeypatch.setattr(module, '_SILENT_SECONDS', 0.2)
    with socket.create_server(('127.0.0.1', 0)) as listener:  # answers nobody
        url = f'http://127.0.0.1:{listener.getsockname()[1]}/weights.pth'
        refused(url, tmp_path, 'timed out')


def test_cut_off(tmp_path):
    with answering(HEAD, b'Content-Length: 10\r\n\r\n12345') as url:
        refused(url, tmp_path, 'cut off after 5 of 10 bytes')


@pytest.mark.parametrize('target', ['ftp://127.0.0.1/x', 'file:///etc/hostname', 'data:,x'])
def test_redirection_to_another_scheme(target, tmp_path):
    head = f'HTTP/1.1 302 Found\r\nLocation: {target}\r\n\r\n'.encode()
    with answering(head) as url:
        refused(url, tmp_path, target.split(':')[0])


@pytest.mark.parametrize('url', ['file:///etc/hostname', 'ftp://a/b', 'http://[', 'no address'])
def test_other_addresses(url, tmp_path):
    refused(url, tmp_path, 'cannot be downloaded')


DOWNLOADING = """
import sys
from mpvit.files import download
if 'named' in sys.argv:
    download._unnamed = lambda folder: None
download.download(sys.argv[1], sys.argv[2])
"""


@pytest.mark.parametrize('way', ['unnamed', 'named'])
def test_killed(way, tmp_path):
    target = tmp_path / 'weights.pth'
    with answering(HEAD, b'\r\n', endless=b'x' * 65536, pause=0.001) as url:
        command = [sys.executable, '-c', DOWNLOADING, url, str(target), way]
        with subprocess.Popen(command) as process:
            limit = time.monotonic() + 30
            while time.monotonic() < limit and not written(process):
                time.sleep(0.02)
            assert written(process)
            process.kill()
    assert [p.name for p in tmp_path.iterdir()] == ['weights.pth.part'] * (way == 'named')
    with answering(HEAD, b'\r\nwhole') as url:  # what was left does not stay
        download(url, target)
    assert [p.name for p in tmp_path.iterdir()] == ['weights.pth']
    assert target.read_bytes() == b'whole'


def written(process):
    """Whether a process has written much."""
    line = Path(f'/proc/{process.pid}/io').read_text().splitlines()[1]
    return int(line.removeprefix('wchar: ')) > 100_000


CHUNKED = b'Transfer-Encoding: chunked\r\n\r\n'


@pytest.mark.parametrize(
    ('parts', 'endless'),
    [((CHUNKED, b'1;'), b'a'), ((CHUNKED, b'1\r\nx\r\n0\r\n'), b'X: y\r\n')],
    ids=['size of a chunk', 'trailers'],
)
def test_lines_that_never_end(parts, endless, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'DOWNLOAD_SECONDS', 0.3)
    with answering(HEAD, *parts, endless=endless, pause=0.02) as url:
        start = time.monotonic()
        refused(url, tmp_path, 'takes more than 0.3 s .*MPVIT_MAX_SECONDS')
        assert time.monotonic() - start < 10


def test_what_comes_with_a_redirection_is_not_read(tmp_path):
    with answering(HEAD, b'\r\nhere') as there:
        head = f'HTTP/1.1 302 Found\r\nLocation: {there}\r\n\r\n'.encode()
        with answering(head, endless=b'x' * 4096) as url:
            start = time.monotonic()
            download(url, tmp_path / 'weights.pth')
            assert time.monotonic() - start < 10
    assert (tmp_path / 'weights.pth').read_bytes() == b'here'


@pytest.mark.parametrize('text', ['1e11', '1e300'])
def test_more_time_than_a_clock_holds(text, tmp_path, monkeypatch):
    monkeypatch.setenv('MPVIT_MAX_SECONDS', text)
    for parts in [(b'\r\nwhole',), (b'Content-Length: 5\r\n\r\nwhole',)]:
        with answering(HEAD, *parts) as url:
            download(url, tmp_path / 'weights.pth')
        assert (tmp_path / 'weights.pth').read_bytes() == b'whole'
    with answering(HEAD, b'Content-Length: 0\r\n\r\n') as url:
        download(url, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == b''
