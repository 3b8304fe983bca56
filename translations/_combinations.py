"""Sums of integers times symbols as words, for polynomials and recurrences.

>>> words = LinearCombinations(["x^2", "x", ""])
>>> words.text(words.encode(torch.tensor([[1, -1, -1]]))[0])
'+ 1 x^2 - 1 x - 1'
"""

import re

import torch

from tokenizers import PAD, Integers, pack


class LinearCombinations(Integers):
    """Sums of integers times symbols: x^2-x-1 is + 1 x^2 - 1 x - 1.

    Here the symbols are x^2, x and "", which stands for 1. A symbol must come before those that it
    begins with, as x^2 does before x. Slide "Mathematics as a translation task".
    """

    def __init__(self, symbols):
        super().__init__(10, filter(None, symbols))
        self.symbols = symbols

    def encode(self, values):
        """Rows of coefficients (n, symbols) -> words (n, width), without the terms that are 0; if
        all are, the last one stays."""
        symbols = torch.tensor([self.number.get(s, PAD) for s in self.symbols]).to(values)
        terms = torch.cat([self.spell(values), symbols.expand_as(values)[..., None]], dim=-1)
        absent = values == 0
        absent[:, -1] &= ~absent.all(dim=1)
        return pack(terms.masked_fill(absent[..., None], PAD).flatten(1))

    def show(self, coefficients):
        """Coefficients -> as one writes by hand: [1, -1, -1] -> x^2-x-1."""
        text = "".join(f"{c:+}{s}" for c, s in zip(coefficients, self.symbols) if c)
        return re.sub("([+-])1(?=[a-z])", r"\1", text).removeprefix("+") or "0"

    def read(self, text):
        """Words, or what one writes by hand -> coefficients; None where it is neither."""
        text = re.sub(r"[\s*]", "", text)
        text = text if text[:1] in ("+", "-") else "+" + text
        symbols = "|".join(map(re.escape, self.symbols))
        terms = re.findall(rf"([+-])(\d+|(?=[a-z]))({symbols})", text)
        if not terms or "".join(map("".join, terms)) != text:
            return None
        coefficients = dict.fromkeys(self.symbols, 0)
        for sign, size, symbol in terms:
            coefficients[symbol] += int(sign + (size or "1"))
        return [*coefficients.values()]
