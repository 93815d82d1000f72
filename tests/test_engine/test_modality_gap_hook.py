import json
import math

import pytest
import torch
from conftest import TinyRun
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from mmcmcd.analysis import Settings, measure_distance
from mmcmcd.engine import ModalityGapHook
from mmcmcd.errors import ConfigError

ONE_SPACE = {'gap_tv_lower', 'gap_mmd', 'gap_centroid', 'gap_alignment'}
ANY_SPACE = {
    'gap_tv_similarity',
    'gap_cka',
    'gap_uniformity_source',
    'gap_uniformity_target',
}


class StandInRunner:
    """A runner of which the hook sees the size of the validation set."""

    def __init__(self, size):
        self.val_dataloader = self
        self.dataset = range(size)


def samples(source, target, **fields):
    result = []
    for index in range(len(source)):
        sample = BaseDataElement(
            source_embedding=source[index],
            target_embedding=target[index],
            metainfo={k: v[index] for k, v in fields.items()},
        )
        result.append(sample)
    return result


def validate(hook, outputs):
    runner = StandInRunner(len(outputs))
    metrics = {}
    hook.before_val_epoch(runner)
    for start in range(0, len(outputs), 16):
        hook.after_val_iter(
            runner, start // 16, outputs=outputs[start : start + 16]
        )
    hook.after_val_epoch(runner, metrics)
    return metrics


def rows(size, width, seed, shift=0.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, width, generator=generator) + shift


def test_figures_are_those_of_the_tool():
    source, target = rows(400, 6, 0), rows(400, 6, 1, shift=0.4)
    hook = ModalityGapHook(student_temperature=0.3)
    found = validate(hook, samples(source, target))
    assert found.keys() == ONE_SPACE | ANY_SPACE
    assert not any('loss' in name for name in found)
    settings = Settings(student_temperature=0.3, permutations=0)
    tool = measure_distance(source, target, torch.arange(400), settings)
    tool = {name: measured['value'] for name, measured in tool.items()}
    for name in ('alignment', 'centroid'):
        assert found[f'gap_{name}'] == pytest.approx(tool[name], rel=1e-5)
    for side in ('uniformity_source', 'uniformity_target'):
        assert found[f'gap_{side}'] == pytest.approx(tool[side], rel=1e-5)
    assert found['gap_cka'] == pytest.approx(tool['cka_debiased'], abs=1e-5)
    # Other draws of the split, of the kernel's width, and of the batch.
    assert found['gap_tv_lower'] == pytest.approx(tool['tv_lower'], abs=0.15)
    assert found['gap_mmd'] == pytest.approx(tool['mmd'], rel=0.05)
    assert found['gap_tv_similarity'] == pytest.approx(
        tool['tv_similarity_within'], abs=0.05
    )


def test_other_widths():
    found = validate(
        ModalityGapHook(), samples(rows(40, 6, 0), rows(40, 4, 1))
    )
    assert found.keys() == ANY_SPACE
    assert all(map(math.isfinite, found.values()))


def test_interval_and_number_of_pairs(monkeypatch):
    outputs = samples(rows(100, 4, 0), rows(100, 4, 1))
    seen = []

    def note(self, source, *_):
        seen.append(source.clone())
        return {}

    monkeypatch.setattr(ModalityGapHook, 'figures', note)
    hook = ModalityGapHook(interval=2, max_pairs=20)
    for _ in range(3):
        validate(hook, outputs)
    # The first and the third, of the same pairs.
    assert [len(source) for source in seen] == [20, 20]
    assert torch.equal(*seen)


def test_pairs_of_a_file_are_one_group():
    source, target = rows(40, 4, 0), rows(40, 4, 1)
    files = [f'{i // 8}.png' for i in range(40)]
    with pytest.raises(ConfigError, match='40 validated pairs are 5 groups'):
        validate(ModalityGapHook(), samples(source, target, source_path=files))


def test_rows_that_are_not_finite_are_named():
    source = rows(40, 4, 0)
    source[5] = math.nan
    with pytest.raises(ConfigError, match='1 of 40 embeddings hold NaN'):
        validate(ModalityGapHook(), samples(source, rows(40, 4, 1)))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(interval=0), 'interval must be an integer of 1'),
        (dict(max_pairs=4), 'max_pairs must be an integer of 8'),
        (dict(teacher_temperature=0), 'temperatures must be positive'),
    ],
)
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        ModalityGapHook(**kwargs)


def test_a_model_without_embeddings():
    with pytest.raises(ConfigError, match='gives none'):
        validate(ModalityGapHook(), [BaseDataElement()])


def test_a_run_logs_the_gap(tmp_path):
    run = TinyRun(tmp_path, num_pairs=16)
    cfg = Config.fromfile(run.config)
    cfg.work_dir = str(run.work_dir)
    cfg.experiment_name = tmp_path.name
    cfg.log_level = 'ERROR'
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.custom_hooks = [dict(type='mmcmcd.ModalityGapHook')]
    runner = Runner.from_cfg(cfg)
    runner.train()
    (log,) = run.work_dir.rglob('vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (found,) = (line for line in lines if 'gap_cka' in line)
    assert found.keys() >= ONE_SPACE | ANY_SPACE
    assert 0 <= found['gap_tv_lower'] <= 1
    scalars = runner.message_hub.log_scalars
    for name in ONE_SPACE | ANY_SPACE:
        assert scalars[f'val/{name}'].current() == found[name]
