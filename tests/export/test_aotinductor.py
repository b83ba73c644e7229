"""Packages that PyTorch runs by itself."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector
from torch._inductor import config as inductor
from torch.utils import cpp_extension

from mpvit.engine.test import evaluate
from mpvit.errors import UserError
from mpvit.export.aotinductor import multiple_of
from mpvit.export.files import export
from mpvit.files.untrusted import TRUST_VARIABLE
from mpvit.inference import load_detector

# What a user's program is, in both languages: it must not need this project or mmdet.
PYTHON = """
import sys
for name in ('mpvit', 'mmdet', 'mmcv', 'mmengine'):
    sys.modules[name] = None  # importing it fails
import torch
package = torch._inductor.aoti_load_package(sys.argv[1])
with torch.no_grad():
    outputs = package(torch.load('images.pt'), torch.load('sizes.pt'))
torch.save(list(outputs), 'outputs.pt')
"""
CPP = """
#include <fstream>
#include <iterator>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

torch::Tensor tensor(const char* name) {
  std::ifstream file(name, std::ios::binary);
  return torch::pickle_load({std::istreambuf_iterator<char>(file), {}}).toTensor();
}

int main(int count, char** arguments) {
  torch::NoGradGuard guard;
  torch::inductor::AOTIModelPackageLoader package(arguments[1]);
  auto outputs = package.run({tensor("images.pt"), tensor("sizes.pt")});
  auto bytes = torch::pickle_save(outputs);
  std::ofstream("outputs.pt", std::ios::binary).write(bytes.data(), bytes.size());
}
"""


def python_program(folder):
    """Command that runs the program in Python."""
    return [sys.executable, '-c', PYTHON]


def cpp_program(folder):
    """Command that runs the program in C++, compiled against the libraries of PyTorch."""
    if shutil.which('g++') is None:
        pytest.skip('g++ is not installed')
    (folder / 'main.cpp').write_text(CPP)
    includes = [f'-I{path}' for path in cpp_extension.include_paths()]
    (libraries,) = cpp_extension.library_paths()
    libraries = [f'-L{libraries}', f'-Wl,-rpath,{libraries}', '-ltorch', '-ltorch_cpu', '-lc10']
    command = ['g++', '-std=c++20', *includes, 'main.cpp', '-o', 'main', *libraries]
    subprocess.run(command, check=True, cwd=folder)
    return ['./main']


@pytest.fixture(scope='module')
def package(tiny, checkpoint, tmp_path_factory):
    """Package of the tiny detector, any batch and size, and what its export found."""
    target = tmp_path_factory.mktemp('package') / 'tiny.pt2'
    return export(tiny[0], checkpoint, format='aotinductor', target=str(target))


@pytest.mark.slow
def test_it_agrees_with_pytorch_in_batches_of_several_sizes(package):
    found = package[1]
    print(found)
    assert (found.lost, found.images, found.batches) == (0, 7, 4)
    assert found.boxes < 1e-2
    assert found.scores < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize('program', [python_program, cpp_program])
def test_a_program_without_this_project_finds_the_same(program, package, detector, tmp_path):
    generator = torch.Generator().manual_seed(0)
    shape = (3, 128, 128)  # what the pipeline of the tiny config makes of it is the same
    pictures = torch.randint(256, (2, *shape), generator=generator, dtype=torch.uint8)
    torch.save(pictures, tmp_path / 'images.pt')
    torch.save(torch.tensor([[128, 128]] * 2), tmp_path / 'sizes.pt')
    subprocess.run([*program(tmp_path), str(package[0])], check=True, cwd=tmp_path)
    outputs = torch.load(tmp_path / 'outputs.pt', weights_only=False)  # our own
    for picture, boxes, scores, labels in zip(pictures, *outputs, strict=True):
        image = np.ascontiguousarray(picture.permute(1, 2, 0).numpy()[..., ::-1])
        expected = inference_detector(detector, image).pred_instances
        assert (scores - expected.scores).abs().max() < 1e-5
        assert (boxes - expected.bboxes).abs().max() < 1e-2
        assert (labels == expected.labels).all()


@pytest.mark.slow
def test_in_the_place_of_a_checkpoint(package, tiny, checkpoint, findable, tmp_path, monkeypatch):
    """Of whoever is trusted, since it is code."""
    monkeypatch.setenv(TRUST_VARIABLE, '1')
    folders = [str(tmp_path / name) for name in ('torch', 'package')]
    expected, actual = (
        evaluate(tiny[0], str(file), work_dir=folder, cfg_options=findable)
        for file, folder in zip((checkpoint, package[0]), folders, strict=True)
    )
    assert expected['coco/bbox_mAP'] > 0.2
    assert actual == pytest.approx(expected, abs=1e-6)
    record = json.loads((Path(folders[1]) / 'metrics.json').read_text())
    assert record['inference'] == {'runtime': 'aotinductor'}
    facts = load_detector(tiny[0], package[0]).network.facts
    assert json.loads(facts['multiple']) == 128
    assert json.loads(facts['classes'])[0] == 'circle'


def test_code_of_a_stranger_is_not_executed(tiny, tmp_path, monkeypatch):
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    file = tmp_path / 'any.pt2'
    file.write_bytes(b'PK')
    with pytest.raises(UserError, match=f'machine code.*{TRUST_VARIABLE}=1'):
        load_detector(tiny[0], file)


def test_what_is_needed_is_said_before_the_work(tiny, checkpoint, tmp_path, monkeypatch):
    settings = dict(format='aotinductor', target=str(tmp_path / 'tiny.pt2'))
    with pytest.raises(UserError, match='--dtype fp16 is not for --format aotinductor'):
        export(tiny[0], checkpoint, dtype='fp16', **settings)
    monkeypatch.setattr(inductor.cpp, 'cxx', (None, 'no-such-compiler'))
    with pytest.raises(UserError, match=r'C\+\+ compiler.*CXX'):
        export(tiny[0], checkpoint, **settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('divisor', 'size', 'expected'),
    [(1, None, 64), (32, None, 64), (128, None, 128), (48, None, 192), (1, (90, 100), 1)],
)
def test_sizes_it_takes(divisor, size, expected):
    assert multiple_of(divisor, size) == expected
