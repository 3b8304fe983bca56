"""Step II of the talk, represent: problems and solutions as sequences of words.

The model knows no maths, and no letters. It reads and writes integers, one for each word: its place
in the vocabulary, a list of all words. In base 10, the integers 10 and 32 are six words:

>>> ten = Integers(10)
>>> ten.words
['<pad>', '<bos>', '<eos>', '+', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']
>>> row = ten.encode(torch.tensor([[10, 32]]))[0]
>>> row.tolist()
[3, 6, 5, 3, 8, 7]
>>> ten.text(row)
'+ 1 0 + 3 2'

The first three words are in every vocabulary. <bos> and <eos> are the beginning and the end of a
solution. <pad> fills the shorter rows of a batch, so that all rows have one length.
"""

import math
from itertools import count, product, takewhile

import torch
from torch.nn.utils.rnn import pad_sequence

SPECIAL = ["<pad>", "<bos>", "<eos>"]
PAD, BOS, EOS = range(3)


class Vocabulary:
    """Words and their numbers."""

    def __init__(self, words):
        self.words = SPECIAL + words
        self.number = {word: i for i, word in enumerate(self.words)}

    def __len__(self):
        return len(self.words)

    def text(self, tokens):
        """A row of word numbers, list or tensor -> its words, up to <eos> or padding, as text."""
        return " ".join(self.words[i] for i in takewhile(lambda i: i not in (PAD, EOS), tokens))

    def ids(self, text):
        """Words separated by spaces -> their numbers. An unknown word is a KeyError."""
        return [self.number[word] for word in text.split()]

    def rows(self, texts):
        """n texts -> the numbers of their words, a LongTensor (n, width), with padding."""
        return pad_sequence([torch.tensor(self.ids(text)) for text in texts], batch_first=True)

    def encode(self, values):
        """Values as a task draws them -> rows of word numbers, which here they are already."""
        return pack(values)


def close_gaps(tokens):
    """Move the padding of each row (n, width) to its end."""
    return tokens.gather(1, (tokens == PAD).byte().argsort(dim=1, stable=True))


def pack(tokens):
    """Close the gaps of rows (n, width). They are then as wide as the longest needs."""
    tokens = close_gaps(tokens)
    return tokens[:, : (tokens != PAD).sum(dim=1).max()]


def as_target(tokens):
    """Rows (n, width) as the decoder wants them: <bos> words <eos>."""
    bos, eos = (tokens.new_full((len(tokens), 1), word) for word in (BOS, EOS))
    return pack(torch.cat([bos, tokens, eos], dim=1))


class Integers(Vocabulary):
    """Integers as a sign and digits in a base, most significant first: 10 is + 1 0.

    A digit is one word, so in base 31, 901 is + 29 2. extra: further words, which are no digits.
    Slide "Maths as translation: learning GCD"; paper: Charton, arXiv 2308.15594, section 2.
    """

    def __init__(self, base, extra=()):
        super().__init__(["+", "-"] + [str(digit) for digit in range(base)] + [*extra])
        self.base = base
        self.plus, self.minus, self.zero = (self.number[word] for word in "+-0")

    def length(self, n):
        """How many words n takes: its sign and its digits."""
        return 1 + next(digits for digits in count(1) if abs(n) < self.base**digits)

    def spell(self, values):
        """Integers (...) int64 above -2**63 -> their words (..., width), padding among them."""
        size = values.abs()
        digits = self.length(int(size.max())) - 1
        powers = self.base ** torch.arange(digits - 1, -1, -1, device=values.device)
        digit = size[..., None] // powers % self.base + self.zero
        leading = (size[..., None] < powers) & (powers > 1)  # zeros in front; 0 itself keeps one
        sign = torch.where(values < 0, self.minus, self.plus)[..., None]
        return torch.cat([sign, digit.masked_fill(leading, PAD)], dim=-1)

    def encode(self, values):
        """Rows of k integers, (n, k) -> their words in a row, (n, width)."""
        return pack(self.spell(values).flatten(1))

    def decode(self, tokens):
        """Rows (n, width) of one integer each -> values (n,) int64, 0 where there is none."""
        values = [self.read(self.text(row)) or 0 for row in tokens.tolist()]
        return torch.tensor(values, device=tokens.device)

    def write(self, n):
        """One int -> its words: 10 -> '+ 1 0'."""
        return self.text(self.encode(torch.tensor([[n]]))[0])

    def read(self, text):
        """Words -> the int, or None where they are not one, or beyond int64: '+ 1 0' -> 10."""
        sign, *digits = text.split() or [""]
        digits = [self.number.get(word, BOS) - self.zero for word in digits]
        if sign not in ("+", "-") or not digits or not 0 <= min(digits) <= max(digits) < self.base:
            return None
        size = sum(digit * self.base**i for i, digit in enumerate(reversed(digits)))
        return None if size >= 2**63 else size if sign == "+" else -size


class Floats(Vocabulary):
    """Real numbers, rounded to three significant digits, written in one of four encodings.

        3.14 = 314 x 10^-2      p10    + 3 1 4 E-2     sign, digits, exponent
                                p1000  + 314 E-2       sign, mantissa, exponent
                                b1999  314 E-2         signed mantissa, exponent
                                fp15   314E-2          all in one word

    What can be written is zero, and sizes from 10^low to just under 10^high. Any other number
    becomes the nearest of these: a tiny one 0 or 10^low, a huge one, infinity too, the largest.
    extra: further words, such as the dimensions of matrices. Slide "Linear algebra with
    transformers"; paper: Charton, arXiv 2112.01898, section 3.1.
    """

    def __init__(self, encoding, low, high, extra=(), device="cpu"):
        # All sizes that can be written, smallest first, each as mantissa and exponent.
        sizes = [(0, low - 2)]
        sizes += [(m, e) for e in range(low - 2, high - 2) for m in range(100, 1000)]
        spelled = [self.spell(encoding, sign * m, e) for sign in (1, -1) for m, e in sizes]
        super().__init__([*dict.fromkeys([*extra, *" ".join(spelled).split()])])  # each word once
        self.spelling = torch.tensor([*map(self.ids, spelled)], device=device)
        self.width = self.spelling.size(1)  # words per number

        # To write: `first` is the smallest float that is rounded to each size but zero.
        real = dict(dtype=torch.float64, device=device)
        halfway = [float(f"{m}5e{e - 1}") for m, e in sizes[1:-1]]  # from each size to the next
        first = [x if float(f"{x:.2e}") > x else math.nextafter(x, math.inf) for x in halfway]
        self.sizes = torch.tensor([float(f"{m}e{e}") for m, e in sizes], **real)
        self.first = torch.tensor([float(f"5e{low - 1}"), *first], **real)

        # To read: each place may hold any word that ever stands there. So -0 is a number too.
        places = map(set, zip(*map(str.split, spelled)))
        self.values = {tuple(map(self.number.get, words)): float("".join(words))
                       for words in product(*places)}

    @staticmethod
    def spell(encoding, mantissa, exponent):
        """The words of mantissa x 10^exponent."""
        sign, size = "-" if mantissa < 0 else "+", f"{abs(mantissa)}"
        return {"p10": " ".join([sign, *size.zfill(3), f"E{exponent}"]),
                "p1000": f"{sign} {size} E{exponent}",
                "b1999": f"{mantissa} E{exponent}",
                "fp15": f"{mantissa}E{exponent}"}[encoding]

    def nearest(self, x):
        """Floats (...) -> which of self.sizes each is rounded to."""
        return torch.bucketize(x.abs().double(), self.first, right=True)

    def round(self, x, digits=3):
        """Floats (...) -> what their words say; of fewer digits than three, the others are 0."""
        nearest = self.nearest(x)
        nearest -= (nearest - 1).clamp_min(0) % 10 ** (3 - digits)  # sizes are 900 to a power of 10
        return self.sizes[nearest] * x.sign()

    def encode(self, x):
        """Rows of k numbers, (n, k) float -> their words in a row, (n, k * width)."""
        return self.spelling[self.nearest(x) + len(self.sizes) * (x < 0)].flatten(1)

    def decode(self, tokens):
        """Rows (n, k * width) of k numbers each -> (n, k) float64, nan for what is not a number."""
        rows = tokens.unflatten(1, (-1, self.width)).tolist()
        values = [[self.values.get(tuple(words), math.nan) for words in row] for row in rows]
        return torch.tensor(values, dtype=torch.float64, device=tokens.device)

    def encode_matrix(self, x):
        """Matrices (n, r, c) float -> V r, V c and the coefficients, row by row."""
        start = torch.tensor([self.number[f"V{size}"] for size in x.shape[1:]], device=x.device)
        return torch.cat([start.expand(len(x), -1), self.encode(x.flatten(1))], dim=1)


# How many arguments each word of prefix notation takes: the words of the published data sets.
ARITY = dict.fromkeys(["x", "pi", "E"], 0) | dict.fromkeys(["add", "sub", "mul", "div", "pow"], 2)
ARITY |= dict.fromkeys(["sqrt", "inv", "pow2", "pow3", "pow4", "pow5", "exp", "ln", "sin", "cos",
                        "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh",
                        "atanh"], 1)


def read_prefix(text, arity=ARITY):
    """Prefix notation -> its tree, "x", 3 or ("add", tree, tree); None if it is malformed.

    >>> read_prefix("add x mul INT- 1 2 sin x")
    ('add', 'x', ('mul', -12, ('sin', 'x')))
    """
    stack, digits = [], []
    for word in reversed(text.split()):
        if word.isdecimal():
            digits.insert(0, word)
        elif word in ("INT+", "INT-") and digits:
            stack.append(int(word[-1] + "".join(digits)))
            digits = []
        elif digits or word not in arity or len(stack) < arity[word]:
            return None
        else:
            args = [stack.pop() for _ in range(arity[word])]
            stack.append((word, *args) if args else word)
    return stack[0] if len(stack) == 1 and not digits else None


class Expressions(Vocabulary):
    """Functions of x in prefix notation: x - 10 is add x INT- 1 0.

    Slide "Deep learning for symbolic mathematics"; paper: arXiv 1912.01412, section 2.
    """

    def __init__(self):
        super().__init__([*ARITY, "INT+", "INT-", *"0123456789"])

    encode = Vocabulary.rows  # they are drawn as texts
