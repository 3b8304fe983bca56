"""Symbolic regression: values are those of the functions in words, by SymPy; the judge asks for
values at points that the model does not see, and for nothing else."""

import math
import random

import numpy as np
import pytest
import sympy
import torch

from translations.regression import GIVEN, LARGEST, NEW, UNARY, Regression, draw, write

X = np.concatenate([GIVEN, NEW])
SYMPY = {"add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b,
         "div": lambda a, b: a / b, "ln": sympy.log, "pow2": lambda a: a**2}


def to_sympy(words):
    """Prefix words -> SymPy's expression."""
    stack = []
    for word in reversed(words.split()):
        if word.isdecimal():
            stack.append(sympy.Integer(word))
        elif word == "x":
            stack.append(sympy.Symbol("x"))
        elif word != "INT+":
            args = [stack.pop() for _ in range(2 if word in ("add", "sub", "mul", "div") else 1)]
            stack.append(SYMPY.get(word, getattr(sympy, word, None))(*args))
    (result,) = stack
    return result


def r2(words, truth):
    """R^2 of words at the new points, by SymPy and NumPy."""
    if to_sympy(words).has(sympy.zoo, sympy.nan):
        return -math.inf
    with np.errstate(all="ignore"):
        y = sympy.lambdify("x", to_sympy(words), "numpy")(X[12:]) + np.zeros(11)
    return 1 - np.sum((y - truth) ** 2) / np.sum((truth - truth.mean()) ** 2)


def drawn(n, seed=0):
    """n problems, as lists, and functions, in words."""
    problems, words = Regression().sample(n, torch.Generator().manual_seed(seed))
    return problems.tolist(), [Regression.target.text(row) for row in words]


def test_values_are_those_of_the_function():
    problems, words = drawn(100)
    for problem, text in zip(problems, words):
        y = sympy.lambdify("x", to_sympy(text), "numpy")(X) + np.zeros(23)
        assert np.allclose(problem, y, rtol=1e-9) and abs(y).max() < LARGEST and np.ptp(y) > 0.01


def test_the_function_itself_is_right():
    for problem, words in zip(*drawn(300, seed=1)):
        assert Regression().judge(problem, words)[1] is True


def test_answers_are_right_where_r2_says_so():
    """The functions of other problems, and the right ones with another number in them."""
    problems, words = drawn(120, seed=2)
    changed = [text.replace("INT+ 2", "INT+ 3") for text in words]
    verdicts = []
    for problem, text in [*zip(problems[1:], words), *zip(problems, changed)]:
        verdicts.append(Regression().judge(problem, text)[1])
        truth = r2(text, np.array(problem[12:])) if "x" in text else 0
        assert verdicts[-1] == bool(truth > 0.99)
    assert verdicts.count(False) > 110 and verdicts.count(True) > 50


@pytest.mark.parametrize("text, words, right", [
    ("x^2", "mul x x", True), ("x^2", "pow2 x", True), ("x^2", "exp mul INT+ 2 ln x", True),
    ("x^2", "div mul x mul x x x", True), ("x^2", "x", False), ("x^2", "INT+ 3", False),
    ("sin(x)", "cos x", False), ("sin(x)", "sin add x sub x x", True),
    ("x", "sub x div x exp exp x", True),  # R^2 is 0.9995: not the function, yet it fits
    ("x", "add x sin mul x x", False), ("sqrt(x)", "ln x", False), ("1/x", "div INT+ 1 x", True)])
def test_right_and_wrong_answers(text, words, right):
    assert Regression().judge(Regression().read(text), words)[1] is right


def test_points_that_were_not_given_decide():
    """sin(2 pi x) is 0 at 1/2, 1, ..., 6, and 1 or -1 halfway between: x fits there no longer."""
    waves = [x + 9 * math.sin(2 * math.pi * x) for x in X.tolist()]
    assert np.allclose(waves[:12], X[:12])
    assert not Regression().judge(waves, "x")[1]
    assert Regression().judge(waves[:12], "x")[1]  # where no others are known


class Proposals:
    """A model that proposes the same three answers to each problem."""

    def generate(self, source, beam):
        rows = [Regression.target.ids(text) for text in ("x <eos> <eos>", "add x x", "sin x <eos>")]
        return torch.tensor(rows[:beam]).expand(len(source), -1, -1).clone(), None


def test_of_a_beam_the_best_fit_at_the_given_points_is_chosen():
    task, problems = Regression(), torch.tensor([*map(Regression().read, ["sin(x)", "2*x", "x"])])
    problems[:, 12:] = 0  # nobody may look there
    for beam, best in (1, ["x", "x", "x"]), (3, ["sin x", "add x x", "x"]):
        tokens = task.translate(Proposals(), problems, beam)
        assert [task.target.text(row) for row in tokens[:, 0].tolist()] == best
        assert len({*map(task.target.text, tokens[0].tolist())}) == beam  # none is lost


@pytest.mark.parametrize("words", ["", "x x", "add x", "INT+", "INT+ x", "1", "<bos>", "ln sub x x",
                                   "div x sub x x", "sqrt sub INT+ 1 x", "exp exp exp exp x"])
def test_garbage_is_wrong_and_no_exception(words):
    assert Regression().judge(Regression().read("x^2"), words)[1] is False


def test_random_words_are_no_exception():
    rng, problem = random.Random(0), Regression().read("exp(x) - 1000")
    for _ in range(500):
        words = " ".join(rng.choices(Regression.target.words, k=rng.randrange(1, 8)))
        assert Regression().judge(problem, words)[1] is False


def test_trees_have_so_many_operators():
    rng = random.Random(0)
    for n in (1, 2, 3):
        for _ in range(100):
            words = write(draw(n, rng, UNARY)).split()
            operators = [w for w in words if w not in ("x", "INT+") and not w.isdecimal()]
            assert len(operators) == n and len(words) <= 2 * n + 1 + n + 1


def test_problems_fit_the_model():
    source, target = Regression().batch(2000, torch.Generator().manual_seed(0))
    assert source.size(1) == Regression.src_len
    assert target.size(1) == Regression.tgt_len + 1  # <bos>


def test_the_model_does_not_see_the_new_points():
    task = Regression()
    problems = task.sample(50, torch.Generator().manual_seed(0))[0]
    others = torch.cat([problems[:, :12], torch.rand(50, 11)], dim=1)
    assert (task.encode(problems) == task.encode(others)).all()
    assert (task.identity(problems) == task.identity(others)).all()


def test_no_test_problem_is_trained_on():
    """Neither is the same function in other words: the model reads the same values."""
    task = Regression(test_size=100)
    (tests,) = task.tests.values()
    trained = task.draw(2000, torch.Generator().manual_seed(0))[0]
    read = [{*map(tuple, task.encode(problems).tolist())} for problems in (tests, trained)]
    assert not read[0] & read[1]
    sampled = task.sample(2000, torch.Generator().manual_seed(1))[0]
    assert {*map(tuple, task.encode(sampled).tolist())} & read[0]


def test_a_problem_is_asked_by_its_values_or_by_a_function():
    task = Regression()
    squares = task.read("x^2")
    assert np.allclose(squares, X**2) and len(squares) == 23
    assert task.read("0.25, 1 2.25 4 6.25 9 12.25 16 20.25 25 30.25 36") == squares[:12]
    assert task.show(squares) == "0.25, 1, 2.25, 4, 6.25, 9, 12.2, 16, 20.2, 25, 30.2, 36"
    assert (task.encode(torch.tensor([squares]))
            == task.encode(torch.tensor([squares[:12]]))).all()


@pytest.mark.parametrize("text", ["", "1 2 3", "7", "1 1 1 1 1 1 1 1 1 1 1 1", "log(x - 3)",
                                  "exp(9*x)", "y + 1", "x +", "x - x", "nan " * 12, "inf " * 12])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="a problem is|ask as in"):
        Regression().read(text)
