import json
import shutil

import mmcv
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import ValLoop

from mmcmcd.apis import (
    Draw,
    FewLabelStudy,
    demo,
    draw_predictions,
    few_label_table,
    label_list,
    parse_students,
)
from mmcmcd.datasets.synthetic_rooms import write_rooms
from mmcmcd.errors import ConfigError

CONFIGS = __file__.rsplit('/tests/', 1)[0] + '/configs'


@pytest.fixture
def config(tmp_path):
    root = write_rooms(
        tmp_path / 'rooms',
        num_frames=18,
        height=32,
        width=48,
        few_labels=(2, 4),
        num_draws=1,
    )
    cfg = Config.fromfile(f'{CONFIGS}/demo/demo_seg_depth.py')
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.dataset.data_root = str(root)
        loader.num_workers = 0
        loader.persistent_workers = False
    cfg.model.backbone.update(stem_channels=8, base_channels=8)
    cfg.model.decode_head.update(in_channels=[16, 32, 64], channels=8)
    cfg.train_cfg.max_iters = 2
    return cfg


@pytest.fixture
def student(tmp_path):
    from mmpretrain.models import ResNet

    net = ResNet(18, in_channels=1, stem_channels=8, base_channels=8)
    path = tmp_path / 'student.pth'
    torch.save(
        dict(
            state_dict={
                f'backbone.{k}': v for k, v in net.state_dict().items()
            }
        ),
        path,
    )
    return str(path)


def test_study_is_fair_kept_and_drawn(config, student, tmp_path):
    draws = [
        Draw('2', label_list('splits/few_2_0.txt'), 0),
        Draw('4', label_list('splits/few_4_0.txt'), 0),
    ]
    students = {'scratch': None, 'distilled': student}
    work = tmp_path / 'study'
    study = FewLabelStudy(config, students, draws, work, keep_weights=True)
    results = study.run()
    assert [(r['student'], r['labels']) for r in results] == [
        ('scratch', '2'),
        ('distilled', '2'),
        ('scratch', '4'),
        ('distilled', '4'),
    ]
    assert all(
        0 <= r['mIoU'] <= 100 and r['seconds_per_step'] > 0 for r in results
    )
    started = {
        name: torch.load(study.run_dir(name, draws[0]) / 'model.pth')[
            'state_dict'
        ]['backbone.conv1.weight']
        for name in students
    }
    given = torch.load(student)['state_dict']['backbone.conv1.weight']
    # Two steps move weights a little; another start is far away.
    assert (started['distilled'] - given).abs().max() < 0.01
    assert (started['scratch'] - given).abs().max() > 0.05
    # A second study trains nothing anew and adds only what is missing.
    stamp = (study.run_dir('scratch', draws[0]) / 'model.pth').stat()
    more = FewLabelStudy(
        config,
        students,
        [*draws, Draw('2', label_list('splits/few_2_0.txt'), 1)],
        work,
    )
    assert len(more.run()) == 6
    again = (study.run_dir('scratch', draws[0]) / 'model.pth').stat()
    assert again.st_mtime_ns == stamp.st_mtime_ns
    lines = (work / 'results.jsonl').read_text().splitlines()
    assert len(lines) == 6 and json.loads(lines[-1])['seed'] == 1
    # Another student under the same name is another run, a copy is not.
    weights = torch.load(student)
    copied = shutil.copy(student, tmp_path / 'copy.pth')
    weights['state_dict']['backbone.conv1.weight'] += 1
    torch.save(weights, student)
    keys = [
        FewLabelStudy(config, {'distilled': path}, draws, work).fingerprint(
            'distilled', draws[0]
        )
        for path in (student, str(copied))
    ]
    assert keys[0] != results[1]['fingerprint'] == keys[1]
    picture = tmp_path / 'picture.png'
    draw_predictions(study, draws[0], picture, num_frames=2)
    assert mmcv.imread(picture).std() > 10


def test_a_run_is_validated_once(config, tmp_path, monkeypatch):
    found = []
    validate = ValLoop.run

    def count(loop):
        found.append(validate(loop))
        return found[-1]

    monkeypatch.setattr(ValLoop, 'run', count)
    draw = Draw('2', label_list('splits/few_2_0.txt'), 0)
    work = tmp_path / 'once'
    study = FewLabelStudy(config, {'scratch': None}, [draw], work)
    (result,) = study.run()
    assert [m['mIoU'] for m in found] == [result['mIoU']]
    # Only pictures need the weights, and few studies draw any.
    assert not list(work.rglob('*.pth'))
    study = FewLabelStudy(
        config, {'scratch': None}, [draw], tmp_path / 'x', ['accuracy/top1']
    )
    with pytest.raises(ConfigError, match=r"accuracy/top1: not.*'mIoU'"):
        study.run()


def test_table_pairs_the_draws():
    def result(student, seed, miou):
        return dict(
            student=student,
            labels='50',
            options=label_list('a'),
            seed=seed,
            mIoU=miou,
            seconds_per_step=0.5,
        )

    results = [result('scratch', s, m) for s, m in enumerate((8.0, 9.0, 13.0))]
    results += [result('cmcd', s, m) for s, m in enumerate((9.0, 10.0, 14.0))]
    lines = few_label_table(results, 'scratch').splitlines()
    assert lines[2].startswith('| 50 | scratch | 10.00 ± 6.57 |  | 3 | 0.5')
    # Every draw gains exactly one: the interval of the gain is zero.
    assert '| cmcd | 11.00 ± 6.57 | +1.00 ± 0.00 | 3 |' in lines[3]


def test_bad_config_leaves_no_result(config, student, tmp_path):
    config.model.backbone.in_channels = 3
    study = FewLabelStudy(
        config,
        {'distilled': student},
        [Draw('2', label_list('splits/few_2_0.txt'), 0)],
        tmp_path / 'study',
    )
    with pytest.raises(Exception, match=r'conv1.weight.*shape|shape'):
        study.run()
    assert not (tmp_path / 'study/results.jsonl').exists()


@pytest.mark.slow
def test_demo_runs_all_steps_and_resumes(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, 'NUM_FRAMES', 90)
    loader = dict(num_workers=0, persistent_workers=False)
    backbone = dict(stem_channels=8, base_channels=8)
    neck = dict(in_channels=64, hid_channels=64)
    distil = dict(
        source_norm=dict(num_features=64),
        teacher=backbone,
        student=backbone,
        student_projector=dict(neck, out_channels=64),
    )
    short = dict(max_epochs=1, val_interval=1)
    options = dict(
        simclr=dict(
            train_dataloader=dict(loader, batch_size=16),
            train_cfg=short,
            model=dict(backbone=backbone, neck=neck),
            default_hooks=dict(checkpoint=dict(interval=1)),
        ),
        cmcd=dict(
            train_dataloader=dict(loader, batch_size=16),
            val_dataloader=loader,
            model=distil,
            train_cfg=short,
        ),
        seg=dict(
            train_dataloader=loader,
            val_dataloader=loader,
            train_cfg=dict(max_iters=2),
            model=dict(
                backbone=backbone,
                decode_head=dict(in_channels=[16, 32, 64], channels=8),
            ),
        ),
    )
    args = (f'{CONFIGS}/demo', tmp_path / 'data', tmp_path / 'work', 1)
    results = demo.run_demo(*args, options=options)
    assert {r['student'] for r in results} == {'from scratch', 'distilled'}
    assert (tmp_path / 'work/demo.png').stat().st_size > 10_000
    out = capsys.readouterr().out
    assert '| 20 | distilled |' in out and 'ETA' in out
    assert demo.run_demo(*args, options=options) == results
    assert 'done before' in capsys.readouterr().out


def test_students_of_the_command_line(tmp_path):
    (tmp_path / 's0.pth').touch()
    (tmp_path / 's1.pth').touch()
    path = f'{tmp_path}/s{{seed}}.pth'
    assert parse_students([f'cmcd={path}'], [0, 1]) == {
        'scratch': None,
        'cmcd': path,
    }
    with pytest.raises(ConfigError, match=r'NAME=FILE.*Missing: .*s2.pth'):
        parse_students([f'cmcd={path}'], [1, 2])
    with pytest.raises(ConfigError, match='NAME=FILE'):
        parse_students(['cmcd'], [0])
