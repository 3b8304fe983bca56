"""The tests' models are tiny: one thread is faster than two that wait for each other."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read by torch, here and in the processes the tests start
