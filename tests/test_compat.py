import subprocess
import sys
import textwrap

import pytest

from mmcmcd import compat


def test_missing_packages_are_named_with_the_command():
    with pytest.raises(
        ImportError,
        match=r'no_such_a, no_such_b, which are '
        r"not installed.*pip install '.\[onedl\]'",
    ):
        compat.require_packages(('torch', 'no_such_a', 'no_such_b'))


def test_config_packages_are_known():
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    assert MODULE2PACKAGE['mmcmcd'] == 'mmcmcd'
    pytest.importorskip('mmseg')
    cfg = Config.fromstring(
        "_base_ = 'mmseg::_base_/default_runtime.py'", '.py'
    )
    assert cfg.default_scope == 'mmseg'


def test_torchvision_of_another_build_is_repaired(tmp_path):
    """A stand-in that fails as a CUDA build beside a CPU torch does."""
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text(
        textwrap.dedent("""
        import torch
        @torch.library.register_fake('torchvision::nms')
        def fake(dets, scores, iou_threshold):
            return dets
        whole = True
        """)
    )
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, sys.argv[1])
        try:
            import torchvision
        except RuntimeError as error:
            assert 'torchvision::nms does not exist' in str(error)
        else:
            raise SystemExit('the stand-in is not broken')
        from mmcmcd import compat
        import torchvision
        assert torchvision.whole
        compat.repair_torchvision()  # a second call changes nothing
        print('repaired')
        """)
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip().endswith('repaired'), done.stderr


def test_missing_operators_are_no_noise():
    code = 'import mmcmcd, mmcv.cnn, warnings; warnings.warn("another")'
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True
    )
    assert 'MultiScaleDeformableAttention' not in done.stderr
    assert 'another' in done.stderr
