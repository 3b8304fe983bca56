"""Symbolic to numeric: x^2-x-1 => 1.62, -0.618.

    python train.py --task roots
    python train.py --task roots --ask "x^2-x-1"

>>> task = Roots()
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 5 x^2 - 2 x - 5', '<bos> + 122 E-2 - 820 E-3')
"""

import math
import re
from functools import cached_property

import torch

from tokenizers import Floats, LinearCombinations
from translations.translation import Translation


class Roots(Translation):
    """The two real roots of a quadratic polynomial, the larger one first, in three digits."""

    name, title = "roots", "The roots of a quadratic polynomial"
    source = LinearCombinations(["x^2", "x", ""])
    src_len, tgt_len = 10, 7  # a, b and c have up to 1, 2 and 2 digits; twice 3 words and <eos>

    @cached_property
    def target(self):
        return Floats("p1000", low=-2, high=3, device=self.device)

    def sample(self, n, generator):
        """n polynomials (n, 3) that have real roots, as many of each size, and their roots (n, 2)."""
        size = torch.randint(1, 100, (n,), generator=generator, device=generator.device)
        u = torch.rand(3, n, generator=generator, device=generator.device)
        a, b, c = (1 + 9 * u[0]).long(), *((2 * size + 1) * u[1:]).long() - size
        c = torch.where(b * b < 4 * a * c, -c, c)  # now the roots are real
        root = (b * b - 4 * a * c).double().sqrt()
        roots = torch.stack([root - b, -root - b], dim=1) / (2 * a)[:, None]
        return torch.stack([a, b, c], dim=1), roots

    def read(self, text):
        """A problem that someone asks: "x^2-x-1" -> [1, -1, -1]."""
        a, b, c = problem = self.source.read(text) or [0, 0, 0]
        if not 0 < a < 10 or abs(b) > 99 or abs(c) > 99:
            raise ValueError(f'{text!r}: polynomials ax^2+bx+c are a problem, with a from 1 to 9, '
                             'b and c up to 99, as "x^2-x-1"')
        if b * b < 4 * a * c:
            raise ValueError(f"{text!r} has no real roots")
        return problem

    def show(self, problem):
        return self.source.show(problem)

    def judge(self, problem, words):
        """The roots that the model's words are, and whether each of both is right within 5%."""
        number = r"([+-]\d+E-?\d+)"
        match = re.fullmatch(2 * number, words.replace(" ", ""))
        if not match:
            return None, False
        answer = [float(root) for root in match.groups()]
        a, b, c = problem
        root = math.sqrt(b * b - 4 * a * c)
        truth = (root - b) / (2 * a), (-root - b) / (2 * a)
        right = all(abs(x - y) <= 0.05 * abs(y) for x, y in zip(answer, truth))
        return "{:.3g}, {:.3g}".format(*answer), right
