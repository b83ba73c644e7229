"""The Triton kernels compiled for GPUs that are not there, and what the compiler made of them."""

import itertools

import pytest

pytest.importorskip('triton', reason='needs Triton, which comes with torch for CUDA')

from benchmarks.kernels import CAPABILITIES, DTYPES, POINTS, WIDTHS, Case, cases, compiled, main

CORNERS = 4 * POINTS  # pixels that a program reads in the unrolled part


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    """What was compiled by an earlier version is not taken."""
    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))


def check(case, config):
    """No spills, the widest loads and additions of the GPU, relaxed, and no 64-bit division."""
    report = compiled(case, config)
    assert report.registers > 0
    # of other widths a few kernels keep two registers aside that their loop does not need
    assert report.spilled <= (0 if case.channels == 32 else 8)
    assert not {'s64', 'u64'} & set(report.divisions)
    size = DTYPES[case.dtype]
    elements = config.kwargs['ROWS'] * case.channels // (32 * config.num_warps)  # of a thread
    assert report.loads[size * elements] >= CORNERS
    if case.direction == 'forward':
        assert size * elements == 16
        assert not report.atomics
    elif case.native:
        assert size * elements == 16
        kind = {'fp16': 'f16', 'bf16': 'bf16'}[case.dtype]
        assert report.atomics == {f'relaxed.add.noftz.v{elements}.{kind}': CORNERS}
    elif case.capability >= 90:
        assert elements == 4  # 16 bytes of float32
        assert report.atomics == {'relaxed.add.v4.f32': CORNERS}
        assert not report.barriers
    else:
        assert elements in (1, 4)
        assert report.atomics == {'relaxed.add.f32': elements * CORNERS}


@pytest.mark.parametrize(
    'case',
    [
        Case('forward', 'fp32', 80, numbers=0),
        Case('forward', 'bf16', 90),
        Case('backward', 'fp32', 90, channels=16),
    ],
    ids=str,
)
def test_some_kernels(case):
    check(case, case.candidates()[0])


@pytest.mark.slow
@pytest.mark.parametrize('channels', WIDTHS)
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('capability', CAPABILITIES)
def test_all_kernels(capability, dtype, channels):
    for direction in ('forward', 'backward'):
        for numbers in (2, 0, 4):
            case = Case(direction, dtype, capability, channels, numbers)
            configs = case.candidates()
            for config in configs if numbers == 2 else configs[:1]:
                check(case, config)
    if capability >= 90 and dtype != 'fp32':
        case = Case('backward', dtype, capability, channels, native=True)
        check(case, case.candidates()[0])


def test_candidates_give_a_thread_16_bytes_in_every_order():
    for dtype, channels in itertools.product(DTYPES, WIDTHS):
        case = Case('forward', dtype, 90, channels)
        configs = case.candidates()
        assert {c.kwargs['NEIGHBOURS'] for c in configs} == {False, True}
        for config in configs:
            bytes_of_all = config.kwargs['ROWS'] * channels * DTYPES[dtype]
            assert bytes_of_all == 16 * 32 * config.num_warps
    assert len(Case('backward', 'fp32', 80).candidates()) == 8  # also 4 bytes a thread
    assert len(Case('backward', 'fp32', 90).candidates()) == 4


def test_report_is_a_table(capsys, monkeypatch):
    one = next(iter(cases(everything=False)))
    monkeypatch.setattr('benchmarks.kernels.cases', lambda everything: [one])
    monkeypatch.setattr('sys.argv', ['kernels'])
    main()
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| forward')]
    (row,) = rows
    assert 'of 16 B' in row
    assert len({line.count('|') for line in rows}) == 1
