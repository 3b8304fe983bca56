"""Lyapunov promises: V is judged exactly. The truth is SymPy's, which differentiates V along the
system, and points: at none is a V that is right ever 0 or below, or rising."""

import random

import pytest
import sympy
import torch

from task import held_out
from translations.lyapunov import BOWLS, Lyapunov, candidates, is_lyapunov, never_positive, slope

X, Y = sympy.symbols("x y")
CUBIC = [X**3, X**2 * Y, X * Y**2, Y**3, X, Y]
TASK = Lyapunov(test_size=20)


def drawn(n, seed=0):
    """n systems and the V that each was made of, as lists."""
    problems, solutions = TASK.sample(n, torch.Generator().manual_seed(seed))
    return problems.tolist(), solutions.tolist()


def slope_by_sympy(v, system):
    """dV/dt as SymPy finds it."""
    f, g = (sum(map(sympy.Mul, part, CUBIC)) for part in (system[:6], system[6:]))
    bowl = v[0] * X**2 + v[1] * X * Y + v[2] * Y**2
    return sympy.expand(bowl.diff(X) * f + bowl.diff(Y) * g)


def rises_somewhere(v, system):
    """Whether dV/dt > 0 at a point, of many directions and at distances from 0.001 to 1000."""
    angle = torch.linspace(0, torch.pi, 2001, dtype=torch.float64)
    x, y = angle.cos(), angle.sin()
    value = sympy.lambdify([X, Y], slope_by_sympy(v, system))
    return any((torch.as_tensor(value(r * x, r * y)) > 1e-9 * r**2 * (1 + r**2)).any()
               for r in (1e-3, 0.3, 1.0, 3.0, 1e3))


def test_solutions_are_lyapunov_functions():
    for system, v in zip(*drawn(50)):
        assert v[0] > 0 and sympy.Poly(v, X).discriminant() < 0
        assert not rises_somewhere(v, system)
        words = TASK.target.text(TASK.target.encode(torch.tensor([v]))[0])
        assert TASK.judge(system, words) == ("V = " + TASK.target.show(v), True)


def test_the_slope_is_that_of_sympy():
    systems = torch.randint(-9, 10, (10, 12), generator=torch.Generator().manual_seed(0))
    for system, v, quartic, quadratic in zip(systems, BOWLS, *slope(BOWLS[:10], systems)):
        ours = sum(c * X ** (4 - i) * Y**i for i, c in enumerate(quartic.tolist()))
        ours += sum(c * X ** (2 - i) * Y**i for i, c in enumerate(quadratic.tolist()))
        assert sympy.expand(ours - slope_by_sympy(v.tolist(), system.tolist())) == 0


def test_other_answers_are_judged_as_points_judge_them():
    """The judge proves, points refute: they agree on V that belong to other systems."""
    systems = drawn(60)[0]
    bowls = BOWLS[torch.randperm(len(BOWLS), generator=torch.Generator().manual_seed(1))]
    right = [is_lyapunov(v, system) for v, system in zip(bowls.tolist(), systems)]
    assert right == [not rises_somewhere(v, system) for v, system in zip(bowls.tolist(), systems)]
    assert 5 < sum(right) < 40


@pytest.mark.parametrize("form, never", [
    ([0, 0, 0, 0, 0], True), ([-1, 0, 0, 0, -1], True), ([-1, 0, 0, 0, 1], False),
    ([1, 0, 0, 0, 1], False), ([-1, 0, 2, 0, -1], True),  # -(x^2-y^2)^2 touches 0
    ([-1, 0, 3, 0, -1], False), ([0, 1, 0, 0, 0], False),  # x^3 y
    ([0, 0, -1, 0, 0], True), ([0, 0, 0, 0, -1], True), ([0, -1, 0, 0, -1], False),
    ([-10**6, 0, 0, 0, -1], True), ([-1, 2, -1], True), ([-1, 3, -2], False), ([0, 1, 0], False),
    ([-1000000, 2000001, -1000000], False)])  # by less than points would show
def test_forms_that_are_never_positive(form, never):
    assert never_positive(form) is never


@pytest.mark.parametrize("system, v, right", [
    ("-2x-2y, 2x-2y-2y^3", [1, 0, 1], True), ("y, -x", [1, 0, 1], True),
    ("y, -x", [1, 0, 2], False),
    ("y, -x", [1, 1, 1], False), ("x, y", [1, 0, 1], False), ("x, y", [-1, 0, -1], False),
    ("-x, -y", [1, 2, 1], False),  # 0 all along the line x = -y
    ("-x, -y", [0, 0, 0], False), ("-x, -y", [1, 0, 0], False), ("-x, -y", [3, 1, 2], True),
    ("-x+x^3, -y", [1, 0, 1], False),  # falls near 0, rises far away
    ("x-x^3, -y", [1, 0, 1], False),  # rises near 0, falls far away
    ("-x^3, -y^3", [5, 0, 7], True), ("y-x^3, -x-y^3", [1, 0, 1], True)])
def test_systems_one_can_judge_by_hand(system, v, right):
    assert is_lyapunov(v, TASK.read(system)) is right


def test_one_right_answer_in_the_beam_is_enough():
    problems = torch.tensor([TASK.read("y, -x"), TASK.read("-x, -y"), TASK.read("x, y")])
    beam = torch.zeros(2, TASK.tgt_len, dtype=torch.int64)
    for row, words in zip(beam, ["+ 1 x^2 + 2 y^2", "+ 3 x^2 + 3 y^2"]):
        ids = TASK.target.ids(words)
        row[: len(ids)] = torch.tensor(ids)
    tokens = beam.expand(3, -1, -1)
    assert TASK.grade(problems, tokens)[0].tolist() == [True, True, False]
    assert TASK.grade(problems, tokens)[1] == ["V = 3x^2+3y^2", "V = x^2+2y^2", "V = x^2+2y^2"]
    assert TASK.grade(problems, tokens[:, :1])[0].tolist() == [False, True, False]


def test_garbage_is_wrong_and_no_exception():
    rng = random.Random(0)
    for problem in drawn(200)[0]:
        words = " ".join(rng.choices(TASK.target.words, k=rng.randrange(10)))
        text, right = TASK.judge(problem, words)
        assert text is None or text.startswith("V = ")
        assert not right or TASK.target.read(words)[0] > 0
    assert TASK.judge(problem, "") == TASK.judge(problem, "+ 1 x^2 +") == (None, False)


def test_candidates_leave_out_only_what_rises():
    systems = torch.tensor(drawn(2)[0])
    for system, kept in zip(systems.tolist(), candidates(systems)):
        assert all(v in kept.tolist() for v in BOWLS.tolist() if is_lyapunov(v, system))


def test_forward_systems_return_when_they_are_near_0_and_have_a_lyapunov_function():
    systems = TASK.tests["forward"]
    jacobians = systems[:, [4, 5, 10, 11]].view(-1, 2, 2).double()
    assert (torch.linalg.eigvals(jacobians).real < 0).all()
    for system, bowls in zip(systems.tolist()[:5], candidates(systems)):
        assert not all(rises_somewhere(v, system) for v in bowls.tolist())


def test_problems_fit_the_model():
    source, target = TASK.batch(10_000, torch.Generator().manual_seed(0))
    assert TASK.src_len - 3 <= source.size(1) <= TASK.src_len
    assert target.size(1) == TASK.tgt_len + 1  # and <bos>
    for problem in drawn(200)[0]:
        assert TASK.read(TASK.show(problem)) == problem


def test_no_test_problem_is_trained_on():
    assert list(TASK.tests) == ["backward", "forward"]
    for problems in TASK.tests.values():
        assert len(problems) == 20 and held_out(problems).all()
    assert not held_out(TASK.draw(1000, torch.Generator().manual_seed(0))[0]).any()


def test_the_report_says_what_always_the_same_answer_gets():
    graded = {test: {"1": (torch.ones(20).bool(), 20 * ["+ 1 x^2 + 1 y^2"])} for test in TASK.tests}
    findings = TASK.findings(None, graded, final=True)
    for test, systems in TASK.tests.items():
        rises = [rises_somewhere([1, 0, 1], system) for system in systems.tolist()]
        assert findings["guess"][test] == rises.count(False) / 20
    assert f"{findings['guess']['forward']:.1%} (forward)" in next(TASK.explain([findings]))


@pytest.mark.parametrize("text", ["", "x", "x, y, x", "x^2, y", "x+1, y", "100x, y", "sin(x), y"])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="two equations are a problem"):
        TASK.read(text)
