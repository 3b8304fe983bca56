"""results/forms.py promises: the same functions, written in other ways."""

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import sympy

import train
from calculus import Undefined, infix, parse, prefix
from integrate import WORDS, backward, is_held_out, is_integral, read_file
from results.forms import (multiplied_out, multiplied_out_below, one_fraction, other_form,
                           roots_above, together)

ROOT = Path(train.__file__).parent


@pytest.mark.parametrize("f, change, other", [
    ("x*(x + 1)^2", multiplied_out, "x**3 + 2*x**2 + x"),
    ("(x + 1)*(sin(x) + 2)/(x + 3)",
     multiplied_out, "x*sin(x)/(x + 3) + sin(x)/(x + 3) + 2*x/(x + 3) + 2/(x + 3)"),
    ("x/(x + 1)^2 - 1/(x + 1)", one_fraction, "-1/(x + 1)**2"),
    ("exp(x) + x*exp(x)", one_fraction, "exp(x)*(x + 1)"),
    ("x + 2 - 4/(x + 2)", one_fraction, "(x*(x + 2) + 2*x)/(x + 2)"),
    ("sin(x) + 1 + x/cos(x)", one_fraction, "(cos(x)*sin(x) + cos(x) + x)/cos(x)"),
    ("sin(x) + 1 + x/cos(x)", together, "(cos(x)*(sin(x) + 1) + x)/cos(x)"),
    ("sin(x)/(x + 1)^2", multiplied_out_below, "sin(x)/(x**2 + 2*x + 1)"),
    ("1/sqrt(x*cos(x))", roots_above, "sqrt(x*cos(x))/(x*cos(x))"),
])
def test_one_change(f, change, other):
    assert infix(change(parse(f))) == other
    assert sympy.simplify(sympy.sympify(other) - sympy.sympify(f.replace("^", "**"))) == 0


def test_tangents_become_cosines():
    forms = {other_form(prefix(parse("x*(tan(x)^2 + 1)")), random.Random(i)) for i in range(50)}
    assert {prefix(parse(f)) for f in ("x/cos(x)^2", "x*tan(x)^2 + x")} <= forms


def test_cosines_stay_above_the_line():
    """As SymPy simplifies the derivative of tan(x)/x, and not (x - cos(x)^2 tan(x))/(x cos(x))^2."""
    problem = prefix(parse("(tan(x)^2 + 1)/x - tan(x)/x^2"))
    forms = {other_form(problem, random.Random(i)) for i in range(50)}
    assert prefix(parse("(x/cos(x)^2 - tan(x))/x^2")) in forms


def test_arguments_change_too():
    forms = {other_form(prefix(parse("sin(x^2 + x)")), random.Random(i)) for i in range(50)}
    assert forms == {prefix(parse(f)) for f in ("sin(x^2 + x)", "sin(x*(x + 1))")}


def test_another_form_has_the_same_integral():
    changed, rng = 0, random.Random(1)
    for i in range(150):
        with suppress(Undefined):
            f, F = map(prefix, backward(8, random.Random(i)))
            other = other_form(f, rng)
            changed += other != f
            assert is_integral(other, F)
    assert changed > 40


@pytest.mark.parametrize("f, not_this", [("x*(x - 1) - x^2 + x", "0"),
                                         ("x^2 + x*log(x)", "x*(x + log(x))")])
def test_it_writes_neither_zero_nor_what_is_on_a_slide(f, not_this):
    forms, problem = set(), prefix(parse(f))
    for i in range(50):
        with suppress(Undefined):
            forms.add(other_form(problem, random.Random(i)))
    assert forms and prefix(parse(not_this)) not in forms


def test_the_same_seed_writes_the_same_in_every_process():
    """Sets have another order in each process: the forms must not depend on it."""
    program = """if True:
        import random
        from contextlib import suppress
        from calculus import Undefined, prefix
        from integrate import backward
        from results.forms import other_form
        for i in range(300):
            with suppress(Undefined):
                rng = random.Random(i)
                print(other_form(prefix(backward(8, rng)[0]), rng))"""
    once, again = (subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True,
                                  capture_output=True).stdout for _ in range(2))
    assert once == again


@pytest.mark.parametrize("flags, says", [
    ([], "file"), (["forms.txt", *"--task integrate --train-data nothing".split()], "nothing")])
def test_what_the_script_cannot_do(tmp_path, flags, says):
    said = subprocess.run([sys.executable, ROOT / "results" / "forms.py", *flags],
                          cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 2 and said.stderr.count("\n") == 1 and says in said.stderr


def test_the_script_writes_a_file_to_train_on(tmp_path, monkeypatch):
    flags = "--task integrate --max-ops 3 --examples 200 --test-size 20 --device cpu".split()
    subprocess.run([sys.executable, ROOT / "results" / "forms.py", "forms.txt", *flags],
                   cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    pairs = read_file("forms.txt", 200, WORDS, "train")
    assert len(pairs) > 30 and not any(map(is_held_out, pairs))
    assert all(is_integral(f, F) for f, F in pairs.items())
    task = train.read_flags([*flags, "--train-data", "bwd+forms.txt"])[1]
    known = {F for _, F in train.read_flags(flags)[1].training}
    assert known >= {*pairs.values()} and len(task.training) > 200
