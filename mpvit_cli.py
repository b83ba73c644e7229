"""The command `mpvit`: runs the tools, wherever they were installed.

It stands beside the package because importing anything of `mpvit` brings torch and mmdet, which
takes seconds. The tools lie in ``mpvit/.mim/tools``, where mim looks for them too.
"""

import ast
import difflib
import importlib.util
import os
import runpy
import sys
from pathlib import Path

USAGE = """usage: mpvit COMMAND [ARGUMENT ...]

Deformable DETR with an MPViT backbone. `mpvit COMMAND --help` says what a command takes.

commands:
"""


def package_folder() -> Path:
    """Where the package lies, without importing it."""
    package = importlib.util.find_spec('mpvit')
    if package is None or not package.submodule_search_locations:
        sys.exit('error: mpvit is not installed; run `pip install mpvit`')
    return Path(package.submodule_search_locations[0])


def find_tools() -> dict[str, Path]:
    """The tools by name, those that start several processes (``dist_train``) among them."""
    folder = package_folder() / '.mim' / 'tools'
    files = [path for path in sorted(folder.glob('*')) if path.suffix in ('.py', '.sh')]
    return {path.stem: path for path in files if not path.name.startswith('_')}


def first_sentence(path: Path) -> str:
    """What a tool says of itself: the first line of its docstring or comment, without the usage."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py':
        line = (ast.get_docstring(ast.parse(text)) or '').partition('\n')[0]
    else:
        line = text.split('\n')[1].removeprefix('# ')
    return line.partition(': ')[0].rstrip('.')


def main() -> None:
    """Become the tool that the command line names, in the same process."""
    name, *arguments = sys.argv[1:] or ['--help']
    tools = find_tools()
    if name in ('-h', '--help'):
        width = max(map(len, tools), default=0)
        lines = [f'  {tool:{width}}  {first_sentence(path)}\n' for tool, path in tools.items()]
        sys.stdout.write(USAGE + ''.join(lines))
        return
    if name == '--version':
        version = runpy.run_path(str(package_folder() / 'version.py'))['__version__']
        sys.stdout.write(f'mpvit {version}\n')
        return
    path = tools.get(name.replace('-', '_'))
    if path is None:
        close = difflib.get_close_matches(name.replace('-', '_'), tools, n=1)
        hint = f'did you mean {close[0]}?' if close else '`mpvit --help` lists the commands'
        sys.stderr.write(f'error: there is no command {name}; {hint}\n')
        sys.exit(2)
    python = Path(sys.executable)
    # the shell scripts call `python`, which has to be the one that holds the package
    os.environ['PATH'] = os.pathsep.join([str(python.parent), os.environ.get('PATH', os.defpath)])
    os.environ['MPVIT_COMMAND'] = f'mpvit {path.stem}'  # named in the usage, see tools/_cli.py
    program = str(python) if path.suffix == '.py' else 'bash'
    os.execvp(program, [program, str(path), *arguments])


if __name__ == '__main__':
    main()
