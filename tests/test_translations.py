"""The four small tasks promise: what they teach is true, what they judge right is right, no test
problem is ever trained on, and what is asked can be written as one does by hand."""

import random
import re
from fractions import Fraction

import numpy as np
import pytest
import sympy
import torch

import train
from task import HELD_OUT, Task, held_out
from tokenizers import Integers
from translations._combinations import LinearCombinations
from translations.derivatives import Derivatives
from translations.recurrences import Recurrences
from translations.roots import Roots
from translations.sums import Sums

ALL = [Sums, Derivatives, Roots, Recurrences]


def drawn(task, n=300, seed=0):
    """n problems, as lists, and their solutions, in words."""
    problems, solutions = task.sample(n, torch.Generator().manual_seed(seed))
    return problems.tolist(), [task.target.text(row) for row in task.target.encode(solutions)]


# Each solution, checked by something else than what made it


def truth_of_sums(problem, words):
    sign, *digits = words.split()
    return sign == "+" and int("".join(digits)) == problem[0] + problem[1]


def as_sympy(words):
    """+ 1 2 x^2 - 3 -> 12*x**2 - 3"""
    text = "".join(words.split()).replace("^", "**")
    for symbol in ("x", "u_{n-1}", "u_{n-2}"):
        for digit in "0123456789":
            text = text.replace(digit + symbol, f"{digit}*{symbol}")
    return sympy.sympify(text.replace("u_{n-1}", "v").replace("u_{n-2}", "u"))


def truth_of_derivatives(problem, words):
    x = sympy.Symbol("x")
    return sympy.expand(as_sympy(words) - sympy.Poly(problem, x).as_expr().diff(x)) == 0


def truth_of_roots(problem, words):
    signs, mantissas, exponents = (words.split()[i::3] for i in range(3))
    answer = [float(s + m + e) for s, m, e in zip(signs, mantissas, exponents)]
    return len(answer) == 2 and np.allclose(answer, sorted(np.roots(problem))[::-1],
                                            rtol=0.05, atol=1e-12)


def truth_of_recurrences(problem, words):
    rule, terms = sympy.lambdify(sympy.symbols("u v"), as_sympy(words)), problem[:2]
    while len(terms) < 6:
        terms = [*terms, rule(*terms[-2:])]
    return terms == problem


TRUTH = [truth_of_sums, truth_of_derivatives, truth_of_roots, truth_of_recurrences]


@pytest.mark.parametrize("task, truth", [*zip(ALL, TRUTH)], ids=lambda x: x.__name__)
def test_solutions_are_solutions_and_judged_so(task, truth):
    task = task()
    for problem, words in zip(*drawn(task)):
        assert truth(problem, words), (problem, words)
        assert task.judge(problem, words)[1] is True


@pytest.mark.parametrize("task, truth", [*zip(ALL, TRUTH)], ids=lambda x: x.__name__)
def test_wrong_answers_are_judged_wrong(task, truth):
    """The answer to the problem before is wrong, unless it happens to be right."""
    task, wrong = task(), 0
    problems, words = drawn(task)
    for problem, other in zip(problems[1:], words):
        right = truth(problem, other)
        assert bool(task.judge(problem, other)[1]) == right
        wrong += not right
    assert wrong > 250


def test_a_sequence_may_have_several_recurrences():
    """1, 2, 4, 8... doubles, and it is the sum of the last and twice the one before, too."""
    doubling = [1, 2, 4, 8, 16, 32]
    for words in ["+ 2 u_{n-1}", "+ 1 u_{n-1} + 2 u_{n-2}"]:
        assert Recurrences().judge(doubling, words)[1]
    assert Recurrences().judge(doubling, "+ 1 u_{n-1}") == ("u_n = u_{n-1}", False)


def test_roots_within_five_percent_are_right():
    golden = [1, -1, -1]  # 1.618..., -0.618...
    for words, right in [("+ 162 E-2 - 618 E-3", True), ("+ 169 E-2 - 590 E-3", True),
                         ("+ 171 E-2 - 618 E-3", False), ("+ 162 E-2 - 580 E-3", False),
                         ("- 618 E-3 + 162 E-2", False), ("+ 162 E-2 + 618 E-3", False)]:
        assert Roots().judge(golden, words)[1] is right


@pytest.mark.parametrize("task", ALL)
def test_garbage_is_wrong_and_no_exception(task):
    task, rng = task(), random.Random(0)
    for problem in drawn(task)[0]:
        words = " ".join(rng.choices(task.target.words, k=rng.randrange(task.tgt_len)))
        text, right = task.judge(problem, words)
        assert not right and (text is None or text != "")


# Linear combinations


def test_the_talks_polynomial():
    words = LinearCombinations(["x^2", "x", ""])
    assert words.text(words.encode(torch.tensor([[1, -1, -1]]))[0]) == "+ 1 x^2 - 1 x - 1"
    assert words.show([1, -1, -1]) == "x^2-x-1" and words.show([0, 0, 0]) == "0"
    rules = LinearCombinations(["u_{n-1}", "u_{n-2}"])
    assert rules.show([1, 1]) == "u_{n-1}+u_{n-2}"
    assert rules.show([-11, 12]) == "-11u_{n-1}+12u_{n-2}"


@pytest.mark.parametrize("symbols", [["x^2", "x", ""], ["u_{n-1}", "u_{n-2}"]])
def test_combinations_are_read_as_written(symbols):
    """In the words of a batch and as one writes by hand; SymPy reads the latter in the same way."""
    words = LinearCombinations(symbols)
    rows = torch.randint(-12, 13, (500, len(symbols))) * torch.randint(2, (500, len(symbols)))
    rows = rows[rows.any(dim=1)]
    for row, tokens in zip(rows.tolist(), words.encode(rows)):
        assert words.read(words.text(tokens)) == row == words.read(words.show(row))
        if symbols[-1] == "":
            text = re.sub(r"(\d)x", r"\1*x", words.show(row)).replace("^", "**")
            assert sympy.Poly(text, sympy.Symbol("x")) == sympy.Poly(row, sympy.Symbol("x"))


@pytest.mark.parametrize("text", ["", "+", "- -", "x^3", "2y", "x x", "x 2", "1 -", "x^2 +", "1.5x",
                                  "<eos>", "x^2^2"])
def test_what_is_no_combination_is_none(text):
    assert LinearCombinations(["x^2", "x", ""]).read(text) is None


# Problems


@pytest.mark.parametrize("task", ALL)
def test_problems_fit_the_model(task):
    """No draw is longer than the sentences that the task announces, and some are as long."""
    task = task()
    source, target = task.batch(30_000, torch.Generator().manual_seed(0))
    assert source.size(1) <= task.src_len <= source.size(1) + 2
    assert target.size(1) - 1 <= task.tgt_len <= target.size(1) + 1


@pytest.mark.parametrize("task", ALL)
def test_no_test_problem_is_trained_on(task):
    task = task(test_size=500)
    (tests,) = task.tests.values()
    trained = task.draw(100_000, torch.Generator().manual_seed(0))[0]
    assert len(tests) == 500 and held_out(task.identity(tests)).all()
    same = {tuple(row) for row in task.identity(trained).tolist()}
    assert not same & {tuple(row) for row in task.identity(tests).tolist()}
    sampled = task.sample(100_000, torch.Generator().manual_seed(0))[0].unique(dim=0)
    share = held_out(task.identity(sampled)).double().mean().item()
    assert share == pytest.approx(1 / HELD_OUT, abs=0.01)


def test_the_sum_of_9_and_7_is_not_trained_on_where_that_of_7_and_9_is_held_out():
    tests = {tuple(pair) for pair in Sums(test_size=500).tests["new problems"].tolist()}
    trained = {tuple(pair) for pair in Sums().draw(
        300_000, torch.Generator().manual_seed(0))[0].tolist()}
    turned = {(b, a) for a, b in tests if a < 100 and b < 100}
    assert len(turned) > 50 and not turned & trained


@pytest.mark.parametrize("task", ALL)
def test_a_problem_is_asked_as_it_is_shown(task):
    task = task()
    for problem in drawn(task, 100)[0]:
        assert task.read(task.show(problem)) == problem


@pytest.mark.parametrize("task, text, problem", [
    (Sums, "7+9", [7, 9]), (Sums, "7 9", [7, 9]),
    (Derivatives, "x^2-x-1", [0, 0, 0, 1, -1, -1]), (Derivatives, "0", 6 * [0]),
    (Roots, "x^2 - x - 1", [1, -1, -1]), (Roots, "x^2-2*x", [1, -2, 0]),
    (Recurrences, "1,1,2,3,5,8", [1, 1, 2, 3, 5, 8])])
def test_the_talks_problems_can_be_asked(task, text, problem):
    assert task().read(text) == problem


@pytest.mark.parametrize("task, text", [
    (Sums, "7"), (Sums, "7 9 1"), (Sums, "7 100000"), (Sums, "-7 9"), (Sums, "7 x"), (Sums, "0 7"),
    (Derivatives, "x^6"), (Derivatives, "100x"), (Derivatives, "sin(x)"), (Derivatives, ""),
    (Roots, "x-1"), (Roots, "x^2+1"), (Roots, "2x^2-1"), (Roots, "x^2-x-100"),
    (Recurrences, "1 1 2 3 5"), (Recurrences, "1 1 2 3 5 8.0"), (Recurrences, ""),
    (Recurrences, "99999 99999 99999 99999 99999 99999")])
def test_what_is_no_problem_is_a_clear_error(task, text):
    with pytest.raises(ValueError, match="problem|no real roots"):
        task().read(text)


# The task as train.py sees it


class Doubles(Task):
    """A task of one's own: + 2 1 is translated into + 4 2."""

    name, title = "doubles", "Twice an integer"
    source = target = Integers(10)
    src_len, tgt_len = 4, 6

    def sample(self, n, generator):
        numbers = torch.randint(1000, (n, 1), generator=generator, device=generator.device)
        return numbers, 2 * numbers

    def read(self, text):
        return [int(text)]

    def show(self, problem):
        return f"2*{problem[0]}"

    def judge(self, problem, words):
        answer = self.target.read(words)
        return answer, answer is not None and Fraction(answer, 2) == problem[0]


def test_a_task_of_your_own_is_a_class_and_no_more(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.TASKS, "doubles", f"{__name__}:Doubles")
    flags = ["--task", "doubles", "--out", str(tmp_path), "--device", "cpu"]
    train.main([*flags, "--dim", "64", "--epochs", "1", "--epoch-size", "20000",
                "--test-size", "90", "--lr", "3e-3", "--warmup", "100"])
    assert "Twice an integer:\nwhat a transformer learned" in capsys.readouterr().out
    accuracy = float((tmp_path / "report.txt").read_text().partition("problems: ")[2].split("%")[0])
    assert accuracy >= 80
    train.main([*flags, "--ask", "21", "--beam", "3"])
    assert "2*21; the model says, best first:\n  right  42  (" in capsys.readouterr().out
