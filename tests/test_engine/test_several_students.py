"""A short real run of one teacher with two students, and its files."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmpretrain.registry import MODELS as STOCK_MODELS

from mmcmcd.datasets.transforms import PackPairedInputs
from mmcmcd.engine import VerifyPretrainedHook
from mmcmcd.errors import CheckpointError, ConfigError
from mmcmcd.models.utils import export_student, file_sha256
from mmcmcd.registry import DATASETS, HOOKS, MODELS

CHANNELS = dict(skeleton=12, inertial=6, depth=2)
WIDTH = 16
STUDENTS = ('inertial', 'depth')


@DATASETS.register_module(force=True)
class Triples(torch.utils.data.Dataset):
    """What a data set of three sides and its pipeline give."""

    metainfo = dict(classes=('a', 'b'))

    def __init__(self, size=12):
        gen = torch.Generator().manual_seed(0)
        self.arrays = {
            side: torch.randn(size, channels, 20, generator=gen)
            for side, channels in CHANNELS.items()
        }
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        sides = {
            side: dict(img=array[index], img_path=f'{side}/{index}.npy')
            for side, array in self.arrays.items()
        }
        return PackPairedInputs().transform(
            dict(
                sides=tuple(CHANNELS),
                pair_id=str(index),
                group_index=index,
                gt_label=index % 2,
                **sides,
            )
        )


def net(side, **kwargs):
    return dict(
        type='mmcmcd.TemporalConvNet',
        in_channels=CHANNELS[side],
        channels=(8, WIDTH),
        **kwargs,
    )


def pretrained(path):
    return dict(type='Pretrained', checkpoint=str(path), prefix='backbone.')


def loader(shuffle=False, **kwargs):
    return dict(
        batch_size=6,
        num_workers=0,
        dataset=dict(type='mmcmcd.Triples'),
        sampler=dict(type='DefaultSampler', shuffle=shuffle),
        collate_fn=dict(type='default_collate'),
        **kwargs,
    )


def knn(side, **kwargs):
    bank = loader()
    return dict(
        type='mmcmcd.KNNHook', bank_dataloader=bank, k=1, side=side, **kwargs
    )


def config(root, **kwargs):
    lessons = {
        side: dict(
            teacher='skeleton',
            student=side,
            losses=dict(cmcd=dict(type='mmcmcd.CMCDLoss', cmd={}, cmc={})),
        )
        for side in STUDENTS
    }
    cfg = dict(
        default_scope='mmpretrain',
        work_dir=str(root / 'work'),
        experiment_name=root.name,
        model=dict(
            type='mmcmcd.MultiModalDistiller',
            data_preprocessor=dict(
                type='mmcmcd.PairedDataPreprocessor',
                **{side: dict() for side in CHANNELS},
            ),
            teachers=dict(
                skeleton=dict(
                    backbone=net(
                        'skeleton', init_cfg=pretrained(root / 'teacher.pth')
                    ),
                    norm=dict(type='BN1d', num_features=WIDTH, affine=False),
                )
            ),
            students={side: net(side) for side in STUDENTS},
            lessons=lessons,
        ),
        train_dataloader=loader(shuffle=True, drop_last=True),
        val_dataloader=loader(),
        val_evaluator=[
            dict(type='mmcmcd.CrossModalRetrieval', lesson='inertial'),
            dict(
                type='mmcmcd.CrossModalRetrieval', lesson='depth', prefix='d'
            ),
        ],
        val_cfg=dict(type='ValLoop'),
        train_cfg=dict(
            type='EpochBasedTrainLoop', max_epochs=2, val_interval=2
        ),
        optim_wrapper=dict(
            type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05)
        ),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
        custom_hooks=[
            dict(type='mmcmcd.VerifyPretrainedHook'),
            dict(type='mmcmcd.TeacherFrozenHook', interval=1),
            dict(type='mmcmcd.SyncStatisticsHook'),
            dict(type='mmcmcd.SkippedPairsHook'),
            dict(type='mmcmcd.StudentExportHook'),
            knn('inertial'),
            knn('depth', prefix='depth_knn'),
            dict(type='EMAHook', momentum=0.5),
        ],
        log_level='ERROR',
        randomness=dict(seed=0),
    )
    cfg.update(kwargs)
    return Config(cfg)


def teacher_file(root, seed=0):
    init_default_scope('mmpretrain')
    torch.manual_seed(seed)
    state = MODELS.build(net('skeleton')).state_dict()
    torch.save(
        {f'backbone.{k}': v for k, v in state.items()}, root / 'teacher.pth'
    )


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """The runner after training, and its work directory."""
    root = tmp_path_factory.mktemp('several')
    teacher_file(root)
    runner = Runner.from_cfg(config(root))
    runner.train()
    return runner, root / 'work'


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmpretrain')


def test_students_are_written_one_by_one(run):
    _, work = run
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=False)
    for side in STUDENTS:
        path = Path((work / f'last_student_{side}').read_text())
        assert path == work / f'student-{side}-{file_sha256(path)[:8]}.pth'
        content = torch.load(path, weights_only=True)
        # Those of the averaged weights, as in the checkpoint.
        expected = {
            f'backbone.{key.removeprefix(f"students.{side}.")}': value
            for key, value in checkpoint['state_dict'].items()
            if key.startswith(f'students.{side}.')
        }
        assert content['state_dict'].keys() == expected.keys()
        for key, value in content['state_dict'].items():
            assert torch.equal(value, expected[key])
        meta = content['meta']
        assert meta['student']['in_channels'] == CHANNELS[side]
        assert (meta['epoch'], meta['iter']) == (2, 4)
        stock = STOCK_MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=net(side, init_cfg=pretrained(path)),
                neck=dict(type='GlobalAveragePooling'),
            )
        )
        stock.init_weights()
        VerifyPretrainedHook()._verify(
            'backbone', stock.backbone, stock.backbone.init_cfg
        )
        for key, value in stock.backbone.state_dict().items():
            assert torch.equal(value, expected[f'backbone.{key}'])
    assert not (work / 'last_student').exists()


def test_checkpoint_tells_the_teacher_and_not_its_weights(run):
    runner, work = run
    checkpoint = torch.load(work / 'epoch_2.pth', weights_only=False)
    stored = checkpoint['meta']['teacher_sha256']
    assert stored == runner.model.teachers['skeleton'].state_hash()
    assert not any('teacher' in key for key in checkpoint['state_dict'])


def test_figures_of_all_students(run):
    runner, _ = run
    figures = runner.val()
    for name in (
        'inertial_retrieval/target2source_R@1',
        'inertial_retrieval/neighbours@10',
        'd/source2target_mAP',
        'knn/top1',
        'depth_knn/top1',
    ):
        assert 0 <= figures[name] <= 100
    # A sample of the bank is its own nearest neighbour.
    assert figures['knn/top1'] == figures['depth_knn/top1'] == 100


def neighbours(runner, side, metrics):
    hook = HOOKS.build(knn(side))
    hook.before_val_epoch(runner)
    for index, batch in enumerate(runner.val_dataloader):
        hook.after_val_iter(runner, index, batch)
    hook.after_val_epoch(runner, metrics)


def test_figures_may_not_hide_each_other(run):
    runner, _ = run
    figures = {}
    neighbours(runner, 'inertial', figures)
    with pytest.raises(ConfigError, match=r"prefix='depth_knn'"):
        neighbours(runner, 'depth', figures)
    with pytest.raises(ConfigError, match=r"'skeleton' has no student"):
        neighbours(runner, 'skeleton', {})


def test_a_run_goes_on_with_its_own_teacher_only(run, tmp_path):
    _, work = run
    checkpoint = str(work / 'epoch_2.pth')
    teacher_file(tmp_path, seed=7)
    cfg = config(tmp_path, load_from=checkpoint, resume=True)
    runner = Runner.from_cfg(cfg)
    with pytest.raises(CheckpointError) as caught:
        runner.train()
    message = str(caught.value)
    assert "model.teachers.skeleton.backbone ('" in message
    assert 'model.teachers.skeleton.backbone.init_cfg.checkpoint' in message


def test_half_loaded_student_is_refused(run, tmp_path):
    runner, _ = run
    teacher_file(tmp_path)
    cfg = config(tmp_path).model
    cfg.students.depth.init_cfg = pretrained(tmp_path / 'teacher.pth')
    other = SimpleNamespace(
        model=MODELS.build(cfg), optim_wrapper=runner.optim_wrapper
    )
    with pytest.raises(CheckpointError, match=r'students\.depth: pretrained'):
        VerifyPretrainedHook().before_run(other)


def main_of_the_tool(monkeypatch, *args):
    path = REPO / 'tools' / 'model_converters' / 'export_student.py'
    monkeypatch.setattr('sys.argv', [str(path), *map(str, args)])
    runpy.run_path(str(path))['main']()


def test_tool_takes_the_student_that_is_named(
    run, tmp_path, monkeypatch, capsys
):
    _, work = run
    checkpoint = work / 'epoch_2.pth'
    args = checkpoint, tmp_path / 'x.pth'
    main_of_the_tool(monkeypatch, *args, '--student', 'depth')
    written = torch.load(capsys.readouterr().out.strip(), weights_only=True)
    last = torch.load(
        (work / 'last_student_depth').read_text(), weights_only=True
    )
    assert written['meta'] == last['meta']
    assert written['state_dict'].keys() == last['state_dict'].keys()
    for key, value in written['state_dict'].items():
        assert torch.equal(value, last['state_dict'][key])
    for extra, named in (((), 'none'), (('--student', 'rgb'), "'rgb'")):
        with pytest.raises(
            CheckpointError,
            match=f'students depth, inertial, and {named} .*--student depth',
        ):
            main_of_the_tool(monkeypatch, *args, *extra)


def test_a_single_student_needs_no_name(tmp_path):
    state = {'students.depth.weight': torch.ones(1)}
    source = tmp_path / 'several_teachers.pth'
    torch.save(dict(state_dict=state), source)
    path = export_student(str(source), tmp_path / 'x.pth')
    assert list(torch.load(path)['state_dict']) == ['backbone.weight']
    torch.save(dict(state_dict={'student.weight': torch.ones(1)}), source)
    with pytest.raises(CheckpointError, match="leave 'depth'"):
        export_student(str(source), tmp_path / 'x.pth', student='depth')
