"""Files that run code when they are read, or would have it run."""

import io
import os
import pickle
import tarfile
from collections import OrderedDict

import torch

NEWEST, LEGACY = True, False


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker):
        self.command = f'touch {marker}'

    def __reduce__(self):
        return os.system, (self.command,)


class Custom:
    """Harmless, but no data: reading it imports this module."""

    def __init__(self):
        self.value = 7


def write_pickles(folder, marker, state):
    """Files of every format that run a command when they are unpickled."""
    evil = dict(state_dict=state, meta=dict(a=[dict(b=Command(marker))]))
    files = {}
    for name in ('zip', 'legacy', 'top', 'pickle2', 'pickle', 'text', 'tar'):
        files[name] = folder / f'{name}.pth'
    torch.save(evil, files['zip'])
    torch.save(evil, files['legacy'], _use_new_zipfile_serialization=LEGACY)
    torch.save(Command(marker), files['top'])
    files['pickle2'].write_bytes(pickle.dumps(evil, 2))
    files['pickle'].write_bytes(pickle.dumps(evil))
    files['text'].write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    with tarfile.open(files['tar'], 'w') as archive:
        data = pickle.dumps(Command(marker), 2)
        for name in ('sys_info', 'pickle', 'storages', 'tensors'):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return files


def code(marker):
    """A config text that leaves the marker when it is executed."""
    return f"a = __import__('os').system('touch {marker}')\nmodel = {{}}\n"


def called(marker):
    """A plain config text whose model is a call, as mmengine builds it."""
    return f"model = dict(type='os.system', command='touch {marker}')\n"


def with_stored_code(state, marker, text=code):
    """A checkpoint as mmengine writes it, with such texts in all places."""
    hub = dict(
        log_scalars=OrderedDict(),
        runtime_info=OrderedDict(cfg=text(marker)),
        resumed_keys=OrderedDict(),
    )
    meta = dict(epoch=1, iter=2, cfg=text(marker), config=text(marker))
    return dict(state_dict=state, meta=meta, message_hub=hub)
