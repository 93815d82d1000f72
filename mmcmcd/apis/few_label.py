"""The question of step 3: what is a student worth when labels are few?"""

import copy
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmcmcd.analysis import mean_interval, save_segmentation_picture
from mmcmcd.engine import ProgressHook
from mmcmcd.models.utils import file_sha256
from mmcmcd.registry import DATASETS, TRANSFORMS

from .dataset_configs import phase_dataset_cfgs


class Draw(NamedTuple):
    """One draw of labels.

    Attributes:
        labels (str): Name of the label budget, a row of the table.
        ann_file (str): List of the labelled frames.
        seed (int): Of the initialisation of the head and of the batches.
    """

    labels: str
    ann_file: str
    seed: int


class FewLabelStudy:
    """Fine-tune several students on the same draws of few labels.

    Every student gets the same config, budget, seeds and labels. Finished
    runs are kept in ``results.jsonl`` and not repeated while their config
    and their student's weights are the same.

    Args:
        config (Config): Of a stock mmseg model with
            ``model.backbone.init_cfg``.
        students (dict[str, str | None]): Name to exported student; None
            trains from scratch.
        draws (Sequence[Draw]): The draws.
        work_dir (str | Path): Where runs and results go.
    """

    def __init__(
        self,
        config: Config,
        students: dict[str, str | None],
        draws: Sequence[Draw],
        work_dir: str | Path,
    ) -> None:
        self.config = config
        self.students = students
        self.draws = list(draws)
        self.work_dir = Path(work_dir)
        self._file = self.work_dir / 'results.jsonl'

    def run(self) -> list[dict]:
        """Fine-tune what is missing.

        Returns:
            list[dict]: ``student``, ``labels``, ``ann_file``, ``seed``,
            ``mIoU`` (percent) and ``seconds_per_step`` of every run.
        """
        self.work_dir.mkdir(parents=True, exist_ok=True)
        found = {}
        if self._file.exists():
            lines = self._file.read_text().splitlines()
            found = {r['fingerprint']: r for r in map(json.loads, lines)}
        jobs = [(name, draw) for draw in self.draws for name in self.students]
        wanted = [self.fingerprint(*job) for job in jobs]
        missing = [key not in found for key in wanted]
        for number, (job, key) in enumerate(zip(jobs, wanted, strict=True)):
            if key in found:
                continue
            name, draw = job
            title = (
                f'fine-tuning {sum(missing[: number + 1])}/{sum(missing)}: '
                f'{name}, {draw.labels} labels, seed {draw.seed}'
            )
            result = dict(self._fine_tune(*job, title), fingerprint=key)
            found[key] = result
            with self._file.open('a') as file:
                file.write(json.dumps(result) + '\n')
        return [found[key] for key in wanted]

    def fingerprint(self, name: str, draw: Draw) -> str:
        """Return a hash of a run's config and of its student's weights."""
        student = self.students[name]
        weights = '' if student is None else file_sha256(student)
        text = self._run_config(name, draw).pretty_text
        # The path of a student says nothing, its content all.
        text = text.replace(repr(student), 'STUDENT')
        return hashlib.sha256(f'{text}{weights}'.encode()).hexdigest()[:16]

    def run_dir(self, name: str, draw: Draw) -> Path:
        """Return the folder of one run; ``model.pth`` is its outcome."""
        labels = Path(draw.ann_file).stem
        return self.work_dir / f'{name}-{labels}-seed{draw.seed}'

    def _run_config(self, name: str, draw: Draw) -> Config:
        cfg = copy.deepcopy(self.config)
        cfg.randomness = dict(seed=draw.seed)
        cfg.train_dataloader.dataset.ann_file = draw.ann_file
        cfg.log_level = 'WARNING'
        cfg.default_hooks.checkpoint = None
        student = self.students[name]
        if student is None:
            cfg.model.backbone.init_cfg = None
        else:
            cfg.model.backbone.init_cfg.checkpoint = student
        # Validated once, at the end: nothing is selected on the figures.
        cfg.train_cfg.val_interval = cfg.train_cfg.max_iters + 1
        return cfg

    def _fine_tune(self, name: str, draw: Draw, title: str) -> dict:
        cfg = self._run_config(name, draw)
        cfg.work_dir = str(self.run_dir(name, draw))
        cfg.experiment_name = cfg.work_dir.replace('/', '_')
        progress = ProgressHook(title)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(progress)
        runner.train()
        metrics = runner.val()
        torch.save(
            dict(state_dict=runner.model.state_dict()),
            Path(cfg.work_dir) / 'model.pth',
        )
        return dict(
            student=name,
            **draw._asdict(),
            mIoU=float(metrics['mIoU']),
            seconds_per_step=progress.seconds_per_step,
        )

    def predict(self, name: str, draw: Draw, indices: Sequence[int]) -> list:
        """Segment validation frames with a finished run's model.

        Returns:
            list[np.ndarray]: Label maps (H, W), int64.
        """
        cfg = copy.deepcopy(self.config)
        cfg.work_dir = str(self.run_dir(name, draw))
        cfg.experiment_name = cfg.work_dir.replace('/', '_') + '_predict'
        cfg.log_level = 'WARNING'
        cfg.model.backbone.init_cfg = None
        runner = Runner.from_cfg(cfg)
        runner.load_checkpoint(str(self.run_dir(name, draw) / 'model.pth'))
        runner.model.eval()
        dataset = runner.build_dataloader(cfg.val_dataloader).dataset
        maps = []
        for index in indices:
            item = dataset[index]
            batch = {key: [value] for key, value in item.items()}
            with torch.no_grad():
                sample = runner.model.val_step(batch)[0]
            maps.append(sample.pred_sem_seg.data[0].cpu().numpy())
        return maps


def few_label_table(results: Sequence[dict], baseline: str) -> str:
    """Format results as a Markdown table, one row a budget and student.

    Args:
        results (Sequence[dict]): Of :meth:`FewLabelStudy.run`.
        baseline (str): Name of the student that gains are counted from; the
            interval of a gain is that of the differences on the same draws.

    Returns:
        str: The table, intervals of 95 %.
    """
    figures = defaultdict(dict)
    for r in results:
        figures[r['labels'], r['student']][r['ann_file'], r['seed']] = r
    lines = [
        f'| labels | student | mIoU % | gain over {baseline} | runs '
        '| s / step |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for (labels, student), runs in figures.items():
        base = figures[labels, baseline]
        gains = [runs[k]['mIoU'] - base[k]['mIoU'] for k in runs if k in base]
        gain = '' if student == baseline else _plus_minus(gains, '+')
        miou = _plus_minus([r['mIoU'] for r in runs.values()])
        seconds = np.mean([r['seconds_per_step'] for r in runs.values()])
        lines.append(
            f'| {labels} | {student} | {miou} | {gain} | {len(runs)} '
            f'| {seconds:.3f} |'
        )
    return '\n'.join(lines)


def _plus_minus(values, sign=''):
    mean, half = mean_interval(values)
    text = f'{mean:{sign}.2f}'
    return text if math.isnan(half) else f'{text} ± {half:.2f}'


def draw_predictions(
    study: FewLabelStudy, draw: Draw, path: str | Path, num_frames: int = 4
) -> None:
    """Draw RGB, depth, truth and every student's prediction of one draw.

    Args:
        study (FewLabelStudy): After :meth:`FewLabelStudy.run`.
        draw (Draw): The draw.
        path (str | Path): Picture to write.
        num_frames (int): Frames, spread evenly over the validation set.
    """
    # Also sets the default scope, where no run of this process did.
    (cfg,) = phase_dataset_cfgs(study.config, 'val')
    dataset = DATASETS.build(cfg)
    load_depth = TRANSFORMS.build(
        next(
            t for t in cfg.pipeline if t['type'].endswith('LoadDepthFromFile')
        )
    )
    chosen = [i * len(dataset) // num_frames for i in range(num_frames)]
    predictions = {
        name: study.predict(name, draw, chosen) for name in study.students
    }
    rows = []
    for number, index in enumerate(chosen):
        info = dataset.get_data_info(index)
        depth = Path(info['img_path'])
        # The segmentor never sees it, so its data set does not list it.
        rgb = depth.parent.parent / 'rgb' / f'{depth.stem}.jpg'
        rows.append(
            {
                'RGB (not seen)': mmcv.imread(rgb, channel_order='rgb'),
                'depth': load_depth(dict(img_path=str(depth)))['img'],
                'truth': mmcv.imread(info['seg_map_path'], 'unchanged').astype(
                    int
                ),
                **{name: maps[number] for name, maps in predictions.items()},
            }
        )
    save_segmentation_picture(
        path, rows, dataset.metainfo['classes'], dataset.metainfo['palette']
    )
