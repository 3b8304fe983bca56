"""Stability promises: the solution is the largest real part of the eigenvalues of the Jacobian, as
SymPy differentiates and numpy solves; half the points are stable; an answer is right within 10%."""

import random
import re

import numpy as np
import pytest
import sympy
import torch

from task import held_out
from translations.stability import Stability, largest_real_part

X, Y = sympy.symbols("x y")
MONOMIALS = [X**2, X * Y, Y**2, X, Y]
TASK = Stability(test_size=300)  # to make the vocabulary of its 3,600 numbers takes a moment


def drawn(n, seed=0):
    """n problems, as lists, and their solutions, as floats."""
    problems, solutions = TASK.sample(n, torch.Generator().manual_seed(seed))
    return problems.tolist(), solutions[:, 0].tolist()


def truth(problem):
    f, g = (sum(map(sympy.Mul, part, MONOMIALS)) for part in (problem[:5], problem[5:10]))
    jacobian = sympy.Matrix([f, g]).jacobian([X, Y]).subs(dict(zip((X, Y), problem[10:])))
    return np.linalg.eigvals(np.array(jacobian.tolist(), dtype=float)).real.max()


def written(x):
    """A float as the words of three digits: -1.24 -> - 124 E-2"""
    return TASK.target.text(TASK.target.encode(torch.tensor([[x]]))[0])


def test_solutions_are_those_of_sympy_and_numpy():
    problems, solutions = drawn(100)
    for problem, solution in zip(problems, solutions):
        assert solution == pytest.approx(truth(problem), rel=1e-6, abs=1e-6)
        assert TASK.judge(problem, written(solution))[1]


def test_the_formula_is_numpys_and_exact_where_the_real_part_is_0():
    j = torch.randint(-9, 10, (5000, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    expected = np.linalg.eigvals(j.numpy().astype(float)).real.max(axis=1)
    assert np.allclose(largest_real_part(j).numpy(), expected, atol=1e-6)
    for matrix in [[[0, 1], [-1, 0]], [[0, 1], [0, 0]], [[-1, 1], [1, -1]], [[-3, -9], [-2, -6]]]:
        assert largest_real_part(torch.tensor([matrix]).double()).item() == 0


@pytest.mark.parametrize("text, solution", [
    ("x-y, x+y, 0, 0", 1), ("-x, -2y, 3, -3", -1), ("-x+4y, -4x-y, 1, 2", -1),
    ("-2x^2+y, xy-4y, 1, 2", -2), ("y, x, 1, 1", 1), ("-x^2, -y^2, 3, 1", -2), ("xy, xy, 1, 2", 3),
    ("0, x + 2 y, 1, 2", 2)])
def test_systems_one_can_solve_by_hand(text, solution):
    problem = TASK.read(text)
    assert TASK.solve(problem) == pytest.approx(solution)
    assert TASK.judge(problem, written(solution)) == (
        f"{solution}, {'stable' if solution < 0 else 'unstable'}", True)


def test_within_ten_percent_is_right():
    problem = TASK.read("-4x, -5y, 0, 0")
    for words, right in [("- 400 E-2", True), ("- 439 E-2", True), ("- 361 E-2", True),
                         ("- 441 E-2", False), ("- 359 E-2", False), ("+ 400 E-2", False),
                         ("- 400 E-1", False), ("- 500 E-2", False), ("+ 0 E-4", False)]:
        assert TASK.judge(problem, words)[1] is right


def test_answers_to_other_problems_are_wrong_unless_near():
    problems, solutions = drawn(400)
    wrong = 0
    for problem, true, other in zip(problems[1:], solutions[1:], solutions):
        if not 0.09 < abs(other - true) / abs(true) < 0.11:  # three digits decide nothing there
            right = abs(other - true) <= 0.1 * abs(true)
            assert TASK.judge(problem, written(other))[1] is right
            wrong += not right
    assert wrong > 300


def test_garbage_is_wrong_and_no_exception():
    rng = random.Random(0)
    for problem in drawn(300)[0]:
        words = " ".join(rng.choices(TASK.target.words, k=rng.randrange(4)))
        assert not TASK.judge(problem, words)[1]


def test_half_the_points_are_stable_and_none_is_on_the_border():
    solutions = torch.tensor(drawn(10_000)[1])
    assert (solutions < 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert (solutions != 0).all()


def test_sentences_say_the_problem_and_fit():
    source, target = TASK.batch(3000, torch.Generator().manual_seed(0))
    assert source.size(1) <= TASK.src_len == TASK.encode(torch.ones(1, 12).long()).size(1)
    assert target.size(1) == TASK.tgt_len + 1  # and <bos>
    problems = drawn(300)[0]
    for problem, row in zip(problems, TASK.encode(torch.tensor(problems))):
        point, f, g = TASK.source.text(row).split(",")
        x, y = re.findall("[+-] [0-9]", point)
        assert TASK.read(f"{f},{g},{x},{y}".replace(" ", "").replace(",+", ",")) == problem
        assert TASK.read(TASK.show(problem)) == problem


def test_no_test_problem_is_trained_on():
    tests = TASK.tests["new problems"]
    assert len(tests) == 300 and held_out(tests).all()
    assert not held_out(TASK.draw(1000, torch.Generator().manual_seed(0))[0]).any()


@pytest.mark.parametrize("text", [
    "", "x, y", "x, y, 1", "x, y, 1, 2, 3", "x, y, 1, z", "x, y, 4, 1", "x, y, 1, 22",
    "x, y, 1.5, 1", "x^3, y, 1, 1", "6x, y, 1, 1", "x+1, y, 1, 1", "sin(x), y, 1, 1", ", y, 1, 1"])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="two equations and a point are a problem"):
        TASK.read(text)


def test_the_report_counts_verdicts_whatever_the_distance():
    """Answers: right, on the right side but far off, on the wrong side, and no number."""
    problems = TASK.tests["new problems"][:4]
    r = [TASK.solve(problem) for problem in problems.tolist()]
    words = [written(r[0]), written(r[1] / 2), written(-r[2]), "+ +"]
    tokens = torch.zeros(4, 1, TASK.tgt_len, dtype=torch.int64)
    for row, text in zip(tokens, words):
        ids = TASK.target.ids(text)
        row[0, : len(ids)] = torch.tensor(ids)
    right, answers = TASK.grade(problems, tokens)
    assert right.tolist() == [True, False, False, False] and answers[3] == "+ +"
    TASK.tests = {"new problems": problems}
    findings = TASK.findings(None, {"new problems": {"1": (right, answers)}}, final=True)
    assert findings["right_verdicts"] == 0.5
    assert "right in 50.0% of" in next(TASK.explain([findings]))


def test_a_question_is_answered_with_the_truth_beside_it():
    assert (TASK.question(TASK.read("-2x^2+y, xy-4y, 1, 2"))
            == "x' = -2x^2+y, y' = xy-4y at (1, 2): -2, stable")
