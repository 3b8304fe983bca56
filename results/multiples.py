"""Is a test problem easier for a model that was trained on a multiple of it, 2*cos(x) on cos(x)?

    python results/multiples.py --task integrate --beam 1 10 > results/integrate-multiples.txt
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

import train
from calculus import forget, from_prefix
from integrate import without_factor
from task import Parser


def key(problem):
    """The same text for all multiples of a problem."""
    forget()
    return without_factor(from_prefix(problem))


flags = [*sys.argv[1:], "--eval-only"]
args, task, checkpoint = Parser().call(train.read_flags, flags)
model = train.make_model(args, task, checkpoint)
tests, trained = task.tests, {key(problem) for problem, _ in task.training}
for test, problems in tests.items():
    known = torch.tensor([key(problem) in trained for problem in problems])
    for beam in args.beam:
        right = task.grade(problems, task.translate(model, problems, beam))[0].double()
        print(f"{test}, beam {beam}: {right[known].mean():.1%} of {known.sum()} with a multiple "
              f"among the training problems, {right[~known].mean():.1%} of {(~known).sum()} others")
