"""Write the table of errors against the official models into docs/faithfulness.md.

make parity
"""

import sys
import tempfile
from pathlib import Path

import torch
from parity_backbone import BACKBONES, BackboneParity
from parity_classifier import CONFIGS as CLASSIFIERS
from parity_classifier import classifier, largest_error, official_weights
from parity_detector import CONFIGS, TOLERANCES, DetectorParity

PAGE = Path(__file__).resolve().parent.parent / 'docs' / 'faithfulness.md'
START, END = '<!-- parity: written by `make parity` -->', '<!-- end of parity -->'
DETECTION = {'MPViT': (0, 1, 2, 3), 'CoaT': (1, 2, 3)}


def backbone_error(name: str) -> float:
    """Largest relative error of the outputs that detection uses, over two inputs."""
    errors = BackboneParity(name).errors()
    return max(errors[level] for level in DETECTION[BACKBONES[name]['type']])


def classifier_error(name: str) -> float:
    """Largest absolute error of the logits of an ImageNet classifier."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f'{name}.pth'
        torch.save({'model': official_weights(name)}, file)
        return largest_error(name, classifier(name, file))


def table() -> str:
    """Both tables as Markdown."""
    lines = ['| backbone | largest relative error (tolerance 5e-5) |', '|---|---|']
    lines += [f'| {name} | {backbone_error(name):.1e} |' for name in BACKBONES]
    lines += [
        '',
        '| classifier | largest absolute error of a logit (tolerance 5e-5) |',
        '|---|---|',
    ]
    lines += [f'| {name} | {classifier_error(name):.1e} |' for name in CLASSIFIERS]
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
