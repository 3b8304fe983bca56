"""Arithmetic, often with a hidden GCD: 50 + 20 => 10 (modulo 60), 12/18 => 2/3, and three more.

    python train.py --task arithmetic
    python train.py --task arithmetic --ask "50 + 20"
    python train.py --task arithmetic --op fraction-simplify

In base B, the last k digits of two integers tell their sum modulo gcd(q, B^k), and no more of it
modulo q; of a product they tell at least that much. And to simplify a fraction is to divide its
terms by their GCD. So the talk's rules (Charton, arXiv 2308.15594) can be tested: is a model right
where all primes divide the base? The report has the accuracy modulo each divisor of q, or for each
GCD.

Int2Int (github.com/f-charton/Int2Int), the author's own tool, has these operations and more, with
integers up to a million in base 1000, and q = 67. Here P(GCD = k) in the fractions to simplify is
proportional to 1/k, so that many k occur. As in Int2Int, a matrix is a product P Q; here it is 3x3.

>>> task = Arithmetic()
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 8 4 6 + 1 4 0', '<bos> + 2 6')
"""

import math
import re

import torch

from task import Task
from tokenizers import Integers

# How a problem and its solution are written; {} is an integer.
FORMS = {"modular-add": ("{} + {}", "{}"), "modular-mul": ("{} * {}", "{}"),
         "fraction-simplify": ("{}/{}", "{}/{}"), "fraction-add": ("{}/{} + {}/{}", "{}/{}"),
         "matrix-rank": ("{} {} {}; {} {} {}; {} {} {}", "{}")}


class Arithmetic(Task):
    """Integers, and what one of the operations makes of them."""

    scales = Task.scales | {"laptop": dict(
        dim=64, heads=4, enc_layers=1, dec_layers=1, batch_size=256, epochs=10, epoch_size=100_000,
        optimizer="muon", lr=2e-3, warmup=500, test_size=5000)}

    @staticmethod
    def add_arguments(add):
        add("--op", choices=FORMS, default="modular-add", help="the operation")
        add("--base", type=int, default=10, help="the base integers are written in")
        add("--max-int", type=int, default=1000, help="the largest integer in a problem")
        add("--modulus", type=int, default=60, help="q, of modular-add and modular-mul")

    def __init__(self, **flags):
        super().__init__(**flags)
        base, high, q = self.base, self.max_int, self.modulus
        if not (2 <= base <= 10_000 and 10 <= high <= 1_000_000 and 2 <= q <= 1000):
            raise ValueError(f"--base {base} --max-int {high} --modulus {q}: the base can be 2 to "
                             "10000, the largest integer 10 to 1000000, the modulus 2 to 1000")
        self.source = self.target = Integers(base)
        self.form, self.solution_form = FORMS[self.op]
        largest = {"fraction-simplify": high, "fraction-add": 2 * high**2, "matrix-rank": 3}
        self.src_len = self.form.count("{}") * self.source.length(high)
        self.tgt_len = 1 + self.solution_form.count("{}") * self.target.length(  # 1: <eos>
            largest.get(self.op, q - 1))
        modulo = f", modulo {q}" * ("modular" in self.op)
        self.title = f"{self.op}, integers up to {high:,} in base {base}{modulo}"
        self.name = f"arithmetic-{self.op}-base{base}-max{high}" + f"-mod{q}" * bool(modulo)

    def sample(self, n, generator):
        """n problems (n, k) and their solutions (n, 1 or 2)."""
        def draw(low, high, *size):
            return torch.randint(low, high + 1, size, generator=generator, device=generator.device)
        if self.op == "matrix-rank":  # P Q: of P, the first 1, 2 or 3 columns are not 0
            size = int((self.max_int / 3) ** 0.5)
            p, q = draw(-size, size, 2, n, 3, 3)
            p = p * (torch.arange(3).to(p) < draw(1, 3, n, 1, 1))
            problems = (p.double() @ q.double()).long().flatten(1)
            problems[~problems.any(dim=1)] = 1  # not the zero matrix, alone of its rank
        else:
            problems = draw(1, self.max_int, n, self.form.count("{}"))
        if self.op == "fraction-simplify":  # a coprime pair up to max_int / k, times k
            u = torch.rand(n, 1, generator=generator, device=generator.device)
            k = ((self.max_int + 1.0) ** u).long().clamp(max=self.max_int)
            pairs = problems % (self.max_int // k) + 1
            problems = pairs // torch.gcd(*pairs.T)[:, None] * k
        return problems, self.solve(problems)

    def identity(self, problems):
        """a + b is b + a, of numbers and of fractions, and a * b is b * a."""
        if "modular" in self.op:
            return problems.sort(dim=1).values
        if self.op == "fraction-add":  # as one number: all terms are below 2^21
            return (problems[:, ::2] * 2**21 + problems[:, 1::2]).sort(dim=1).values
        return problems

    def terms(self, problems):
        """Numerators and denominators (n, 2), not simplified, of fractions or of their sums."""
        if self.op == "fraction-simplify":
            return problems
        a, b, c, d = problems.T
        return torch.stack([a * d + b * c, b * d], dim=1)

    def hidden(self, problems):
        """What a solution hides, (n,): the GCD that the terms are divided by; or the rank."""
        if self.op == "matrix-rank":
            return torch.linalg.matrix_rank(problems.view(-1, 3, 3).double(), atol=1e-8)
        return torch.gcd(*self.terms(problems).T)

    def solve(self, problems):
        """Problems (n, k) -> solutions (n, 1 or 2)."""
        if self.op == "modular-add":
            return problems.sum(dim=1, keepdim=True) % self.modulus
        if self.op == "modular-mul":
            return problems.prod(dim=1, keepdim=True) % self.modulus
        hidden = self.hidden(problems)[:, None]
        return hidden if self.op == "matrix-rank" else self.terms(problems) // hidden

    def read(self, text):
        """ "12/18" -> [12, 18]; the signs between the integers may be left out."""
        numbers = re.sub(r"[/+*;,]", " ", text).split()
        low, count = -self.max_int if self.op == "matrix-rank" else 1, self.form.count("{}")
        if len(numbers) != count or not all(
                re.fullmatch(r"-?\d+", x) and low <= int(x) <= self.max_int for x in numbers):
            raise ValueError(f"{text!r}: {count} integers from {low} to {self.max_int} are a "
                             f"problem, as in {self.form.replace('{}', '1')}")
        return [int(x) for x in numbers]

    def show(self, problem):
        return self.form.format(*problem)

    def judge(self, problem, words):
        """Right if it is the solution: 2/3 and not 4/6."""
        solution = self.solve(torch.tensor([problem]))[0].tolist()
        answer = [self.target.read(number) for number in re.split(" (?=[+-])", words)]
        if None in answer or len(answer) != len(solution):
            return None, False
        return self.solution_form.format(*answer), answer == solution

    def findings(self, model, graded, final):
        """Also the share that is right, for each GCD or rank; and of answers modulo q, the share
        that is right modulo d, for each divisor d of q. Groups of fewer than 20 are left out."""
        (problems,), (by_beam,) = self.tests.values(), graded.values()
        right, answers = next(iter(by_beam.values()))
        if "modular" in self.op:
            error = torch.tensor([int(said) - b if said.isdecimal() else 1  # 1: wrong for all d
                                  for said, [b] in zip(answers, self.solve(problems).tolist())])
            parts = {d: error % d == 0 for d in range(2, self.modulus + 1) if self.modulus % d == 0}
        else:
            hidden = self.hidden(problems)
            parts = {k: right[hidden == k] for k in hidden.unique().tolist()}
        return super().findings(model, graded, final) | {"right_by": {
            k: part.double().mean().item() for k, part in parts.items() if len(part) >= 20}}

    def explain(self, evals):
        decided = math.gcd(self.modulus, self.base**10)
        where = {"modular": f"modulo (the last digits in base {self.base} decide modulo {decided})",
                 "fraction": "where the GCD is", "matrix": "where the rank is"}
        yield f"\nRight {where[self.op.partition('-')[0]]}\n"
        cells = [f"{k}: {share:.1%}" for k, share in evals[-1]["right_by"].items()]
        yield from ("".join(f"{cell:>12}" for cell in cells[i:i + 8])
                    for i in range(0, min(len(cells), 32), 8))
        yield from super().explain(evals)
