"""List published weights, or download some. Commands take them by name.

They are looked for in the folder MPVIT_WEIGHTS and among torch's downloads before they are fetched
(docs/checkpoints.md).
"""

import argparse
from urllib.parse import urlparse

from mpvit.checkpoints.published import Published, entry_of, fetch, local_file, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    text = 'download these, such as for machines without network, and print where they are'
    parser.add_argument('names', nargs='*', metavar='NAME', help=text)


def run(names: list[str]) -> None:
    """Print the table, or paths."""
    for entry in [entry_of(name) for name in names]:
        print(fetch(entry))
    if names:
        return
    width = max(map(len, table()))
    for kind, title in (('backbone', 'ImageNet weights'), ('detector', 'Detectors')):
        print(f'{title}:')
        for entry in table().values():
            if entry.of == kind:
                print(f'  {entry.name:{width}}  {entry.model}, published {entry.published}')
                print(f'  {"":{width}}  {_where(entry)}; licence: {entry.licence}')


def _where(entry: Published) -> str:
    found = local_file(entry)
    if found is not None:
        return str(found)
    hosts = dict.fromkeys(urlparse(address.url).netloc for address in entry.files)
    return f'not on this machine; from {", ".join(hosts)}'
