"""Two gloo processes on the CPU, through the shell scripts; and the scripts' own arguments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs import environment, free_port, metrics_of, train_as_two

from mpvit.checkpoints.reading import read


def shell(root, script, *arguments, **variables):
    return subprocess.run(
        [str(root / 'tools' / script), *map(str, arguments)],
        cwd=root,
        env=environment(root, **variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )


def test_two_processes_train_and_evaluate_as_one(root, tiny, tiny_run, tmp_path):
    config, places = tiny
    # one image a batch: padding to a common size has a small effect on results
    single = [f'{split}_dataloader.batch_size=1' for split in ('val', 'test')]
    result = shell(
        root, 'dist_train.sh', config, 2, '--work-dir', tmp_path / 'two',
        '--cfg-options', *places, *single, 'train_cfg.max_epochs=1',
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert 'No GPU: batch norm is not synchronised' in result.stdout + result.stderr
    # 8 images, batch 4 on each of 2 processes: one step an epoch
    checkpoint = read(tmp_path / 'two' / 'epoch_1.pth')
    assert checkpoint['meta']['iter'] == 1
    (scalars,) = (tmp_path / 'two').glob('*/vis_data/scalars.json')
    validated = json.loads(scalars.read_text().splitlines()[-1])
    tiny_run('test', tmp_path / 'two' / 'epoch_1.pth', options=single)
    metrics = metrics_of(tmp_path / 'work')
    assert len(metrics) == 12
    assert metrics == {name: validated[name] for name in metrics}


@pytest.mark.slow  # by the scripts they do above
def test_two_processes_that_do_not_know_of_torchrun(root, tiny, tmp_path):
    config, places = tiny
    statuses, said = train_as_two(
        root, config, tmp_path / 'two', [*places, 'train_cfg.max_epochs=1']
    )
    assert statuses == [0, 0], said
    assert read(tmp_path / 'two' / 'epoch_1.pth')['meta']['iter'] == 1


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


@pytest.mark.parametrize('name', ['train', 'test'])
def test_every_further_argument_and_the_cluster_are_passed_on(root, tmp_path, name):
    """With a python that only reports what it was called with."""
    fake = tmp_path / 'python'
    fake.write_text('#!/bin/sh\nfor a in "$@"; do echo "<$a>"; done\n')
    fake.chmod(0o755)
    files = ['c.py', 'x.pth'][: 1 + (name == 'test')]
    result = shell(
        root, f'dist_{name}.sh', *files, 8, '--some', '--cfg-options', 'a=1', 'b="[1, 2]"',
        PATH=f'{tmp_path}:{os.environ["PATH"]}',
        NNODES='2', NODE_RANK='1', MASTER_ADDR='head', PORT='1234',
    )  # fmt: skip
    words = [line[1:-1] for line in result.stdout.splitlines()]
    assert words[:7] == [
        '-m', 'mpvit.engine.torchrun', '--nnodes=2', '--nproc-per-node=8',
        '--node-rank=1', '--master-addr=head', '--master-port=1234',
    ]  # fmt: skip
    assert words[7].endswith(f'tools/{name}.py')
    assert words[8:] == [
        *files, '--some', '--cfg-options', 'a=1', 'b="[1, 2]"', '--launcher', 'pytorch',
    ]  # fmt: skip


@pytest.mark.slow  # by torchrun they do above
def test_two_tasks_of_slurm_evaluate_as_one_process(root, tiny, trained, tiny_run, tmp_path):
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
    checkpoint = trained / 'epoch_2.pth'
    # one image a batch: padding to a common size has a small effect on results
    single = 'test_dataloader.batch_size=1'
    tiny_run('test', checkpoint, work=tmp_path / 'one', options=[single])
    python = Path(sys.executable).parent
    result = shell(
        root, 'slurm_test.sh', 'gpu', 'job', config, checkpoint, '--work-dir', tmp_path,
        '--cfg-options', *places, single,
        PATH=f'{tmp_path}:{python}:{os.environ["PATH"]}', GPUS='2', MASTER_PORT=str(free_port()),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    words = (tmp_path / 'srun.txt').read_text().split('\n')
    assert '--partition=gpu' in words
    assert '--ntasks=2' in words
    assert len(metrics_of(tmp_path)) == 12
    assert metrics_of(tmp_path) == metrics_of(tmp_path / 'one')
