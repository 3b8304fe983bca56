"""Numeric to symbolic: 1, 1, 2, 3, 5, 8 => u_n = u_{n-1}+u_{n-2}.

    python train.py --task recurrences
    python train.py --task recurrences --ask "1 1 2 3 5 8"

>>> task = Recurrences()
>>> source, target = task.batch(1, torch.Generator().manual_seed(2))
>>> task.source.text(source[0]), task.target.text(target[0])
('- 1 - 5 - 6 + 2 7 + 1 3 5 + 1 6 2', '<bos> + 3 u_{n-1} - 9 u_{n-2}')
"""

import re

import torch

from task import Task
from tokenizers import Integers
from translations._combinations import LinearCombinations


class Recurrences(Task):
    """The recurrence of a sequence, u_n = a u_{n-1} + b u_{n-2}, from its first six terms."""

    name, title = "recurrences", "The recurrence of a sequence"
    source, target = Integers(10), LinearCombinations(["u_{n-1}", "u_{n-2}"])
    src_len, tgt_len = 26, 7  # terms of up to 1, 1, 3, 4, 5 and 6 digits, with their signs

    def sample(self, n, generator):
        """n sequences (n, 6), and a and b of each (n, 2). This is backward, as in integration: draw
        the solution, a and b, and compute the problem from it."""
        def random():
            return torch.randint(-9, 10, (n, 2), generator=generator, device=generator.device)
        solutions, terms = random(), [*random().T]
        while len(terms) < 6:
            terms.append(solutions[:, 0] * terms[-1] + solutions[:, 1] * terms[-2])
        return torch.stack(terms, dim=1), solutions

    def read(self, text):
        """ "1 1 2 3 5 8" -> [1, 1, 2, 3, 5, 8]"""
        terms = text.replace(",", " ").split()
        if len(terms) != 6 or not all(re.fullmatch(r"-?\d+", term) for term in terms):
            raise ValueError(f'{text!r}: six terms of a sequence are a problem, as "1 1 2 3 5 8"')
        problem = [int(term) for term in terms]
        if sum(map(self.source.length, problem)) > self.src_len:
            raise ValueError(f"{text!r}: these terms are too long a problem: {self.src_len} signs "
                             "and digits is the most")
        return problem

    def show(self, problem):
        return ", ".join(map(str, problem))

    def judge(self, problem, words):
        """Right if a and b make these terms: a sequence may have several recurrences."""
        answer = self.target.read(words)
        if answer is None:
            return None, False
        a, b = answer
        right = all(w == a * v + b * u for u, v, w in zip(problem, problem[1:], problem[2:]))
        return "u_n = " + self.target.show(answer), right
