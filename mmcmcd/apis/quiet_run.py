"""One of many training runs: a progress line instead of a log."""

from pathlib import Path

from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcmcd.engine import ProgressHook


def run_quietly(
    cfg: Config, work_dir: str | Path, title: str
) -> tuple[Runner, float]:
    """Train in this process.

    Args:
        cfg (Config): What to train; changed in place.
        work_dir (str | Path): Where logs and weights go.
        title (str): What the progress line says.

    Returns:
        tuple[Runner, float]: The runner after training, and the seconds of a
        training step, loading included.
    """
    cfg.work_dir = str(work_dir)
    # mmengine's scopes and loggers go by this name: one for each run.
    cfg.experiment_name = cfg.work_dir.replace('/', '_')
    cfg.log_level = 'WARNING'
    progress = ProgressHook(title)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(progress)
    runner.train()
    return runner, progress.seconds_per_step


def validated(runner: Runner) -> dict[str, float]:
    """Return the figures of the newest validation by name."""
    prefix = 'val/'
    return {
        name.removeprefix(prefix): float(buffer.current())
        for name, buffer in runner.message_hub.log_scalars.items()
        if name.startswith(prefix)
    }


def release(runner: Runner) -> None:
    """Forget what mmengine keeps of every run, and close its files.

    Without it, one of many runs in a process leaves an open log behind.

    Args:
        runner (Runner): One that will log nothing any more.
    """
    for handler in runner.logger.handlers:
        handler.close()
    for kind in (MMLogger, MessageHub, DefaultScope):
        kind._instance_dict.pop(runner.experiment_name, None)
    visualizer = runner.visualizer
    visualizer.close()
    type(visualizer)._instance_dict.pop(visualizer.instance_name, None)
