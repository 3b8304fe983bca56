"""Arithmetic: each solution agrees with Python's fractions, its integers or SymPy's ranks, and the
report says where a model is right."""

import math
from fractions import Fraction

import pytest
import sympy
import torch

from task import held_out
from tokenizers import PAD
from translations.arithmetic import FORMS, Arithmetic

TRUTH = {
    "fraction-simplify": lambda a, b: Fraction(a, b),
    "fraction-add": lambda a, b, c, d: Fraction(a, b) + Fraction(c, d),
    "modular-add": lambda a, b: (a + b) % 60,
    "modular-mul": lambda a, b: (a * b) % 60,
    "matrix-rank": lambda *m: sympy.Matrix(3, 3, m).rank(),
}


def make(op, **flags):
    return Arithmetic(op=op, **{"max_int": 27 if op == "matrix-rank" else 1000, **flags})


def drawn(task, n=300, seed=0):
    problems, solutions = task.draw(n, torch.Generator().manual_seed(seed))
    words = [task.target.text(row) for row in task.target.encode(solutions).tolist()]
    return problems, words


def as_words(task, *numbers):
    return " ".join(map(task.target.write, numbers))


def truth_in_words(task, problem):
    solution = TRUTH[task.op](*problem)
    if isinstance(solution, Fraction):
        return as_words(task, solution.numerator, solution.denominator)
    return as_words(task, int(solution))


@pytest.mark.parametrize("op", FORMS)
def test_solutions_are_true_and_judged_right(op):
    task = make(op)
    problems, solutions = drawn(task)
    for problem, words in zip(problems.tolist(), solutions):
        assert words == truth_in_words(task, problem)
        said, right = task.judge(problem, words)
        assert right and (op.startswith("fraction") == ("/" in said))


@pytest.mark.parametrize("op", FORMS)
def test_the_answer_to_another_problem_is_wrong(op):
    task = make(op)
    problems, solutions = drawn(task)
    rights = []
    for problem, words in zip(problems[1:].tolist(), solutions):
        rights.append(task.judge(problem, words)[1])
        assert rights[-1] == (words == truth_in_words(task, problem))
    assert sum(rights) < (150 if op == "matrix-rank" else 30)


@pytest.mark.parametrize("op, problem, words, said", [
    ("fraction-simplify", [12, 18], "+ 2 + 3", "2/3"),
    ("fraction-simplify", [12, 18], "+ 4 + 6", 0), ("fraction-simplify", [12, 18], "+ 6 + 9", 0),
    ("fraction-simplify", [12, 18], "+ 2", 0), ("fraction-simplify", [12, 18], "+ 2 + 3 + 1", 0),
    ("fraction-simplify", [12, 18], "- 2 - 3", 0), ("fraction-simplify", [12, 18], "", 0),
    ("fraction-simplify", [12, 18], "+ 2 3", 0), ("fraction-simplify", [12, 18], "+ + 3", 0),
    ("fraction-add", [1, 2, 1, 2], "+ 1 + 1", "1/1"), ("fraction-add", [1, 2, 1, 2], "+ 4 + 4", 0),
    ("modular-add", [50, 20], "+ 1 0", "10"), ("modular-add", [50, 20], "+ 7 0", 0),
    ("modular-mul", [7, 10], "+ 1 0", "10"), ("modular-mul", [7, 10], "- 5 0", 0),
    ("matrix-rank", [1, 2, 3, 2, 4, 6, 0, 0, 1], "+ 2", "2"),
    ("matrix-rank", [1, 2, 3, 2, 4, 6, 0, 0, 1], "+ 3", 0)])
def test_known_answers(op, problem, words, said):
    answer, right = make(op).judge(problem, words)
    assert right is bool(said) and (not said or answer == said)


@pytest.mark.parametrize("base, high", [(10, 1000), (3, 100), (1000, 1_000_000)])
@pytest.mark.parametrize("op", FORMS)
def test_problems_fit_the_model(op, base, high):
    task = make(op, base=base, max_int=high)
    problems, _ = task.sample(5000, torch.Generator().manual_seed(0))
    assert problems.abs().max() <= high and (op == "matrix-rank" or problems.min() >= 1)
    source, target = task.batch(5000, torch.Generator().manual_seed(0))
    assert source.size(1) <= task.src_len and target.size(1) - 1 <= task.tgt_len
    assert (source != PAD).any(dim=1).all()


def test_the_gcd_of_fractions_is_almost_log_uniform():
    """As often 1 as from 2 to 3 as from 4 to 7, but for the smallest and the largest."""
    a, b = make("fraction-simplify").sample(50_000, torch.Generator().manual_seed(0))[0].T.tolist()
    gcds = [*map(math.gcd, a, b)]
    shares = [sum(2**i <= gcd < 2**(i + 1) for gcd in gcds) / len(gcds) for i in range(9)]
    assert shares == pytest.approx([math.log(2) / math.log(1001)] * 9, abs=0.01)
    task = make("fraction-simplify")
    assert task.hidden(torch.tensor([[12, 18], [7, 5]])).tolist() == [6, 1]
    assert make("fraction-add").hidden(torch.tensor([[1, 6, 1, 3]])).tolist() == [9]  # 9/18


def test_ranks_are_exact_where_floats_would_round():
    task, m = make("matrix-rank", max_int=10**6), 10**6
    for rows in ([[0] * 9, [m, m - 1, 0, m - 1, m - 2, 0, 0, 0, 1], [m, m, m] * 3, [0] * 8 + [-m],
                  [1, 2, 3, 4, 5, 6, 7, 8, 9], [m, m, 0, -m, -m, 0, 0, 0, -1]]):
        assert task.hidden(torch.tensor([rows])).tolist() == [sympy.Matrix(3, 3, rows).rank()]


def test_all_ranks_occur():
    ranks = make("matrix-rank").sample(3000, torch.Generator().manual_seed(0))[1][:, 0].bincount()
    assert (ranks[1:] > 800).all() and ranks[0] == 0


@pytest.mark.parametrize("op", FORMS)
def test_no_test_problem_is_trained_on(op):
    """Nor one that is the same by the laws of arithmetic: b + a, where a + b is tested."""
    task = make(op, test_size=200)
    tested, trained = task.tests["new problems"], drawn(task, 1000)[0]
    half = tested.size(1) // 2
    for turned in (0, half if op in ("modular-add", "modular-mul", "fraction-add") else 0):
        assert held_out(task.identity(tested.roll(turned, dims=1))).all()
        assert not held_out(task.identity(trained.roll(turned, dims=1))).any()


class Answers:
    """A model that gives a task's solution, or what `change` makes of it."""

    def __init__(self, task, change):
        self.task, self.change = task, change

    def generate(self, source, beam):
        (problems,) = self.task.tests.values()  # translated all at once
        assert len(source) == len(problems)
        solutions = self.change(problems, self.task.solve(problems))
        words = self.task.target.encode(solutions)
        return words[:, None], torch.zeros(len(words), 1)


def test_a_model_that_sees_the_last_digit_is_right_modulo_10():
    task = make("modular-add", test_size=2000)

    def last_digit(problems, solutions):
        return (problems % 10).sum(dim=1, keepdim=True) % 10
    result = task.evaluate(Answers(task, last_digit), final=True)
    by = result["right_by"]
    assert sorted(by) == [2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60]
    assert by[2] == by[5] == by[10] == 1 and by[60] == result["accuracy"]
    assert by[3] == pytest.approx(1 / 3, abs=0.05) and by[4] == pytest.approx(1 / 2, abs=0.05)
    report = task.report([{"examples": 9} | result])
    assert "2: 100.0%" in report and "base 10 decide modulo 20" in report


def test_a_model_that_divides_by_2_alone_is_right_for_gcd_1_and_2():
    task = make("fraction-simplify", test_size=2500)

    def halve(problems, solutions):
        return torch.where((problems % 2 == 0).all(dim=1, keepdim=True), problems // 2, problems)
    by = task.evaluate(Answers(task, halve), final=True)["right_by"]
    assert by[1] == by[2] == 1 and by[3] == by[4] == by[5] == by[6] == 0


def test_the_report_has_the_ranks():
    task = make("matrix-rank", test_size=500)
    result = task.evaluate(Answers(task, lambda problems, ranks: 0 * ranks + 2), final=True)
    assert result["right_by"] == {1: 0, 2: 1, 3: 0}
    assert "where the rank is" in task.report([{"examples": 9} | result])


@pytest.mark.parametrize("op", FORMS)
def test_what_is_asked(op):
    task = make(op)
    for problem in drawn(task, 50)[0].tolist():
        assert task.read(task.show(problem)) == problem == task.read(" ".join(map(str, problem)))


@pytest.mark.parametrize("op, text", [
    ("fraction-simplify", "12"), ("fraction-simplify", "12/0"), ("fraction-simplify", "1/2/3"),
    ("fraction-simplify", "12/1001"), ("fraction-simplify", "-1/2"), ("fraction-simplify", "x/2"),
    ("fraction-add", "1/2"), ("fraction-add", "1/2 + 1/2.5"), ("modular-add", ""),
    ("matrix-rank", "1 2 3; 4 5 6; 7 8"), ("matrix-rank", "1 2 3; 4 5 6; 7 8 28")])
def test_what_is_no_problem_is_a_clear_error(op, text):
    with pytest.raises(ValueError, match="integers from .* are a problem"):
        make(op).read(text)


@pytest.mark.parametrize("flags", [dict(base=1), dict(max_int=9), dict(modulus=1),
                                   dict(modulus=1001), dict(max_int=10**7)])
def test_flags_that_make_no_sense(flags):
    with pytest.raises(ValueError, match="--base .* --max-int .* --modulus .*: "):
        Arithmetic(**flags)
