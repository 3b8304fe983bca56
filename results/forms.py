"""The problems of a training set in other forms: with common factors in front and over one
denominator, or multiplied out, with 1/cos(x)^2 for tan(x)^2 + 1, with sin(x (x + 1)) for
sin(x^2 + x), and with roots above the line.

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
from calculus import (Undefined, add, collect, forget, from_prefix, function, multiply, normal,
                      number, power, prefix)
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
    """x/(x + 1)^2 - 1/(x + 1) -> -1/(x + 1)^2, and exp(x) + x exp(x) -> exp(x) (x + 1):
    the lowest power of each factor goes in front of the bracket."""
    products = [dict(product) for product in f]
    lowest = {k: min(product.get(k, 0) for product in products)
              for product in products for k in product if k.name != "prime"}
    inside = [collect(c, {k: product.get(k, 0) - lowest.get(k, 0) for k in product | lowest})
              for product, c in zip(products, f.values())]
    return multiply(collect(1, lowest), add(*inside))


def together(f):
    """As one_fraction, but terms over one denominator stay in one bracket: asin(x) + 1 +
    x/sqrt(1 - x^2) -> ((asin(x) + 1) sqrt(1 - x^2) + x)/sqrt(1 - x^2)."""
    groups = {}
    for product, c in f.items():
        below = frozenset((k, p) for k, p in product if p < 0 and k.name != "prime")
        groups.setdefault(below, {})[product - below] = c
    lowest = {k: min(dict(below).get(k, 0) for below in groups)
              for below in groups for k, _ in below}
    inside = [multiply(one_fraction(above), collect(1, {k: dict(below).get(k, 0) - p
                                                        for k, p in lowest.items()}))
              for below, above in groups.items()]
    return multiply(collect(1, lowest), one_fraction(add(*inside)))


def multiplied_out_below(f):
    """1/(x + 1)^2 -> 1/(x^2 + 2 x + 1)"""
    total = {}
    for product, c in f.items():
        sums = {k: p for k, p in product if k.name == "sum" and p in (-1, -2, -3)}
        below = multiplied_out(collect(1, {k: -p for k, p in sums.items()}))
        above = collect(c, {k: p for k, p in product if k not in sums})
        total = add(total, multiply(above, power(below, -1)))
    return total


def roots_above(f):
    """1/sqrt(x cos(x)) -> sqrt(x cos(x))/(x cos(x)): so SymPy differentiates roots of products."""
    total = {}
    for product, c in f.items():
        roots = {k: p for k, p in product
                 if k.name == "sum" and len(k.arg) == 1 and p < 0 and p.denominator > 1}
        rest = collect(c, {k: p for k, p in product if k not in roots})
        pairs = ((power(k.arg, p + 1), power(k.arg, -1)) for k, p in roots.items())
        total = add(total, multiply(rest, *sum(pairs, ())))
    return total


def with_cosines(tree):
    """A tree with 1/cos(u)^2 for tan(u)^2 + 1, 1/cosh(u)^2 for 1 - tanh(u)^2, and 1/tan(u) for
    cos(u)/sin(u)."""
    if not isinstance(tree, tuple):
        return tree
    name, *branches = tree
    tree = name, *map(with_cosines, branches)
    match tree:
        case ("add", ("pow", ("tan", u), 2), 1):
            return "pow", ("cos", u), -2
        case ("add", ("mul", -1, ("pow", ("tanh", u), 2)), 1):
            return "pow", ("cosh", u), -2
        case ("add", ("pow", ("tanh", u), 2), -1):
            return "mul", -1, ("pow", ("cosh", u), -2)
        case ("mul", ("cos", u), ("pow", ("sin", v), -1)) if u == v:
            return "pow", ("tan", u), -1
    return tree


CHANGES = [[], [one_fraction], [multiplied_out], [multiplied_out, together],
           [multiplied_out, one_fraction, multiplied_out_below]] + 4 * [[together]]  # SymPy's


def rewrite(f, changes, arguments):
    """Apply the changes to each sum that is a factor of f, then to f. With arguments, those of
    functions are rewritten as well."""
    total = {}
    for product, c in f.items():
        term = number(c)
        for k, p in product:
            if k.name == "sum":
                factor = rewrite(k.arg, changes, arguments)
            elif arguments and k.arg and not k.constant:  # sin(x^2 + x) -> sin(x (x + 1))
                factor = function(k.name, rewrite(k.arg, changes, arguments))
            else:
                factor = collect(1, {k: 1})
            term = multiply(term, power(factor, p))
        total = add(total, term)
    for change in changes:
        total = change(total)
    return total


def other_form(problem, rng):
    """Words -> the same function in other words, or in the same; Undefined if it gets too long, is
    zero after all, or is on the talk's slides."""
    cosines, arguments, roots = (rng.random() < 0.7 for _ in range(3))
    changes = [roots_above] * roots + rng.choice(CHANGES)
    f = rewrite(from_prefix(problem), changes, arguments)
    if cosines:
        f = normal(with_cosines(read_prefix(prefix(f), ARITY)))
    if not f or without_factor(f) in slides():
        raise Undefined("not for a training set")
    return prefix(f)


def write(path, flags):
    """The file, of the problems that these flags of train.py train on."""
    _, task, _ = train.read_flags(flags)
    path.parent.mkdir(parents=True, exist_ok=True)
    open(path, "a").close()  # fails before the work, if it must
    rng, examples = random.Random(1), task.training[:]
    rng.shuffle(examples)  # so that the first of the file are of all kinds and lengths
    with open(path, "w") as file:
        for problem, solution in examples:
            with suppress(Undefined):
                other = other_form(problem, rng)
                if other != problem and fits(other, solution, task.max_words):
                    print(f"1|sub Y' {other}", solution, sep="\t", file=file)
            forget()


if __name__ == "__main__":
    parser = Parser()
    parser.add_argument("file", type=Path)
    known, flags = parser.parse_known_args()
    parser.call(write, known.file, flags)
