"""Symbolic to numeric: a dynamical system, and a point => how fast it returns to the point.

    x' = -2x^2+y,  y' = xy-4y  at (1, 2)   =>   -2: it is stable

    python train.py --task stability
    python train.py --task stability --ask "-2x^2+y, xy-4y, 1, 2"

Slide "This works!", dynamical systems: Charton, Hayat and Lample, arXiv 2006.06462.
Near a point, a system does what its Jacobian says, the matrix of its derivatives there. Here that
is [[-4, 1], [2, -3]], with the eigenvalues -2 and -5. If the real parts of both are negative, the
point is stable: after a small push the system returns to it. The solution is the largest of them.

The paper has 2 to 6 equations, with sin, exp and roots; here are two polynomials of degree 2. They
have no constant terms: the right ones make any point an equilibrium, and leave the Jacobian as it
is.

>>> task = Stability()
>>> source, target = task.batch(1, torch.Generator().manual_seed(7))
>>> task.source.text(source[0]), task.target.text(target[0])
('- 3 + 2 , - 2 xy - 1 y^2 , + 3 xy - 4 x + 3 y', '<bos> - 276 E-2')
"""

import re
from functools import cached_property

import torch

from task import Task
from tokenizers import Floats
from translations._systems import Systems


def jacobians(problems):
    """Problems (n, 12), f and g with five terms each, and a point -> at the point, the derivatives
    of f along x and along y, and those of g: (n, 2, 2) float64."""
    x, y = problems[:, -2:].double().T
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    slopes = [2 * x, zero, y, x, zero, 2 * y, one, zero, zero, one]  # of x^2, xy, y^2, x and y
    return problems[:, :-2].double().view(-1, 2, 5) @ torch.stack(slopes, dim=1).view(-1, 5, 2)


def largest_real_part(j):
    """Of the eigenvalues of matrices (n, 2, 2), the roots of r^2 - trace r + determinant: (n,).
    Where it is 0, it is exactly 0, as the coefficients are integers."""
    (a, b), (c, d) = j.permute(1, 2, 0)
    discriminant = (a - d) ** 2 + 4 * b * c  # below 0, the roots are complex: trace / 2 is real
    return (a + d + discriminant.clamp(min=0).sqrt()) / 2


def verdict(real_part):
    return "stable" if real_part < 0 else "unstable" if real_part > 0 else "undecided"


class Stability(Task):
    """The largest real part of the eigenvalues of the Jacobian of a system at a point."""

    name, title = "stability", "The stability of a dynamical system at a point"
    source = Systems(["x^2", "xy", "y^2", "x", "y"])
    scales = Task.scales | {"laptop": dict(
        dim=64, heads=8, enc_layers=2, dec_layers=1, word_std=0.01, batch_size=128, epochs=4,
        optimizer="muon", lr=3e-3, warmup=200, test_size=2000)}
    src_len, tgt_len = 36, 4  # ten terms of 3 words, 2 commas, a point of 4; 3 words and <eos>

    @cached_property
    def target(self):
        return Floats("p1000", low=-2, high=3, device=self.device)

    def sample(self, n, generator):
        """n problems (n, 12) and their solutions (n, 1). Coefficients are in -5..5, two in three of
        them 0, points in -3..3. One random problem in six is stable: here it is one in two. And
        none has the solution 0, from which nothing follows."""
        def random(*bounds):
            return torch.randint(*bounds, (len(todo), 12), generator=generator, device=device)
        device = generator.device
        stable = torch.randint(2, (n,), generator=generator, device=device).bool()
        problems, todo = stable.new_zeros(n, 12).long(), torch.arange(n, device=device)
        while len(todo):  # draw these, again and again
            problems[todo] = random(-5, 6) * (random(5) < 2)
            problems[todo, -2:] = random(-3, 4)[:, -2:]
            r = largest_real_part(jacobians(problems))
            todo = ((r == 0) | ((r < 0) != stable)).nonzero().flatten()
        return problems, r[:, None]

    def encode(self, problems):
        """Problems -> words: those of the point first, always in one place, then f and g's."""
        system, point = self.source.encode(problems[:, :-2]), self.source.spell(problems[:, -2:])
        comma = torch.full_like(problems[:, :1], self.source.number[","])
        return torch.cat([point.flatten(1), comma, system], dim=1)

    def read(self, text):
        """ "-2x^2+y, xy-4y, 1, 2" -> [-2, 0, 0, 0, 1,   0, 1, 0, 0, -4,   1, 2]"""
        match = re.fullmatch(r"(.+?)(?:,| at \() *(-?[0-3]), *(-?[0-3])\)?", text.strip())
        system = match and self.source.read(match[1])
        if not system or max(map(abs, system)) > 5:
            raise ValueError(f'{text!r}: two equations and a point are a problem, as "-2x^2+y, '
                             'xy-4y, 1, 2", of degree 2, without constants, with coefficients up '
                             'to 5, and a point up to 3')
        return [*system, int(match[2]), int(match[3])]

    def show(self, problem):
        return self.source.show(problem[:-2]) + " at ({}, {})".format(*problem[-2:])

    def solve(self, problem):
        return largest_real_part(jacobians(torch.tensor([problem]))).item()

    def question(self, problem):
        r = self.solve(problem)
        return f"{self.show(problem)}: {r:.3g}, {verdict(r)}"

    def judge(self, problem, words):
        """Right within 10%, as in the paper."""
        number = re.fullmatch(r"[+-]\d+E-?\d+", words.replace(" ", ""))
        if not number:
            return None, False
        answer, truth = float(number[0]), self.solve(problem)
        return f"{answer:.3g}, {verdict(answer)}", abs(answer - truth) <= 0.1 * abs(truth)

    def findings(self, model, graded, final):
        """Also how often the answer is on the right side of 0, however far from the truth it is."""
        (test, problems), = self.tests.items()
        _, answers = next(iter(graded[test].values()))
        right = [answer.endswith(" " + verdict(self.solve(problem)))
                 for problem, answer in zip(problems.tolist(), answers)]
        return {"right_verdicts": sum(right) / len(right)} | super().findings(model, graded, final)

    def explain(self, evals):
        yield ("\nAn answer is right within 10%. Half the points are stable, the others unstable:\n"
               f"so much is right in {evals[-1]['right_verdicts']:.1%} of the answers.")
        yield from super().explain(evals)
