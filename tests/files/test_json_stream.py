"""Reading JSON piece by piece gives what json.loads gives, wherever the pieces end."""

import io
import json
import random

import pytest

from mpvit.files import json_stream
from mpvit.files.json_stream import JsonStream, NotUtf8

OBJECTS = [
    '{}',
    ' {"a" : [] , "b":{} }\n',
    '{"a": [1, -2.5e-7, 1.5E+300, 0, -0.0, 123456789012345678901234567890, NaN, -Infinity]}',
    '{"a": [true, false, null, "", "text", "\\u00e9\\ud83d\\ude00\\ud800\\"\\\\", "é€😀"], "x": 7}',
    '{"a": [[1], {"b": [{}]}, "]", "}", ","], "é": [3], "a": [2, {"c": "twice"}], "b": "last"}',
    json.dumps(
        {'a': [{'id': i, 'box': [i / 7, i, 0.1, 1e-9]} for i in range(20)], 'b': [' ' * 99]}
    ),
]
BROKEN = ['', ' ', '[]', '3', '{', '{"a"', '{"a":', '{"a":1', '{"a":[1', '{"a":[1,', '{"a":[1,]}']
BROKEN += ['{"a":[1 2]}', '{"a":1}x', '{"a":1}}', '{a:1}', '{"a":[tru]}', '{"a":"\n"}', '{,}']
BROKEN += ['{"a":["\\x"]}', '{"a":[01]}', '{"a":[1.]}', '{"a" 1}', '{"a":1,}', '{"a":["x}']
DEEP = '{"a":' + '[' * 100_000


def read(data, piece, monkeypatch):
    monkeypatch.setattr(json_stream, '_PIECE', piece)
    stream, found = JsonStream(io.BytesIO(data)), {}
    for key in stream.members():
        if stream.peek() == '[':
            found[key] = []
            for place, value in stream.items():
                text = data[place:].decode()  # which begins there
                assert repr(json.JSONDecoder().raw_decode(text)[0]) == repr(value)
                found[key].append(value)
        else:
            found[key] = stream.value()
    assert stream.offset == len(data)
    return found


@pytest.mark.parametrize('piece', [1, 2, 3, 7, 64, 1000])
@pytest.mark.parametrize('text', OBJECTS)
def test_an_object_is_what_json_makes_of_it(text, piece, monkeypatch):
    assert repr(read(text.encode(), piece, monkeypatch)) == repr(json.loads(text))


@pytest.mark.parametrize('piece', [1, 5, 1000])
@pytest.mark.parametrize('text', [*BROKEN, DEEP])
def test_what_json_refuses_is_refused(text, piece, monkeypatch):
    if text not in ('[]', '3'):
        with pytest.raises((ValueError, RecursionError)):
            json.loads(text)
    with pytest.raises((ValueError, RecursionError)):
        read(text.encode(), piece if text != DEEP else 2**20, monkeypatch)


def test_damaged_objects_are_taken_and_refused_alike(monkeypatch):
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    for _ in range(1500):
        data = bytearray(rng.choice(OBJECTS[1:]).encode())
        data[rng.randrange(len(data))] = rng.choice(b'{}[],:"\\ 0123456789eE+-.utfnN\xc3\xff\x00')
        try:
            expected = repr(json.loads(bytes(data).decode()))
        except (ValueError, RecursionError):
            expected = None
        try:
            found = repr(read(bytes(data), rng.choice([1, 3, 16, 4096]), monkeypatch))
        except ValueError:
            found = None
        assert found == expected, bytes(data)
        outcomes[expected is None] += 1
    assert min(outcomes.values()) > 150


def test_a_mark_is_passed_over_and_counts_as_bytes(monkeypatch):
    data = b'\xef\xbb\xbf' + '{"é": [1, 2]}'.encode()
    stream = JsonStream(io.BytesIO(data))
    assert stream.starts_with_mark
    assert [[place for place, _ in stream.items()] for _ in stream.members()] == [[11, 14]]


def test_a_fault_is_named_with_its_byte(monkeypatch):
    for piece in (3, 1000):
        with pytest.raises(ValueError, match='byte 11'):
            read(b'{"a": [1, "\x01"]}', piece, monkeypatch)
        with pytest.raises(NotUtf8, match='byte 13'):
            read('{"é": [1, "'.encode() + b'a\xff"]}', piece, monkeypatch)


def test_one_entry_is_in_memory_at_a_time(monkeypatch):
    monkeypatch.setattr(json_stream, '_PIECE', 2**12)
    data = json.dumps({'a': [{'text': 'x' * 1000} for _ in range(1000)]}).encode()
    stream = JsonStream(io.BytesIO(data))
    longest = 0
    for _ in stream.members():
        for _ in stream.items():
            longest = max(longest, len(stream._text))
    assert longest < 2**14
