"""The tutorial is a valid notebook and runs from the first cell to the last."""

import ast
import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(ROOT / 'docs/notebooks/tutorial.ipynb', as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def test_cells_compile(notebook):
    nbformat.validate(notebook)
    names = set()
    for cell in code_cells(notebook):
        source = re.sub(r'^(\s*)[%!].*', r'\1pass', cell.source, flags=re.MULTILINE)
        names |= {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}
    (parameters,) = [c for c in code_cells(notebook) if 'parameters' in c.metadata.get('tags', [])]
    set_there = {node.id for node in ast.walk(ast.parse(parameters.source)) if hasattr(node, 'id')}
    assert set_there <= names
    assert all(len(line) <= 100 for c in code_cells(notebook) for line in c.source.splitlines())


def test_links_lead_to_pages(notebook):
    text = '\n'.join(cell.source for cell in notebook.cells if cell.cell_type == 'markdown')
    links = re.findall(r'\]\(([^)#]+)', text)
    assert links
    for link in links:
        assert (ROOT / 'docs/notebooks' / link).is_file(), link


@pytest.mark.slow
def test_every_cell_runs(notebook, tmp_path, monkeypatch):
    """With the tiny config on a few images; the cells are otherwise those of the page."""
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('MPLBACKEND', 'module://matplotlib_inline.backend_inline')
    monkeypatch.setenv('JUPYTER_RUNTIME_DIR', str(tmp_path / 'runtime'))
    monkeypatch.setenv('IPYTHONDIR', str(tmp_path / 'ipython'))
    small = dict(BASE=str(ROOT / 'tests/data/tiny.py'), EPOCHS=1, BATCH_SIZE=4)
    small |= dict(TRAIN_IMAGES=8, VAL_IMAGES=6)
    first = code_cells(notebook)[0]
    first.source += '\n' + '\n'.join(f'{name} = {value!r}' for name, value in small.items())
    folder = tmp_path / 'run'
    folder.mkdir()
    client = NotebookClient(
        notebook, timeout=3600, kernel_name='python3', resources={'metadata': {'path': str(folder)}}
    )
    client.execute(env=dict(os.environ))
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
    assert len(pictures) >= 3  # samples, curves, detections
    text = ''.join(output.get('text', '') for output in outputs)
    assert re.search(r'box AP -?[01]\.\d{3}', text)
    assert (folder / 'work_dirs/tutorial/metrics.json').is_file()
    assert (folder / 'tutorial.onnx').is_file()
