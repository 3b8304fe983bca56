"""Symbolic to symbolic: a dynamical system => a Lyapunov function, which proves that it is stable.

    x' = -2x-2y,  y' = 2x-2y-2y^3   =>   x^2+y^2

    python train.py --task lyapunov
    python train.py --task lyapunov --ask "-2x-2y, 2x-2y-2y^3"

Slide "This works!", dynamical systems: Alfarano, Charton and Hayat; arXiv 2410.08304. V is above 0
everywhere but at 0, and dV/dt = V_x x' + V_y y' is nowhere above 0. So what is near 0 stays near:
it cannot climb out of the bowl V. No method finds a V for every system, but one can begin with V.

Backward (section 4): draw V, and functions h >= 0, k >= 0 and r, each a constant plus terms in
x^2, xy and y^2. Along x' = -h V_x - r V_y, y' = -k V_y + r V_x, dV/dt is -h V_x^2 - k V_y^2 <= 0.

Forward: draw a system, try many V, and keep it if one is right: about one in a hundred is kept. The
model is trained on backward systems alone, and tested on both. The paper has 2 to 5 equations, also
with other functions than polynomials. Here V is of degree 2, so that each answer can be proved
right or wrong.

>>> task = Lyapunov()
>>> source, target = task.batch(1, torch.Generator().manual_seed(7))
>>> task.source.text(source[0]), task.target.text(target[0])
('- 1 3 x + 2 y , - 3 x^3 - 8 x^2y - 1 1 x - 1 1 y', '<bos> + 4 x^2 + 3 xy + 4 y^2')
"""

import math
from functools import cached_property
from itertools import product

import sympy
import torch

from task import Task, held_out
from translations._combinations import LinearCombinations
from translations._systems import Systems

# All V = ax^2+bxy+cy^2 that are drawn: above 0 but at 0, no two of them multiples. (203, 3)
BOWLS = torch.tensor([v for v in product(range(1, 6), range(-5, 6), range(1, 6))
                      if v[1] ** 2 < 4 * v[0] * v[2] and math.gcd(*v) == 1])
# Where a V is tried before anything is proved: x and y of points in all directions.
POINTS = torch.tensor([p for p in product(range(-6, 7), range(7)) if math.gcd(*p) == 1]).T


def multiply(p, q):
    """Forms in x and y as rows of coefficients, the highest power of x first: (n, i), (n, j) ->
    their products, (n, i + j - 1)."""
    result = p.new_zeros(len(p), p.size(1) + q.size(1) - 1)
    for k in range(q.size(1)):
        result[:, k : k + p.size(1)] += p * q[:, k : k + 1]
    return result


def gradient(v):
    """V = ax^2+bxy+cy^2, (n, 3) -> V_x = 2ax+by and V_y = bx+2cy, (n, 2) each."""
    a, b, c = v.T
    return torch.stack([2 * a, b], dim=1), torch.stack([b, 2 * c], dim=1)


def slope(v, systems):
    """dV/dt = V_x x' + V_y y': its forms of degree 4, (n, 5), and of degree 2, (n, 3)."""
    (f3, f1, g3, g1), (v_x, v_y) = systems.split([4, 2, 4, 2], dim=1), gradient(v)
    return [multiply(f, v_x) + multiply(g, v_y) for f, g in ((f3, g3), (f1, g1))]


def never_positive(form):
    """Whether a form of even degree is nowhere above 0: proved, not tried at points. With y = 1 it
    is a polynomial in x. That is nowhere above 0 if it is below 0 for large x and never changes its
    sign, so that no real root has an odd multiplicity."""
    p = sympy.Poly(form, sympy.Symbol("x"))
    return not (p.LC() > 0 or any(  # LC: the leading coefficient
        factor.count_roots() for factor, multiplicity in p.sqf_list()[1] if multiplicity % 2))


def is_lyapunov(v, system):
    """Whether V, [a, b, c], is a Lyapunov function of the system: exactly. At a point r (x, y),
    dV/dt is r^2 times one form and r^4 times the other: one decides near 0, the other far away."""
    a, b, c = v
    forms = slope(torch.tensor([v]), torch.tensor([system]))
    return a > 0 and b * b < 4 * a * c and all(never_positive(form[0].tolist()) for form in forms)


def candidates(systems):
    """Of each system, (n, 12), all V in BOWLS that do not increase in any of the POINTS."""
    pairs = BOWLS.repeat(len(systems), 1), systems.repeat_interleave(len(BOWLS), dim=0)
    falls = torch.ones(len(pairs[0]), dtype=torch.bool)
    for form in slope(*pairs):
        degree = form.size(1) - 1
        powers = [POINTS[0] ** (degree - k) * POINTS[1] ** k for k in range(degree + 1)]
        falls &= (form.double() @ torch.stack(powers).double() <= 0).all(dim=1)
    return [BOWLS[row] for row in falls.view(len(systems), -1)]


class Lyapunov(Task):
    """A Lyapunov function of a system of two equations, polynomials of degree 3."""

    name, title, verifiable = "lyapunov", "A Lyapunov function of a dynamical system", True
    source = Systems(["x^3", "x^2y", "xy^2", "y^3", "x", "y"])
    target = LinearCombinations(["x^2", "xy", "y^2"])
    scales = Task.scales | {"laptop": dict(
        dim=64, heads=8, enc_layers=2, dec_layers=1, batch_size=128, epochs=6, epoch_size=100_000,
        optimizer="muon", lr=3e-3, warmup=200, test_size=500)}
    src_len, tgt_len = 49, 10  # twelve terms of 4 words and a comma; three terms of 3 and <eos>

    def sample(self, n, generator):
        """Backward: n systems (n, 12), f and g with six terms each, and V of each, (n, 3)."""
        def random(low, high, *size):
            return torch.randint(low, high + 1, (n, *size), generator=generator,
                                 device=generator.device)
        v = BOWLS.to(generator.device)[random(0, len(BOWLS) - 1)]
        v_x, v_y = gradient(v)
        p, q = random(-1, 1, 2), random(-1, 1, 2)  # forms of degree 1; their squares are >= 0
        h, k, r = multiply(p, p), multiply(q, q), random(-1, 1, 3) * random(0, 1, 1)
        h0, k0, r0 = random(0, 2, 1), random(0, 2, 1), random(-2, 2, 1)
        f = [-multiply(v_x, h) - multiply(v_y, r), -v_x * h0 - v_y * r0]
        g = [-multiply(v_y, k) + multiply(v_x, r), -v_y * k0 + v_x * r0]
        return torch.cat(f + g, dim=1), v

    def forward(self, n, generator):
        """n random systems (n, 12) of which some V in BOWLS is a Lyapunov function. They are for
        tests: those that are not held out are skipped."""
        systems = []
        while len(systems) < n:
            shape = dict(size=(5000, 12), generator=generator)
            drawn = torch.randint(-9, 10, **shape) * torch.randint(2, **shape)
            (a, b), (c, d) = drawn[:, 4:6].T, drawn[:, 10:].T
            drawn = drawn[held_out(drawn) & (a + d < 0) & (a * d > b * c)]  # near 0, they return
            systems += [system for system, bowls in zip(drawn.tolist(), candidates(drawn))
                        if any(is_lyapunov(v, system) for v in bowls.tolist())]
        return torch.tensor(systems[:n])

    @cached_property
    def tests(self):
        generator = torch.Generator().manual_seed(2410_08304)
        return {"backward": self.draw(self.test_size, generator, testing=True)[0],
                "forward": self.forward(self.test_size, generator)}

    def read(self, text):
        """ "-2x-2y, 2x-2y-2y^3" -> [0, 0, 0, 0, -2, -2,   0, 0, 0, -2, 2, -2]"""
        problem = self.source.read(text)
        if problem is None or max(map(abs, problem)) > 99:
            raise ValueError(f'{text!r}: two equations are a problem, as "-2x-2y, 2x-2y-2y^3", '
                             'with terms of degree 1 and 3, and coefficients up to 99')
        return problem

    def judge(self, problem, words):
        answer = self.target.read(words)
        if answer is None:
            return None, False
        return "V = " + self.target.show(answer), is_lyapunov(answer, problem)

    def findings(self, model, graded, final):
        """At the end also how often x^2+y^2 would be right."""
        if not final:
            return {}
        guess = {test: sum(is_lyapunov([1, 0, 1], system) for system in systems.tolist())
                 / len(systems) for test, systems in self.tests.items()}
        return {"guess": guess} | super().findings(model, graded, final)

    def explain(self, evals):
        yield "\nAlways to answer x^2+y^2 is right in " + " and ".join(
            f"{share:.1%} ({test})" for test, share in evals[-1]["guess"].items())
        yield from super().explain(evals)
