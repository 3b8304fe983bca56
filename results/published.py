"""Backward problems as the published data sets have them: SymPy makes them and writes them.

    python results/published.py | xz > results/published.txt.xz

What Lample and Charton's generator (github.com/facebookresearch/SymbolicMathematics) does, in
short: draw F of 4 to 15 operators, differentiate it, simplify the derivative in half of the cases,
and write SymPy's trees as they are: 1/(x + 1) is "pow add INT+ 1 x INT- 1". No model of ours was
trained on a problem that was written so.
"""

import random
import sys
from pathlib import Path

import sympy

sys.path.insert(0, str(Path(__file__).parents[1]))

from integrate import draw_tree, in_time
from tokenizers import ARITY

MAX_OPS, MAX_WORDS = 15, 200
X = sympy.Symbol("x")
OPERATORS = {"add": sympy.Add, "mul": sympy.Mul, "ln": sympy.log,
             "sub": lambda u, v: u - v, "div": lambda u, v: u / v,
             **{f"pow{n}": lambda u, n=n: u**n for n in (2, 3, 4, 5)}}
WORDS = {sympy.Add: "add", sympy.Mul: "mul", sympy.Pow: "pow", sympy.log: "ln"}


def to_sympy(tree):
    """A random tree -> SymPy's expression."""
    if not isinstance(tree, tuple):
        return sympy.sympify(tree)
    name, *args = tree
    return (OPERATORS.get(name) or getattr(sympy, name))(*map(to_sympy, args))


def prefix(e):
    """SymPy's expression -> its words. A sum of three terms is that of one, and the sum of two."""
    if e.is_Integer:
        return [f"INT{'-' if e < 0 else '+'}", *str(abs(e))]
    if e.is_Rational:
        return ["div", *prefix(sympy.Integer(e.p)), *prefix(sympy.Integer(e.q))]
    if not e.args:
        return {"Exp1": ["E"], "Pi": ["pi"]}.get(e.func.__name__) or [str(e)]
    if e.func is sympy.Pow and e.exp == sympy.Rational(1, 2):
        return ["sqrt", *prefix(e.base)]
    name = WORDS.get(e.func, e.func.__name__)
    *first, last = map(prefix, e.args)
    return sum(([name, *arg] for arg in first), []) + [name] * (not first) + last


def draw(rng):
    """A problem and its solution; or None, if they are too long, or F is far smaller than drawn."""
    n = rng.randint(4, MAX_OPS)
    F = to_sympy(draw_tree(n, rng))
    F -= F.as_independent(X, as_Add=True)[0]
    f = F.diff(X)
    if rng.random() < 0.5:
        f = in_time(2, sympy.simplify, f) or f
    if not f.has(X) or (f + F).has(sympy.I, sympy.nan, sympy.zoo, sympy.oo, sympy.AccumBounds):
        return None
    problem, solution = prefix(f), prefix(F)
    operators = sum(ARITY.get(word, 0) > 0 for word in solution)
    if operators >= n / 2 and max(len(problem), len(solution)) <= MAX_WORDS:
        return f"1|sub Y' {' '.join(problem)}\t{' '.join(solution)}"


if __name__ == "__main__":
    rng, lines = random.Random(1), set()
    while len(lines) < 500:
        line = draw(rng)
        if line and line not in lines:
            lines.add(line)
            print(line, flush=True)
