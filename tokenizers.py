"""Step II of the talk, represent: problems and solutions as sequences of words.

A vocabulary is a list of words; a sequence is a row of word numbers, padded on the right. All
vocabularies begin with the same three words.

>>> ten = Integers(10)
>>> ten.text(ten.encode(torch.tensor([[10, 32]]))[0])
'+ 1 0 + 3 2'
"""

from itertools import takewhile

import torch

SPECIAL = ["<pad>", "<bos>", "<eos>"]
PAD, BOS, EOS = range(3)


def pack(tokens):
    """Close the gaps: move the padding of each row (n, width) to its end, drop empty columns."""
    order = (tokens == PAD).byte().argsort(dim=1, stable=True)
    longest = (tokens != PAD).sum(dim=1).max()
    return tokens.gather(1, order)[:, :longest]


def as_target(tokens):
    """Rows (n, width) as the decoder wants them: <bos> words <eos>."""
    bos, eos = (tokens.new_full((len(tokens), 1), word) for word in (BOS, EOS))
    return pack(torch.cat([bos, tokens, eos], dim=1))


class Vocabulary:
    """Words and their numbers."""

    def __init__(self, words):
        self.words = SPECIAL + words
        self.number = {word: i for i, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def text(self, tokens):
        """A row of word numbers -> its words, up to <eos> or padding, separated by spaces."""
        return " ".join(self.words[i] for i in takewhile(lambda i: i not in (PAD, EOS), tokens))

    def ids(self, text):
        """Words separated by spaces -> their numbers. An unknown word is a ValueError."""
        unknown = [word for word in text.split() if word not in self.number]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not a word of this vocabulary")
        return [self.number[word] for word in text.split()]


class Integers(Vocabulary):
    """Integers as a sign and digits in a base, most significant first: 10 is + 1 0.

    Slide "Maths as translation: learning GCD".
    """

    def __init__(self, base):
        if base < 2:
            raise ValueError(f"base {base}: a base is 2 or more")
        super().__init__(["+", "-"] + [str(digit) for digit in range(base)])
        self.base = base
        self.plus, self.minus, self.zero = (self.number[word] for word in "+-0")

    def length(self, n):
        """How many words n takes: its sign and its digits."""
        digits, n = 1, abs(n)
        while n >= self.base:
            digits, n = digits + 1, n // self.base
        return 1 + digits

    def encode(self, values):
        """Rows of k integers, (n, k) int64 above -2**63 -> their words in a row, (n, width)."""
        size = values.abs()
        digits = self.length(int(size.max())) - 1
        powers = self.base ** torch.arange(digits - 1, -1, -1, device=values.device)
        digit = size[..., None] // powers % self.base + self.zero
        leading = (size[..., None] < powers) & (powers > 1)  # zeros in front; 0 itself keeps one
        sign = torch.where(values < 0, self.minus, self.plus)[..., None]
        return pack(torch.cat([sign, digit.masked_fill(leading, PAD)], dim=-1).flatten(1))

    def decode(self, tokens):
        """Rows (n, width) of one integer each -> values (n,) int64, and which rows are valid.

        A row ends at <eos> or padding. Anything but a sign and digits, or a number beyond int64,
        is not valid, and its value 0.
        """
        running = ((tokens != EOS) & (tokens != PAD)).cumprod(dim=1).bool()
        digit = tokens - self.zero
        valid = (tokens[:, 0] == self.plus) | (tokens[:, 0] == self.minus)
        valid &= (running.sum(dim=1) > 1) & ((digit >= 0) | ~running)[:, 1:].all(dim=1)
        value, limit = torch.zeros_like(tokens[:, 0]), torch.iinfo(torch.int64).max
        for column in range(1, tokens.size(1)):
            here, d = running[:, column], digit[:, column]
            valid &= ~here | (value <= (limit - d) // self.base)
            value = torch.where(here & valid, value * self.base + d, value)
        value = torch.where(tokens[:, 0] == self.minus, -value, value)
        return value.masked_fill(~valid, 0), valid

    def write(self, n):
        """One int, of any size, as text: 10 -> '+ 1 0'."""
        digits, size = [], abs(n)
        while size or not digits:
            size, digit = divmod(size, self.base)
            digits.append(str(digit))
        return " ".join(["-" if n < 0 else "+"] + digits[::-1])

    def read(self, text):
        """Text -> the int, or None where it is not one integer: '+ 1 0' -> 10, '1 +' -> None."""
        sign, *digits = text.split() or [""]
        numbers = [self.number.get(digit, PAD) - self.zero for digit in digits]
        if sign not in ("+", "-") or min(numbers, default=-1) < 0:
            return None
        value = 0
        for digit in numbers:
            value = value * self.base + digit
        return -value if sign == "-" else value
