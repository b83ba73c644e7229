"""Cameras and streams: what names them, which frames are taken, and how they end."""

import shutil
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
import videos
import web

from mpvit.errors import UserError
from mpvit.inference.inputs import find
from mpvit.inference.live import live_frames
from mpvit.inference.sources import loaders


class Camera:
    """In the place of OpenCV's: frames of rising brightness, 100 a second."""

    count, released = 9, 0

    def __init__(self, index):
        self.index, self.frame = index, 0

    def isOpened(self):
        return self.index == 0

    def read(self):
        if self.frame == self.count:
            return False, None
        time.sleep(0.01)
        self.frame += 1
        return True, np.full((48, 64, 3), (0, 0, 10 * self.frame), np.uint8)  # BGR

    def release(self):
        Camera.released += 1


@pytest.fixture
def camera(monkeypatch, tmp_path):
    """A camera, and an empty folder to work in."""
    monkeypatch.setattr(cv2, 'VideoCapture', Camera)
    monkeypatch.setattr(Camera, 'released', 0)
    monkeypatch.chdir(tmp_path)
    return Camera


class Cam(BaseHTTPRequestHandler):
    """A camera of the network: JPEG files one after the other, then no more."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Type', 'multipart/x-mixed-replace; boundary=frame')
        self.end_headers()
        try:
            for value in range(20, 220, 20):
                jpeg = cv2.imencode('.jpg', np.full((48, 64, 3), value, np.uint8))[1].tobytes()
                head = f'--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'
                self.wfile.write(head.encode() + jpeg + b'\r\n')
                time.sleep(0.02)
        except ConnectionError:  # who asked for the headers only
            pass


@contextmanager
def serving():
    with ThreadingHTTPServer(('127.0.0.1', 0), Cam) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'127.0.0.1:{server.server_port}'
        server.shutdown()


def test_numbers_and_addresses(camera, tmp_path):
    addresses = [
        'rtsp://me:secret@cam.local:554/live/1?x=1',
        'udp://@:1234',
        'https://a.org/b.m3u8',
    ]
    places = find(['0', '07', *addresses])
    assert all(place.live and place.is_video for place in places)
    names = ['camera_0', 'camera_7', 'cam_local_554_live_1', '1234', 'a_org_b_m3u8']
    assert [place.name for place in places] == names
    assert [place.shown for place in places[1:4]] == [
        'camera 7',
        'rtsp://***@cam.local:554/live/1?x=1',
        'udp://@:1234',
    ]
    (tmp_path / '0').touch()
    assert not find(['0'])[0].live
    (tmp_path / '7').mkdir()
    with pytest.raises(UserError, match='folder 7 has no images'):
        find(['7'])
    for other in ('1234', 'file:///a.m3u8', 'concat:a|b'):
        with pytest.raises(UserError):
            find([other])


def test_a_camera_gives_what_it_sees_until_it_ends(camera):
    found = [load() for load in loaders('0')]
    assert 1 <= len(found) <= 9
    assert {(source.path, source.name) for source in found} == {('camera 0', 'camera_0')}
    assert (found[-1].image == (90, 0, 0)).all()  # RGB, and the last frame is not lost
    assert [source.moment.frame for source in found] == list(range(len(found)))
    seconds = [source.moment.seconds for source in found]
    assert seconds == sorted({*seconds})
    assert seconds[0] == 0
    assert camera.released == 1


def test_frames_that_nobody_had_time_for_are_left_out(camera, monkeypatch):
    monkeypatch.setattr(camera, 'count', 10**9)
    frames = live_frames(find(['0'])[0])
    values = []
    for _ in range(3):
        values.append(next(frames)[1][0, 0, 0] // 10)
        time.sleep(0.1)
    frames.close()
    assert values[1] - values[0] > 2
    for _ in range(100):  # the camera is free again
        time.sleep(0.01)
        if camera.released:
            return
    pytest.fail('the camera was not released')


def test_a_camera_of_the_network(tmp_path):
    with serving() as host:
        for address in (f'http://{host}/video', f'http://{host}/video.mjpg'):
            found = [load() for load in loaders(address)]
            assert found[0].image.shape == (48, 64, 3)
            assert abs(found[-1].image.mean() - 200) < 3
            assert len(found) > 1
            assert found[0].name.startswith('127_0_0_1')


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ('3', 'camera 3 cannot be opened.* no file 3'),
        (
            'rtsp://me:secret@127.0.0.1:9/x',
            r'//\*{3}@127.0.0.1:9/x cannot be opened: .*refused',
        ),
        ('http://127.0.0.1:9/x.m3u8', 'x.m3u8 cannot be opened: .*refused'),
    ],
)
def test_what_cannot_be_opened(camera, given, message):
    (load,) = loaders(given)
    with pytest.raises(UserError, match=message) as told:
        load()
    assert 'secret' not in str(told.value)


def test_a_camera_without_pictures(camera, monkeypatch):
    monkeypatch.setattr(camera, 'count', 0)
    with pytest.raises(UserError, match='camera 0 gives no pictures'):
        next(live_frames(find(['0'])[0]))


def test_no_camera_on_this_machine(capfd, tmp_path, monkeypatch):
    """OpenCV itself, which says more than a line by default."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='camera 97 cannot be opened'):
        next(live_frames(find(['97'])[0]))
    assert capfd.readouterr().err == ''


def test_a_playlist_cannot_name_files_of_this_machine(tmp_path):
    clip = videos.write(tmp_path / 'private.mp4', videos.steps(9, 64, 48))
    (tmp_path / 'www').mkdir()
    for name, segment in (('own', clip.as_uri()), ('served', 'segment.mp4')):
        text = f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n'
        (tmp_path / 'www' / f'{name}.m3u8').write_text(text)
    shutil.copy(clip, tmp_path / 'www' / 'segment.mp4')
    with web.serving(tmp_path / 'www') as base:
        assert [load() for load in loaders(f'{base}/served.m3u8')]
        (load,) = loaders(f'{base}/own.m3u8')
        with pytest.raises(UserError, match='own.m3u8 cannot be opened'):
            load()
