import os

import pytest
import torch

from mmcmcd.apis import measuring
from mmcmcd.errors import ConfigError

MIB = 2**20
on_linux = pytest.mark.skipif(
    not os.access('/proc/self/clear_refs', os.W_OK),
    reason='needs the peak memory that Linux keeps of a process',
)


@on_linux
def test_peak_is_what_was_held_since_the_reset():
    torch.ones(64 * MIB, dtype=torch.uint8)  # before it: does not count
    held = measuring.reset_peak_memory()
    torch.ones(32 * MIB, dtype=torch.uint8)  # given back since: counts
    assert 31 < (measuring.peak_memory() - held) / MIB < 48


def test_elsewhere_the_message_names_linux(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, '_RESET', tmp_path / 'clear_refs')
    monkeypatch.setattr(measuring.ctypes, 'CDLL', None)
    with pytest.raises(ConfigError, match='run it on Linux'):
        measuring.reset_peak_memory()


def test_machine_name_has_cores_and_processor(monkeypatch, tmp_path):
    cpuinfo = tmp_path / 'cpuinfo'
    cpuinfo.write_text('processor\t: 0\nmodel name\t: Abacus: 2\n' * 2)
    monkeypatch.setattr(measuring, '_CPU', cpuinfo)
    name = f'{os.cpu_count()} cores of Abacus: 2'
    assert measuring.machine_name().startswith(name)
    cpuinfo.unlink()  # as on other systems
    name = f'{os.cpu_count()} cores of {measuring.platform.machine()}'
    assert measuring.machine_name().startswith(name)


def test_package_version():
    assert measuring.package_version('torch').startswith('torch 2')
    missing = measuring.package_version('no-such-package')
    assert missing == 'no-such-package not installed'
