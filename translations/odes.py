"""Symbolic to symbolic: a differential equation => its solution, x y' - y = 0 => y = c x.

    python train.py --task odes
    python train.py --task odes --ask "x*y' - y"

Equations are hard to solve and easy to make. Draw the solution, a function of x in which a constant
c occurs once: y = c sin(x). Solve it for c: c = y/sin(x). The derivative of a constant is zero, and
that is the equation: y'/sin(x) - y cos(x)/sin(x)^2 = 0. Then multiply by the denominators.

Paper: Lample and Charton, Deep learning for symbolic mathematics, arXiv 1912.01412, section 3.2. It
has larger solutions, and equations of second order, which have two constants. Here the order is
one, and solutions have up to 5 operators. Sine, cosine, tangent and square are applied to x but
never to c: many numbers have the same sine, so to undo it would give many c.

>>> example(("mul", "c", ("sin", "x")))
("add mul y' sin x mul INT- 1 mul y cos x", 'mul c sin x')
>>> task = Odes()
>>> task.judge(task.read("x*y' - y"), "mul c x")
('y = c*x', True)
"""

import random
from contextlib import suppress
from functools import cached_property

import mpmath
import torch

from calculus import (SLOPES, Undefined, add, content_and_rest, derivative, evaluate, forget,
                      from_prefix, infix, is_real, multiply, normal, parse, prefix, write_power)
from task import Task
from tokenizers import ARITY, Vocabulary
from translations._trees import BINARY, draw, write

ATTEMPTS = 700_000  # to draw an example: most fail, and many give the same problem again
SIZES = [1] + [2] * 3 + [3] * 5 + [4] * 7 + [5] * 9  # operators of a solution
WORDS = 30  # no problem or solution has more
UNARY = ["exp", "ln", "sqrt", "sin", "cos", "tan", "pow2"]
UNDO = {"add": "sub", "sub": "add", "mul": "div", "div": "mul", "exp": "ln", "ln": "exp",
        "sqrt": "pow2"}
ALL = ARITY | {"c": 0, "y": 0, "y'": 0}  # with the variables of equations and solutions
SLOPES["y"] = "y'"  # so calculus.py knows the derivative of y


# Step I, generate


def draw_with_c(n, rng):
    """A random tree of n operators: c is one of its leaves, and all above c can be undone."""
    if n == 0:
        return "c"
    if rng.random() < 0.4 and n > 1:
        return rng.choice(["exp", "ln", "sqrt"]), draw_with_c(n - 1, rng)
    left, c_left, name = rng.randrange(n), rng.random() < 0.5, rng.choice(BINARY)
    if c_left:
        return name, draw_with_c(left, rng), draw(n - 1 - left, rng, UNARY)
    return name, draw(left, rng, UNARY), draw_with_c(n - 1 - left, rng)


def solve(tree, y):
    """tree = y, solved for c: the operators on the path from the root to c are undone."""
    if tree == "c":
        return y
    name, *branches = tree
    if len(branches) == 1:
        return solve(*branches, (UNDO[name], y))
    a, b = branches if "c" in write(branches[0]).split() else reversed(branches)  # c is in a
    if a == "c" and not (name in ("add", "mul") and "x" in write(b).split()):
        raise Undefined("c + 1 is c, and x - c is x + c, for another c")
    if name in ("sub", "div") and a == branches[1]:
        return solve(a, (name, b, y))  # b - a = y, so a = b - y
    return solve(a, (UNDO[name], y, b))  # a - b = y, so a = y + b


def simplest(e):
    """The equation e = 0 without denominators and common factors. Factors with y' are kept."""
    for k in sorted({k for product in e for k, _ in product}, key=lambda k: write_power(k, 1)):
        least = min(dict(product).get(k, 0) for product in e)
        if least < 0 or least > 0 and "y'" not in write_power(k, 1):
            k_power = {frozenset([(k, -least)]): 1}
            return simplest(add(*(multiply({product: a}, k_power) for product, a in e.items())))
    if not e:
        raise Undefined("0 = 0")
    return content_and_rest(e)[1]


def example(tree):
    """A function of x and c -> an equation that it solves, and the function, both in words."""
    return prefix(simplest(derivative(normal(solve(tree, "y"))))), prefix(normal(tree))


def make_examples(rng):
    """{equation: solution}; of several solutions, the shortest."""
    print(f"making examples: {ATTEMPTS:,} attempts take a minute", flush=True)
    pairs = {}
    for _ in range(ATTEMPTS):
        with suppress(Undefined):
            problem, solution = example(draw_with_c(rng.choice(SIZES), rng))
            if max(problem.count(" "), solution.count(" ")) < WORDS:
                pairs[problem] = min(solution, pairs.get(problem, solution), key=len)
        forget()
    return pairs


# Step III, judge

CONSTANTS = ["INT+ 2", "INT- 1", "div INT+ 1 INT+ 3", "INT+ 7", "INT+ 1 0 0", "INT- 5 0"]
POINTS = [0.37, 0.83, 1.7, 2.9, 5.3, -0.6, -2.3]


def put(text, places):
    """Words, with others in the place of some: prefix notation needs no brackets."""
    return " ".join(places.get(word, word) for word in text.split())


def is_zero(e, x):
    """Whether the value at x is rounding error alone: with 30 digits more it is about 10^30 times
    smaller then, and a value that is not zero stays."""
    with mpmath.workdps(20):
        rough = abs(evaluate(e, mpmath.mpf(x), mpmath))
    with mpmath.workdps(50):
        return rough == 0 or abs(evaluate(e, mpmath.mpf(x), mpmath)) < rough / 10**15


def checks(equation, solution):
    """Put the solution, and its derivative, into the equation: for each c, and each x where all is
    real, y as words, and whether the equation holds."""
    for c in CONSTANTS:
        try:
            y = from_prefix(put(solution, {"c": c}))
            places = {"y": prefix(y), "y'": prefix(derivative(y))}
            left = from_prefix(put(equation, places))
        except (Undefined, RecursionError):
            continue
        for x in POINTS:
            if is_real(y, x) and is_real(left, x):
                yield places["y"], is_zero(left, x)


class Odes(Task):
    """Differential equations of first order, and their solutions with a constant c."""

    name, title, verifiable = "odes", "Solutions of differential equations", True
    source = target = Vocabulary(["c", "x", "y", "y'", "add", "mul", "div", "pow", "sqrt", "exp",
                                  "ln", "sin", "cos", "tan", "INT+", "INT-", *"0123456789"])
    src_len, tgt_len = WORDS, WORDS + 1
    scales = Task.scales | {
        "laptop": dict(dim=64, heads=8, enc_layers=2, dec_layers=1, batch_size=64, epochs=10,
                       epoch_size=50_000, optimizer="muon", lr=3e-3, warmup=200, beam=[1, 10],
                       test_size=1000)}

    @cached_property
    def pairs(self):
        """All problems and all solutions, as rows of word numbers, padded."""
        pairs = make_examples(random.Random(1912))
        return [self.source.rows(texts).to(self.device) for texts in (pairs, pairs.values())]

    def sample(self, n, generator):
        """n of these pairs."""
        problems, solutions = self.pairs
        i = torch.randint(len(problems), (n,), generator=generator, device=generator.device)
        return problems[i], solutions[i]

    def read(self, text):
        """ "x*y' - y" or "x*y' = y" -> the word numbers of add mul x y' mul INT- 1 y"""
        left, _, right = text.replace("y'", "dy").partition("=")  # y' is no name for parse
        try:
            e = parse(f"({left}) - ({right or 0})", ARITY | {"y": 0, "dy": 0})
            problem = prefix(simplest(from_prefix(prefix(e).replace("dy", "y'"), ALL)))
            words = problem.split()
            if "y'" not in words or len(words) > WORDS or not self.source.number.keys() >= {*words}:
                raise ValueError(f"no y', more than {WORDS} words, or a function it does not know")
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}; ask as in --ask \"x*y' - y\"") from None
        return self.source.ids(problem)

    def show(self, problem):
        return infix(from_prefix(self.source.text(problem), ALL)) + " = 0"

    def judge(self, problem, words):
        """Right if all checks are, and y is not the same for all c."""
        try:
            answer = "y = " + infix(from_prefix(words, ALL))
        except (Undefined, RecursionError):
            return None, False
        found = [*checks(self.source.text(problem), words)]
        forget()
        return answer, len({y for y, _ in found}) > 1 and all(holds for _, holds in found)
