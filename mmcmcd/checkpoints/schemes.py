"""mmengine's ways to find a checkpoint, each read as data."""

import io
import logging
import os
import re
from tempfile import TemporaryDirectory
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_rank
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import checkpoint as upstream

from ..errors import CheckpointError
from .reading import read_file

# NAME-<first digits of the SHA-256>.pth. torch's own pattern takes 'e.pth'
# of 'base-e.pth' for one, too; some names end in a date.
_HASH = re.compile(r'-(?!20\d{6}\.)([0-9a-f]{8,64})\.\w+$')


def register_schemes():
    """Have mmengine's ``CheckpointLoader`` read by :func:`.read_file`."""
    for prefixes, loader in (
        ('', load_from_local),
        (('http://', 'https://'), load_from_http),
        (('modelzoo://', 'torchvision://'), load_from_torchvision),
        (('open-mmlab://', 'openmmlab://'), load_from_openmmlab),
        ('mmcls://', load_from_mmcls),
        ((r'(\S+\:)?s3://', r'(\S+\:)?petrel://'), load_from_ceph),
        ('pavi://', load_from_pavi),
    ):
        upstream.CheckpointLoader.register_scheme(prefixes, loader, force=True)


# mmengine cuts 'load_from_' off the names, and logs the rest.
def load_from_local(filename, map_location=None):
    """Read a local file.

    Args:
        filename (str): The file.
        map_location (optional): As of ``torch.load``.

    Returns:
        object: The content.

    Raises:
        CheckpointError: See :func:`.read_file`, in all of these functions.
    """
    return read_file(filename, map_location)


def load_from_http(
    filename, map_location=None, model_dir=None, progress=None, names=()
):
    """Download a file once, and read it.

    Args:
        filename (str): The URL.
        map_location (optional): As of ``torch.load``.
        model_dir (str, optional): Where downloads are kept. Defaults to
            torch's own folder.
        progress (bool, optional): Show a bar. Defaults to None: at a
            terminal.
        names (Sequence[str]): What else it is called.

    Returns:
        object: The content.

    Raises:
        CheckpointError: What arrives has not the hash that its name ends in.
    """
    folder = model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints')
    path = os.path.join(folder, os.path.basename(urlparse(filename).path))
    if get_rank() == 0:
        try:
            _download(filename, path, progress)
        finally:
            # The others then meet the same error instead of a timeout.
            barrier()
    else:
        barrier()
        _download(filename, path, progress)  # another machine has none yet
    return read_file(path, map_location, names=(*names, filename))


def load_from_torchvision(filename, map_location=None):
    """Read a model of torchvision by its name."""
    urls = upstream.get_torchvision_models()
    url = _named(filename, urls, 'torchvision')
    return load_from_http(url, map_location, names=(filename,))


def load_from_openmmlab(filename, map_location=None):
    """Read a model of OpenMMLab by its name."""
    scheme, _, name = filename.partition('://')
    newer = upstream.get_deprecated_model_names().get(name)
    if newer is not None:
        print_log(
            f'{filename} is deprecated in favor of {scheme}://{newer}',
            logger='current',
            level=logging.WARNING,
        )
        name = newer
    urls = upstream.get_external_models()
    url = _named(f'{scheme}://{name}', urls, 'OpenMMLab')
    if url.startswith(('http://', 'https://')):
        return load_from_http(url, map_location, names=(filename,))
    path = os.path.join(upstream._get_mmengine_home(), url)
    return read_file(path, map_location, names=(filename,))


def load_from_mmcls(filename, map_location=None):
    """Read a model of MMClassification by its name: its backbone."""
    url = _named(filename, upstream.get_mmcls_models(), 'MMClassification')
    content = load_from_http(url, map_location, names=(filename,))
    return upstream._process_mmcls_checkpoint(content)


def load_from_ceph(filename, map_location=None, backend='petrel'):
    """Read an object of a store."""
    client = get_file_backend(filename, backend_args=dict(backend=backend))
    with io.BytesIO(client.get(filename)) as buffer:
        return read_file(buffer, map_location, names=(filename,))


def load_from_pavi(filename, map_location=None):
    """Read a model of Pavi."""
    from pavi import modelcloud

    model = modelcloud.get(filename.removeprefix('pavi://'))
    with TemporaryDirectory() as folder:
        path = os.path.join(folder, model.name)
        model.download(path)
        return read_file(path, map_location, names=(filename,))


def _named(filename, urls, zoo):
    name = filename.partition('://')[2]
    if name not in urls:
        raise CheckpointError(
            f"checkpoint '{filename}': {zoo} has no model '{name}'."
        )
    return urls[name]


def _download(url, path, progress):
    if os.path.exists(path):
        return
    found = _HASH.search(os.path.basename(path))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    print_log(f'Downloading {url} to {path}', logger='current')
    try:
        torch.hub.download_url_to_file(
            url,
            path,
            hash_prefix=found[1] if found else None,
            progress=os.isatty(0) if progress is None else progress,
        )
    except RuntimeError as error:
        if 'invalid hash' not in str(error):
            raise
        raise CheckpointError(
            f"checkpoint '{url}' is not the file that its name promises: "
            f'{error}. The download is damaged, or the file was replaced; '
            'try again, or ask its author.'
        ) from error
