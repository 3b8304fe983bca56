"""Numeric to numeric: 7+9 => 16.

    python train.py --task sums
    python train.py --task sums --ask "7 9"

>>> task = Sums()
>>> source, target = task.batch(1, torch.Generator().manual_seed(4))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 6 2 8 + 6 2 4', '<bos> + 1 2 5 2')
"""

import torch

from task import Task
from tokenizers import Integers


class Sums(Task):
    """The sum of two integers of up to five digits: + 7 + 9 is translated into + 1 6."""

    name, title = "sums", "The sum of two integers"
    source = target = Integers(10)
    src_len, tgt_len = 12, 8

    def sample(self, n, generator):
        """n pairs of integers (n, 2), as many of one digit as of five, and their sums (n, 1)."""
        exponent = torch.rand(n, 2, generator=generator, device=generator.device)
        pairs = (100_000 ** exponent).long()
        return pairs, pairs.sum(dim=1, keepdim=True)

    def identity(self, problems):
        """7+9 is 9+7."""
        return problems.sort(dim=1).values

    def read(self, text):
        """ "7 9" -> [7, 9]"""
        numbers = text.replace("+", " ").split()
        if len(numbers) != 2 or not all(n.isdecimal() and 0 < int(n) < 100_000 for n in numbers):
            raise ValueError(f'{text!r}: two integers from 1 to 99999 are a problem, as "7 9"')
        return [int(n) for n in numbers]

    def show(self, problem):
        return "{}+{}".format(*problem)

    def judge(self, problem, words):
        answer = self.target.read(words)
        return answer, answer == sum(problem)
