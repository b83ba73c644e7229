"""The site builds without a warning, and what it shows comes from the site itself."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def documented(module):
    """Public classes, their methods, and functions of a module that have a docstring."""
    found, todo = [], [('', ast.parse(module.read_text()))]
    while todo:
        prefix, holder = todo.pop()
        for node in holder.body:
            public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name[0] != '_'
            if public and ast.get_docstring(node):
                found.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    todo.append((f'{found[-1]}.', node))
    return found


@pytest.mark.slow
def test_the_site_builds_without_warnings(tmp_path):
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', '-n', '-c', 'docs']
    result = subprocess.run(
        [*command, '-d', tmp_path / 'doctrees', '.', tmp_path / 'site'],
        cwd=ROOT,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    site = tmp_path / 'site'
    assert 'docs/index.html' in (site / 'index.html').read_text()
    pages = list(site.rglob('*.html'))
    assert {page.stem for page in (ROOT / 'docs').glob('*.md')} <= {page.stem for page in pages}
    for page in pages:  # links lead out, but no script, style or picture is fetched
        text = page.read_text(encoding='utf-8')
        fetched = re.findall(r'<(?:script|img|link)[^>]* (?:src|href)="(https?:[^"]+)"', text)
        assert fetched == [], page
    for module in (ROOT / 'mpvit').glob('**/[!_]*.py'):
        name = '.'.join(module.relative_to(ROOT).with_suffix('').parts)
        page = (site / f'docs/api/{name}.html').read_text()
        assert f'id="module-{name}"' in page, name
        for member in documented(module):
            assert f'id="{name}.{member}"' in page, f'{name}.{member}'
