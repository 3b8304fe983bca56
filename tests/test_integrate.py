"""integrate.py promises: functions drawn fairly, three kinds of true integrals, tests that are
never trained on, and a judge that is not fooled. The truth comes from SymPy and from brute force.
"""

import doctest
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import sympy
import torch

import integrate
import train
from calculus import Undefined, parse, prefix, to_sympy
from integrate import (GENERATORS, agree, apart, backward, by_parts, draw, draw_tree, for_testing,
                       judge, known_integrals, make_set, parallel, read, sympy_integral, trees,
                       verdict)
from tokenizers import Expressions, read_prefix

x = sympy.Symbol("x")


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """Sets of small functions, in a folder of the tests."""
    before = integrate.DATA, integrate.ATTEMPTS, integrate.KNOWN
    integrate.KNOWN = 500
    integrate.DATA = tmp_path_factory.mktemp("data")
    integrate.ATTEMPTS = {"bwd": (2000, 500), "fwd": (40, 1), "ibp": (2000, 500)}
    yield integrate.DATA
    integrate.DATA, integrate.ATTEMPTS, integrate.KNOWN = before


def test_docstring():
    assert doctest.testmod(integrate).failed == 0


# Random functions


def shapes(operators):
    """All shapes of trees: "." is a leaf, (a,) and (a, b) are operators."""
    if operators == 0:
        return ["."]
    return [(a,) for a in shapes(operators - 1)] + [
        (a, b) for left in range(operators) for a in shapes(left)
        for b in shapes(operators - 1 - left)]


def shape(tree):
    return tuple(map(shape, tree[1:])) if isinstance(tree, tuple) else "."


@pytest.mark.parametrize("operators", [1, 2, 3, 4])
def test_every_shape_is_as_likely(operators):
    every, rng, n = shapes(operators), random.Random(1), 20_000
    assert trees(1, operators) == len(every) == len(set(every))
    seen = Counter(shape(draw_tree(operators, rng)) for _ in range(n))
    assert seen.keys() == set(every)
    expected = n / len(every)
    chi2 = sum((seen[s] - expected) ** 2 / expected for s in every)
    assert chi2 < len(every) + 6 * (2 * len(every)) ** 0.5


def test_operators_and_leaves_have_their_weights():
    rng, seen = random.Random(2), Counter()

    def count(tree):
        seen[tree[0] if isinstance(tree, tuple) else tree] += 1
        for child in tree[1:] if isinstance(tree, tuple) else ():
            count(child)

    for _ in range(5000):
        count(draw_tree(10, rng))
    for weights in (integrate.UNARY, integrate.BINARY, integrate.LEAVES):
        total = sum(seen[word] for word in weights)
        for word, weight in weights.items():
            share = weight / sum(weights.values())
            assert abs(seen[word] / total - share) < 5 * (share / total) ** 0.5, word


# The three generators


def is_integral(f, F):
    """By SymPy's derivative, in 50 digits, at points where both are real."""
    difference = sympy.lambdify(x, F.diff(x) - f, "mpmath")
    size = sympy.lambdify(x, f, "mpmath")
    import mpmath
    seen = 0
    with mpmath.workdps(50):
        for point in ("0.37", "0.71", "1.3", "2.2", "-0.4", "-1.7", "3.9"):
            try:
                value, error = (mpmath.mpc(g(mpmath.mpf(point))) for g in (size, difference))
            except (ArithmeticError, ValueError):
                continue
            if value.imag == 0 and mpmath.isfinite(error):
                assert abs(error) <= mpmath.mpf(10) ** -20 * (1 + abs(value)), (f, F)
                seen += 1
    return seen > 0


def test_backward():
    pairs = draw(partial(backward, 8, random.Random(1)), 60)
    right = sum(is_integral(to_sympy(read(f)), to_sympy(read(F))) for f, F in pairs)
    assert right >= 50  # the others are real at none of these points
    for f, F in pairs:
        assert not set(f"{f} {F}".split()) & {"I", "nan", "oo", "zoo"}
        assert read(F) == integrate.without_constants(read(F))


def test_forward():
    for f in ("x*cos(x)", "log(x)", "1/(x^2+1)", "exp(2*x)", "x^2*exp(x)", "acos(x)"):
        F = sympy_integral(parse(f))
        assert is_integral(to_sympy(parse(f)), to_sympy(F))
    for f in ("exp(x^2)", "sin(x)/x", "x^x"):  # no elementary integral
        with pytest.raises(Undefined):
            sympy_integral(parse(f))


def test_by_parts():
    rng = random.Random(1)
    known = known_integrals(draw(partial(backward, 4, rng), 2000))
    pairs = draw(partial(by_parts, 4, rng, known), 60)
    assert sum(is_integral(to_sympy(read(f)), to_sympy(read(F))) for f, F in pairs) >= 50


def test_known_integrals_are_found_up_to_a_factor_and_in_sums():
    known = known_integrals([("cos x", "sin x"), ("mul INT+ 2 x", "pow x INT+ 2")])
    assert known.integral(parse("3*cos(x) - x/2")) == parse("3*sin(x) - x^2/4")
    with pytest.raises(Undefined):
        known.integral(parse("cos(x) + tan(x)"))


# Worker processes


def slow(item):
    while item < 0:  # forever, and it will not be told
        try:
            sum(range(100))
        except BaseException:
            pass
    return item * item


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stuck_item_is_ended_and_the_others_come_in_order(workers):
    items = [1, 2, -1, 3, -1, -1, 4, 5]
    expected = [None if i < 0 else i * i for i in items]
    assert list(parallel(slow, items, workers, seconds=0.1)) == expected


@pytest.mark.parametrize("objects, done", [(9, True), (14, False)])
def test_effort_is_counted_in_what_python_makes(objects, done):
    """Twelve times 700 objects are the limit, whatever came before, on a busy machine or not."""
    before = [[] for _ in range(500)]

    def make(item):
        return [len([[] for _ in range(700 * objects)]), item, len(before)]
    if done:
        assert apart(make, "x") == [700 * objects, "x", 500]
    else:
        with pytest.raises(Undefined, match="timed out"):
            apart(make, "x")


def test_what_happens_apart():
    """Its result, its refusal or its bug comes back, and what makes no garbage is ended, too."""
    assert apart(slow, 7) == 49
    for function, item, why in [(parse, "1/0", "division by zero"), (slow, -1, "timed out"),
                                (len, 3, "TypeError")]:
        with pytest.raises(Undefined, match=why):
            apart(function, item, seconds=0.1)


def test_workers_leave_with_their_reader():
    results = parallel(slow, range(100), 2)
    assert next(results) == 0
    results.close()
    time.sleep(0.2)
    assert not integrate.multiprocessing.active_children()


# Sets


@pytest.mark.parametrize("kind", ["bwd", "ibp", "fwd"])
def test_a_set_is_the_same_whatever_the_number_of_workers(kind, tmp_path, monkeypatch):
    sets = []
    for workers in (1, 3):  # three may share fewer cores
        monkeypatch.setattr(integrate, "DATA", tmp_path / str(workers))
        sets.append(make_set(kind, "train", 4, 30, workers))
    assert sets[0] == sets[1] and len(set(sets[0])) == len({f for f, _ in sets[0]}) == 30


def test_a_set_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    script = ("import integrate, pathlib; integrate.DATA = pathlib.Path({!r}); "
              "integrate.ATTEMPTS['bwd'] = (2000, 500); integrate.make_set('bwd', 'train', 6, "
              "{}, 2)")
    killed = subprocess.Popen([sys.executable, "-c", script.format(str(tmp_path), 10**9)],
                              cwd=Path(integrate.__file__).parent, stdout=subprocess.DEVNULL)
    files = []
    while len(files) < 3:
        files = list(tmp_path.glob("*/*.txt"))
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*.txt")}
    monkeypatch.setattr(integrate, "DATA", tmp_path)
    again = make_set("bwd", "train", 6, 4000, 2)
    assert again == make_set("bwd", "train", 6, 4000, 2)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())


def test_a_test_problem_is_in_no_training_set(tmp_path):
    for kind in GENERATORS:
        for part in ("train", "test"):
            assert all(for_testing(f) == (part == "test")
                       for f, _ in make_set(kind, part, 3, 20, 2))
    task = small_task()
    task.prepare()
    problems = [f for f, _ in make_set("bwd", "train", 3, 40, 2)]
    path = tmp_path / "test.txt"  # a test of someone's, of problems that we train on
    path.write_text("".join(f"{f}\tx\n" for f in problems))
    other = small_task(test_data=[str(path)])
    other.prepare()
    assert other.training.size == task.training.size - len(problems)


def small_task(**flags):
    return integrate.Integration(**dict(max_ops=3, max_words=40, examples=300, workers=2,
                                        test_size=50) | flags)


def test_files_of_anyone(tmp_path, capsys):
    path = tmp_path / "prim_fwd.train"
    path.write_text("12|sub Y' cos x\tsin x\n" "sub Y' INT+ 2\tmul INT+ 2 x\n" "no tab\n"
                    "1|sub Y' add x\tx\n" "1|sub Y' foo x\tx\n"
                    "ln x\tadd mul x ln x mul INT- 1 x\n"
                    "1|sub Y' cos x\tsin x\n" f"{'sin ' * 50}x\tx\n")
    pairs = integrate.read_file(path, 100, 40)
    assert [f for f, _ in pairs] == ["cos x", "INT+ 2", "ln x"]
    assert "3 examples, 3 malformed lines skipped, 1 too long" in capsys.readouterr().out
    assert len(small_task(train_data=str(path)).load(str(path), "train", 2)) == 2


def test_our_files_are_such_files(tmp_path):
    integrate.main(["make", "bwd", str(tmp_path / "made"), "--examples", "30", "--max-ops", "3"])
    lines = (tmp_path / "made").read_text().splitlines()
    assert len(lines) == 30 and all(line.startswith("1|sub Y' ") for line in lines)
    assert len(integrate.read_file(tmp_path / "made", 100, 512)) == 30


def test_batches_are_padded_rows_of_the_set_and_of_similar_length():
    task = small_task()
    text, pairs = task.source.text, dict(make_set("bwd", "train", 3, 300, 2, 40))
    for seed in range(20):
        src, tgt = task.batch(16, torch.Generator().manual_seed(seed))
        assert len(src) == len(tgt) == 16
        for problem, solution in zip(src.tolist(), tgt.tolist()):
            assert pairs[text(problem)] == text(solution).removeprefix("<bos> ")
        lengths = (src != 0).sum(1) + (tgt != 0).sum(1)
        assert lengths.max() - lengths.min() <= 20


# Prefix notation


@pytest.mark.parametrize("text", ["", "add x", "x x", "INT+", "INT+ x", "1 2", "foo", "sin",
                                  "add 1 x", "INT+ 1 INT- 2", "mul INT+ 1", "<pad>",
                                  "pow x INT+ 2 3 x"])
def test_malformed_sequences_are_none(text):
    assert read_prefix(text) is None


def test_all_words_of_random_functions_are_words_of_the_vocabulary():
    vocabulary = Expressions()
    for f, F in draw(partial(backward, 10, random.Random(5)), 100):
        for text in (f, F):
            assert vocabulary.text(vocabulary.ids(text)) == text
            assert prefix(read(text)) == text


# The judge


@pytest.mark.parametrize("f, F, right", [
    ("2*x", "x^2", True), ("2*x", "x^2 + 7", True), ("2*x", "2*x^2", False),
    ("2*x", "x^2 + x", False),
    ("1/x", "log(x)", True), ("1/x", "log(2*x)", True), ("1/x", "log(-x)", True),
    ("1/x", "log(x^2)/2", True), ("1/x", "2*log(x^2)", False),
    ("1", "sqrt(x^2)", False), ("1", "x", True),  # wrong for x < 0
    ("x/sqrt(x^2)", "sqrt(x^2)", True), ("x", "x*sqrt(x^2)/2", False),
    ("1/sqrt(x^2+1)", "asinh(x)", True), ("1/sqrt(x^2+1)", "log(x + sqrt(x^2+1))", True),
    ("tan(x)^2 + 1", "tan(x)", True), ("1/cos(x)^2", "tan(x)", True),
    ("2*sin(x)*cos(x)", "sin(x)^2", True), ("2*sin(x)*cos(x)", "-cos(2*x)/2", True),
    ("1/(x^2+1)", "-atan(1/x)", True), ("cosh(x)", "(exp(x) - exp(-x))/2", True),
    ("cos(x)", "sin(x) + x/10^9", False), ("exp(x)", "exp(x) + x/10^6", False),
    ("exp(x)", "exp(x*(1 + 1/10^9))", False),
    ("2*exp(2*x) + 1", "(exp(x) + 1)^2 - 2*exp(x) + x", True),
    ("sqrt(x-1)", "2*(x-1)^(3/2)/3", True), ("sqrt(-1-x^2)*2*x", "2*(-1-x^2)^(3/2)/(-3)", True),
    ("log(log(x))", "x", False), ("acosh(x)", "x*acosh(x) - sqrt(x-1)*sqrt(x+1)", True),
    ("x^100", "x^101/101", True), ("x^100", "x^101/102", False), ("exp(125)", "exp(125)*x", True),
])
def test_the_judge(f, F, right):
    assert (verdict(parse(f), prefix(parse(F))) in integrate.RIGHT) is right


def test_the_judge_on_its_own_problems():
    """All references are right; none is when it is a hundredth off."""
    for f, F in draw(partial(backward, 10, random.Random(9)), 150):
        assert verdict(read(f), F) in integrate.RIGHT, (f, F)
        off = prefix(integrate.add(read(F), parse("x/100")))
        if not agree(read(f), integrate.add(read(f), parse("1/100"))):  # but 10^50 + 1/100 is 10^50
            assert verdict(read(f), off) == "wrong"


def test_the_integrals_on_the_slides_are_right():
    lines = (Path(integrate.__file__).parent / "guide" / "integrals.txt").read_text().splitlines()
    pairs = [map(str.strip, line.split("#")) for line in lines if "#" in line[1:]]
    assert len(pairs) == 18
    for f, F in pairs:
        assert verdict(parse(f), prefix(parse(F))) in integrate.RIGHT, f


def test_garbage_is_no_answer():
    assert judge(("cos x", ["sin", "ln INT- 1", "pow INT+ 9 pow INT+ 9 INT+ 9", "cos x", "sin x",
                            "x"])) == ["malformed", "wrong", "wrong", "wrong", "proved"]


def test_what_is_no_problem_is_not_solved():
    """A line of someone's file may be well-formed, and nowhere real: no crash after training."""
    for problem in ("sqrt INT- 1", "div x INT+ 0", "pow INT+ 9 pow INT+ 9 INT+ 9"):
        assert judge((problem, ["x"])) == []


def test_sympy_proves_what_has_another_form():
    assert integrate.sympy_proves(("pow cos x INT- 2", "tan x"))
    assert not integrate.sympy_proves(("pow cos x INT- 2", "sin x"))


def test_sympy_alone():
    assert integrate.sympy_solves("mul x cos x")
    assert integrate.sympy_solves("pow x INT- 1")
    assert not integrate.sympy_solves("exp exp exp x")


# The task


TINY = ("--task integrate --max-ops 1 --examples 200 --dim 32 --heads 4 --enc-layers 1 "
        "--dec-layers 1 --epoch-size 6000 --epochs 2 --warmup 20 --lr 5e-3 --test-size 15 "
        "--workers 2 --device cpu --batch-size 32").split()


@pytest.fixture(scope="module")
def done(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("runs") / "done"
    train.main([*TINY, "--out", str(out), "--test-data", "bwd", "ibp", "--beam", "1", "5"])
    return out


def test_it_learns_the_integrals_of_the_simplest_functions(done):
    log = [json.loads(line) for line in (done / "log.jsonl").read_text().splitlines()]
    last = [event for event in log if event["event"] == "eval"][-1]
    assert last["accuracy_by_test"].keys() == {"bwd", "ibp"}
    by_beam = last["accuracy_by_test"]["bwd"]
    assert by_beam.keys() == {"1", "5"} and by_beam["5"] >= 0.5
    counts = last["verdicts"]["bwd"]["5"]
    assert counts["proved"] + counts["only verified"] == round(by_beam["5"] * counts["problems"])


def test_ask(done, capsys):
    train.main([*TINY, "--out", str(done), "--beam", "5", "--ask", "2*x"])
    out = capsys.readouterr().out
    assert out.startswith("the integral of 2*x; the model says") and out.count("probability") == 5
    for line in out.splitlines()[1:]:
        said, answer = line.split()[0], line.split("  ")[2]
        if said == "right":
            assert sympy.simplify(sympy.sympify(answer).diff(x) - 2 * x) == 0


def test_evaluation_alone_makes_no_training_set(done, capsys, monkeypatch):
    monkeypatch.delattr(integrate.Integration, "training")
    train.main([*TINY, "--out", str(done), "--eval-only", "--test-data", "bwd", "--beam", "1"])
    assert "    bwd " in capsys.readouterr().out


def test_the_table_of_several_runs(done, capsys):
    integrate.main(["table", str(done)])
    assert "(98.4)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        integrate.main(["table", str(done / "none")])
    assert stop.value.code == 2


@pytest.mark.parametrize("flags, why", [
    (["--ask", "__import__('os').system('id')"], "is not a function of x"),
    (["--ask", "x+y"], "'y' is not a function of x"),
    (["--ask", "x +"], "not an expression"),
    (["--ask", "1/0"], "has no real value"),
    (["--ask", "sin(" * 60 + "x" + ")" * 60], "words; this model takes"),
    (["--beam", "0"], "0 is not above zero"),
    (["--workers", "0"], "--workers 0"),
    (["--max-ops", "0"], "--max-ops 0"),
    (["--train-data", "nowhere"], "nowhere: neither"),
    (["--train-data", "bwd+nowhere"], "bwd+nowhere: neither"),
    (["--test-data", "EMPTY"], "holds no examples"),
    (["--train-data", "OTHER"], "holds no examples"),
    (["--train-data", "BINARY"], "is not a file of text"),
])
def test_bad_input(flags, why, done, tmp_path, capsys):
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "OTHER").write_text("a,b,c\n1,2,3\n" * 2000)
    (tmp_path / "BINARY").write_bytes(os.urandom(5000) + b"\xff\xfe")
    flags = [str(tmp_path / flag) if flag.isupper() else flag for flag in flags]
    out = done if "--ask" in flags else tmp_path / "run"
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        train.main([*TINY, *flags, "--out", str(out)])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and why in err
    assert not (tmp_path / "run" / "log.jsonl").exists()
