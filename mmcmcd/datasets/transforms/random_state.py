"""The state of the global random generators, to be put back later."""

import random

import numpy as np
import torch


def rng_state():
    """Return the states of the generators of Python, NumPy and torch (CPU).

    Returns:
        tuple: For :func:`set_rng_state`.
    """
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


def set_rng_state(state):
    """Put the generators where they stood.

    Args:
        state (tuple): Of :func:`rng_state`.
    """
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])


def rng_probe():
    """Draw one number of each generator: equal iff their states are.

    Two orders of magnitude cheaper than reading and comparing the states.

    Returns:
        tuple[float]: The numbers.
    """
    return random.random(), np.random.random_sample(), torch.rand(1).item()
