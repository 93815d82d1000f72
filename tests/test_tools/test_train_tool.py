import importlib.util
import json
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import REPO, process_env, run_command

from mmcmcd.__main__ import main as package_main


def epochs(run):
    """Epochs logged by all runs in the work directory, in order."""
    logs = sorted(run.work_dir.glob('*/vis_data/*_*.json'))
    lines = [
        json.loads(x) for log in logs for x in log.read_text().split('\n') if x
    ]
    return [line['epoch'] for line in lines if 'loss' in line]


def test_stopped_and_resumed(tiny_run):
    command = [
        sys.executable,
        REPO / 'tools/train.py',
        tiny_run.config,
        '--work-dir',
        tiny_run.work_dir,
        '--no-validate',
        '--cfg-options',
        'train_cfg.max_epochs=10000',
        'default_hooks.checkpoint.max_keep_ckpts=2',
    ]
    log = tiny_run.root / 'stopped.log'
    with log.open('w') as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=output,
            stderr=subprocess.STDOUT,
            env=process_env(),
        )
    try:
        wait_for(tiny_run.work_dir / 'last_checkpoint', process, log)
    finally:
        process.terminate()
        status = process.wait(30)
    assert status == 128 + signal.SIGTERM
    last = (tiny_run.work_dir / 'last_checkpoint').read_text()
    assert f'Saved {last}. To go on from there, give the' in log.read_text()
    done = torch.load(last, weights_only=False)['meta']['epoch']
    time.sleep(1)  # log directories are named by the second

    result = tiny_run.train(
        '--resume',
        '--cfg-options',
        f'train_cfg.max_epochs={done + 2}',
        f'train_cfg.val_interval={done + 2}',
    )
    assert result.returncode == 0, result.stderr
    last = (tiny_run.work_dir / 'last_checkpoint').read_text()
    assert last.endswith(f'epoch_{done + 2}.pth')
    checkpoint = torch.load(last, weights_only=False)
    assert checkpoint['meta']['epoch'] == done + 2
    assert checkpoint['meta']['iter'] == 2 * (done + 2)
    assert not any('teacher' in key for key in checkpoint['state_dict'])
    assert 'retrieval/target2source_R@1' in result.stdout
    # Two iterations an epoch, in whichever of the two runs.
    assert epochs(tiny_run)[-4:] == [done + 1, done + 1, done + 2, done + 2]

    student = (tiny_run.work_dir / 'last_student').read_text()
    result = tiny_run.tool(
        'model_converters/export_student.py', last, tiny_run.root / 's.pth'
    )
    assert result.returncode == 0, result.stderr
    written = result.stdout.split()[-1]
    a, b = (torch.load(p)['state_dict'] for p in (student, written))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def wait_for(path, process, log, seconds=60):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, f'no {path.name}'
        time.sleep(0.05)


@pytest.mark.parametrize('fault', ['config', 'teacher'])
def test_a_fault_is_one_line_and_status_2(tiny_run, fault):
    if fault == 'config':
        tiny_run.config.unlink()
        message = f"error: config file '{tiny_run.config}' does not exist."
    else:
        tiny_run.teacher.unlink()
        message = (
            f"error: teacher checkpoint '{tiny_run.teacher}' does not "
            'exist. A teacher can come from your own'
        )
    result = tiny_run.train()
    assert result.returncode == 2
    lines = [x for x in result.stderr.splitlines() if 'error' in x.lower()]
    assert len(lines) == 1
    assert lines[0].startswith(message)
    assert 'Traceback' not in result.stdout + result.stderr


@pytest.mark.parametrize('package', ['mmpretrain', 'mmseg'])
def test_stock_tools_run_our_configs(tiny_run, package):
    (package_dir,) = importlib.util.find_spec(
        package
    ).submodule_search_locations
    config, options = {
        # mmpretrain's tool asks for persistent workers.
        'mmpretrain': (
            tiny_run.config,
            [f'{x}_dataloader.num_workers=1' for x in ('train', 'val', 'test')]
            + ['train_cfg.max_epochs=1'],
        ),
        'mmseg': (tiny_run.seg_config, ['model.backbone.init_cfg=None']),
    }[package]
    result = run_command(
        [
            sys.executable,
            f'{package_dir}/.mim/tools/train.py',
            config,
            '--work-dir',
            tiny_run.work_dir,
            '--cfg-options',
            *options,
        ]
    )
    assert result.returncode == 0, result.stderr
    assert (tiny_run.work_dir / 'last_checkpoint').exists()


def run_package(monkeypatch, *args):
    monkeypatch.setattr(sys, 'argv', ['mmcmcd', *args])
    package_main()


def test_tools_of_the_package_are_listed(monkeypatch, capsys):
    run_package(monkeypatch, '--help')
    listed = capsys.readouterr().out.split('tools: ')[1].strip().split(', ')
    assert {'train', 'test', 'export_student'} <= set(listed)


def test_unknown_tool_of_the_package(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_package(monkeypatch, 'no_such_tool')
    assert stop.value.code == 2
    assert "error: no tool 'no_such_tool'." in capsys.readouterr().err


def test_tool_of_the_package_runs(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_package(monkeypatch, 'train', 'x.py', '--work-dir', 'y')
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config file 'x.py' does not exist.")
