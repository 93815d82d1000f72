import os
import posixpath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmcmcd.datasets.file_specs import OUTSIDE, FileSpec, lies_inside

PARTS = ['a', '..', '.', '', 'b.npz', '...', '~', ':', 'C:', 's3:', '\\',
         '..\\', '\\..\\', 'data', 'rgb', 'rgb2']  # fmt: skip


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(st.lists(st.sampled_from(PARTS), max_size=8), st.booleans())
@example(['..', 'data', 'rgb', 'x'], False)
def test_what_lies_inside_has_the_root_before_it(parts, absolute):
    name = '/' * absolute + '/'.join(parts)
    slashes = name.replace('\\', '/')
    below = posixpath.normpath(os.path.join('/data/rgb', slashes)) + '/'
    inside = below.startswith('/data/') and '://' not in slashes
    assert lies_inside(name, '/data/rgb', ['/data']) == inside


@pytest.mark.parametrize(
    'name, inside',
    [
        ('x.jpg', True),
        ('a/../x.jpg', True),
        ('../depth/x.jpg', True),
        ('a..b/x', True),
        ('..', True),
        ('../..', False),
        ('../../x.jpg', False),
        ('a/../../../x.jpg', False),
        ('../../data2/x', False),
        ('/data/x', True),
        ('/data2/x', False),
        ('/data/../etc/passwd', False),
        ('//data/x', False),
        ('..\\..\\x', False),
        ('a\\..\\..\\..\\x', False),
        ('\\\\server\\x', False),
        ('C:\\x', True),  # without drives it is a file name
        ('file:///data/x', False),
        ('s3://bucket/x', False),
        ('http://host/x', False),
        ('cluster:s3://bucket/x', False),
        ('../../x.npz/k', False),
        ('a.npz/../../../x', False),
    ],
)
@pytest.mark.skipif(os.name == 'nt', reason='paths of POSIX')
def test_places(name, inside):
    spec = FileSpec('source', '/data', 'rgb')
    assert spec.find_fault(name) == ('' if inside else OUTSIDE)
    assert FileSpec('s', '/data', 'rgb', (), True).find_fault(name) == ''
    if inside:
        assert '/..' not in spec.path(name)


@pytest.mark.parametrize(
    'name, inside',
    [
        ('x', True),
        ('../depth/x', True),
        ('../../x', False),
        ('s3://bucket/data/x', False),  # it is joined to the folder
        ('s3://bucket/data/../x', False),
        ('s3://bucket/other', False),
        ('s3://other/data/x', False),
        ('gs://bucket/data/x', False),
        ('/data/x', False),
        ('x://y', False),
    ],
)
def test_places_on_a_server(name, inside):
    spec = FileSpec('source', 's3://bucket/data', 'rgb')
    assert spec.find_fault(name) == ('' if inside else OUTSIDE)


def test_folder_of_a_side_is_the_choice_of_the_config():
    spec = FileSpec('source', '/data', '/elsewhere/rgb')
    assert spec.find_fault('/elsewhere/rgb/x') == ''
    assert spec.find_fault('/data/x') == ''
    assert spec.find_fault('/elsewhere/x') == OUTSIDE


def test_no_root_is_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = FileSpec('source', '')
    assert spec.find_fault(f'{tmp_path}/x') == ''
    assert spec.find_fault('../x') == OUTSIDE
    assert spec.find_fault('s3://x') == OUTSIDE


@pytest.mark.parametrize('name', ['a\0b', '\ud800', 5, None, ['x'], {}, True])
def test_names_that_no_file_can_have(name):
    fault = FileSpec('target', '/data').find_fault(name)
    assert fault.startswith('target') and 'path' in fault
