"""The tiny trained detector as exported files."""

import pytest

from mpvit.export import export


@pytest.fixture(scope='session')
def onnx_file(tiny, trained, tmp_path_factory):
    """ONNX file of the tiny detector, any batch and size."""
    target = tmp_path_factory.mktemp('exported') / 'tiny.onnx'
    return export(tiny[0], str(trained / 'epoch_2.pth'), target=str(target))[0]


@pytest.fixture(scope='session')
def openvino_file(tiny, trained, tmp_path_factory):
    """OpenVINO file of the tiny detector, any batch and size."""
    target = tmp_path_factory.mktemp('exported') / 'tiny.xml'
    checkpoint = str(trained / 'epoch_2.pth')
    return export(tiny[0], checkpoint, format='openvino', target=str(target))[0]
