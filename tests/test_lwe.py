"""Learning with errors: the samples are what they should be, and the attack finds a secret exactly
where the model has learned it."""

import numpy as np
import pytest
import torch

from task import held_out
from tokenizers import EOS, SPECIAL
from translations.lwe import Lwe


def numbers(rows):
    return rows.numpy().astype(object)  # Python's integers


class Oracle:
    """A model that knows a secret: answers a.s, or what `answer` makes of it."""

    def __init__(self, secret, modulus=251, answer=lambda b: b):
        self.secret, self.modulus, self.answer = secret, modulus, answer

    def generate(self, source, beam):
        assert (source >= len(SPECIAL)).all()
        b = self.answer((source - len(SPECIAL)) @ self.secret % self.modulus) % self.modulus
        words = torch.stack([b + len(SPECIAL), torch.full_like(b, EOS)], dim=1)
        return words[:, None], torch.zeros(len(b), 1)


def ones(task):
    return (task.s.nonzero()[:, 0] + 1).tolist()


@pytest.mark.parametrize("samples", ["mixed", "uniform"])
def test_b_is_a_times_the_secret_and_a_small_error(samples):
    task = Lwe(samples=samples)
    a, b = map(numbers, task.draw(20_000, torch.Generator().manual_seed(0)))
    assert a.min() == b.min() == 0 and a.max() == b.max() == 250
    error = (b[:, 0] - a @ numbers(task.s) + 125) % 251 - 125
    assert abs(error.mean()) < 0.1 and error.astype(float).std() == pytest.approx(3, abs=0.1)


def test_in_mixed_samples_any_number_of_numbers_is_zero():
    a = Lwe(n=9).sample(50_000, torch.Generator().manual_seed(0))[0]
    counts = np.bincount((a != 0).sum(dim=1).numpy(), minlength=10) / 50_000
    assert counts == pytest.approx([0.1] * 10, abs=0.02)
    uniform = Lwe(n=9, samples="uniform").sample(50_000, torch.Generator().manual_seed(0))[0]
    assert (uniform != 0).double().mean().item() == pytest.approx(250 / 251, abs=0.001)


def test_a_secret_is_its_seed_and_has_so_many_ones():
    secrets = [tuple(Lwe(n=12, ones=4, secret=seed).s.tolist()) for seed in range(20)]
    assert all(sum(s) == 4 and set(s) == {0, 1} for s in secrets) and len(set(secrets)) > 15
    torch.manual_seed(5)
    assert tuple(Lwe(n=12, ones=4, secret=0).s.tolist()) == secrets[0]


def test_the_tests_are_uniform_and_held_out():
    tests = Lwe(test_size=3000).tests["uniform a"]
    assert held_out(tests).all() and (tests == 0).double().mean() < 0.01
    assert not held_out(Lwe().draw(3000, torch.Generator().manual_seed(0))[0]).any()


def test_an_answer_within_a_tenth_of_q_is_right():
    task = Lwe(n=4, ones=4)
    for problem, truth in [([10, 0, 0, 0], 10), ([200, 50, 0, 0], 250), ([250, 250, 3, 3], 4)]:
        for offset in range(-125, 126):
            answer = (truth + offset) % 251
            assert task.judge(problem, str(answer)) == (answer, abs(offset) <= 25)
    for words in ["", "<eos>", "<bos> 10", "10 10", "<pad>"]:
        assert task.judge([10, 0, 0, 0], words) == (None, False)


def test_what_is_asked():
    task = Lwe(n=6, ones=2)
    assert task.read("125 e2") == task.read(" 125e2 ") == [0, 125, 0, 0, 0, 0]
    assert task.read("250 e1+7 e6 + 2 e1") == [1, 0, 0, 0, 0, 7]
    for problem in task.sample(100, torch.Generator().manual_seed(0))[0].tolist() + [[0] * 6]:
        assert task.read(task.show(problem)) == problem


@pytest.mark.parametrize("text", ["", "125", "e2", "125 e0", "125 e7", "-1 e2", "1 e2 +", "1.5 e2"])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="are a problem, as"):
        Lwe(n=6, ones=2).read(text)


@pytest.mark.parametrize("flags", [dict(n=2), dict(ones=0), dict(modulus=49), dict(n=0)])
def test_flags_that_make_no_sense(flags):
    with pytest.raises(ValueError, match="--n .* --ones .* --modulus .*: "):
        Lwe(**flags)


@pytest.mark.parametrize("n, count, modulus",
                         [(1, 1, 251), (6, 2, 50), (30, 3, 251), (20, 20, 997)])
def test_the_attack_finds_the_secret_of_a_model_that_knows_it(n, count, modulus):
    task = Lwe(n=n, ones=count, modulus=modulus, test_size=100)
    result = task.evaluate(Oracle(task.s, modulus), final=True)
    assert result["accuracy"] == 1 and result["found"] and result["ones"] == ones(task)
    report = task.report([{"examples": 50, "found": False}, {"examples": 1234} | result])
    assert "after 1,234 samples" in report
    found = ", ".join(f"e{i} 100%" for i in ones(task))
    assert f" {found} all others: at most 0%" in " ".join(report.split())


def test_the_attack_finds_it_by_noisy_answers():
    task, generator = Lwe(test_size=100), torch.Generator().manual_seed(0)

    def noisy(b):
        wrong = torch.rand(b.shape, generator=generator) < 0.4
        return torch.where(wrong, torch.randint(40, b.shape, generator=generator), b)
    result = task.evaluate(Oracle(task.s, answer=noisy), final=True)
    assert result["found"] and result["ones"] == ones(task) and result["accuracy"] < 0.8


def test_another_secret_is_read_off_as_it_is_and_refused():
    """So the attack uses what the model says, and not what the task knows."""
    task, other = Lwe(test_size=100), Lwe(secret=2)
    assert ones(task) != ones(other)
    result = task.evaluate(Oracle(other.s), final=True)
    assert result["ones"] == ones(other) and not result["found"]
    assert result["rest"] == pytest.approx(251 / 4, abs=8)
    assert "not found" in task.report([{"examples": 9} | result])


@pytest.mark.parametrize("answer", [lambda b: 0 * b, lambda b: 0 * b + 125, 
                                    lambda b: 91 * torch.arange(len(b))])
def test_a_model_that_has_learned_nothing_gives_no_secret(answer):
    task = Lwe(test_size=100)
    result = task.evaluate(Oracle(task.s, answer=answer), final=True)
    assert not result["found"] and result["accuracy"] < 0.4
