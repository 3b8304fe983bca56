"""The problems of a training set in other forms: with common factors in front and over one
denominator, or multiplied out, and with 1/cos(x)^2 for tan(x)^2 + 1.

    python results/forms.py data/forms.txt --task integrate --scale evening --train-data bwd
    python train.py --task integrate --scale evening --train-data bwd+data/forms.txt

A problem made backward has the form that the rules of differentiation write. People and SymPy write
others, and to a model these are other problems (guide/exercises.md, exercise 22).
"""

import random
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import train
from calculus import Undefined, add, collect, forget, multiply, normal, number, power, prefix
from integrate import expand, fits, slides, without_factor
from task import Parser
from tokenizers import ARITY, read_prefix


def multiplied_out(f):
    """x (x + 1)^2 -> x^3 + 2 x^2 + x: no sum is a factor, but under a root or below the line."""
    total = {}
    for product, c in f.items():
        e, rest = number(c), dict(product)
        for k, p in product:
            if k.name == "sum" and p in (1, 2, 3, 4):
                del rest[k]
                for _ in range(int(p)):
                    e = expand(e, k.arg)
                    if len(e) > 20:
                        raise Undefined("too long")
        total = add(total, expand(e, collect(1, rest)))
    return total


def one_fraction(f):
    """x/(x + 1)^2 - 1/(x + 1) -> (x - (x + 1))/(x + 1)^2, and exp(x) + x exp(x) -> exp(x) (x + 1):
    the lowest power of each factor goes in front of the bracket."""
    products = [dict(product) for product in f]
    lowest = {k: min(product.get(k, 0) for product in products)
              for product in products for k in product if k.name != "prime"}
    inside = [collect(c, {k: product.get(k, 0) - lowest.get(k, 0) for k in product | lowest})
              for product, c in zip(products, f.values())]
    return multiply(collect(1, lowest), add(*inside))


def with_cosines(tree):
    """1/cos(u)^2 for tan(u)^2 + 1, and 1/cosh(u)^2 for 1 - tanh(u)^2, in a tree."""
    match tree:
        case ("add", ("pow", ("tan", u), 2), 1):
            return "pow", ("cos", with_cosines(u)), -2
        case ("add", ("mul", -1, ("pow", ("tanh", u), 2)), 1):
            return "pow", ("cosh", with_cosines(u)), -2
        case (name, *branches):
            return name, *map(with_cosines, branches)
    return tree


def rewrite(f, rng):
    """f, and all sums that are factors in it, each in a form drawn at random."""
    total = {}
    for product, c in f.items():
        term = number(c)
        for k, p in product:
            factor = rewrite(k.arg, rng) if k.name == "sum" else collect(1, {k: 1})
            term = multiply(term, power(factor, p))
        total = add(total, term)
    changes = [], [one_fraction], [multiplied_out], [multiplied_out, one_fraction]
    for change in rng.choice(changes):
        total = change(total)
    return total


def other_form(problem, rng):
    """Words -> the same function in other words, or in the same; Undefined if it gets too long, is
    zero after all, or is on the talk's slides."""
    tree = read_prefix(problem, ARITY)
    f = rewrite(normal(with_cosines(tree) if rng.random() < 0.5 else tree), rng)
    if not f or without_factor(f) in slides():
        raise Undefined("not for a training set")
    return prefix(f)


if __name__ == "__main__":
    path, *flags = sys.argv[1:]
    args, task, _ = Parser().call(train.read_flags, flags)
    rng, examples = random.Random(1), task.training[:]
    rng.shuffle(examples)  # so that the first of the file are of all kinds and lengths
    with open(path, "w") as file:
        for problem, solution in examples:
            with suppress(Undefined):
                other = other_form(problem, rng)
                if other != problem and fits(other, solution, task.max_words):
                    print(f"1|sub Y' {other}", solution, sep="\t", file=file)
            forget()
