"""Stand-ins for what checkpoints name beyond tensors, while they are read.

numpy's own classes take whatever state a pickle hands them: an array of
objects over raw bytes, or a float type with a field of objects, makes numpy
follow pointers that the file chose.  mmengine's HistoryBuffer takes functions
for all of its kind from a file.  These take checked values alone, and
:func:`replace_stand_ins` puts the real things in their places.
"""

import argparse
import math
import re
from collections import OrderedDict
from pickle import UnpicklingError

import numpy as np
from mmengine.logging import HistoryBuffer

# Those of the classes read that have attributes.
_OWNERS = (HistoryBuffer, argparse.Namespace, OrderedDict)
_CODE = re.compile(r'[biufcSU][1-9]\d{0,5}')


class _StandIn:
    value = None


class DType(_StandIn):
    """Stands for ``numpy.dtype``."""

    def __init__(self, code, align=False, copy=False):
        if not (isinstance(code, str) and _CODE.fullmatch(code)):
            raise UnpicklingError(
                f'numpy type {code!r} is none of numbers or strings'
            )
        self.value = np.dtype(code)

    def __setstate__(self, state):
        """Take the byte order, and nothing else."""
        _, order, *fields = state[:5]
        if order not in ('<', '>', '|', '=') or fields != [None] * 3:
            raise UnpicklingError('a numpy type with fields or parts')
        self.value = self.value.newbyteorder(order)


class NDArray(_StandIn):
    """Stands for ``numpy.ndarray``."""

    def __setstate__(self, state):
        """Build the array that the state describes."""
        _, shape, dtype, fortran, raw = state
        _check_raw(dtype, raw)
        if not all(type(n) is int and n >= 0 for n in shape):
            raise UnpicklingError('a numpy array of an impossible shape')
        if math.prod(shape) * dtype.value.itemsize != len(raw):
            raise UnpicklingError('a numpy array of another size than said')
        if raw:
            flat = np.frombuffer(raw, dtype.value)
            # A copy, because what is read from bytes cannot be written to.
            self.value = flat.reshape(shape, order='FC'[not fortran]).copy('K')
        else:
            self.value = np.empty(shape, dtype.value)


def reconstruct(cls, shape, code):
    """Stands for numpy's ``_reconstruct``: an array that gets its state."""
    if cls is not NDArray:
        raise UnpicklingError('a numpy array of an unknown class')
    return NDArray()


def scalar(dtype, raw):
    """Stands for numpy's ``scalar``."""
    _check_raw(dtype, raw)
    if len(raw) != dtype.value.itemsize:
        raise UnpicklingError('a numpy number of another size than said')
    return np.frombuffer(raw, dtype.value)[0]


class Curve(_StandIn):
    """Stands for ``HistoryBuffer``."""

    def __setstate__(self, state):
        """Take the values, and leave the functions out."""
        self.value = HistoryBuffer()
        for name in ('max_length', '_log_history', '_count_history'):
            if name in state:
                setattr(self.value, name, state[name])


class OneCycle:
    """Stands for ``OneCycleParamScheduler``, whose functions are used."""


def get_function(owner, name):
    """Stands for ``getattr``, which finds anything from anything.

    pickle writes a class's function as ``getattr(class, name)``.

    Args:
        owner (type): A stand-in.
        name (str): Of the function.

    Returns:
        callable: The function; None of one that is not used.

    Raises:
        UnpicklingError: No file of mmengine asks for this.
    """
    if owner is Curve and name in ('min', 'max', 'current', 'mean'):
        return None
    if owner is OneCycle and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim import OneCycleParamScheduler

        return getattr(OneCycleParamScheduler, name)
    # Worded as torch's own refusals.
    raise UnpicklingError(
        'GLOBAL builtins.getattr was not an allowed global by default.'
    )


def no_bytes():
    """Stands for ``bytes``, which allocates what a number asks for."""
    return b''


def replace_stand_ins(content):
    """Put the real things in the places of their stand-ins.

    Args:
        content (object): What was read; lists, dicts and attributes are
            changed in place.

    Returns:
        object: ``content``, or what takes its place.
    """
    seen = {}

    def visit(node):
        if isinstance(node, _StandIn):
            return visit(node.value)
        if id(node) in seen:
            return seen[id(node)]
        seen[id(node)] = node
        # By the types' own operations: a file can set attributes named as
        # the methods of an OrderedDict.
        if type(node) is tuple:
            new = tuple(visit(item) for item in node)
            if any(a is not b for a, b in zip(node, new, strict=True)):
                seen[id(node)] = new
        elif type(node) is list:
            node[:] = [visit(item) for item in node]
        elif isinstance(node, dict):
            for key in list(node):
                node[key] = visit(node[key])
        if type(node) in _OWNERS:
            visit(node.__dict__)
        return seen[id(node)]

    return visit(content)


def _check_raw(dtype, raw):
    if type(dtype) is not DType or type(raw) is not bytes:
        raise UnpicklingError('a numpy array of Python objects')
