"""Symbolic to symbolic: x^2-x-1 => 2x-1.

    python train.py --task derivatives
    python train.py --task derivatives --ask "x^2-x-1"

>>> task = Derivatives()
>>> source, target = task.batch(1, torch.Generator().manual_seed(5))
>>> task.source.text(source[0]), task.target.text(target[0])
('- 4 6 x^3 + 1 0', '<bos> - 1 3 8 x^2')
"""

import torch

from task import Task
from translations._combinations import LinearCombinations


class Derivatives(Task):
    """The derivative of a polynomial of degree up to 5, with coefficients up to 99."""

    name, title = "derivatives", "The derivative of a polynomial"
    source = LinearCombinations(["x^5", "x^4", "x^3", "x^2", "x", ""])
    target = LinearCombinations(["x^4", "x^3", "x^2", "x", ""])
    src_len, tgt_len = 23, 24  # five terms of 4 words and one of 3; four of 5, one of 3 and <eos>

    def sample(self, n, generator):
        """n polynomials (n, 6), x^5 first, half the coefficients 0, and their derivatives."""
        def random(*bounds):
            return torch.randint(*bounds, (n, 6), generator=generator, device=generator.device)
        polynomials = random(-99, 100) * random(2)
        return polynomials, polynomials[:, :-1] * torch.arange(5, 0, -1, device=generator.device)

    def read(self, text):
        """ "x^2-x-1" -> [0, 0, 0, 1, -1, -1]"""
        problem = self.source.read(text)
        if problem is None or max(map(abs, problem)) > 99:
            raise ValueError(f'{text!r}: polynomials of degree up to 5 are a problem, with '
                             'coefficients up to 99, as "x^2-x-1"')
        return problem

    def judge(self, problem, words):
        answer = self.target.read(words)
        if answer is None:
            return None, False
        return self.target.show(answer), answer == [k * a for k, a in zip(range(5, 0, -1), problem)]
