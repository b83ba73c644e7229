"""Packages that wait: not loaded by `import mpvit`, and the real thing as soon as they are used."""

import subprocess
import sys

import pytest

from mpvit.deferred_imports import deferred


def run(code, **kwargs):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_import_of_mpvit_leaves_them_out_and_use_brings_them():
    """One process, because the import takes seconds."""
    out = run(
        'import sys, mpvit\n'
        'names = "imgaug", "imagecorruptions", "sklearn"\n'
        'print(*(name in sys.modules for name in names))\n'
        'from mmdet.datasets.transforms.generate_line import ImageAug\n'
        'size = dict(width=32, height=16)\n'
        'step = dict(name="Resize", parameters=dict(size=size), p=1.0)\n'
        'augment = ImageAug([step]).pipeline\n'
        'print(type(augment).__module__)\n'
        'import imgaug.augmenters\n'
        'print(isinstance(augment, imgaug.augmenters.Sequential))\n'
    )
    assert out[:3] == ['False'] * 3
    assert out[3].startswith('imgaug.augmenters.')
    assert out[4:] == ['True']


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that is installed and not loaded."""
    (tmp_path / 'waits' / 'inner').mkdir(parents=True)
    (tmp_path / 'waits' / '__init__.py').write_text('value = [1]\n')
    (tmp_path / 'waits' / 'inner' / '__init__.py').write_text(
        'class Thing:\n    size = 3\n\ndef double(n):\n    return 2 * n\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [name for name in sys.modules if name.split('.')[0] == 'waits']:
        del sys.modules[name]


def test_what_is_taken_works_when_used(package):
    with deferred('waits'):
        import waits.inner as alias
        from waits.inner import Thing, double
    assert 'waits' not in sys.modules
    assert double(4) == 8
    assert isinstance(sys.modules['waits.inner'].Thing(), Thing)
    assert alias.Thing.size == Thing().size == 3
    Thing.size = 5
    import waits

    assert waits.value == [1]
    assert waits.inner.Thing.size == 5


def test_use_within_the_block_brings_the_real_package(package):
    with deferred('waits'):
        from waits.inner import double

        assert double(2) == 4
        import waits
    assert waits.value == [1]


def test_missing_and_loaded_packages_are_left_alone(package):
    import waits

    with deferred('waits', 'no_such_package', 'no_such.package'):
        with pytest.raises(ImportError):
            import no_such_package  # noqa: F401
        import waits as again
        from waits.inner import Thing
    assert again is waits
    assert Thing.__module__ == 'waits.inner'


def test_deriving_from_a_stand_in_fails_at_once(package):
    with deferred('waits'):
        from waits.inner import Thing
    with pytest.raises(TypeError):

        class Derived(Thing):
            pass
