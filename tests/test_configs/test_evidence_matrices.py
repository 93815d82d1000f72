"""The shipped experiment matrices can be read, and their configs made."""

import json

import pytest
from conftest import REPO

from mmcmcd.apis.evidence import read_matrix, read_settings
from mmcmcd.apis.evidence.matrix import unique_jobs

MATRICES = sorted((REPO / 'configs/evidence').glob('*.py'))


@pytest.mark.parametrize('path', MATRICES, ids=lambda p: p.stem)
def test_every_run_has_a_config(path):
    matrix = read_matrix(path)
    settings = read_settings(matrix)
    cells = matrix.cells('tune', {})
    seed = matrix.seeds[0]
    cells += [
        c for c in matrix.cells('test', settings['settings']) if c.seed == seed
    ]
    for sweep in matrix.sweeps.values():
        cells += matrix.sweep_cells(sweep, settings['settings'])
    # A fingerprint is that of a whole config.
    assert len({job.fingerprint for job in unique_jobs(cells)}) > 20
    assert matrix.metric and any(m.ours for m in matrix.methods.values())


@pytest.mark.parametrize('path', MATRICES, ids=lambda p: p.stem)
def test_all_methods_are_tuned_alike(path):
    """No method of ours has more settings to choose from than a baseline."""
    matrix = read_matrix(path)
    sizes = {
        name: len(method.grid)
        for name, method in matrix.methods.items()
        if method.config is not None
    }
    assert len(set(sizes.values())) == 1, sizes


@pytest.mark.parametrize('path', MATRICES, ids=lambda p: p.stem)
def test_chosen_settings_suit_the_matrix(path):
    chosen = path.with_suffix('.json')
    if not chosen.exists():
        pytest.skip('nothing chosen yet')
    matrix, content = read_matrix(path), json.loads(chosen.read_text())
    assert content['settings'].keys() == matrix.methods.keys()
    for name, scores in content['scores'].items():
        assert len(scores) == len(matrix.methods[name].grid)
    assert matrix.methods[content['contender']].ours
