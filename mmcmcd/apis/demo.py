"""The whole method on embedded data, in minutes and without a download."""

import time
from pathlib import Path

from mmengine.config import Config

from mmcmcd.datasets.synthetic_rooms import write_rooms

from .cached_run import train_cached
from .few_label import Draw, FewLabelStudy, few_label_table, label_list
from .few_label_picture import draw_predictions

NUM_FRAMES = 480
LABELS = 20
SCRATCH, DISTILLED = 'from scratch', 'distilled'


def run_demo(
    config_dir: str | Path,
    data_dir: str | Path,
    work_dir: str | Path,
    num_draws: int = 3,
    options: dict | None = None,
) -> list[dict]:
    """Render rooms, train a teacher, distil a student, compare few-label use.

    Finished steps of an earlier run are kept.

    Args:
        config_dir (str | Path): Folder of the ``demo_*.py`` configs.
        data_dir (str | Path): Where the embedded data set goes.
        work_dir (str | Path): Where runs, table and picture go.
        num_draws (int): Draws of labels. Defaults to 3.
        options (dict, optional): Step ('simclr', 'cmcd' or 'seg') to
            overrides of its config.

    Returns:
        list[dict]: See :meth:`FewLabelStudy.run`.
    """
    start = time.perf_counter()
    options = options or {}
    config_dir, work_dir = Path(config_dir), Path(work_dir)
    data_dir = Path(data_dir)

    def load(step, name):
        cfg = Config.fromfile(config_dir / f'{name}.py')
        for loader in ('train_dataloader', 'val_dataloader'):
            if loader in cfg:
                cfg[loader].dataset.data_root = str(data_dir)
        cfg.merge_from_dict(options.get(step, {}))
        return cfg

    print(f'1/4 embedded RGB-D rooms in {data_dir}')
    write_rooms(data_dir, num_frames=NUM_FRAMES, nproc=2)
    print('\n2/4 teacher: contrastive pre-training on RGB, no labels')
    teacher = work_dir / 'teacher'
    cfg = load('simclr', 'demo_simclr_rgb')
    train_cached(cfg, teacher, 'SimCLR on RGB')
    print('3/4 student: distillation on unlabelled RGB-depth pairs')
    student_dir = work_dir / 'student'
    cfg = load('cmcd', 'demo_cmcd_depth')
    checkpoint = _last_checkpoint(teacher)
    cfg.model.teacher.init_cfg.checkpoint = checkpoint
    train_cached(cfg, student_dir, 'CMD + CMC on pairs', [checkpoint])
    student = (student_dir / 'last_student').read_text().strip()
    print(f'4/4 segmentation of depth from {LABELS} labels, {num_draws} draws')
    draws = [
        Draw(str(LABELS), label_list(f'splits/few_{LABELS}_{i}.txt'), i)
        for i in range(num_draws)
    ]
    study = FewLabelStudy(
        load('seg', 'demo_seg_depth'),
        {SCRATCH: None, DISTILLED: student},
        draws,
        work_dir / 'segmentation',
        keep_weights=True,
    )
    results = study.run()
    table = few_label_table(results, baseline=SCRATCH)
    (work_dir / 'table.md').write_text(table + '\n')
    picture = work_dir / 'demo.png'
    draw_predictions(study, draws[-1], picture)
    print(f'\n{table}\n')
    print('Depth alone, mean and 95 % interval over the draws; the same')
    print('budget, labels and seeds for both.')
    print(f'Picture: {picture}')
    print(f'Student: {student}')
    print(f'Time: {(time.perf_counter() - start) / 60:.1f} min')
    return results


def _last_checkpoint(work_dir: Path) -> str:
    return (work_dir / 'last_checkpoint').read_text().strip()
