"""List the configs that come with the project: python tools/configs.py [NAME]."""

import argparse

from _cli import light, parse, run


def main() -> None:
    """Parse arguments and print names or a path."""
    parser = argparse.ArgumentParser(
        description='List the configs that come with the project. Tools take them by name.'
    )
    parser.add_argument('name', nargs='?', metavar='NAME', help='print the path of this one')
    name = parse(parser)['name']
    run(lambda: _print(name))


def _print(name: str | None) -> None:
    arguments = light('arguments').configs
    if name is not None:
        print(arguments.find_config(name))
        return
    configs = arguments.shipped_configs()
    width = max(map(len, configs))
    for name, path in configs.items():
        first = path.read_text(encoding='utf-8').partition('\n')[0]
        print(f'{name:{width}}  {first.removeprefix("# ")}')


if __name__ == '__main__':
    main()
