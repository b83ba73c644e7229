"""Links of the pages lead to files and headings that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md'), *ROOT.glob('configs/**/*.md')]
CODE = re.compile(r'^```.*?^```|`[^`\n]*`', re.MULTILINE | re.DOTALL)
LINK = re.compile(r'\]\(([^)\s]+)\)|<img [^>]*src="([^"]+)"')


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub and the site give to the headings of a page."""
    text = re.sub(r'^```.*?^```', '', page.read_text(encoding='utf-8'), flags=re.M | re.S)
    headings = re.findall(r'^#+ (.+)$', text, re.MULTILINE)
    plain = [re.sub(r'[^\w\- ]', '', heading.lower()) for heading in headings]
    return {heading.replace(' ', '-') for heading in plain}


@pytest.mark.parametrize('page', sorted(PAGES), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert '@@' not in page.read_text(encoding='utf-8'), 'a figure is still to be filled in'
    for match in LINK.finditer(CODE.sub('', page.read_text(encoding='utf-8'))):
        link = match[1] or match[2]
        if '://' in link:
            continue
        place, _, anchor = link.partition('#')
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f'{page.name} links to {link}'
        assert target.is_relative_to(ROOT), f'{page.name} links out of the project: {link}'
        if anchor:
            assert anchor in anchors(target), f'{page.name} links to {link}, a heading not there'


def test_every_page_is_in_the_navigation():
    index = (ROOT / 'docs' / 'index.md').read_text(encoding='utf-8')
    listed = set(re.findall(r'^(?:[\w ]+ <)?(/?[\w/]+)>?$', index, re.MULTILINE))
    pages = [page for page in (ROOT / 'docs').glob('*.md') if page.stem != 'index']
    assert {page.stem for page in pages} <= listed
