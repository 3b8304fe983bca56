"""The tests' models are tiny: one thread is faster than two that wait for each other."""

import functools
import os

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch, here and in the processes the tests start

import eigen

# To make a vocabulary takes a twentieth of a second, and the tests want hundreds, mostly alike.
eigen.Floats = functools.cache(eigen.Floats)
