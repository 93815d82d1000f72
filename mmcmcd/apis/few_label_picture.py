"""What segmentors of a few-label study see."""

import copy
from collections.abc import Sequence
from pathlib import Path

import mmcv
import torch
from mmengine.runner import Runner

from mmcmcd.analysis import save_segmentation_picture
from mmcmcd.registry import DATASETS, TRANSFORMS

from .dataset_configs import phase_dataset_cfgs
from .few_label import Draw, FewLabelStudy


def draw_predictions(
    study: FewLabelStudy, draw: Draw, path: str | Path, num_frames: int = 4
) -> None:
    """Draw RGB, depth, truth and every student's prediction of one draw.

    Args:
        study (FewLabelStudy): After :meth:`FewLabelStudy.run`, with
            ``keep_weights``.
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
        name: _predict(study, name, draw, chosen) for name in study.students
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


def _predict(
    study: FewLabelStudy, name: str, draw: Draw, indices: Sequence[int]
) -> list:
    """Segment validation frames; returns label maps (H, W)."""
    cfg = copy.deepcopy(study.config)
    cfg.work_dir = str(study.run_dir(name, draw))
    cfg.experiment_name = cfg.work_dir.replace('/', '_') + '_predict'
    cfg.log_level = 'WARNING'
    cfg.model.backbone.init_cfg = None
    runner = Runner.from_cfg(cfg)
    runner.load_checkpoint(str(study.run_dir(name, draw) / 'model.pth'))
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
