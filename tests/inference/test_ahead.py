"""Results that are computed before they are needed."""

import signal
import subprocess
import sys
import threading
import time
from threading import Event

import pytest

from mpvit.inference import sources
from mpvit.inference.sources import ahead


def test_results_come_in_order_and_errors_where_they_belong():
    def tenth(number):
        time.sleep(0.001 * (number % 3))
        return 10 / number

    assert list(ahead(tenth, range(1, 30), depth=5)) == [10 / number for number in range(1, 30)]
    results = ahead(tenth, [1, 0, 2], depth=2)
    assert next(results) == 10
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nobody_waits_for_what_is_still_read(monkeypatch):
    monkeypatch.setattr(sources, '_PATIENCE', 0.0)
    busy, enough, read = Event(), Event(), []

    def wait(number):
        read.append(number)
        if number:
            busy.set()
            enough.wait(60)
        return number

    results = ahead(wait, range(100), depth=8)
    assert next(results) == 0
    assert busy.wait(60)
    start = time.monotonic()
    results.close()
    assert time.monotonic() - start < 30
    enough.set()
    while any(thread.name.endswith('(_work)') for thread in threading.enumerate()):
        time.sleep(0.01)
    assert len(read) <= 1 + sources._THREADS  # what waited for its turn was left


# A main thread that waits for a thread that reads.
WAITING = """
import time
from mpvit.cli._door import behind_the_door
from mpvit.inference.sources import ahead

def read(number):
    print('reading', flush=True)
    time.sleep(600)

behind_the_door(lambda: list(ahead(read, [0, 1], depth=0)))
"""


@pytest.mark.parametrize(('number', 'status'), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_program_whose_threads_read(number, status):
    command = [sys.executable, '-c', WAITING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b'reading\n'
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == status
    assert len(said.strip().splitlines()) == 1
