"""tokenizers.py promises: what is written can be read, and garbage is None, not an exception."""

import doctest
import random

import pytest
import torch

import tokenizers
from tokenizers import BOS, EOS, PAD, Integers, as_target, pack


def test_the_talks_examples():
    ten = Integers(10)
    assert [ten.write(n) for n in (10, 32, 2)] == ["+ 1 0", "+ 3 2", "+ 2"]
    assert ten.text(ten.encode(torch.tensor([[10, 32]]))[0]) == "+ 1 0 + 3 2"
    assert Integers(30).write(901) == "+ 1 0 1"


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
    decoded, valid = tokens.decode(batch)
    assert decoded.tolist() == values and valid.all()


def test_several_integers_in_a_row_have_no_gaps():
    tokens = Integers(7)
    pairs = torch.randint(0, 10**6, (200, 2)) // 10 ** torch.randint(0, 7, (200, 2))
    for (a, b), row in zip(pairs.tolist(), tokens.encode(pairs)):
        assert tokens.text(row) == tokens.write(a) + " " + tokens.write(b)
    assert (tokens.encode(pairs) != PAD).any(dim=0).all()  # no column of padding alone


def test_integers_larger_than_any_machine_word():
    n = -3**1000
    assert Integers(1000).read(Integers(1000).write(n)) == n


def test_targets_have_a_beginning_and_an_end():
    ten = Integers(10)
    target = as_target(ten.encode(torch.tensor([[5], [123]])))
    one, two, three, five = ten.ids("1 2 3 5")
    assert target.tolist() == [[BOS, ten.plus, five, EOS, PAD, PAD],
                               [BOS, ten.plus, one, two, three, EOS]]


def test_pack_moves_padding_to_the_end():
    assert pack(torch.tensor([[0, 5, 0, 6, 0], [7, 0, 0, 0, 8]])).tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize("text", ["", "+", "-", "1", "1 +", "+ +", "+ 1 +", "+ 1 - 2", "1 0", "+ x",
                                  "+ 12", "<eos>", "+ <bos> 1", "+ 1 <bos>", "<pad> + 1"])
def test_garbage_is_none(text):
    ten = Integers(10)
    assert ten.read(text) is None
    if set(text.split()) <= set(ten.words):
        row = torch.tensor([ten.ids(text) + [EOS, PAD]])
        value, valid = ten.decode(row)
        assert not valid.item() and value.item() == 0


def test_decoding_random_words_never_raises_and_agrees_with_reading():
    ten, rng = Integers(3), random.Random(0)
    rows = torch.tensor([[rng.randrange(len(ten)) for _ in range(5)] for _ in range(3000)])
    values, valid = ten.decode(rows)
    for row, value, ok in zip(rows, values.tolist(), valid.tolist()):
        assert ten.read(ten.text(row)) == (value if ok else None)


def test_a_number_beyond_int64_is_not_valid():
    ten = Integers(10)
    for n, ok in [(2**63 - 1, True), (2**63, False), (10**25, False), (-2**63 + 1, True)]:
        value, valid = ten.decode(torch.tensor([ten.ids(ten.write(n))]))
        assert valid.item() == ok and value.item() == (n if ok else 0)


def test_bad_input_is_a_clear_error():
    with pytest.raises(ValueError, match="base 1"):
        Integers(1)
    with pytest.raises(ValueError, match="'12' is not a word"):
        Integers(10).ids("+ 12")


def test_the_example_in_the_docstring():
    assert doctest.testmod(tokenizers) == (0, 2)
