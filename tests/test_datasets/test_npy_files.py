import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mmcmcd.datasets.npy_files import decode_npy
from mmcmcd.errors import UnreadableFileError


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@settings(derandomize=True, deadline=None)
@given(
    arrays.arrays(
        st.sampled_from(['u1', '<u2', '>u2', 'f4', '<f8', '?', 'c8']),
        arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_same_as_numpy(array, fortran):
    if fortran:
        array = np.asfortranarray(array)
    got = decode_npy(saved(array), 'a.npy')
    np.testing.assert_array_equal(got, array)
    assert got.dtype == array.dtype and got.flags.writeable


def with_header(text, version=(1, 0)):
    width = 2 if version == (1, 0) else 4
    text = text.encode('latin-1') + b'\n'
    return (
        b'\x93NUMPY'
        + bytes(version)
        + len(text).to_bytes(width, 'little')
        + text
        + bytes(64)
    )


@pytest.mark.parametrize(
    'shape',
    ['(1000000, 1000000)', '(9,)', '(2**70,)', '(-1,)', '(0, 10**30)',
     f'({10**30},)', '(True, 1e9)', '("a",)', '5', 'None'],
)  # fmt: skip
@pytest.mark.parametrize('version', [(1, 0), (2, 0), (3, 0), (9, 9)])
def test_header_that_claims_too_much(shape, version):
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    tracemalloc.start()
    with pytest.raises(UnreadableFileError, match=r'a\.npy'):
        decode_npy(with_header(text, version), 'a.npy')
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


TEMPLATE = "{{'descr': {}, 'fortran_order': {}, 'shape': {}}}"


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.one_of(
        st.text(st.characters(codec='latin-1'), max_size=200),
        st.sampled_from(['(', '[', '-', '{1:', '"', '\\', '9']).map(
            lambda part: part * 3000
        ),
        st.tuples(
            st.sampled_from(
                ["'<f8'", "'|O'", "'V0'", "[('a', '<f8')]", '()', "'<f99'",
                 "'(999999999,)f8'", "'M8[ns]'", '[]', "('f8', (2, 2))"]
            ),
            st.sampled_from(['True', 'False', '0', '[]']),
            st.sampled_from(['()', '(1,)', '(0,)', '(2, 4)', '(1,' * 40]),
        ).map(lambda parts: TEMPLATE.format(*parts)),
    )
)  # fmt: skip
def test_any_header(text):
    try:
        array = decode_npy(with_header(text), 'a.npy')
    except UnreadableFileError as error:
        assert 'a.npy' in str(error)
    else:
        assert array.nbytes <= 64


def test_objects_are_refused():
    file = io.BytesIO()
    np.save(file, np.array([{}], object), allow_pickle=True)
    with pytest.raises(UnreadableFileError, match='objects'):
        decode_npy(file.getvalue(), 'a.npy')
