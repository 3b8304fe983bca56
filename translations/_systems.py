"""Dynamical systems as words, for stability and lyapunov: x' = 3xy-2x, y' = x^2-y is

>>> words = Systems(["x^2", "xy", "x", "y"])
>>> words.text(words.encode(torch.tensor([[0, 3, -2, 0, 1, 0, 0, -1]]))[0])
'+ 3 xy - 2 x , + 1 x^2 - 1 y'
"""

import re

import torch

from tokenizers import pack
from translations._combinations import LinearCombinations


class Systems(LinearCombinations):
    """Two equations, x' = f(x, y) and y' = g(x, y), as two sums with a comma between them. A row
    has the coefficients of all symbols in f, and then those in g."""

    def __init__(self, symbols):
        super().__init__([*symbols, ","])
        self.symbols = symbols

    def encode(self, systems):
        """Rows of coefficients (n, 2 * symbols) -> words (n, width)."""
        f, g = map(super().encode, systems.chunk(2, dim=1))
        comma = torch.full_like(systems[:, :1], self.number[","])
        return pack(torch.cat([f, comma, g], dim=1))

    def show(self, system):
        """ -> "x' = 3xy-2x, y' = x^2-y" """
        f, g = system[: len(self.symbols)], system[len(self.symbols):]
        return f"x' = {super().show(f)}, y' = {super().show(g)}"

    def read_sum(self, text):
        """One of the two; 0 has no symbol when a person writes it."""
        text = re.sub(r"^.*=|\s", "", text)
        return super().read("0" + self.symbols[-1] if text == "0" else text)

    def read(self, text):
        """What show writes, or that without x' = and y' = -> a row; None where it is neither."""
        sums = [*map(self.read_sum, text.split(","))]
        return sums[0] + sums[1] if len(sums) == 2 and None not in sums else None
