import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
import torch
from hostile import write_pickles
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as upstream

from mmcmcd.checkpoints import UnsafeCheckpointError, schemes, trust
from mmcmcd.checkpoints.trust import TRUSTED_VARIABLE
from mmcmcd.errors import CheckpointError

WEIGHTS = dict(state_dict={'backbone.a': torch.ones(2), 'head.b': 1})


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder that is served, its URL, and an empty cache."""
    folder = tmp_path / 'site'
    folder.mkdir()
    server = ThreadingHTTPServer(
        ('127.0.0.1', 0), partial(Handler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'home'))
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'mmengine'))
    monkeypatch.setenv(TRUSTED_VARIABLE, '')
    yield SimpleNamespace(
        folder=folder,
        url=f'http://127.0.0.1:{server.server_port}',
        cache=tmp_path / 'home' / 'hub' / 'checkpoints',
    )
    server.shutdown()
    server.server_close()


def load(name):
    return CheckpointLoader.load_checkpoint(name, 'cpu', logger='silent')


def test_all_of_mmengines_schemes_are_ours():
    own = {
        prefix: loader.__module__
        for prefix, loader in CheckpointLoader._schemes.items()
    }
    assert set(own.values()) == {schemes.__name__}
    assert {'', 'http://', 'pavi://', 'mmcls://', 'torchvision://'} <= {*own}


def test_download_is_kept_and_read_as_data(site):
    torch.save(WEIGHTS, site.folder / 'a.pth')
    assert load(f'{site.url}/a.pth').keys() == WEIGHTS.keys()
    (site.folder / 'a.pth').unlink()
    assert load(f'{site.url}/a.pth?version=2').keys() == WEIGHTS.keys()
    assert [p.name for p in site.cache.iterdir()] == ['a.pth']


def test_downloaded_program_is_refused_and_trusted_by_url(site, tmp_path):
    marker = tmp_path / 'marker'
    write_pickles(site.folder, marker, {})
    url = f'{site.url}/zip.pth'
    with pytest.raises(UnsafeCheckpointError, match=f'-checkpoint {url}'):
        load(url)
    assert not marker.exists()
    trust(url)
    load(url)
    assert marker.exists()


def test_hash_at_the_end_of_a_name_is_checked(site):
    torch.save(WEIGHTS, site.folder / 'a.pth')
    data = (site.folder / 'a.pth').read_bytes()
    digest = hashlib.sha256(data).hexdigest()[:8]
    names = {
        f'a-{digest}.pth': True,
        f'r50_{digest[::-1]}.pth': True,  # no hash
        'a-20220131.pth': True,  # a date
        'base-e.pth': True,
        f'a-{"0" * 8}.pth': False,
    }
    for name, fits in names.items():
        (site.folder / name).write_bytes(data)
        if fits:
            load(f'{site.url}/{name}')
            continue
        with pytest.raises(CheckpointError, match='not the file that its'):
            load(f'{site.url}/{name}')
        assert not (site.cache / name).exists()


def test_models_by_name(site, tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    write_pickles(site.folder, marker, {})
    torch.save(WEIGHTS, site.folder / 'a.pth')
    (tmp_path / 'mmengine').mkdir()
    torch.save(WEIGHTS, tmp_path / 'mmengine' / 'local.pth')
    urls = dict(
        a=f'{site.url}/a.pth', evil=f'{site.url}/zip.pth', local='local.pth'
    )
    for function in (
        'get_torchvision_models',
        'get_external_models',
        'get_mmcls_models',
    ):
        monkeypatch.setattr(upstream, function, lambda: urls)
    monkeypatch.setattr(
        upstream, 'get_deprecated_model_names', lambda: dict(old='a')
    )
    for scheme in ('torchvision', 'modelzoo', 'open-mmlab', 'openmmlab'):
        assert load(f'{scheme}://a').keys() == WEIGHTS.keys()
    for name in ('old', 'local'):
        assert load(f'open-mmlab://{name}').keys() == WEIGHTS.keys()
    assert list(load('mmcls://a')['state_dict']) == ['a']
    for scheme in ('torchvision', 'open-mmlab', 'mmcls'):
        with pytest.raises(UnsafeCheckpointError):
            load(f'{scheme}://evil')
        with pytest.raises(CheckpointError, match="no model 'none'"):
            load(f'{scheme}://none')
    assert not marker.exists()


def test_stores_are_read_as_data(tmp_path, monkeypatch):
    marker = tmp_path / 'marker'
    files = write_pickles(tmp_path, marker, {})
    torch.save(WEIGHTS, tmp_path / 'a.pth')
    client = SimpleNamespace(
        get=lambda name: (tmp_path / name.split('/')[-1]).read_bytes()
    )
    monkeypatch.setattr(
        schemes, 'get_file_backend', lambda name, backend_args: client
    )
    for prefix in ('s3://bucket', 'cluster:s3://bucket', 'petrel://bucket'):
        assert load(f'{prefix}/a.pth').keys() == WEIGHTS.keys()
        for name in files:
            with pytest.raises(CheckpointError, match=prefix):
                load(f'{prefix}/{name}.pth')
    assert not marker.exists()


def test_first_process_downloads_before_the_others(monkeypatch, tmp_path):
    path = tmp_path / 'a.pth'
    torch.save(WEIGHTS, path)
    for rank, order in ((0, ['download', 'wait']), (1, ['wait', 'download'])):
        done = []
        monkeypatch.setattr(schemes, 'get_rank', lambda rank=rank: rank)
        monkeypatch.setattr(
            schemes, 'barrier', lambda done=done: done.append('wait')
        )
        monkeypatch.setattr(
            schemes,
            '_download',
            lambda *_, done=done: done.append('download'),
        )
        schemes.load_from_http('http://x/a.pth', model_dir=str(tmp_path))
        assert done == order


def test_failed_download_leaves_no_process_waiting(monkeypatch, tmp_path):
    waits = []
    monkeypatch.setattr(schemes, 'barrier', lambda: waits.append(1))

    def fail(*_):
        raise OSError('no route')

    monkeypatch.setattr(schemes, '_download', fail)
    with pytest.raises(OSError, match='no route'):
        schemes.load_from_http('http://x/a.pth', model_dir=str(tmp_path))
    assert waits
