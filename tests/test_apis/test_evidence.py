"""Experiment matrices: cells, runs, choice of settings, and the page."""

import json
import textwrap

import numpy as np
import pytest
import torch
from conftest import REPO
from utd_mhad_sample import write_sample

from mmcmcd.analysis import mean_interval
from mmcmcd.apis.evidence import (
    Workplace,
    read_matrix,
    read_settings,
    work,
    write_report,
    write_settings,
)
from mmcmcd.apis.evidence.matrix import unique_jobs
from mmcmcd.apis.evidence.tape import TapeStore
from mmcmcd.apis.evidence.work import _MAX_STARTS, DONE, FAILED, OPEN
from mmcmcd.engine import ProgressHook
from mmcmcd.errors import ConfigError

CONFIGS = REPO / 'configs'
TEXT = f"""
title = 'Small'
metric = 'accuracy/top1'
student_metrics = ('retrieval/target2source_mAP', )
seeds = [0, 1, 2]
teachers = dict(labels=dict(
    config='{CONFIGS}/pretrain/supervised_tcn_utdmhad_skeleton.py',
    shared_seed=0))
downstream = '{CONFIGS}/downstream/inertial_utdmhad_ft.py'
budgets = {{n: {{
    'train_dataloader.dataset.labels_per_class': int(n),
    'train_dataloader.dataset.draw': '{{seed}}'}} for n in '12'}}
_short = {{'train_dataloader.batch_size': 16, 'train_cfg.max_epochs': 2}}
_steps = {{'train_cfg.max_iters': 2}}
splits = dict(
    tune=dict(teacher=_steps, student={{
        **_short, 'val_dataloader.dataset.subjects': (5, )}},
        score=_steps),
    test=dict(teacher=_steps, student=_short, score=_steps))
tuning = dict(seeds=[0], budgets=['1'])
_base = '{CONFIGS}/baselines/inertial_utdmhad_'
methods = {{
    'scratch': None,
    'SimCLR': dict(
        config='{CONFIGS}/pretrain/simclr_tcn_utdmhad_inertial.py',
        teacher=False),
    'L2': dict(config=_base + 'feature_l2.py', grid=[
        {{'optim_wrapper.optimizer.lr': rate}} for rate in (1e-3, 3e-3)]),
    'CMC': dict(config=_base + 'cmc.py', ours=True, grid=[
        {{'model.losses.cmc.temperature': t}} for t in (0.1, 0.4)]),
}}
sweeps = {{'temperature': dict(
    method='CMC', teacher='labels', budget='1', seeds=[0, 1],
    values={{str(t): dict(student={{'model.losses.cmc.temperature': t}})
            for t in (0.1, 0.8)}})}}
"""


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv('MMCMCD_REALDATA', str(tmp_path / 'data'))
    path = tmp_path / 'small.py'
    path.write_text(textwrap.dedent(TEXT))
    return path


@pytest.fixture
def matrix(path):
    return read_matrix(path)


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_cells_are_the_product(matrix):
    cells = matrix.cells('test', {'CMC': 1})
    # Methods x budgets x seeds; one teacher.
    assert len(cells) == 4 * 2 * 3
    assert {c.setting for c in cells if c.method == 'CMC'} == {1}
    assert {c.teacher for c in cells if c.method == 'SimCLR'} == {''}
    jobs = unique_jobs(cells)
    kinds = [job.kind for job in jobs]
    # Three methods have students, of which budgets share each.
    assert [kinds.count(k) for k in ('teacher', 'student', 'score')] == [
        1,
        9,
        24,
    ]
    for job in jobs:
        assert all(jobs.index(need) < jobs.index(job) for need in job.needs)
    tune = matrix.cells('tune', {})
    assert len(tune) == 1 + 1 + 2 + 2
    assert {c.seed for c in tune} == {0} and {c.budget for c in tune} == {'1'}


def test_configs_are_what_the_matrix_says(matrix):
    cell = next(
        c
        for c in matrix.cells('test', {'CMC': 1})
        if (c.method, c.budget, c.seed) == ('CMC', '2', 2)
    )
    score = cell.score.make_config(['STUDENT.pth'])
    assert score.model.backbone.init_cfg.checkpoint == 'STUDENT.pth'
    assert score.randomness.seed == 2
    dataset = score.train_dataloader.dataset
    assert dataset.labels_per_class == 2 and dataset.draw == 2
    assert score.train_cfg.val_interval > score.train_cfg.max_iters
    (student,) = cell.score.needs
    cfg = student.make_config(['TEACHER.pth'])
    assert cfg.model.losses.cmc.temperature == 0.4
    assert cfg.model.teacher.init_cfg.checkpoint == 'TEACHER.pth'
    (teacher,) = student.needs
    assert teacher.make_config([]).randomness.seed == 0
    scratch = matrix.cells('test', {})[0].score
    assert scratch.needs == ()
    assert scratch.make_config([]).model.backbone.init_cfg is None


def test_runs_are_told_apart_by_what_they_do(path, monkeypatch, tmp_path):
    def prints():
        cells = read_matrix(path).cells('test', {})
        return {(c.method, c.budget, c.seed): c.score for c in cells}

    before = prints()
    assert len({job.fingerprint for job in before.values()}) == len(before)
    # Neither the place of the data nor a name is part of a run.
    monkeypatch.setenv('MMCMCD_REALDATA', str(tmp_path / 'elsewhere'))
    change(path, "'L2': dict", "'regression': dict")
    after = prints()
    assert after['regression', '1', 0] == before['L2', '1', 0]
    # What a run needs is.
    change(path, 'shared_seed=0', 'shared_seed=1')
    other = prints()
    assert other['CMC', '1', 0] != before['CMC', '1', 0]
    assert other['SimCLR', '1', 0] == before['SimCLR', '1', 0]
    change(path, '(0.1, 0.4)', '(0.2, 0.4)')
    assert prints()['CMC', '1', 0] != other['CMC', '1', 0]


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ("title = 'Small'", '', r"fields missing: \['title'\]"),
        ("title = 'Small'", "titel = title = ''", r"unknown: \['titel'\]"),
        ('feature_l2.py', 'feature_l3.py', 'feature_l3.py.* does not exist'),
        ("budgets=['1'])", "budgets=['3'])", r"unknown budgets \['3'\]"),
        ('tune=dict(', 'tuna=dict(', r"unknown splits \['tuna'\]"),
        ('score=_', 'scores=_', r"unknown stages \['scores'\]"),
        ("method='CMC'", "method='CMD'", r"unknown methods \['CMD'\]"),
        ('ours=True', 'our=True', r"unknown fields \['our'\]"),
        ("budget='1', ", '', r"sweeps.*missing \['budget'\]"),
        ('seeds = [0, 1, 2]', 'seeds = 3', 'seeds must be a list'),
        ('tuning = dict(seeds', 'tuning = dict(seed', r"unknown .*'seed'"),
        ('shared_seed=0', "checkpoint='x.pth'", 'either config or check'),
    ],
)
def test_faults_of_a_matrix_are_named(path, old, new, message):
    with pytest.raises(ConfigError, match=message):
        read_matrix(change(path, old, new))


def test_a_run_belongs_to_one_process(matrix, tmp_path):
    place, other = (Workplace(tmp_path / 'work') for _ in range(2))
    job = matrix.cells('test', {})[0].score
    with place.claim(job) as ours:
        assert ours
        with other.claim(job) as theirs:
            assert not theirs
    with other.claim(job) as theirs:
        assert theirs


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data')
    write_sample(root / 'utd_mhad')
    return root


def weights(place, job):
    return torch.load(place.weights(job), weights_only=False)['state_dict']


def test_shared_batches_change_nothing(path, data, tmp_path, monkeypatch):
    monkeypatch.setenv('MMCMCD_REALDATA', str(data))
    matrix = read_matrix(path)
    cells = [
        c
        for c in matrix.cells('test', {})
        if c.seed == 0 and c.budget == '1' and c.method in ('L2', 'CMC')
    ]
    jobs = unique_jobs(cells)
    alone, shared = (Workplace(tmp_path / name) for name in ('a', 'b'))
    played = []
    add = TapeStore.add
    monkeypatch.setattr(
        TapeStore, 'add', lambda self, *a: (played.append(a), add(self, *a))
    )
    work(alone, jobs, 1, 0)
    assert not played
    work(shared, jobs, 1, 2**30)
    for job in jobs:
        if job.kind == 'score':
            assert (
                alone.record(job)['metrics'] == shared.record(job)['metrics']
            )
            continue
        ours, theirs = weights(alone, job), weights(shared, job)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    # The second student drew and embedded nothing: nothing is added twice.
    places = [(key, place) for key, place, _ in played]
    assert len(set(places)) == len(places)
    (teacher,) = [job for job in jobs if job.kind == 'teacher']
    embedded = [place for key, place in places if teacher.fingerprint in key]
    # Two epochs of 81 pairs.
    assert len(embedded) == 2 * (81 // 16)


def test_tapes_keep_within_their_limit():
    store = TapeStore(100)
    for key, size in (('a', 10), ('b', 10), ('c', 20)):
        store.open(key)
        for place in range(2):
            store.begin()
            store.open(key)
            store.add(key, (place,), torch.zeros(size // 4 * 2))
            assert store.used <= 100
    assert not store.open('a')
    assert store.open('c')
    large = store.open('large')
    store.add('large', (0,), torch.zeros(1000))
    assert not large


def test_a_run_keeps_what_it_plays():
    """Its batches do not give way to its embeddings."""
    store = TapeStore(100)
    store.begin()
    batches, rows = store.open('batches'), store.open('rows')
    for place in range(10):
        store.add('batches', (place,), torch.zeros(5))
        store.add('rows', (place,), torch.zeros(5))
    assert len(batches) + len(rows) == 5 and (0,) in batches and rows
    # The next run may push them out.
    store.begin()
    store.open('others')
    store.add('others', (0,), torch.zeros(25))
    assert store.used == 100 and not store.open('batches')


def test_a_stop_before_validation_loses_no_figure(
    path, data, tmp_path, monkeypatch
):
    monkeypatch.setenv('MMCMCD_REALDATA', str(data))
    cell = read_matrix(path).cells('test', {})[0]
    straight, stopped = (Workplace(tmp_path / name) for name in 'ab')
    work(straight, [cell.score], 1, 0)

    class Stop(SystemExit):
        pass

    def stop(self, runner, metrics=None):
        raise Stop

    with monkeypatch.context() as context:
        context.setattr(ProgressHook, 'before_val', stop, raising=False)
        context.setattr(ProgressHook, 'before_val_epoch', stop, raising=False)
        with pytest.raises(Stop):
            work(stopped, [cell.score], 1, 0)
    assert stopped.state(cell.score) == OPEN
    work(stopped, [cell.score], 1, 0)
    found = stopped.record(cell.score)['metrics']
    assert found == straight.record(cell.score)['metrics'] and found


def test_options_without_a_place_are_named(path):
    change(path, 'val_dataloader.dataset', 'val_datalaoder.dataset')
    cell = read_matrix(path).cells('tune', {})[-1]
    with pytest.raises(ConfigError, match="has no 'val_datalaoder' but"):
        cell.score.fingerprint  # noqa: B018


def test_configs_that_do_not_suit_are_named(path):
    change(path, 'downstream/inertial_utdmhad_ft', 'cmcd/inertial_utdmhad')
    cell = read_matrix(path).cells('test', {})[0]
    with pytest.raises(ConfigError, match='downstream needs model.backbone'):
        cell.score.fingerprint  # noqa: B018


def test_failures_are_kept_and_the_others_go_on(
    path, data, tmp_path, monkeypatch
):
    monkeypatch.setenv('MMCMCD_REALDATA', str(data))
    matrix = read_matrix(change(path, '(0.1, 0.4)', '(-1, 0.4)'))
    cells = [
        c
        for c in matrix.cells('test', {})
        if c.seed == 0 and c.method in ('scratch', 'CMC')
    ]
    jobs = unique_jobs(cells)
    place = Workplace(tmp_path / 'work')
    work(place, jobs, 1, 0)
    states = {c.method: place.state(c.score) for c in cells}
    assert states == dict(scratch=DONE, CMC=FAILED)
    reason = place.failure(next(c.score for c in cells if c.method == 'CMC'))
    assert 'temperature must be positive' in reason
    out = tmp_path / 'page.md'
    results = write_report(
        matrix, place, read_settings(matrix), out, 'command'
    )
    assert sum(map(len, results.failures(cells).values())) == 2
    page = out.read_text()
    assert '(1 FAILED)' in page and 'temperature must be positive' in page
    assert page.count('none') > 3
    place.forget_failures(jobs)
    assert {place.state(j) for j in jobs} == {DONE, OPEN}
    # One that ends its process without a word is not tried for ever.
    student = next(j for j in jobs if j.kind == 'student')
    folder = place.folder(student)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'starts').write_text(str(_MAX_STARTS))
    work(place, [j for j in jobs if j.kind != 'score'], 1, 0)
    assert 'without a word' in place.failure(student)


def record(place, job, value, **metrics):
    folder = place.folder(job)
    folder.mkdir(parents=True)
    metrics['accuracy/top1'] = value
    content = dict(
        title=job.title,
        seconds=2.0,
        metrics=metrics,
        date='2026-01-02',
        machine='a machine',
        python='3.11',
        versions=['mmcmcd 0.1.0'],
    )
    (folder / 'record.json').write_text(json.dumps(content))


def fill(matrix, place, cells, values):
    for cell in cells:
        value = values[cell.method]
        if callable(value):
            value = value(cell)
        record(place, cell.score, value)
        for student in cell.score.needs:
            if not place.folder(student).exists():
                record(
                    place, student, 0.0, **{'retrieval/target2source_mAP': 7}
                )


def test_the_best_setting_is_chosen(matrix, path, tmp_path):
    place = Workplace(tmp_path / 'work')
    cells = matrix.cells('tune', {})
    with pytest.raises(ConfigError, match='is not finished'):
        write_settings(matrix, place, tmp_path / 'small.json')
    values = dict(
        scratch=1.0,
        SimCLR=2.0,
        L2=lambda c: 5.0 - c.setting,
        CMC=lambda c: 3.0 + c.setting,
    )
    fill(matrix, place, cells, values)
    content = write_settings(matrix, place, tmp_path / 'small.json')
    assert content['settings'] == dict(scratch=0, SimCLR=0, L2=0, CMC=1)
    assert content['scores']['CMC'] == [3.0, 4.0]
    assert content['contender'] == 'CMC'
    # It lies beside the matrix, where it is found.
    assert read_settings(matrix) == content
    change(path, '(0.1, 0.4)', '(0.1, 0.3)')
    with pytest.raises(ConfigError, match=r"other grids.*'CMC'"):
        read_settings(read_matrix(path))
    (tmp_path / 'small.json').write_text('{"settings": {}}')
    with pytest.raises(ConfigError, match='is not what tune writes'):
        read_settings(matrix)


def test_figures_of_the_page(matrix, tmp_path):
    place = Workplace(tmp_path / 'work')
    cells = matrix.cells('test', {})
    rng = np.random.default_rng(0)
    noise = {seed: rng.normal() for seed in (0, 1, 2)}
    values = dict(
        scratch=lambda c: 10 + noise[c.seed],
        SimCLR=lambda c: 11 + noise[c.seed] + 0.1 * c.seed,
        L2=lambda c: 14 + noise[c.seed] - (8 if c.budget == '2' else 0),
        CMC=lambda c: 17 + noise[c.seed] + 0.2 * c.seed,
    )
    fill(matrix, place, cells, values)
    for cell in matrix.sweep_cells(matrix.sweeps['temperature'], {}):
        if not place.folder(cell.score).exists():
            fill(matrix, place, [cell], dict(CMC=lambda c: 20.0 + c.seed))
    settings = dict(settings={}, contender='CMC', scores={})
    out = tmp_path / 'page.md'
    write_report(matrix, place, settings, out, 'the command')
    page = out.read_text()
    mean, half = mean_interval([10 + noise[seed] for seed in noise])
    plain = f'{mean:.2f} ± {half:.2f}'
    assert f'| scratch | {plain} | {plain} | 3 |' in page
    mean, half = mean_interval([3, 3.2, 3.4])
    assert f'| labels | 1 | L2 | +{mean:.2f} ± {half:.2f} | ahead |' in page
    # With two labels another baseline is the best.
    mean, half = mean_interval([6, 6.1, 6.2])
    assert f'| labels | 2 | SimCLR | +{mean:.2f} ± {half:.2f} |' in page
    assert '| CMC | labels | 7.00 ± 0.00 |' in page
    assert (
        'none' not in page and 'not run' not in page and 'FAILED' not in page
    )
    assert '| 0.8 | 20.50 ± 6.35 | 2 |' in page
    assert 'the command' in page and '2026-01-02, a machine' in page
    assert out.with_suffix('.png').stat().st_size > 10_000
    assert (tmp_path / 'page_sweeps.png').stat().st_size > 5_000
    # Without the runs, the figures beside the page say the same.
    empty = Workplace(tmp_path / 'empty')
    write_report(matrix, empty, settings, out, 'the command')
    assert out.read_text() == page
    with pytest.raises(ConfigError, match='nothing has been run'):
        write_report(
            matrix, empty, settings, tmp_path / 'other.md', 'the command'
        )


def test_distance_is_set_against_the_result(path, tmp_path):
    path.write_text(
        path.read_text()
        + textwrap.dedent("""
            student_metrics = ('gap_mmd', )
            student_hooks = [dict(type='mmcmcd.ModalityGapHook')]
            methods.update({f'CMC {i}': dict(
                config=_base + 'cmc.py',
                grid=[{'model.losses.cmc.temperature': 0.1 + i}])
                for i in range(6)})
            """)
    )
    matrix, place = read_matrix(path), Workplace(tmp_path / 'work')
    cells = matrix.cells('test', {})
    for cell in cells:
        name, _, number = cell.method.partition(' ')
        gap = int(number or 9)
        score = -gap if cell.budget == '1' else gap**2 % 7
        record(place, cell.score, float(score + cell.seed))
        for student in cell.score.needs:
            cfg = student.make_config(['x'] * len(student.needs))
            types = [hook.type for hook in cfg.custom_hooks]
            assert ('mmcmcd.ModalityGapHook' in types) == (name != 'SimCLR')
            if not place.folder(student).exists():
                record(place, student, 0.0, gap_mmd=gap + 0.1 * cell.seed)
    out = tmp_path / 'page.md'
    write_report(matrix, place, read_settings(matrix), out, 'command')
    row = next(
        line
        for line in out.read_text().splitlines()
        if line.startswith('| gap_mmd | labels | -')
    )
    # L2 and CMC share a gap of 9 and the lowest result.
    assert '| -1.00 [-1.00, -1.00] |' in row
    other = row.split('|')[4]
    assert -1 < float(other.split()[0]) < 1
