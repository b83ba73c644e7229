"""List the configs that come with the project. Commands take them by name."""

import argparse

from mpvit.config.names import find_config, shipped_configs
from mpvit.files.paths import expanded


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'name', nargs='?', type=expanded, metavar='NAME', help='print the path of this one'
    )


def run(name: str | None) -> None:
    """Print names or a path."""
    if name is not None:
        print(find_config(name))
        return
    configs = shipped_configs()
    width = max(map(len, configs))
    for name, path in configs.items():
        first = path.read_text(encoding='utf-8').partition('\n')[0]
        print(f'{name:{width}}  {first.removeprefix("# ")}')
