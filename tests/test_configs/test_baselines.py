"""Baselines: another loss, and nothing else; the short ones are trained."""

import pytest
import torch
from conftest import REPO
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import Runner
from utd_mhad_sample import write_sample

BASELINES = sorted((REPO / 'configs/baselines').glob('*.py'))
DENSE = ('depth_nyu_dense_tiny', 'depth_nyu_dense')
PAIRS = (
    'depth_nyu_tiny',
    'depth_nyu',
    'sketch_sketchy_tiny',
    'sketch_sketchy',
    'inertial_utdmhad',
    'depthvideo_utdmhad',
)
METHODS = (
    'feature_l2',
    'feature_cosine',
    'socket',
    'rkd',
    'pkt',
    'crd',
    'seed',
    'compress',
    'cmc',
    'cmd_within',
    'cmd_cross',
    'cmcd_blend',
    'crossclr',
)
# What a loss itself needs of the model.
NEEDED = dict(seed={'queue'}, compress={'queue', 'momentum_student'})
SERIES = [p for p in BASELINES if p.stem.startswith('inertial_')]


def split(path):
    """The pair and the method of a file."""
    pair = next(p for p in DENSE + PAIRS if path.stem.startswith(p + '_'))
    return pair, path.stem.removeprefix(pair + '_')


def load(name):
    return Config.fromfile(REPO / 'configs' / f'{name}.py').to_dict()


def test_every_pair_has_every_method():
    found = {}
    for path in BASELINES:
        pair, method = split(path)
        found.setdefault(pair, set()).add(method)
    for pair in DENSE:
        assert found.pop(pair) == {'l2', 'cosine', 'cmd', 'pkt'}
    assert found == {pair: set(METHODS) for pair in PAIRS}


@pytest.mark.parametrize('path', BASELINES, ids=lambda p: p.stem)
def test_only_the_loss_is_another(path):
    pair, method = split(path)
    ours, base = load(f'baselines/{path.stem}'), load(f'cmcd/{pair}')
    model, other = ours.pop('model'), base.pop('model')
    assert ours == base
    if pair in DENSE:
        for name, cfg in model['dense'].items():
            assert cfg.pop('loss') != other['dense'][name].pop('loss')
    else:
        losses = model.pop('losses')
        assert list(losses) == [method] and losses != other.pop('losses')
    needed = NEEDED.get(method, set())
    assert needed == {key for key in model if key not in other}
    assert {k: v for k, v in model.items() if k not in needed} == other


def test_methods_are_one_over_all_pairs():
    """But for the size of a queue."""
    for method in METHODS:
        first, *others = (
            load(f'baselines/{pair}_{method}')['model'] for pair in PAIRS
        )
        for other in others:
            assert other['losses'] == first['losses']
            assert other.get('momentum_student') == first.get(
                'momentum_student'
            )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Random movements, and a random teacher."""
    root = tmp_path_factory.mktemp('baselines')
    write_sample(root / 'utd_mhad')
    torch.manual_seed(0)
    cfg = dict(type='mmcmcd.TemporalConvNet', in_channels=60)
    torch.save(dict(state_dict=MODELS.build(cfg).state_dict()), root / 't.pth')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMCMCD_REALDATA', str(root))
        yield root


@pytest.mark.parametrize('path', SERIES, ids=lambda p: p.stem)
def test_two_steps(path, root):
    """Losses are finite and reach the backbone, with a queue the second."""
    cfg = Config.fromfile(path)
    torch.manual_seed(0)
    loader = dict(cfg.train_dataloader, batch_size=16)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        batches = iter(Runner.build_dataloader(loader, seed=0))
        cfg.model.teacher.init_cfg = dict(
            type='Pretrained', checkpoint=str(root / 't.pth')
        )
        model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    before = {k: v.clone() for k, v in model.student.named_parameters()}
    for step in range(2):
        batch = model.data_preprocessor(next(batches), training=True)
        losses = model(**batch, mode='loss')
        total = sum(losses.values())
        assert total.isfinite() and all('loss' in name for name in losses)
        optimizer.zero_grad()
        total.backward()
        grads = [p.grad for p in model.student.parameters()]
        assert all(g.isfinite().all() for g in grads)
        # A loss of the queue alone has nothing to say at first.
        is_idle = path.stem.endswith(('seed', 'compress')) and step == 0
        assert all(g.abs().max() > 0 for g in grads) != is_idle
        optimizer.step()
    after = dict(model.student.named_parameters())
    assert not any(torch.equal(before[k], v) for k, v in after.items())


def test_moco_of_series_trains(root, tmp_path):
    """Stock mmpretrain; its queue is replaced in whole batches."""
    cfg, twin = (
        Config.fromfile(REPO / f'configs/pretrain/{name}_utdmhad_inertial.py')
        for name in ('moco_tcn', 'simclr_tcn')
    )
    assert cfg.model.queue_len % cfg.train_dataloader.batch_size == 0
    ours, theirs = (c.to_dict() for c in (cfg, twin))
    assert ours.pop('model') != theirs.pop('model')
    assert ours == theirs
    cfg.work_dir = str(tmp_path)
    cfg.train_dataloader.batch_size = 16
    cfg.train_cfg.max_epochs = 2
    runner = Runner.from_cfg(cfg)
    queue = runner.model.queue.clone()
    runner.train()
    loss = runner.message_hub.get_scalar('train/loss').current()
    assert 0 < loss < 20
    changed = (runner.model.queue != queue).any(dim=0)
    assert changed.sum() == 16 * len(runner.train_dataloader) * 2
