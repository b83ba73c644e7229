"""Hostile inputs for every command, from a seed: `python tests/fuzz --seed S --cases N`.

One case again: `python tests/fuzz --seed S --case N`, which keeps its folder and says what it did.
"""

import os
import sys
from pathlib import Path

os.environ['OMP_NUM_THREADS'] = '1'  # no threads before processes are forked
sys.path[0:1] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

from fuzz.running import main  # noqa: E402

if __name__ == '__main__':
    sys.exit(main())
