"""Packaging of mmcmcd."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What OpenMMLab's tools look for in `<package>/.mim`.
MIM_FILES = ('configs', 'tools', 'model-index.yml')


def read_version():
    text = (ROOT / 'mmcmcd' / 'version.py').read_text()
    return re.search(r"__version__ = '(.+)'", text).group(1)


def read_requirements(name):
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith('#')]


class BuildWithMim(build_py):
    """Put configs and tools into the package as `.mim`."""

    def run(self):
        super().run()
        package = ROOT if self.editable_mode else Path(self.build_lib)
        mim = package / 'mmcmcd' / '.mim'
        shutil.rmtree(mim, ignore_errors=True)
        mim.mkdir(parents=True)
        for name in MIM_FILES:
            source = ROOT / name
            if not source.exists():
                continue
            if self.editable_mode:
                # A link, so that an edit in the repository is seen at once.
                os.symlink(os.path.relpath(source, mim), mim / name)
            elif source.is_dir():
                shutil.copytree(
                    source,
                    mim / name,
                    ignore=shutil.ignore_patterns('__pycache__'),
                )
            else:
                shutil.copy(source, mim / name)


setup(
    name='mmcmcd',
    version=read_version(),
    description='Cross-modality contrastive distillation for OpenMMLab',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    python_requires='>=3.10',
    packages=find_packages(include=['mmcmcd', 'mmcmcd.*']),
    package_data={'': ['*.csv', '*.txt']},
    include_package_data=False,
    install_requires=read_requirements('requirements/runtime.txt'),
    extras_require=dict(
        onedl=read_requirements('requirements.txt'),
        openmmlab=read_requirements('requirements/openmmlab.txt'),
        nyu=read_requirements('requirements/optional.txt'),
        analysis=read_requirements('requirements/analysis.txt'),
        audio=read_requirements('requirements/audio.txt'),
        bench=read_requirements('requirements/bench.txt'),
        test=read_requirements('requirements/tests.txt'),
    ),
    cmdclass=dict(build_py=BuildWithMim),
)
