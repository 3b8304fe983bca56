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

from tokenizers import Integers, LinearCombinations
from translations.translation import Translation


class Recurrences(Translation):
    """The law of a sequence, u_n = a u_{n-1} + b u_{n-2}, from its first six terms."""

    name, title = "recurrences", "The law of a sequence"
    source, target = Integers(10), LinearCombinations(["u_{n-1}", "u_{n-2}"])
    src_len, tgt_len = 26, 7  # terms of up to 1, 1, 3, 4, 5 and 6 digits, with their signs

    def sample(self, n, generator):
        """n sequences (n, 6) and their laws, a and b (n, 2). Backward, as in integration: one draws
        the law, and from it comes the sequence."""
        def random():
            return torch.randint(-9, 10, (n, 2), generator=generator, device=generator.device)
        laws, terms = random(), [*random().T]
        while len(terms) < 6:
            terms.append(laws[:, 0] * terms[-1] + laws[:, 1] * terms[-2])
        return torch.stack(terms, dim=1), laws

    def read(self, text):
        """A problem that someone asks: "1 1 2 3 5 8" -> [1, 1, 2, 3, 5, 8]."""
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
        """The answer that the model's words are, and whether it makes these terms."""
        answer = self.target.read(words)
        if answer is None:
            return None, False
        a, b = answer
        right = all(w == a * v + b * u for u, v, w in zip(problem, problem[1:], problem[2:]))
        return "u_n = " + self.target.show(answer), right
