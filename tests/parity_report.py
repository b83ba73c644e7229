"""Write the table of errors against the official models into docs/faithfulness.md.

make parity
"""

import json
import sys
from pathlib import Path

import parity_check
import parity_fill
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from parity_detector import CONFIGS, PARITY, TOLERANCES, DetectorParity

from mpvit.checkpoints.names_coat import coat_from_official
from mpvit.checkpoints.names_mpvit import mpvit_from_official, rename

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'faithfulness.md'
START, END = '<!-- parity: written by `make parity` -->', '<!-- end of parity -->'
BACKBONES = {
    'mpvit_tiny': dict(type='MPViT', arch='tiny'),
    'mpvit_xsmall': dict(type='MPViT', arch='xsmall'),
    'mpvit_small': dict(type='MPViT', arch='small'),
    'mpvit_base': dict(type='MPViT', arch='base'),
    'coat_lite_small': dict(type='CoaT', arch='lite_small'),
    'coat_small': dict(type='CoaT', arch='small'),
}
LEVELS = {'MPViT': (0, 1, 2, 3), 'CoaT': (1, 2, 3)}


def backbone_error(name: str) -> float:
    """Largest relative error of the outputs that detection uses, over two inputs."""
    init_default_scope('mmdet')
    config = BACKBONES[name]
    kind = config['type']
    keys = json.loads((PARITY / 'keys' / f'backbone_{name}.json').read_text())
    official = parity_fill.fill_state_dict(keys['keys'], keys['aliases'], seed=0)
    rule = mpvit_from_official if kind == 'MPViT' else coat_from_official
    model = MODELS.build(dict(config, out_indices=LEVELS[kind])).eval()
    tensors = {key: torch.from_numpy(value) for key, value in rename(official, rule).items()}
    model.load_state_dict(tensors)
    fixture = parity_check.Fixture(PARITY / f'backbone_{name}.npz')
    worst = 0.0
    for tag in 'AB':
        shape, seed = tuple(fixture[f'{tag}.input_shape']), int(fixture[f'{tag}.input_seed'])
        with torch.no_grad():
            outputs = model(torch.from_numpy(parity_fill.image(shape, seed)))
        for level, output in zip(LEVELS[kind], outputs, strict=True):
            label = f'stage{level + 2}' if kind == 'MPViT' else f'x{level + 1}_nocls'
            worst = max(worst, fixture.slice_error(f'{tag}.{label}', output))
    return worst


def table() -> str:
    """Both tables as Markdown."""
    lines = ['| backbone | largest relative error (tolerance 5e-5) |', '|---|---|']
    lines += [f'| {name} | {backbone_error(name):.1e} |' for name in BACKBONES]
    lines += ['', 'Float32, tolerance in the last row:', '']
    lines += detector_rows(double=False)
    lines += ['', 'Float64, tolerance in the last row:', '']
    lines += detector_rows(double=True)
    return '\n'.join(lines)


def detector_rows(double: bool) -> list[str]:
    columns = list(TOLERANCES)
    rows = [
        f'| detector | {" | ".join(columns)} | matches that differ |',
        '|---' * (len(columns) + 2) + '|',
    ]
    for name in CONFIGS:
        print(f'{name}, float{64 if double else 32} ...', file=sys.stderr)
        parity = DetectorParity(name, double)
        errors = parity.errors()
        cells = ' | '.join(f'{errors[column]:.1e}' for column in columns)
        rows.append(f'| {name} | {cells} | {parity.match_differences()} |')
    limits = ' | '.join(f'{TOLERANCES[column][double]:.0e}' for column in columns)
    return [*rows, f'| tolerance | {limits} | 0 |']


def main() -> None:
    page = PAGE.read_text()
    before, rest = page.split(START)
    _, after = rest.split(END)
    PAGE.write_text(f'{before}{START}\n\n{table()}\n\n{END}{after}')
    print(f'Written into {PAGE}')


if __name__ == '__main__':
    main()
