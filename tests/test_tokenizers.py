"""tokenizers.py promises: what is written can be read, and garbage is None, not an exception."""

import math
import random
import re

import pytest
import torch

from tokenizers import BOS, EOS, PAD, SPECIAL, Floats, Integers, as_target, pack


def test_the_talks_examples():
    ten = Integers(10)
    assert [ten.write(n) for n in (10, 32, 2)] == ["+ 1 0", "+ 3 2", "+ 2"]
    assert ten.text(ten.encode(torch.tensor([[10, 32]]))[0]) == "+ 1 0 + 3 2"
    assert Integers(30).write(901) == "+ 1 0 1"
    assert Integers(31).write(901) == "+ 29 2"


def test_the_text_of_a_row_ends_at_its_end():
    """A row may be a list or a tensor."""
    ten = Integers(10)
    row = [BOS, *ten.ids("+ 7"), EOS, *ten.ids("- 8"), PAD]
    assert ten.text(row) == ten.text(torch.tensor(row)) == "<bos> + 7"
    assert ten.text([PAD, BOS]) == ten.text([]) == ""


@pytest.mark.parametrize("base", [*range(2, 37), 60, 100, 1000, 2023, 10_000])
def test_round_trips(base):
    """Single ints and batches, both ways, agree with each other and with int(text, base)."""
    tokens = Integers(base)
    values = [*range(-150, 151), base, base - 1, base**2, -base**2, 10**6, 2**62, 2**63 - 1]
    batch = tokens.encode(torch.tensor(values)[:, None])
    for n, row in zip(values, batch):
        text = tokens.write(n)
        assert tokens.text(row) == text and tokens.read(text) == n
        assert tokens.ids(text) == row[: len(text.split())].tolist()
        assert tokens.length(n) == len(text.split())
        if base <= 36:
            digits = "0123456789abcdefghijklmnopqrstuvwxyz"
            sign, *written = text.split()
            assert int(sign + "".join(digits[int(d)] for d in written), base) == n
    assert tokens.decode(batch).tolist() == values


def test_several_integers_in_a_row_have_no_gaps():
    tokens = Integers(7)
    pairs = torch.randint(0, 10**6, (200, 2)) // 10 ** torch.randint(0, 7, (200, 2))
    for (a, b), row in zip(pairs.tolist(), tokens.encode(pairs)):
        assert tokens.text(row) == tokens.write(a) + " " + tokens.write(b)
    assert (tokens.encode(pairs) != PAD).any(dim=0).all()  # no column of padding alone


def test_targets_have_a_beginning_and_an_end():
    ten = Integers(10)
    target = as_target(ten.encode(torch.tensor([[5], [123]])))
    one, two, three, five = ten.ids("1 2 3 5")
    assert target.tolist() == [[BOS, ten.plus, five, EOS, PAD, PAD],
                               [BOS, ten.plus, one, two, three, EOS]]


def test_pack_moves_padding_to_the_end():
    assert pack(torch.tensor([[0, 5, 0, 6, 0], [7, 0, 0, 0, 8]])).tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize("text", ["", " ", "+", "-", "1", "1 +", "+ +", "+ 1 +", "+ 1 - 2", "1 0",
                                  "+ x", "+ 12", "<eos>", "+ <bos> 1", "+ 1 <bos>", "<pad> + 1"])
def test_garbage_is_none(text):
    ten = Integers(10)
    assert ten.read(text) is None
    if set(text.split()) <= set(ten.words):
        row = torch.tensor([ten.ids(text) + [EOS, PAD]])
        assert ten.decode(row).item() == 0


def test_decoding_random_words_never_raises_and_agrees_with_python():
    three, rng = Integers(3), random.Random(0)
    rows = torch.tensor([[rng.randrange(len(three)) for _ in range(5)] for _ in range(3000)])
    for row, value in zip(rows, three.decode(rows).tolist()):
        text = three.text(row)
        truth = int(text.replace(" ", ""), 3) if re.fullmatch("[+-]( [0-2])+", text) else None
        assert three.read(text) == truth and value == (truth or 0)


def test_a_number_beyond_int64_is_none():
    ten = Integers(10)
    for n, ok in [(2**63 - 1, True), (2**63, False), (10**25, False), (-2**63 + 1, True)]:
        words = " ".join(f"{n:+}")
        assert ten.decode(torch.tensor([ten.ids(words)])).item() == (n if ok else 0)
        assert ten.read(words) == (n if ok else None)


def test_bad_input_is_a_clear_error():
    with pytest.raises(KeyError, match="12"):
        Integers(10).ids("+ 12")


@pytest.mark.parametrize("text", ["+ \u0661", "+ seven", "1 0 +"])
def test_words_of_no_vocabulary_are_no_integer(text):
    assert Integers(10).read(text) is None


# Real numbers

ENCODINGS = ["p10", "p1000", "b1999", "fp15"]


def floats(encoding, low=-4, high=5):
    return Floats(encoding, low, high, extra=["V2", "V3"])


def rounded(tokens, values):
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    return tokens.decode(tokens.encode(x))[:, 0].tolist()


def test_the_four_spellings():
    x = torch.tensor([[3.14, -0.5, 0.0]], dtype=torch.float64)
    text = {name: (tokens := floats(name)).text(tokens.encode(x)[0]) for name in ENCODINGS}
    assert text == {"p10": "+ 3 1 4 E-2 - 5 0 0 E-3 + 0 0 0 E-6",
                    "p1000": "+ 314 E-2 - 500 E-3 + 0 E-6",
                    "b1999": "314 E-2 -500 E-3 0 E-6",
                    "fp15": "314E-2 -500E-3 0E-6"}
    assert [floats(name).width for name in ENCODINGS] == [5, 3, 2, 1]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rounding_is_pythons(encoding):
    """To three digits, to the even one when in the middle, at every size: as f"{x:.2e}" does."""
    random.seed(0)
    values = [random.choice("+-") + repr(random.uniform(1, 10)) + f"e{random.randint(-4, 4)}"
              for _ in range(5000)]
    # 1.005 is a little less than it looks, 9.995 a little more, 1.125 is exactly in the middle.
    values += [f"{m}5e{e}" for m in range(100, 1000) for e in range(-6, 2)]
    values = [*map(float, values), 1.125, 1.375, 1250.0, 0.5, 1e-4, 9.99e4, 9.996, 99.96]
    values += [math.nextafter(x, y) for x in values for y in (0, math.inf)]
    values = [x for x in values if 1e-4 <= abs(x) < 9.995e4]
    assert rounded(floats(encoding), values) == [float(f"{x:.2e}") for x in values]
    alike = floats(encoding).round(torch.tensor(values, dtype=torch.float64))
    assert alike.tolist() == [float(f"{x:.2e}") for x in values]


@pytest.mark.parametrize("digits", [1, 2])
def test_of_fewer_digits_the_others_are_zero(digits):
    values = [3.14, -3.99, 0.0, 9.996, 0.0102, -54321.0, 2e-4, -0.0]
    written = [f"{x:.2e}" for x in values]  # 3.14e+00
    kept = [float(x[: x.index(".") + digits] + x[x.index("e") :]) for x in written]
    assert kept[:2] == ([3, -3] if digits == 1 else [3.1, -3.9])
    assert floats("fp15").round(torch.tensor(values).double(), digits).tolist() == kept


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_what_is_too_small_or_too_large_becomes_the_nearest_there_is(encoding):
    values = [0.0, -0.0, 4e-5, -4e-5, 6e-5, -6e-5, 1e-300, 1e5, -1e300, math.inf, -math.inf]
    assert rounded(floats(encoding), values) == [
        0, 0, 0, 0, 1e-4, -1e-4, 0, 99900, -99900, 99900, -99900]
    x = torch.tensor(values, dtype=torch.float64)
    assert floats(encoding).round(x).tolist() == rounded(floats(encoding), values)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_malformed_numbers_are_nan(encoding):
    tokens = floats(encoding)
    whole = tokens.encode(torch.tensor([[1.5, -2.5]], dtype=torch.float64))
    assert tokens.decode(whole).tolist() == [[1.5, -2.5]]
    for word in [PAD, BOS, EOS, tokens.number["V2"]]:
        broken = whole.clone()
        broken[:, -1] = word
        first, second = tokens.decode(broken)[0].tolist()
        assert first == 1.5 and math.isnan(second)
    torch.manual_seed(0)  # garbage: all kinds of words in all kinds of order
    garbage = torch.randint(len(tokens), (500, 4 * tokens.width))
    values = tokens.decode(garbage)
    for value, words in zip(values.flatten().tolist(), garbage.view(-1, tokens.width)):
        text = tokens.text(words)
        number = re.fullmatch({"p10": r"[+-] \d \d \d E-?\d", "p1000": r"[+-] \d+ E-?\d",
                               "b1999": r"-?\d+ E-?\d", "fp15": r"-?\d+E-?\d"}[encoding], text)
        assert value == float(text.replace(" ", "")) if number else math.isnan(value)


def test_other_spellings_are_read():
    """A model that writes minus zero, or zeros in front, means a number."""
    for encoding, words, value in [("p1000", "- 0 E-2", 0), ("b1999", "0 E-2", 0),
                                   ("p10", "- 0 0 0 E-4", 0), ("p10", "- 0 7 0 E-2", -0.7)]:
        tokens = floats(encoding)
        assert tokens.decode(torch.tensor([tokens.ids(words)])).item() == value


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_word_is_used(encoding):
    """Vocabularies are no larger than needed: of the words, all but the special ones occur."""
    tokens = Floats(encoding, -1, 2)
    assert set(tokens.spelling.flatten().tolist()) == set(range(len(SPECIAL), len(tokens)))


def test_matrices_begin_with_their_dimensions():
    tokens = floats("p1000")
    words = tokens.encode_matrix(torch.tensor([[[1.0, 2, 3], [4, 5, 6]]]))
    assert tokens.text(words[0]) == (
        "V2 V3 + 100 E-2 + 200 E-2 + 300 E-2 + 400 E-2 + 500 E-2 + 600 E-2")
