import logging
from collections import Counter, OrderedDict

import pytest
import torch
from hostile import called, code, with_stored_code
from mmengine.config import Config
from mmengine.registry import MODELS

from mmcmcd.checkpoints import read_file, stored_code
from mmcmcd.checkpoints.stored_code import remove_stored_code


@pytest.fixture
def warnings(monkeypatch):
    lines = []

    def collect(text, logger, level):
        assert (logger, level) == ('current', logging.WARNING)
        lines.append(text)

    monkeypatch.setattr(stored_code, 'print_log', collect)
    return lines


def test_plain_texts_stay_and_the_executed_one_goes(warnings, tmp_path):
    content = with_stored_code({}, None, lambda _: 'gpu_ids = [0, 1]\n')
    torch.save(content, tmp_path / 'a.pth')
    read = read_file(tmp_path / 'a.pth')
    text = content['meta'].pop('config')
    content['meta']['gpu_ids'] = [0, 1]
    assert read == content
    assert read['meta']['cfg'] == text
    assert not warnings


def test_these_texts_would_do_harm(tmp_path):
    for text in (code, called):
        marker = tmp_path / text.__name__
        cfg = Config.fromstring(text(marker), '.py')
        if text is called:
            MODELS.build(cfg.model)
        assert marker.exists()


@pytest.mark.parametrize('text', [code, called])
def test_code_goes_with_a_warning(text, warnings, tmp_path):
    marker = tmp_path / 'marker'
    content = with_stored_code(dict(a=torch.ones(1)), marker, text)
    torch.save(content, tmp_path / 'a.pth')
    read = read_file(tmp_path / 'a.pth')
    assert read['meta'] == dict(epoch=1, iter=2)
    assert read['message_hub']['runtime_info'] == {}
    assert read['state_dict'] == content['state_dict']
    assert not marker.exists()
    assert len(warnings) == 3
    for place, line in zip(
        ('meta.config', 'meta.cfg', 'message_hub.runtime_info.cfg'),
        warnings,
        strict=True,
    ):
        assert f"a.pth': '{place}' is no plain config" in line
        assert 'was not run' in line


@pytest.mark.parametrize('kind', [dict, OrderedDict, Counter])
def test_hidden_methods_do_not_help(kind, warnings):
    meta = kind(config='import os', cfg=[], epoch=1)
    if kind is OrderedDict:  # of which a file can set attributes
        for name in ('pop', 'get', 'keys', '__contains__', '__delitem__'):
            setattr(meta, name, lambda *_: None)
    assert list(remove_stored_code(dict(meta=meta), 'a')['meta']) == ['epoch']
    assert len(warnings) == 2


@pytest.mark.parametrize(
    'content',
    [
        dict(meta=[1], message_hub='x'),
        dict(meta='config', message_hub=dict(runtime_info=3)),
        dict(meta=None, message_hub=dict(runtime_info=[])),
        dict(meta=dict(config=None, cfg=3)),
        dict(meta=dict(config='a = ' + '[' * 10**5, cfg={})),
        dict(message_hub=dict(runtime_info=dict(cfg=b'x'))),
    ],
)
def test_what_has_another_type_goes(content, warnings):
    read = remove_stored_code(content, 'a')
    assert not read.get('meta')
    assert not read.get('message_hub', {}).get('runtime_info')
    assert warnings


@pytest.mark.parametrize('content', [[1], torch.ones(1), None, {}, 'meta'])
def test_others_pass(content, warnings):
    assert remove_stored_code(content, 'a') is content
    assert not warnings
