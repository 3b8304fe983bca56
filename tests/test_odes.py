"""Differential equations: what they are made from solves them, by SymPy; what the judge finds right
or wrong is, by SymPy or by hand; and a question can be written as one does."""

import random

import mpmath
import pytest
import sympy
import torch

from calculus import Undefined, derivative, forget, from_prefix, normal
from tokenizers import BOS, EOS, PAD
from translations import odes
from translations.odes import ALL, Odes, draw_with_c, example, put, simplest, solve


def drawn(n, seed=0):
    """n equations and solutions, in words, drawn as those of the set."""
    rng, pairs = random.Random(seed), {}
    while len(pairs) < n:
        try:
            pairs.update([example(draw_with_c(rng.choice(odes.SIZES), rng))])
        except Undefined:
            pass
    return {f: F for f, F in pairs.items() if max(f.count(" "), F.count(" ")) < odes.WORDS}


@pytest.fixture
def small(monkeypatch):
    """The task with a small set of examples."""
    monkeypatch.setattr(odes, "ATTEMPTS", 4000)
    return Odes(test_size=40)


def ids(words):
    return Odes.source.ids(words)


# SymPy, by which all this is checked: words are put into its own functions

x, c = sympy.symbols("x c")
SYMPY = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "div": lambda a, b: a / b,
         "pow": lambda a, b: a**b, "ln": sympy.log}


def to_sympy(words, leaves):
    """Prefix words -> SymPy's expression."""
    stack, digits = [], ""
    for word in reversed(words.split()):
        if word.isdecimal():
            digits = word + digits
        elif word in ("INT+", "INT-"):
            stack.append(sympy.Integer(word[-1] + digits))
            digits = ""
        elif word in leaves:
            stack.append(leaves[word])
        else:
            arity = 2 if word in ("add", "mul", "div", "pow") else 1
            args = [stack.pop() for _ in range(arity)]
            stack.append(SYMPY.get(word, getattr(sympy, word, None))(*args))
    return stack.pop()


def residual(problem, solution):
    """What SymPy makes of the equation, with the solution in the place of y."""
    y = to_sympy(solution, {"x": x, "c": c})
    return to_sympy(problem, {"x": x, "y": y, "y'": sympy.diff(y, x)})


def is_zero(e):
    """Whether e is zero, with 40 digits, at all those of some points where it is real."""
    values, value = [], sympy.lambdify((x, c), e, "mpmath")
    with mpmath.workdps(40):
        for point in [(a, b) for a in (0.7, 2, 4.1) for b in (1.5, 6, 40)]:
            try:
                values.append(mpmath.mpc(value(*map(mpmath.mpf, point))))
            except ZeroDivisionError:
                pass
        real = [abs(v.real) for v in values if abs(v.imag) < 1e-25]
        return bool(real) and max(real) < 1e-25


def test_equations_are_solved_by_what_they_are_made_from():
    pairs = [*drawn(200).items()][:60]
    solved = [is_zero(residual(*pair)) for pair in pairs]
    assert sum(solved) >= 58  # the others are real at none of these points


def test_solve_undoes_every_operator():
    """y = f(x, c) and c = g(x, y): g(x, f(x, c)) is c, by SymPy."""
    rng, checked, operators = random.Random(1), 0, set()

    def value(tree, x, y, c):
        if tree in ("y", "c"):
            return y if tree == "y" else c
        if not isinstance(tree, tuple):
            return x if tree == "x" else sympy.Float(tree, 30)
        operators.add(tree[0])
        args = [value(t, x, y, c) for t in tree[1:]]
        operations = SYMPY | {"sub": lambda a, b: a - b, "pow2": lambda a: a**2}
        return sympy.N(operations.get(tree[0], getattr(sympy, tree[0], None))(*args), 30)

    while checked < 60:
        tree = draw_with_c(rng.randint(1, 4), rng)
        try:
            g = solve(tree, "y")
        except Undefined:
            continue
        y = value(tree, sympy.Float("1.3", 30), None, sympy.Float("2.7", 30))
        if y.is_real:
            back = value(g, sympy.Float("1.3", 30), y, None)
            checked += 1
            assert abs(back - sympy.Float("2.7", 30)) < 1e-12
    assert {"add", "sub", "mul", "div", "exp", "ln", "sqrt", "pow2"} <= operators


def test_c_stands_where_nothing_else_would_do():
    """c + 1, 2 c, exp(c) and c - x are c alone, for another c."""
    for tree in [("add", "c", 1), ("mul", 2, "c"), ("sub", "c", "x"), ("div", "x", "c")]:
        with pytest.raises(Undefined):
            solve(("exp", tree), "y")
    assert solve(("exp", ("add", "x", "c")), "y") == ("sub", ("ln", "y"), "x")
    assert solve(("sub", "x", ("mul", "c", "x")), "y") == ("div", ("sub", "x", "y"), "x")


@pytest.mark.parametrize("tree, problem", [
    (("mul", "c", "x"), "y'*x - y"), (("add", ("ln", "x"), "c"), "x*y' - 1"),
    (("exp", ("add", "c", "x")), "y' - y"), (("sqrt", ("add", "c", "x")), "2*y*y' - 1")])
def test_equations_of_functions_that_everyone_knows(tree, problem):
    assert ids(example(tree)[0]) == Odes().read(problem)


def test_equations_have_no_denominators_and_no_common_factors():
    for problem in [*drawn(100, seed=3)]:
        e = from_prefix(problem, ALL)
        assert "y'" in problem.split() and simplest(e) == e
        assert all(p > 0 for product in e for _, p in product)


# The judge


def test_solutions_are_judged_right():
    pairs = drawn(100, seed=4)
    right = [Odes().judge(ids(f), F)[1] for f, F in pairs.items()]
    assert sum(right) >= 0.98 * len(pairs)  # the others are real at too few points


def test_solutions_of_others_are_judged_wrong():
    pairs = [*drawn(60, seed=5).items()]
    for (problem, _), (_, other) in zip(pairs, pairs[1:]):
        assert not Odes().judge(ids(problem), other)[1] or is_zero(residual(problem, other))


@pytest.mark.parametrize("problem, words, right", [
    ("x*y' - y", "mul c x", True), ("x*y' - y", "mul x exp c", True),
    ("x*y' - y", "mul x add c INT- 3", True), ("x*y' - y", "mul INT+ 3 x", False),  # no c
    ("x*y' - y", "add x mul c INT+ 0", False), ("x*y' - y", "INT+ 0", False),
    ("x*y' - y", "add c x", False), ("x*y' - y", "mul c pow x INT+ 2", False),
    ("x*y' = 1", "add c ln x", True), ("x*y' = 1", "ln mul c x", True), ("x*y' = 1", "ln x", False),
    ("y' = y", "exp add c x", True), ("y' = y", "mul c exp x", True),
    ("y' = y", "exp mul c x", False), ("x*y' = y", "mul c y", False),
    ("y' = y", "mul INT- 1 mul c sqrt exp mul INT+ 2 x", True),
    ("y' = y^2", "mul INT- 1 pow add c x INT- 1", True), ("y' = y^2", "pow add c x INT- 1", False),
    ("y' + sin(x)", "add c cos x", True), ("y' + sin(x)", "add c sub cos x INT+ 1", True),
    ("y' = 1 + y^2", "tan add c x", True), ("y*y' + x", "sqrt sub c pow2 x", True)])
def test_right_and_wrong_answers(problem, words, right):
    assert Odes().judge(Odes().read(problem), words)[1] is right


def test_nearly_zero_is_wrong():
    """The derivative of x + x^9/10^11 is 1 to ten digits, not to fifty."""
    problem, tiny = Odes().read("y' - 1"), "mul pow INT+ 1 0 INT- 1 1 pow x INT+ 9"
    assert Odes().judge(problem, "add c x")[1]
    assert not Odes().judge(problem, f"add add c x {tiny}")[1]


def test_of_a_beam_the_first_right_answer_counts():
    problems = torch.tensor([Odes().read("x*y' = y"), Odes().read("x*y' = -y") + 3 * [PAD]])
    tokens = torch.tensor([ids("x <eos> <eos>"), ids("add c x"), ids("mul c x")]).expand(2, -1, -1)
    for beam, best in (1, "x"), (2, "x"), (3, "c*x"):
        solved, said = Odes().grade(problems, tokens[:, :beam])
        assert solved.tolist() == [beam == 3, False] and said == [f"y = {best}", "y = x"]


@pytest.mark.parametrize("words", ["", "c c", "add c", "y", "mul c y", "INT+", "c INT+ 1", "<bos>",
                                   "div c INT+ 0", "ln INT- 1", "exp exp exp exp exp exp mul c x",
                                   "pow pow pow INT+ 9 INT+ 9 INT+ 9 INT+ 9"])
def test_garbage_is_wrong_and_no_exception(words):
    assert Odes().judge(Odes().read("x*y' - y"), words)[1] is False


def test_random_words_are_wrong_and_no_exception():
    rng = random.Random(0)
    for _ in range(200):
        words = " ".join(rng.choices(Odes.target.words, k=rng.randrange(1, 8)))
        assert Odes().judge(Odes().read("x*y' - cos(x)*y"), words)[1] is False


# The task


def test_the_set_is_the_same_each_time_and_of_several_solutions_has_the_shortest(small):
    pairs = odes.make_examples(random.Random(2))
    assert pairs == odes.make_examples(random.Random(2)) != odes.make_examples(random.Random(3))
    assert len(pairs) > 200 and max(len(f.split()) for f in pairs) == odes.WORDS
    assert pairs["add y' INT- 1"] == "add c x" or pairs["add y' INT- 1"] == "add x c"


def test_no_test_problem_is_trained_on(small):
    (tests,) = small.tests.values()
    trained = small.draw(3000, torch.Generator().manual_seed(0))[0]
    assert tests.shape == (40, odes.WORDS)
    assert not {*map(tuple, tests.tolist())} & {*map(tuple, trained.tolist())}


def test_batches_are_problems_and_solutions(small):
    source, target = small.batch(50, torch.Generator().manual_seed(0))
    assert source.size(1) <= small.src_len and target.size(1) <= small.tgt_len + 1
    for problem, solution in zip(source, target):
        assert solution[0] == BOS and EOS in solution
        words = small.target.text(solution[1:])
        assert "c" in words.split() and "y'" in small.source.text(problem).split()


def test_a_problem_is_asked_as_it_is_shown():
    same = [Odes().read(Odes().show(ids(f))) == ids(f) for f in drawn(100, seed=7)]
    assert sum(same) >= 0.97 * len(same)  # a few have another sign inside


@pytest.mark.parametrize("text, words", [
    ("x*y' - y", "add mul x y' mul INT- 1 y"), ("x*y' = y", "add mul x y' mul INT- 1 y"),
    ("y'/y = 1/x", "add mul x y' mul INT- 1 y"), ("y = x*y'", "add mul x y' mul INT- 1 y"),
    ("y' = 2*y", "add y' mul INT- 2 y"), ("3*y' = 0", "y'")])
def test_what_can_be_asked(text, words):
    assert Odes.source.text(Odes().read(text)) == words


@pytest.mark.parametrize("text", ["", "y", "x + 1", "y' = z", "y'' + y", "y' = 1 = 2", "y' +", "0",
                                  "y' = asinh(x)", "y' - c", "c", "y' = acosh(x)", "y' = pi",
                                  "y' = __import__('os')",
                                  "y' = " + "+".join(f"sin(x+{i})" for i in range(20))])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="ask as in"):
        Odes().read(text)


def test_words_are_put_in_the_place_of_words():
    assert put("add y y'", {"y": "sin x", "y'": "cos x"}) == "add sin x cos x"
    assert put("add c cos c", {"c": "INT+ 2"}) == "add INT+ 2 cos INT+ 2"


def test_the_slope_of_y_is_known_to_calculus():
    assert derivative(normal(("mul", "y", "y"))) == normal(("mul", 2, ("mul", "y", "y'")))
    forget(0)
    assert derivative(normal("y")) == normal("y'")
