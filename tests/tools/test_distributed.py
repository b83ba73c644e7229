"""Two gloo processes on the CPU, through the shell scripts; and the scripts' own arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def shell(root, script, *arguments, **environment):
    environment = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
        'VIRTUAL_ENV': sys.prefix,
        'OMP_NUM_THREADS': '1',
        **environment,
    }
    return subprocess.run(
        [str(root / 'tools' / script), *map(str, arguments)],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def metrics_of(work):
    return json.loads((work / 'metrics.json').read_text())['metrics']


def test_two_processes_train(root, tiny, tmp_path):
    config, places = tiny
    result = shell(
        root, 'dist_train.sh', config, 2, '--work-dir', tmp_path, '--cfg-options', *places
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'No GPU: batch norm is not synchronised' in result.stdout + result.stderr
    # 8 images, batch 4 on each of 2 processes: one step an epoch
    assert 'Epoch(val) [2]' in result.stdout + result.stderr
    assert (tmp_path / 'epoch_2.pth').is_file()


def test_two_processes_evaluate_as_one(root, tiny, trained, tool, tmp_path):
    config, places = tiny
    checkpoint = trained / 'epoch_2.pth'
    # one image a batch: padding to a common size has a small effect on results
    options = ['--cfg-options', *places, 'test_dataloader.batch_size=1']
    single = tool('test', config, checkpoint, '--work-dir', tmp_path / 'one', *options)
    assert single.status == 0, single.err
    # through a rendezvous of its own, as on several machines
    result = shell(
        root, 'dist_test.sh', config, checkpoint, 2, '--eval', 'bbox',
        '--work-dir', tmp_path / 'two', *options, NNODES='1', NODE_RANK='0', PORT='29631',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert metrics_of(tmp_path / 'one') == metrics_of(tmp_path / 'two')


@pytest.mark.parametrize(
    ('script', 'arguments'),
    [
        ('dist_train.sh', []),
        ('dist_train.sh', ['config.py']),
        ('dist_train.sh', ['config.py', 'two']),
        ('dist_test.sh', ['config.py', 'checkpoint.pth', '--eval', 'bbox']),
        ('slurm_train.sh', ['partition', 'name']),
        ('slurm_test.sh', []),
    ],
)
def test_scripts_show_their_usage(root, script, arguments):
    result = shell(root, script, *arguments)
    assert result.returncode == 2
    assert f'tools/{script}' in result.stderr
    assert 'unbound' not in result.stderr


def test_every_further_argument_and_the_cluster_are_passed_on(root, tmp_path):
    """With a python that only reports what it was called with."""
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nfor a in "$@"; do echo "<$a>"; done\n')
    fake.chmod(0o755)
    result = shell(
        root, 'dist_train.sh', 'c.py', 8, '--resume', '--cfg-options', 'a=1', 'b="[1, 2]"',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        NNODES='2', NODE_RANK='1', MASTER_ADDR='head', PORT='1234',
    )  # fmt: skip
    words = [line[1:-1] for line in result.stdout.splitlines()]
    assert words[:7] == [
        '-m', 'torch.distributed.run', '--nnodes=2', '--nproc-per-node=8',
        '--node-rank=1', '--master-addr=head', '--master-port=1234',
    ]  # fmt: skip
    assert words[7].endswith('tools/train.py')
    assert words[8:] == [
        'c.py', '--resume', '--cfg-options', 'a=1', 'b="[1, 2]"', '--launcher', 'pytorch',
    ]  # fmt: skip


def test_slurm_script_runs_its_tasks(root, tiny, trained, tmp_path):
    """With an srun that starts two local processes the way Slurm numbers them."""
    fake = tmp_path / 'srun'
    fake.write_text(
        '#!/bin/bash\n'
        f'printf "%s\\n" "$@" > {tmp_path}/srun.txt\n'
        'while [[ $1 == --* ]]; do shift; done\n'
        'export SLURM_NTASKS=2 SLURM_NODELIST=localhost\n'
        'SLURM_PROCID=1 SLURM_LOCALID=1 "$@" & SLURM_PROCID=0 SLURM_LOCALID=0 "$@"\n'
        'status=$?; wait $! && exit $status\n'
    )
    (tmp_path / 'scontrol').write_text('#!/bin/sh\necho 127.0.0.1\n')
    for path in (fake, tmp_path / 'scontrol'):
        path.chmod(0o755)
    config, places = tiny
    python = Path(sys.executable).parent
    result = shell(
        root, 'slurm_test.sh', 'gpu', 'job', config, trained / 'epoch_2.pth',
        '--work-dir', tmp_path, '--cfg-options', *places,
        PATH=f'{tmp_path}:{python}:{os.environ["PATH"]}', GPUS='2', MASTER_PORT='29633',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    words = (tmp_path / 'srun.txt').read_text().split('\n')
    assert '--partition=gpu' in words
    assert '--ntasks=2' in words
    assert len(metrics_of(tmp_path)) == 12
