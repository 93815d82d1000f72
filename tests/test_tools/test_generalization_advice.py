import importlib.util
import json
import sys

import numpy as np
import pytest
from conftest import REPO

TOOL = REPO / 'tools/benchmarks/generalization_advice.py'


@pytest.fixture(scope='module')
def tool():
    spec = importlib.util.spec_from_file_location('advice_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_advice_is_right_in_eight_of_ten_cases(
    tool, monkeypatch, tmp_path, capsys
):
    path = tmp_path / 'advice.json'
    monkeypatch.setattr(sys, 'argv', ['advice', '--out', str(path)])
    tool.main()
    printed = capsys.readouterr().out
    found = json.loads(path.read_text())
    assert len(found['cases']) == 10
    assert {case['truth'] for case in found['cases']} == set(tool.ACTIONS)
    for name in tool.EVIDENCE:
        assert found['right'][name] >= 8
        right = sum(c['advised'][name] == c['truth'] for c in found['cases'])
        assert right == found['right'][name]
        assert f'{name}: right in {right} of 10 cases' in printed


def test_a_linear_student_is_ridge_regression(tool):
    rng = np.random.default_rng(0)
    target = rng.normal(size=(40, 5))
    teacher = target @ rng.normal(size=(5, 2)) + rng.normal(size=(40, 2))
    student = tool.distil(teacher, target)
    x, t = target - target.mean(axis=0), teacher - teacher.mean(axis=0)
    weights = np.linalg.eigvalsh(x.T @ x)[-1] * np.logspace(-4, 0, 9)
    best = None
    for weight in weights:
        hat = x @ np.linalg.solve(x.T @ x + weight * np.eye(5), x.T)
        score = ((t - hat @ t) ** 2).sum() / (1 - (1 + hat.trace()) / 40) ** 2
        if best is None or score < best[0]:
            best = score, hat @ t + teacher.mean(axis=0)
    np.testing.assert_allclose(student(target), best[1])


def test_an_action_changes_what_it_says(tool):
    case = tool.Case(0, 'pairs', pairs=30, labels=100, seen=5)
    assert case.after('pairs').pairs == 60
    assert case.after('labels').labels == 200
    assert case.after('source').seen == 7
    # The world stays the same one.
    assert case.after('pairs').seed == case.seed
