"""The tests' models are tiny: one thread is faster than two that wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch, here and in the processes the tests start

import eigen

MADE, Floats = {}, eigen.Floats


def floats(*args, **kwargs):
    """The vocabulary of these arguments. To make one takes a twentieth of a second, and the tests
    want hundreds: those of equal arguments are one."""
    key = repr((args, kwargs))
    if key not in MADE:
        MADE[key] = Floats(*args, **kwargs)
    return MADE[key]


eigen.Floats = floats
