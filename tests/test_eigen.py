"""eigen.py promises: matrices by the seven laws, true solutions, and judges that know right from
wrong. The truth comes from numpy.linalg and from the laws' distribution functions.
"""

import doctest
import json
import math

import numpy as np
import pytest
import torch

import eigen
import train
from eigen import LAWS, OPS, TOLERANCES, LinearAlgebra, new_eigenvalues, symmetric, wigner

SIGMA = 10 / math.sqrt(3)  # the deviation of coefficients uniform in -10..10


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# The laws of eigenvalues


def kolmogorov_smirnov(values, cdf):
    """sqrt(n) times the largest distance between the law and the frequencies: above 2.5 once in
    100,000 samples of the law."""
    x = np.sort(values.flatten())
    steps = np.arange(len(x) + 1) / len(x)
    return math.sqrt(len(x)) * max(np.abs(cdf(x) - steps[1:]).max(),
                                   np.abs(cdf(x) - steps[:-1]).max())


def normal_cdf(x):
    return np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in x])


def semicircle_cdf(x):
    """Of deviation 1: on -2..2."""
    x = np.clip(x, -2, 2)
    return 0.5 + x * np.sqrt(4 - x**2) / (4 * math.pi) + np.arcsin(x / 2) / math.pi


def laplace_cdf(x):
    return np.where(x < 0, 0.5 * np.exp(math.sqrt(2) * x), 1 - 0.5 * np.exp(-math.sqrt(2) * x))


def absolute(cdf):
    return lambda x: np.where(x < 0, 0, 2 * cdf(x) - 1)


CDF = {"uniform": lambda x: np.clip((x / math.sqrt(3) + 1) / 2, 0, 1), "gaussian": normal_cdf,
       "laplace": laplace_cdf, "abs-laplace": absolute(laplace_cdf)}


@pytest.mark.parametrize("law", CDF)
@pytest.mark.parametrize("size", [3, 8])
def test_eigenvalues_follow_their_law(law, size):
    m = symmetric(law, 4000, size, rng()).numpy()
    assert (m == m.swapaxes(1, 2)).all()
    eigenvalues = np.linalg.eigvalsh(m) / (SIGMA * math.sqrt(size))
    assert kolmogorov_smirnov(eigenvalues, CDF[law]) < 2.5
    other = CDF["laplace" if law != "laplace" else "gaussian"]  # the test can fail
    assert kolmogorov_smirnov(eigenvalues, other) > 5


@pytest.mark.parametrize("law, cdf", [("semicircle", semicircle_cdf),
                                      ("abs-semicircle", absolute(semicircle_cdf))])
def test_large_wigner_matrices_have_a_semicircle(law, cdf):
    """A limit law: of 200x200 matrices, the eigenvalues are closer to it than 1%."""
    m = symmetric(law, 4, 200, rng()).numpy()
    x = np.sort(np.linalg.eigvalsh(m).flatten()) / (SIGMA * math.sqrt(200))
    assert np.abs(cdf(x) - np.arange(1, len(x) + 1) / len(x)).max() < 0.01


@pytest.mark.parametrize("law", ["semicircle", "abs-semicircle"])
def test_small_ones_have_the_eigenvalues_of_wigner_matrices(law):
    """There is no semicircle yet; numpy draws the same coefficients and finds the same law."""
    a = np.random.default_rng(0).normal(0, SIGMA, (4000, 3, 3))
    theirs = np.linalg.eigvalsh(np.tril(a) + np.tril(a, -1).swapaxes(1, 2))
    theirs = np.sort((np.abs(theirs) if law.startswith("abs") else theirs).flatten())
    ours = np.linalg.eigvalsh(symmetric(law, 4000, 3, rng()).numpy())
    assert kolmogorov_smirnov(
        ours, lambda x: np.searchsorted(theirs, x) / len(theirs)) < 2.5 * math.sqrt(2)


def test_marchenko_pastur_is_the_law_of_covariance_matrices():
    """Of A^T A, A Gaussian: numpy's at size 3; and the limit law, known in closed form."""
    a = np.random.default_rng(0).normal(0, math.sqrt(10 / 3), (4000, 3, 3))
    theirs = np.sort(np.linalg.eigvalsh(a.swapaxes(1, 2) @ a).flatten())
    ours = np.linalg.eigvalsh(symmetric("marchenko-pastur", 4000, 3, rng()).numpy())
    assert kolmogorov_smirnov(
        ours, lambda x: np.searchsorted(theirs, x) / len(theirs)) < 2.5 * math.sqrt(2)
    large = np.linalg.eigvalsh(symmetric("marchenko-pastur", 4, 200, rng()).numpy())
    x = np.sqrt(np.sort(large.flatten()).clip(0) / (200 * 10 / 3))  # singular values: half a circle
    assert np.abs(absolute(semicircle_cdf)(x) - np.arange(1, 801) / 800).max() < 0.01


@pytest.mark.parametrize("law", LAWS)
def test_a_matrix_has_the_eigenvalues_that_were_drawn(law):
    generator = rng(3)
    d, h = torch.linalg.eigh(wigner(100, 5, generator))
    drawn = new_eigenvalues(law, d, generator).sort()[0].numpy()
    assert torch.allclose(h.mT @ h, torch.eye(5, dtype=h.dtype).expand_as(h), atol=1e-12)
    found = np.linalg.eigvalsh(symmetric(law, 100, 5, rng(3)).numpy())
    np.testing.assert_allclose(found, drawn, atol=1e-9)


# The eight problems

SIZES = [(op, size) for op in OPS for size in ("1", "2", "3", "5")]
SIZES += [(op, size) for op in ("transpose", "add", "matvec", "matmul", "svd")
          for size in ("2x4", "4x2")]


def truth(op, a, b=None):
    """What numpy says of one problem: the numbers, where they are unique."""
    return {"transpose": lambda: a.T, "add": lambda: a + b, "matvec": lambda: a @ b,
            "matmul": lambda: a @ b, "eigenvalues": lambda: np.linalg.eigvalsh(a)[::-1],
            "eigenvectors": lambda: np.linalg.eigvalsh(a)[::-1],
            "inverse": lambda: np.linalg.inv(a), "svd": lambda: np.linalg.svd(a)[1]}[op]()


@pytest.mark.parametrize("op, size", SIZES)
def test_solutions_are_numpys(op, size):
    task = LinearAlgebra(op=op, size=size)
    operands = task.operands(task.sample(task.law, 20, rng()))
    solution = task.problem.solve(*operands)
    for i in range(20):
        expected = truth(op, *(x[i].numpy() for x in operands))
        np.testing.assert_allclose(solution[0][i].numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("op, size", SIZES)
def test_right_and_wrong_answers(op, size):
    """Exact answers have no error; wrong by a tenth, by a number, by nan, they are wrong."""
    task = LinearAlgebra(op=op, size=size)
    operands = task.operands(task.sample(task.law, 50, rng()))
    exact = task.problem.solve(*operands)
    assert (task.problem.error(operands, exact) < 1e-6).all()
    for part in range(len(exact)):
        for wrong in (exact[part] * 1.1, exact[part] * 0, exact[part] * math.nan,
                      exact[part] + 0.1 * exact[part].abs().amax(
                          tuple(range(1, exact[part].ndim)), keepdim=True)):
            answer = [*exact[:part], wrong, *exact[part + 1:]]
            assert not (task.problem.error(operands, answer) <= 0.05).any(), (op, part)


@pytest.mark.parametrize("op", ["transpose", "add", "matvec", "matmul", "eigenvalues", "inverse"])
def test_the_error_of_values_is_their_l1_distance(op):
    """Off by 1.9% in all is right within 2%, wrong within 1%. For the inverse, A X = 1.019 I."""
    task = LinearAlgebra(op=op)
    operands = task.operands(task.sample(task.law, 50, rng()))
    (exact,) = task.problem.solve(*operands)
    error = task.problem.error(operands, [exact * 1.019])
    assert torch.allclose(error, torch.full_like(error, 0.019), atol=1e-6)
    assert [(error <= t).all().item() for t in TOLERANCES] == [True, True, False, False]


def test_signs_and_order_of_eigenvectors_are_not_held_against_the_model():
    task = LinearAlgebra(op="eigenvectors", size="4")
    operands = task.operands(task.sample("laplace", 50, rng()))
    d, ht = task.problem.solve(*operands)
    order, signs = torch.tensor([2, 0, 3, 1]), torch.tensor([1.0, -1, -1, 1])[:, None]
    assert (task.problem.error(operands, [d[:, order], signs * ht[:, order]]) < 1e-9).all()
    assert (task.problem.error(operands, [d, ht[:, order]]) > 0.05).all()  # not d's order
    assert (task.problem.error(operands, [d, ht * 0.9]) > 0.05).all()  # not of length 1


def test_signs_and_order_of_singular_vectors_are_not_held_against_the_model():
    task = LinearAlgebra(op="svd", size="3x4")
    operands = task.operands(task.sample(task.law, 50, rng()))
    s, ut, vt = task.problem.solve(*operands)
    order, signs = torch.tensor([2, 0, 1]), torch.tensor([1.0, -1, -1])[:, None]
    answer = [s[:, order], signs * ut[:, order], signs * vt[:, order]]
    assert (task.problem.error(operands, answer) < 1e-9).all()
    assert (task.problem.error(operands, [s, signs * ut, vt]) > 0.05).all()
    trivial = [torch.ones_like(s), torch.eye(3).expand_as(ut).double(), operands[0]]
    assert (task.problem.error(operands, trivial) > 0.05).all()  # A = I I A is no SVD


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("source, target", [("fp15", "p1000"), ("p10", "fp15"), ("b1999", "p10")])
def test_a_batch_is_problems_and_their_solutions(op, source, target):
    """From the words alone: the problem read back and solved, rounded, is the answer."""
    task = LinearAlgebra(op=op, source_encoding=source, target_encoding=target)
    src, tgt = task.batch(200, rng())
    assert src.shape == (200, task.src_len) and tgt.shape == (200, task.tgt_len + 1)
    assert task.source.text(src[0]).startswith("V3 V3 ")
    operands, answer = task.operands(src), task.answer(tgt[:, 1:])
    numbers = torch.cat([part.flatten(1) for part in answer], dim=1)
    solution = torch.cat([part.flatten(1) for part in task.problem.solve(*operands)], dim=1)
    small = 10.0 ** task.problem.sizes[0]
    wrong = ((numbers - solution).abs() > 0.0051 * solution.abs() + small) & (solution.abs() < 99)
    assert not wrong.any()
    # Rounded to three digits, nearly all are right within 5%, but for inverses of almost
    # singular matrices.
    error = task.problem.error(operands, answer)
    assert (error <= 0.05).double().mean() > (0.93 if op == "inverse" else 0.999)


def test_problems_are_what_the_model_sees():
    """No coefficient has more than three digits, and symmetric matrices stay symmetric."""
    for op in OPS:
        task = LinearAlgebra(op=op, size="2")
        for matrix in task.operands(task.batch(50, rng())[0]):
            assert matrix.flatten().tolist() == [float(f"{x:.2e}") for x in matrix.flatten()]
            assert not task.problem.symmetric or matrix.equal(matrix.mT)


def test_coefficients_are_uniform_where_no_law_is_asked_for():
    task = LinearAlgebra(op="add", size="5")
    a, b = task.operands(task.sample(task.law, 2000, rng()))
    for x in (a, b):
        assert kolmogorov_smirnov(x.numpy(), lambda x: np.clip((x + 10) / 20, 0, 1)) < 2.5


# Tests


@pytest.mark.parametrize("op", ["eigenvalues", "inverse"])
def test_no_test_problem_is_ever_trained_on(op):
    """Even of 1x1 matrices, of which there are few thousand."""
    task = LinearAlgebra(op=op, size="1", test_size=2000)
    seen = {tuple(row) for seed in range(20) for row in task.batch(1000, rng(seed))[0].tolist()}
    tests = task.test_laws or [task.law]
    held_out = [tuple(row) for law in tests for row in task.make_test(law).tolist()]
    assert len(held_out) == 2000 * len(tests) and len(seen) > 2500
    assert not seen & set(held_out)
    assert torch.equal(task.make_test(task.law), LinearAlgebra(
        op=op, size="1", test_size=2000).make_test(task.law))  # always the same


class Oracle:
    """A "model" that knows the solution, but for some of its words."""

    def __init__(self, task, change=lambda tokens: tokens):
        self.task, self.change = task, change

    def generate(self, src, beam=1):
        tokens = torch.cat([self.task.solve(src), torch.full((len(src), 1), eigen.EOS)], dim=1)
        return self.change(tokens)[:, None].repeat(1, beam, 1), torch.zeros(len(src), beam)


@pytest.mark.parametrize("op", ["eigenvalues", "svd", "matvec"])
def test_evaluation_of_one_who_knows_and_of_one_who_does_not(op):
    task = LinearAlgebra(op=op, test_size=200)
    result = task.evaluate(Oracle(task), beams=[1, 2], final=True)
    assert result["accuracy"] == 1 and result["accuracy_by_beam"] == {"1": 1.0, "2": 1.0}
    assert list(result.get("accuracy_by_dist", LAWS)) == LAWS
    assert all(accuracy == 1 for accuracy in result.get("accuracy_by_dist", {}).values())
    assert json.loads(json.dumps(result)) == result
    for wrong in (lambda tokens: tokens.roll(1, 0), lambda tokens: tokens * 0,
                  lambda tokens: tokens.flip(1), lambda tokens: tokens[:, :-1].repeat(1, 2)):
        def cut(tokens):
            return wrong(tokens)[:, : tokens.size(1)]
        assert task.evaluate(Oracle(task, cut))["accuracy"] < 0.02


def test_the_report(tmp_path):
    task = LinearAlgebra(train_dist="laplace", test_size=50)
    report = task.report([{"examples": 1000, **task.evaluate(Oracle(task))}])
    assert "1,000 examples" in report and "laplace" in report
    assert report.count("100 (100)") == 7  # its row of Table 1, and the talk's
    assert "Table 1" not in LinearAlgebra(op="svd").report(
        [{"examples": 1, "accuracy_by_tolerance": {}, "best_possible": {}}])


def test_the_table_of_several_runs(tmp_path, capsys):
    for i, law in enumerate(("laplace", "semicircle")):  # in another order than the table's
        events = [{"event": "start", "op": "eigenvalues", "train_dist": law},
                  {"event": "eval", "accuracy_by_dist": dict.fromkeys(LAWS, i / 10)}]
        (tmp_path / law).mkdir()
        (tmp_path / law / "log.jsonl").write_text("\n".join(map(json.dumps, events)))
    eigen.main(["table", str(tmp_path / "laplace"), str(tmp_path / "semicircle")])
    semicircle, laplace = capsys.readouterr().out.splitlines()[1:]
    assert laplace.split() == ["laplace", *["0", "(100)"] * 7]
    assert semicircle.split()[:5] == ["semicircle", "10", "(100)", "10", "(34)"]


@pytest.mark.parametrize("log", [
    None, "", '{"event": "start"}\n{"event": "eval"}', '{"event": "start", "op": "eigenvalu',
    '{"event": "start", "op": "svd", "train_dist": null}\n'
    '{"event": "eval", "accuracy_by_dist": {}}'])
def test_the_table_of_what_is_no_run(log, tmp_path, capsys):
    if log is not None:
        (tmp_path / "log.jsonl").write_text(log)
    with pytest.raises(SystemExit) as status:
        eigen.main(["table", str(tmp_path)])
    error = capsys.readouterr().err
    assert status.value.code == 2 and error.count("\n") == 1 and str(tmp_path) in error


# Questions


def ask(op, text, size="2", **flags):
    task = LinearAlgebra(op=op, size=size, **flags)
    return task.ask(text, Oracle(task), [1])


def test_answers():
    said = ask("eigenvalues", "[[2,1],[1,3]]")
    problem, true, model = said.splitlines()
    assert problem == "problem A [[2, 1], [1, 3]]" and "[3.62, 1.38]" in true
    assert "[3.62, 1.38]" in model and "right, error 0.1%" in model
    assert "[[19, 22], [43, 50]]" in ask("matmul", "[[1,2],[3,4]], [[5,6],[7,8]]")
    assert "[[5], [11]]" in ask("matvec", "[[1,2],[3,4]], [1, 2]")
    assert "[[-2, 1], [1.5, -0.5]]" in ask("inverse", "[[1,2],[3,4]]")
    assert ask("eigenvalues", "[[2.004,1],[1,-3.125]]").startswith("problem A [[2, 1], [1, -3.12]]")
    task = LinearAlgebra(size="2")
    wrong = task.ask("[[2,1],[1,3]]", Oracle(task, lambda tokens: tokens.roll(3, 1)), [1])
    assert "wrong, not numbers" in wrong
    zero = task.target.encode(torch.zeros(1, 2)).new_tensor
    one = torch.cat([task.target.encode(torch.ones(1, 2)), zero([[eigen.EOS]])], dim=1)
    assert "wrong, error 60.0%" in task.ask("[[2,1],[1,3]]", Oracle(task, lambda _: one), [1])


@pytest.mark.parametrize("op, text, why", [
    ("eigenvalues", "", "takes 2x2"),
    ("eigenvalues", "two", "not a problem"),
    ("eigenvalues", "[[2,1],[1,", "not a problem"),
    ("eigenvalues", "[[2,1],[1]]", "not a problem"),
    ("eigenvalues", '[["2",1],[1,3]]', "not a problem"),
    ("eigenvalues", "[[null,1],[1,3]]", "not a problem"),
    ("eigenvalues", "[[1" + "0" * 400 + ",1],[1,3]]", "not a problem"),
    ("eigenvalues", '{"a": 1}', "not a problem"),
    ("eigenvalues", "[" * 100_000, "not a problem"),
    ("eigenvalues", "__import__('os').getcwd()", "not a problem"),
    ("eigenvalues", "[[2,1,0],[1,3,0]]", "takes 2x2"),
    ("eigenvalues", "[[2,1,0],[1,3,0],[0,0,1]]", "takes 2x2"),
    ("eigenvalues", "7", "takes 2x2"),
    ("eigenvalues", "[[2,1],[1.1,3]]", "symmetric"),
    ("eigenvectors", "[[2,1],[1.1,3]]", "symmetric"),
    ("matvec", "[[2,1],[1,3]]", "takes 2x2 and 2x1"),
    ("eigenvalues", "[[2,1],[1,1000]]", "up to 999"),
    ("eigenvalues", "[[2,1],[1,NaN]]", "up to 999"),
    ("inverse", "[[2,1],[1,11]]", "up to 9.99"),
    ("inverse", "[[1,2],[2,4]]", "has no inverse"),
    ("inverse", "[[0,0],[0,0]]", "has no inverse"),
])
def test_what_is_no_problem(op, text, why):
    with pytest.raises(ValueError, match=why) as error:
        ask(op, text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_sizes_and_laws_that_make_no_sense():
    for flags in (dict(size="0"), dict(size="-1"), dict(size="x"), dict(size="2x3x4"),
                  dict(size="2x3"), dict(op="inverse", size="2x3"), dict(tolerance=0),
                  dict(op="svd", train_dist="laplace")):
        with pytest.raises(ValueError):
            LinearAlgebra(**flags)


def test_the_example_in_the_docstring():
    assert doctest.testmod(eigen).failed == 0


# With train.py

TINY = ("--task eigen --size 2 --dim 16 --heads 2 --enc-layers 1 --epoch-size 256 --batch-size 64 "
        "--epochs 2 --test-size 40 --warmup 10 --device cpu").split()


def run(out, *flags):
    train.main([*TINY, "--out", str(out), *map(str, flags)])
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_it_learns_to_transpose(tmp_path):
    """2x2 matrices in digits: in seconds most answers are right, on matrices it never saw."""
    log = run(tmp_path / "run", "--op", "transpose", "--source-encoding", "p10",
              "--target-encoding", "p10", "--dim", 32, "--word-std", 0.2, "--epoch-size", 20_000,
              "--epochs", 1, "--lr", 5e-3, "--warmup", 50, "--test-size", 500)
    assert log[-1]["accuracy"] > 0.8


def test_the_log_is_the_contracts(tmp_path, capsys):
    start, first, last, end = run(tmp_path / "run", "--train-dist", "laplace", "--beam", 1, 2)
    assert start["op"] == "eigenvalues" and start["train_dist"] == "laplace"
    assert list(last["accuracy_by_dist"]) == LAWS and list(last["accuracy_by_beam"]) == ["1", "2"]
    assert last["accuracy"] == last["accuracy_by_dist"]["laplace"] == end["accuracy"]
    assert last["accuracy_by_tolerance"]["laplace"].keys() == set(map(str, TOLERANCES))
    assert (tmp_path / "run" / "report.txt").read_text().strip() in capsys.readouterr().out
    train.main([*TINY, "--train-dist", "laplace", "--out", str(tmp_path / "run"),
                "--ask", "[[2,1],[1,3]]"])
    assert capsys.readouterr().out.startswith(
        "problem A [[2, 1], [1, 3]]\ntrue    eigenvalues [3.62, 1.38]\nmodel")


def test_a_model_is_judged_by_other_tolerances_and_on_other_laws(tmp_path, capsys):
    run(tmp_path / "run", "--train-dist", "laplace")
    run(tmp_path / "run", "--eval-only", "--tolerance", 0.02, "--test-dists", "uniform")
    report = capsys.readouterr().out.split("what a transformer learned")[-1]
    assert "within 2.0%" in report and "\n    uniform" in report
    assert "\n    gaussian" not in report


@pytest.mark.parametrize("flags, why", [
    ("--size 0", "size 0"), ("--size 2.5", "size 2.5"), ("--size 2x3", "square"),
    ("--train-dist cauchy", "cauchy"), ("--test-dists laplace cauchy", "cauchy"),
    ("--source-encoding utf8", "utf8"), ("--target-encoding utf8", "utf8"), ("--op det", "det"),
    ("--op matmul --train-dist laplace", "symmetric"), ("--tolerance 0", "tolerance 0"),
    ("--tolerance five", "five"),
])
def test_bad_flags(flags, why, tmp_path, capsys):
    with pytest.raises(SystemExit) as status:
        run(tmp_path / "run", *flags.split())
    error = capsys.readouterr().err
    assert status.value.code == 2 and error.count("\n") == 1 and why in error
    assert not (tmp_path / "run").exists()
