"""Sound files, whose headers are not believed."""

import io
import os.path as osp
import re
from contextlib import contextmanager

import numpy as np

from mmcmcd.errors import ConfigError, UnreadableFileError

from .loading import read_bytes

# Programs that write to a pipe cannot know the length: sizes from here on
# mean "to the end of the file".
_UNKNOWN_SIZE = 0x7FFFF000
# Samples of all channels that are decoded at a time, 16 MB of them.
_BLOCK = 2**22


@contextmanager
def open_sound(path, backend_args=None):
    """Open a sound file; a local one is not read as a whole.

    Args:
        path (str): Path or URI.
        backend_args (dict, optional): See :func:`mmengine.fileio.get`.

    Yields:
        soundfile.SoundFile: The file.

    Raises:
        ConfigError: soundfile is not installed.
        UnreadableFileError: The file is missing, empty, truncated or no
            sound, or its header says 0 Hz.
    """
    try:
        import soundfile
    except ImportError:
        raise ConfigError(
            "Reading audio needs soundfile. Run: pip install 'mmcmcd[audio]'"
        ) from None
    source = path
    if backend_args or not osp.isfile(path) or not osp.getsize(path):
        # This also says what is wrong with a missing or empty file.
        source = io.BytesIO(read_bytes(path, backend_args))
    try:
        file = soundfile.SoundFile(source)
    except (soundfile.LibsndfileError, OSError) as error:
        reason = 'it is damaged, truncated or not a sound'
        if _says_zero_hertz(path, backend_args):
            reason = 'its header says 0 Hz'
        # Its text without the path, which is in the message already.
        detail = getattr(error, 'error_string', error)
        raise UnreadableFileError(
            f'Cannot decode sound {path}: {reason} ({detail}).'
        ) from error
    with file:
        _check_complete(file, path)
        yield file


def read_samples(file, path, begin=0, end=None):
    """Decode a part of a sound file; all of it must be there.

    Memory is taken for what is there, not for what the header claims.

    Args:
        file (soundfile.SoundFile): Of :func:`open_sound`.
        path (str): Named in the message.
        begin (int): First sample. Defaults to 0.
        end (int, optional): The sample behind the last. Defaults to None:
            that at the end of the file, as its header tells it.

    Returns:
        np.ndarray: (channels, T), float32, at least one sample.

    Raises:
        UnreadableFileError: The file is damaged, or ends before.
    """
    end = file.frames if end is None else min(end, file.frames)
    size = max(_BLOCK // file.channels, 1)
    blocks, there = [np.empty((0, file.channels), np.float32)], 0
    try:
        file.seek(begin)
        while there < end - begin:
            block = file.read(
                min(size, end - begin - there),
                dtype='float32',
                always_2d=True,
            )
            if not len(block):
                break
            blocks.append(block)
            there += len(block)
        samples = np.concatenate(blocks).T
    except RuntimeError as error:  # of libsndfile
        raise UnreadableFileError(
            f'Cannot decode {path}: damaged or truncated ({error}).'
        ) from error
    except MemoryError:
        raise UnreadableFileError(
            f'Cannot decode {path}: its {end - begin} samples of '
            f'{file.channels} channels do not fit into memory. Restore the '
            'file, or split it.'
        ) from None
    if there < end - begin or not samples.size:
        raise UnreadableFileError(
            f'No sound, or truncated: {path} gives {there} of {end - begin} '
            'samples. Copy or download it again.'
        )
    return samples


def _says_zero_hertz(path, backend_args):
    head = read_bytes(path, backend_args)[:28]
    is_wav = head[:4] == b'RIFF' and head[12:16] == b'fmt '
    return is_wav and head[24:28] == bytes(4)


def _check_complete(file, path):
    """Refuse a wav file that is shorter than its header says.

    libsndfile takes what is there, and only notes it in its log. Other
    formats fail when they are decoded.
    """
    noted = re.search(
        r'^data *: (\d+) \(should be (\d+)\)', file.extra_info, re.M
    )
    if noted is None:
        return
    promised, there = map(int, noted.groups())
    if there < promised < _UNKNOWN_SIZE:
        raise UnreadableFileError(
            f'File is truncated: {path} has {there} of {promised} bytes of '
            'sound. Copy or download it again.'
        )
