"""Symbolic to numeric: x^2-x-1 => 1.62, -0.618.

    python train.py --task roots
    python train.py --task roots --ask "x^2-x-1"

>>> task = Roots()
>>> source, target = task.batch(1, torch.Generator().manual_seed(3))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 1 x^2 + 2 0 x - 1 4', '<bos> + 677 E-3 - 207 E-1')
"""

import math
import re
from functools import cached_property

import torch

from task import Task
from tokenizers import Floats
from translations._combinations import LinearCombinations


class Roots(Task):
    """The two real roots of x^2+bx+c, the larger one first, in three digits."""

    name, title = "roots", "The roots of a quadratic polynomial"
    source = LinearCombinations(["x^2", "x", ""])
    src_len, tgt_len = 10, 7  # b and c have up to two digits; twice 3 words and <eos>

    @cached_property
    def target(self):
        return Floats("p1000", low=-2, high=3, device=self.device)

    def sample(self, n, generator):
        """n polynomials x^2+bx+c (n, 3) that have real roots, and these, (n, 2)."""
        def random():
            return torch.randint(-99, 100, (n,), generator=generator, device=generator.device)
        b, c = random(), random()
        c = torch.where(b * b < 4 * c, -c, c)  # so b^2 - 4c is not negative
        root = (b * b - 4 * c).double().sqrt()
        problems = torch.stack([torch.ones_like(b), b, c], dim=1)
        return problems, torch.stack([root - b, -root - b], dim=1) / 2

    def read(self, text):
        """ "x^2-x-1" -> [1, -1, -1]"""
        a, b, c = problem = self.source.read(text) or [0, 0, 0]
        if a != 1 or abs(b) > 99 or abs(c) > 99:
            raise ValueError(f'{text!r}: polynomials x^2+bx+c are a problem, with b and c up to '
                             '99, as "x^2-x-1"')
        if b * b < 4 * c:
            raise ValueError(f"{text!r} has no real roots")
        return problem

    def judge(self, problem, words):
        """Right if both roots are, each within 5%."""
        number = r"([+-]\d+E-?\d+)"
        match = re.fullmatch(2 * number, words.replace(" ", ""))
        if not match:
            return None, False
        answer = [float(root) for root in match.groups()]
        _, b, c = problem
        root = math.sqrt(b * b - 4 * c)
        truth = (root - b) / 2, (-root - b) / 2
        right = all(abs(x - y) <= 0.05 * abs(y) for x, y in zip(answer, truth))
        return "{:.3g}, {:.3g}".format(*answer), right
