"""Videos in and out: every frame, at its moment, the right way up."""

from fractions import Fraction

import av
import numpy as np
import pytest
import videos

from mpvit.errors import UserError
from mpvit.inference.video import Moment, VideoWriter, frames


def differences(found, expected):
    return [np.abs(a.astype(int) - b).mean() for a, b in zip(found, expected, strict=True)]


@pytest.mark.parametrize(
    ('name', 'rate'), [('a.mp4', 25), ('a.mp4', 30000 / 1001), ('a.avi', 12.5), ('a.webm', 10)]
)
def test_every_frame_is_read_in_order(tmp_path, name, rate):
    expected = videos.steps(9, 64, 48)
    read = list(frames(videos.write(tmp_path / name, expected, rate)))
    assert max(differences([pixels for _, pixels in read], expected)) < 6
    moments = [moment for moment, _ in read]
    assert [moment.frame for moment in moments] == list(range(9))
    assert moments[0].frames == 9
    assert float(moments[0].rate) == pytest.approx(rate, rel=1e-4)
    seconds = [moment.seconds for moment in moments]
    assert seconds == pytest.approx(np.arange(9) / rate, abs=1e-3)


@pytest.mark.parametrize(
    'content',
    ['ffconcat version 1.0\nfile a.mp4\n', '#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n'],
)
def test_a_list_of_videos_is_not_followed(tmp_path, content):
    videos.write(tmp_path / 'a.mp4', videos.steps(9, 64, 48))
    (tmp_path / 'list.mp4').write_text(content)
    with pytest.raises(UserError, match=r'list.mp4 cannot be read'):
        list(frames(tmp_path / 'list.mp4'))


def test_limits_and_open_files(tmp_path, monkeypatch):
    path = videos.write(tmp_path / 'a.mp4', videos.steps(9, 64, 48))
    with path.open('rb') as file:
        assert len(list(frames(file, 'https://a.org/a.mp4'))) == 9
    monkeypatch.setenv('MPVIT_MAX_PIXELS', '3071')
    with pytest.raises(UserError, match=r'a.mp4 .*64 x 48 pixels, more than 3,071; MPVIT_MAX_PIX'):
        list(frames(path))
    for text in ('1e12', '1e300'):  # more than FFmpeg can count
        monkeypatch.setenv('MPVIT_MAX_PIXELS', text)
        assert len(list(frames(path))) == 9


@pytest.mark.parametrize('name', ['in.mp4', 'in.avi', 'in.webm'])
@pytest.mark.parametrize('rate', [25, 30000 / 1001])
def test_what_is_written_has_the_rate_size_and_length_of_what_was_read(tmp_path, name, rate):
    source = videos.write(tmp_path / name, videos.steps(9, 64, 48), rate)
    write(tmp_path / 'out.mp4', *zip(*frames(source), strict=True))
    (expected, old_rate), (found, new_rate) = map(videos.read, (source, tmp_path / 'out.mp4'))
    assert len(found) == 9
    assert found[0].shape == (48, 64, 3)
    assert new_rate == pytest.approx(old_rate, rel=1e-3)
    assert max(differences(found, expected)) < 6


def moments(count):
    return [Moment(n, count, Fraction(25), n, 1, Fraction(1, 25)) for n in range(count)]


def write(path, moments, pictures, size=(64, 48)):
    writer = VideoWriter(path, moments[0], size)
    for moment, pixels in zip(moments, pictures, strict=True):
        writer.write(pixels, moment)
    writer.close()


def test_odd_sizes_stay(tmp_path):
    expected = videos.steps(9, 65, 49)
    write(tmp_path / 'a.mp4', moments(9), expected, (65, 49))
    found, rate = videos.read(tmp_path / 'a.mp4')
    assert max(differences(found, expected)) < 6
    assert rate == 25


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path):
    values, sizes = (200, 100, 50), ((48, 64), (96, 80), (30, 20))
    pictures = [np.full((*s, 3), v, np.uint8) for s, v in zip(sizes, values, strict=True)]
    write(tmp_path / 'a.mp4', moments(3), pictures)
    found, _ = videos.read(tmp_path / 'a.mp4')
    assert [frame.shape for frame in found] == [(48, 64, 3)] * 3
    assert [frame.mean() for frame in found] == pytest.approx(values, abs=4)


def test_a_file_is_closed_where_the_encoder_is_missing(tmp_path, monkeypatch):
    opened = []

    class Refusing:
        def __enter__(self):
            opened.append(self)
            return self

        def __exit__(self, *error):
            opened.remove(self)

        def add_stream(self, *arguments, **settings):
            assert opened
            raise av.error.EncoderNotFoundError(1, 'Encoder not found')

    monkeypatch.setattr(av, 'open', lambda *arguments, **settings: Refusing())
    with pytest.raises(UserError, match='a.mp4 .*Encoder not found'):
        VideoWriter(tmp_path / 'a.mp4', moments(1)[0], (64, 48))
    assert not opened


def test_uneven_moments_stay(tmp_path):
    shown = [0, 3, 4, 9, 10, 30]  # as phones record them, in hundredths of a second
    moments = [
        Moment(number, 6, Fraction(20), start, 1, Fraction(1, 100))
        for number, start in enumerate(shown)
    ]
    write(tmp_path / 'a.mp4', moments, videos.steps(6, 64, 48))
    write(tmp_path / 'b.mp4', *zip(*frames(tmp_path / 'a.mp4'), strict=True))
    for name in ('a.mp4', 'b.mp4'):
        seconds = [moment.seconds for moment, _ in frames(tmp_path / name)]
        assert seconds == pytest.approx(np.array(shown) / 100, abs=1e-6)


def test_a_time_that_cannot_be_does_not_tell_how_many_frames_there_are(tmp_path):
    path = tmp_path / 'gap.mkv'
    with av.open(path, 'w') as file:
        stream = file.add_stream('libx264', rate=25, width=64, height=48, pix_fmt='yuv420p')
        for shown, pixels in zip((0, 1, 2**34), videos.steps(3, 64, 48), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts, frame.time_base = shown, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    assert [moment.frames for moment, _ in frames(path)] == [0, 0, 0]


@pytest.mark.parametrize(('matrix', 'turns'), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2)])
def test_a_phone_held_upright(tmp_path, matrix, turns):
    expected = videos.steps(3, 64, 48)
    path = videos.write(tmp_path / 'a.mp4', expected)
    content = path.read_bytes()
    # the display matrix of the track: two rows of two numbers in 16.16, each row with a third
    place = content.index(b'tkhd') + 4 + 40
    a, b, c, d = (int(value * 65536).to_bytes(4, 'big', signed=True) for value in matrix)
    turned = a + b + bytes(4) + c + d
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])
    read = [pixels for _, pixels in frames(path)]
    assert max(differences(read, [np.rot90(frame, turns) for frame in expected])) < 6
    assert max(differences(read, videos.read(path)[0])) < 3  # OpenCV turns them too


def test_what_is_no_video(tmp_path):
    path = tmp_path / 'a.mp4'
    path.write_bytes(b'no video')
    with pytest.raises(UserError, match=r'a\.mp4'):
        next(frames(path))
    with pytest.raises(UserError, match=r'b\.mp4'):
        next(frames(tmp_path / 'b.mp4'))


def test_a_video_that_ends_too_early_gives_what_it_has_and_says_so(tmp_path):
    path = videos.write(tmp_path / 'a.avi', videos.steps(40, 160, 120))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    read = []
    with pytest.raises(UserError, match=r'a\.avi .*\d+ of 40 frames'):
        read.extend(pixels for _, pixels in frames(path))
    assert len(videos.read(path)[0]) == len(read) > 5
