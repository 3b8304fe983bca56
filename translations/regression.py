"""Numeric to symbolic: the values of a function at twelve points => the function.

    python train.py --task regression
    python train.py --task regression --ask "x*sin(x)"      a function: its values are the problem
    python train.py --task regression --ask "1 2 3 4 5 6 7 8 9 10 11 12"        or twelve values

This is symbolic regression. The model reads f(1/2), f(1), ..., f(6), in three digits, and writes f
in prefix notation. A function can be written in many ways, so values are compared: the answer is
right if it fits f at the points between, which the model has not seen.

Paper: Kamienny, d'Ascoli, Lample and Charton, End-to-end symbolic regression with transformers,
arXiv 2204.10532. As in the paper, of a beam's answers to a test problem, the one that fits the
given points best is chosen. The paper has up to ten variables, hundreds of points anywhere, noise,
and constants that the model predicts and BFGS, a method of optimization, refines. Here there is one
variable, no noise, always the same points, and the numbers 1 to 5.

>>> task = Regression()
>>> problems, solutions = task.sample(1, torch.Generator().manual_seed(10))
>>> task.show(problems[0].tolist()), task.target.text(solutions[0])
('-0.25, 0, 0.75, 2, 3.75, 6, 8.75, 12, 15.8, 20, 24.8, 30', 'sub mul x x x')
>>> task.source.text(task.encode(problems)[0, :6])  # the first two values
'- 250 E-3 + 0 E-5'
"""

import math
import random
from functools import cached_property, partial

import torch

from calculus import Undefined, evaluate, from_prefix, infix, is_real, parse
from task import Task
from tokenizers import PAD, Floats, Vocabulary, read_prefix
from translations._trees import BINARY, draw, write

GIVEN = torch.arange(1, 13).double() / 2  # the model reads the values at these points
NEW = GIVEN[:-1] + 0.25  # and is judged by those at the points between
SIZES = [1, 2, 2, 3, 3, 3]  # operators of a function
LARGEST = 10_000  # all its values are smaller

UNARY = ["sqrt", "exp", "ln", "sin", "cos", "pow2"]


def value(tree, x):
    """The values of a tree at the points x, nan or infinite where it has none."""
    if isinstance(tree, tuple):
        name, *branches = tree
        function = getattr(torch, {"ln": "log", "pow2": "square"}.get(name, name))
        return function(*(value(branch, x) for branch in branches))
    return x if tree == "x" else torch.full_like(x, tree)


def is_problem(y):
    """Whether the values y are real, neither too large nor constant."""
    return (y.abs().max() < LARGEST and y.std() > 0.01).item()  # nan is not smaller


def misfit(words, x, y):
    """1 - R^2, where the function in words should be y at x: 0 if it is, infinite if it is none."""
    tree = read_prefix(words)
    if tree is None:
        return math.inf
    error = (y - value(tree, x)).square().sum() / (y - y.mean()).square().sum()
    return error.nan_to_num(math.inf, posinf=math.inf).item()


class Regression(Task):
    """Functions of x, given by twelve values, and the functions in words."""

    name, title = "regression", "A function from twelve of its values"
    target = Vocabulary(["x", *BINARY, *UNARY, "INT+", *"12345"])
    src_len, tgt_len = 36, 11  # twelve values of 3 words; 3 operators, 3 numbers, x and <eos>
    scales = Task.scales | {
        "laptop": dict(dim=64, heads=4, enc_layers=2, dec_layers=1, batch_size=64, epochs=10,
                       epoch_size=50_000, optimizer="muon", lr=3e-3, warmup=200, beam=[1, 10, 50],
                       test_size=1000)}
    collate = staticmethod(partial(torch.tensor, dtype=torch.float64))

    @cached_property
    def source(self):
        return Floats("p1000", low=-3, high=4, device=self.device)

    def sample(self, n, generator):
        """n functions: values at the given and at the new points (n, 23), and words (n, 10)."""
        seed = torch.randint(2**62, (), generator=generator, device=generator.device).item()
        rng, x, values, words = random.Random(seed), torch.cat([GIVEN, NEW]), [], []
        while len(words) < n:
            tree = draw(rng.choice(SIZES), rng, UNARY)
            y = value(tree, x)
            if is_problem(y):
                values.append(y)
                row = self.target.ids(write(tree))
                words.append(row + [PAD] * (self.tgt_len - 1 - len(row)))
        return torch.stack(values).to(self.device), torch.tensor(words, device=self.device)

    def encode(self, problems):
        return self.source.encode(problems[:, :12].to(self.device))

    def identity(self, problems):
        """Functions are the same where the model reads the same."""
        return self.source.round(problems[:, :12])

    def read(self, text):
        """Twelve values, or a function -> its values at the given and at the new points."""
        try:
            problem = [float(word) for word in text.replace(",", " ").split()]
        except ValueError:
            problem = self.values(text)
        if len(problem) not in (12, 23) or not is_problem(self.collate(problem)):
            raise ValueError(f"{text!r}: a problem is a function or its values at 1/2, 1, ..., 6; "
                             f"they are real, smaller than {LARGEST:,}, and not all the same")
        return problem

    def values(self, text):
        """A function as a person writes it -> its values."""
        try:
            f = parse(text)
        except ValueError as error:
            raise ValueError(f'{text!r}: {error}; ask as in --ask "x*sin(x)"') from None
        return [evaluate(f, x, math) if is_real(f, x) else math.nan
                for x in torch.cat([GIVEN, NEW]).tolist()]

    def show(self, problem):
        return ", ".join(f"{y:.3g}" for y in problem[:12])

    def translate(self, model, problems, beam=1):
        """Of a beam, the function that fits the given points best comes first."""
        tokens = super().translate(model, problems, beam)
        for row, y in zip(tokens, problems[:, :12].cpu()):
            misfits = [misfit(self.target.text(words), GIVEN, y) for words in row.tolist()]
            row[:] = row[torch.tensor(misfits).argsort(stable=True).to(row.device)]
        return tokens

    def judge(self, problem, words):
        """Right if R^2 > 0.99 at the new points; at the given ones, where no others are known."""
        x, y = (NEW, problem[12:]) if problem[12:] else (GIVEN, problem)
        right = misfit(words, x, self.collate(y)) < 0.01
        try:
            return infix(from_prefix(words)), right
        except (Undefined, RecursionError):
            return None, right
