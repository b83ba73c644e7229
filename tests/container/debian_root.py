"""Carry out the Dockerfile without a container engine: in a fresh Debian root, under chroot.

    python tests/container/debian_root.py /tmp/debian_root --check --keep

Needs root's rights, debootstrap and a mirror of Debian, which is taken from this machine's apt. As
in an image, process 1 is the entry point, and what it sees is the image's environment. Not as
there: no limits, the network of this machine, and no GPU. Network settings of this
machine (proxy, package index, certificates) reach the steps that build, and not the root itself.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from string import Template

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = re.compile(
    r'(?i)^(http|https|no|all)_proxy$'
    r'|^UV_(DEFAULT_)?INDEX|^PIP_(INDEX|EXTRA|TRUSTED)|^(UV|PIP)_.*TIMEOUT$'
)
CERTIFICATES = ('SSL_CERT_FILE', 'PIP_CERT', 'REQUESTS_CA_BUNDLE')
TOY = 'mpvit_t_ddetr_toy'


def instructions(dockerfile: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile and their arguments, each on one line."""
    lines = [line for line in dockerfile.splitlines() if not re.match(r'\s*(#|$)', line)]
    for line in '\n'.join(lines).replace('\\\n', ' ').splitlines():
        name, _, value = line.partition(' ')
        yield name.upper(), ' '.join(value.split())


def context(root: Path, ignored: str) -> list[Path]:
    """Files that the build sees, relative to the root.

    Raises:
        ValueError: ``.dockerignore`` has a pattern of a form that is not understood here.
    """
    lines = [line for line in ignored.splitlines() if line and not line.startswith('#')]
    kept = [line[1:] for line in lines if line.startswith('!')]
    anywhere = {line.removeprefix('**/') for line in lines if line.startswith('**/')}
    if len(kept) + len(anywhere) + 1 != len(lines) or lines[0] != '*':
        raise ValueError('.dockerignore is not "*", then "!NAME" and "**/NAME" only')
    found = [path for name in kept for path in [root / name, *(root / name).rglob('*')]]
    files = [path.relative_to(root) for path in found if path.is_symlink() or path.is_file()]
    return sorted(path for path in files if not anywhere & set(path.parts))


class Image:
    """A root folder and what the instructions so far say about it."""

    def __init__(self, folder: Path, cache: Path, arguments: dict[str, str]) -> None:
        self.folder, self.cache, self.given = folder, cache, arguments
        self.env = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'}
        self.build_env: dict[str, str] = {}
        self.cwd, self.user, self.entrypoint, self.cmd = '/', '0', [], []
        self.volumes: list[str] = []

    def build(self) -> None:
        """Carry out every instruction."""
        for name, value in instructions((ROOT / 'Dockerfile').read_text()):
            start = time.time()
            print(f'{name} {value}', flush=True)
            getattr(self, f'_{name.lower()}')(value)
            if name in ('FROM', 'RUN'):
                print(f'  {time.time() - start:.0f} s', flush=True)

    def run(self, *arguments: str, user: str | None = None, binds: dict[str, Path]) -> int:
        """What ``docker run --rm`` does, what is written outside of mounts included.

        Args:
            arguments: After the name of the image; none for those of CMD.
            user: Numbers ``user:group``; None for the image's own.
            binds: Folders of this machine by their place in the container.

        Returns:
            The exit status.
        """
        user = user or f'{self.user}:{self.user}'
        command = [*self.entrypoint, *(arguments or self.cmd)]
        print(f'--user {user}: {shlex.join(arguments or self.cmd)}', flush=True)
        with tempfile.TemporaryDirectory(dir=self.folder.parent) as layer:
            return self._call(command, self.env, user, binds, Path(layer))

    def _call(
        self,
        command: list[str],
        env: dict[str, str],
        user: str,
        binds: dict[str, Path],
        layer: Path | None = None,
    ) -> int:
        """Run a command as process 1 of its own; its mounts end with it.

        With ``layer``, a folder, what it writes goes there and not into the root.
        """
        root, mounts = self.folder, []
        if layer:
            for name in ('upper', 'work', 'root'):
                (layer / name).mkdir(mode=0o755)
            layer.chmod(0o755)
            root = layer / 'root'
            options = f'lowerdir={self.folder},upperdir={layer}/upper,workdir={layer}/work'
            mounts.append(shlex.join(['mount', '-t', 'overlay', '-o', options, 'root', str(root)]))
        mounts.append(f'mount -t proc proc {root}/proc')
        mounts.append(f'mount -t tmpfs -o mode=1777 shm {root}/dev/shm')
        for place, source in binds.items():
            mounts.append(f'mkdir -p {root}{place} && mount --bind {source} {root}{place}')
        values = [f'{name}={value}' for name, value in env.items()]
        inside = ['chroot', f'--userspec={user}', '--groups=', root, 'env', '-i', '-C', self.cwd]
        own = ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c']
        script = ' && '.join([*mounts, 'exec "$@"'])
        return subprocess.run([*own, script, 'sh', *inside, *values, *command]).returncode

    def _expanded(self, text: str) -> str:
        return Template(text).safe_substitute({**self.build_env, **self.env})

    def _from(self, image: str) -> None:
        suite = re.fullmatch(r'debian:(\w+)-slim', image)
        assert suite, f'{image}: only a Debian can be made here'
        mirror = subprocess.run(
            ['apt-get', 'indextargets', '--format', '$(REPO_URI)', f'Codename: {suite[1]}'],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        command = ['debootstrap', '--variant=minbase', suite[1], str(self.folder), mirror[0]]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shutil.copy('/etc/resolv.conf', self.folder / 'etc' / 'resolv.conf')

    def _run(self, line: str) -> None:
        binds = {}
        while mount := re.match(r'--mount=type=cache,target=(\S+) ', line):
            line = line[mount.end() :]
            binds[mount[1]] = self.cache
        assert not line.startswith('--'), f'RUN {line}: this flag cannot be carried out here'
        outside = {name: value for name, value in os.environ.items() if OUTSIDE.search(name)}
        inside = self.folder / 'run' / 'outside.crt'
        if os.environ.get('SSL_CERT_FILE'):
            shutil.copy(os.environ['SSL_CERT_FILE'], inside)
            outside |= dict.fromkeys(CERTIFICATES, '/run/outside.crt')
        env = {**outside, 'HOME': '/root', **self.build_env, **self.env}
        status = self._call(['/bin/sh', '-c', line], env, f'{self.user}:{self.user}', binds)
        inside.unlink(missing_ok=True)
        if status:
            raise SystemExit(f'RUN {line}: exit status {status}')

    def _copy(self, line: str) -> None:
        *sources, target = line.split()
        files = context(ROOT, (ROOT / '.dockerignore').read_text())
        place = self.folder / os.path.join(self.cwd, target).lstrip('/')
        missing = set(sources) - {'.'} - set(map(str, files))
        assert not missing, f'COPY {line}: only files and "." can be copied here: {missing}'
        for path in files:
            if '.' in sources or str(path) in sources:
                (place / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / path, place / path, follow_symlinks=False)

    def _arg(self, line: str) -> None:
        name, has_default, default = line.partition('=')
        if has_default or name in self.given:
            self.build_env[name] = self.given.get(name, shlex.split(default)[0] if default else '')

    def _env(self, line: str) -> None:
        pairs = dict(word.split('=', 1) for word in shlex.split(line))
        self.env |= {name: self._expanded(value) for name, value in pairs.items()}

    def _workdir(self, path: str) -> None:
        self.cwd = path
        (self.folder / path.lstrip('/')).mkdir(parents=True, exist_ok=True)

    def _user(self, user: str) -> None:
        self.user = user

    def _volume(self, line: str) -> None:
        self.volumes += json.loads(line)

    def _entrypoint(self, line: str) -> None:
        self.entrypoint = json.loads(line)

    def _cmd(self, line: str) -> None:
        self.cmd = json.loads(line)


def check(image: Image, work: Path) -> None:
    """`mpvit --help`, then as two users a short training, and its detector on pictures."""
    assert image.run(binds={}) == 0
    small = ['train_dataloader.dataset.indices=64', 'val_dataloader.dataset.indices=16']
    train = ['train', TOY, '--epochs', '1', '--workers', '1', '--cfg-options', *small]
    infer = ['infer', f'work_dirs/{TOY}/epoch_1.pth', 'data/toy/val2017']
    for user in (f'{image.user}:{image.user}', '4321:4321'):
        folder = work / user.partition(':')[0]
        folder.mkdir()
        os.chown(folder, *map(int, user.split(':')))
        for command in (train, infer):
            assert image.run(*command, user=user, binds={'/work': folder}) == 0, command
        assert list(folder.glob(f'work_dirs/{TOY}/infer/**/*.jpg')), 'no picture was drawn'
        owners = {path.stat().st_uid for path in folder.rglob('*')}
        assert owners == {int(user.partition(':')[0])}, owners


def demo(image: Image) -> None:
    """`make demo` in a checkout on a Debian that has Python with venv, and make."""
    image.cwd = '/root/mpvit'
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, check=True)
    for name in tracked.stdout.decode().split('\0')[:-1]:
        place = image.folder / image.cwd.lstrip('/') / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, place, follow_symlinks=False)
    image.user = '0'
    image.env = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'UV_LINK_MODE': 'copy'}
    cache = '--mount=type=cache,target=/root/.cache/uv '
    image._run(cache + 'apt-get update && apt-get install -y --no-install-recommends make')
    image._run(cache + 'make demo')


def main() -> None:
    """Build, check, and leave nothing behind unless told to."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folder', type=Path, help='where the root is made; must not exist')
    parser.add_argument('--build-arg', action='append', default=[], metavar='NAME=VALUE')
    parser.add_argument('--cache', type=Path, help="folder for uv's cache (default: none is kept)")
    parser.add_argument('--check', action='store_true', help='help, a short training, a picture')
    parser.add_argument('--demo', action='store_true', help='`make demo` too: 10 minutes')
    parser.add_argument('--keep', action='store_true', help='leave the root where it is')
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch_folder = Path(scratch)
        scratch_folder.chmod(0o755)
        cache = given.cache or scratch_folder / 'cache'
        cache.mkdir(exist_ok=True)
        image = Image(
            given.folder.resolve(), cache, dict(pair.split('=', 1) for pair in given.build_arg)
        )
        try:
            image.build()
            if given.check:
                check(image, scratch_folder)
            if given.demo:
                demo(image)
        finally:
            if not given.keep:
                shutil.rmtree(given.folder)
    print('done')


if __name__ == '__main__':
    main()
