"""Small videos, written and read with OpenCV, which has no part in what is tested."""

from pathlib import Path

import cv2
import numpy as np

FOURCC = {'.avi': 'MJPG', '.mp4': 'mp4v', '.webm': 'VP80'}


def write(path: Path, frames: list[np.ndarray], rate: float = 25) -> Path:
    """Write RGB frames."""
    height, width = frames[0].shape[:2]
    code = cv2.VideoWriter_fourcc(*FOURCC[path.suffix])
    writer = cv2.VideoWriter(str(path), code, rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def read(path: Path) -> tuple[list[np.ndarray], float]:
    """RGB frames and frames a second."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = capture.read()
        if not there:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame[..., ::-1])


def steps(count: int, width: int, height: int) -> list[np.ndarray]:
    """Frames of one colour each, brighter and brighter, with a dark upper left quarter."""
    frames = []
    for brightness in np.linspace(60, 240, count):
        frame = np.full((height, width, 3), brightness, np.uint8)
        frame[: height // 2, : width // 2] = 0
        frames.append(frame)
    return frames
