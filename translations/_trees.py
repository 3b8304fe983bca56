"""Random functions of x as trees, for regression and odes: "x", 3 or ("add", tree, tree).

>>> from random import Random
>>> draw(2, Random(0), ["sin", "ln"])
('add', ('ln', 2), 'x')
"""

LEAVES = ["x"] * 5 + [1, 2, 3, 4, 5]
BINARY = ["add", "sub", "mul", "div"]


def draw(n, rng, unary):
    """A random tree of n operators, those of BINARY and of the list unary."""
    if n == 0:
        return rng.choice(LEAVES)
    if rng.random() < 0.4:
        return rng.choice(unary), draw(n - 1, rng, unary)
    left = rng.randrange(n)
    return rng.choice(BINARY), draw(left, rng, unary), draw(n - 1 - left, rng, unary)


def write(tree):
    """A tree as words."""
    if isinstance(tree, tuple):
        return " ".join([tree[0], *map(write, tree[1:])])
    return f"INT+ {tree}" if isinstance(tree, int) else tree
