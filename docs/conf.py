"""Settings of the documentation site, built by `make docs` (Sphinx, MyST, furo).

The source folder is the root of the repository, so that links between the pages here, the README
and the files of the repository are the same on the site, in an editor and on GitHub: a page
becomes a page, any other file a download.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import mpvit  # noqa: E402

project = 'mpvit'
author = copyright = 'The mpvit contributors'
release = version = mpvit.__version__
extensions = [
    'myst_nb',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
]

root_doc = 'docs/index'
include_patterns = ['*.md', 'docs/**', 'configs/*/README.md']
visited = {'docs', 'configs', 'README.md', 'CHANGELOG.md', 'CONTRIBUTING.md'}
exclude_patterns = [path.name for path in ROOT.iterdir() if path.name not in visited]
exclude_patterns += ['docs/_templates']

nb_execution_mode = 'off'  # a test runs the notebook
myst_heading_anchors = 4  # links to headings, as GitHub makes them
myst_enable_extensions = ['deflist']

# Docstrings are Google's, with `name` for what can be linked to.
default_role = 'py:obj'
add_module_names = False
templates_path = ['_templates']
shutil.rmtree(ROOT / 'docs/api', ignore_errors=True)  # a page a module; none of one that is gone
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
napoleon_use_ivar = True
napoleon_use_rtype = False
# of the names that link nowhere only those of this project are mistakes, but for what is private,
# constants and type variables
nitpick_ignore_regex = [('py:.*', r'(?!mpvit\.).*'), ('py:.*', r'.*\.(_\w+|[A-Z_]+|AnyPath)')]

html_theme = 'furo'
html_title = f'mpvit {release}'
html_extra_path = ['_site']  # index.html, which leads to docs/
html_show_sphinx = False
html_copy_source = False
