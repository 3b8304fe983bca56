"""The exercises promise: what they tell to run is understood, what they quote was measured, and the
patches in their answers apply and do what they say."""

import importlib.util
import math
import re
import shutil
import subprocess
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import eigen
import gcd
import integrate
import train
from model import Transformer
from task import by_test
from tests.test_results import is_of, log, read_flags

ROOT = Path(train.__file__).parent
PAGE = (ROOT / "guide" / "exercises.md").read_text()
PARTS = re.split(r"^## ", PAGE, flags=re.M)[1:]
ALL = re.findall(r"^python train\.py (.*)$", PAGE.replace("\\\n", " "), re.M)
PATCHED = [flags for flags in ALL if "--train-dist s" in flags]  # they need the patch
COMMANDS = [flags for flags in ALL if flags not in PATCHED and "remainders" not in flags]
QUOTES = re.findall(r"\[([\d.]+)%(?:,\s+(\d+)\s+GCDs?)?\]\(\.\./results/([^)/]*)/report\.txt\)", PAGE)


def exercise(title):
    return next(part for part in PARTS if title in part.splitlines()[0])


def test_each_has_a_prediction_a_check_and_an_answer():
    for number, part in enumerate(PARTS, start=1):
        assert part.startswith(f"{number}. ")
        for word in ("**Predict.**", "**Check.**", "<details><summary>Answer</summary>\n\n"):
            assert part.count(word) == 1, (number, word)
        assert part.rstrip().endswith("\n\n</details>")
    for line in PAGE.splitlines():
        assert len(line) <= 100 + line.startswith((" ", "+", "-")), line  # one more in a patch


@pytest.mark.parametrize("flags", COMMANDS)
def test_commands_are_understood(flags):
    read_flags(re.sub(" --(ask|eval-only|plot).*", "", flags))


def test_links_lead_somewhere():
    for link in re.findall(r"\]\(([^)#:]+)", PAGE):
        assert (ROOT / "guide" / link).exists(), link


@pytest.mark.parametrize("accuracy, gcds, name", QUOTES)
def test_quotes_are_those_of_the_logs(accuracy, gcds, name):
    start, *evals, end = log(name)
    assert f"{end['accuracy']:.1%}" == f"{accuracy}%"
    assert not gcds or len(evals[-1]["correct_gcds"]) == int(gcds)


def test_results_are_of_the_commands_of_the_page():
    """What is in results/ under the name of a command on the page was made by it, but for the flags
    that are about evaluation."""
    for args in map(copy, map(read_flags, COMMANDS)):
        if (ROOT / "results" / args.out.name).exists():
            start, *_, end = log(args.out.name)
            for name in {"beam", "test_data"} & vars(args).keys():
                setattr(args, name, start[name])
            assert end["event"] == "end" and is_of(start, args), args.out.name


def test_shares_of_the_other_kind_are_those_of_the_logs():
    shares = re.findall(r"\[([\d.]+)% of (backward|forward)\s+problems\]\(\.\./results/(.*?)/",
                        PAGE)
    for percent, kind, name in shares:
        by_test = log(name)[-2]["accuracy_by_test"]
        assert f"{by_test[dict(backward='bwd', forward='fwd')[kind]]['1']:.1%}" == f"{percent}%"
    assert len(shares) == 2


def test_epochs_are_those_of_the_logs():
    epochs = re.findall(r"(\d+)\s+in\s+\[epoch\s+(\d+)\]\(\.\./results/(.*?)/log", PAGE)
    for k, epoch, name in epochs:
        rights = {event["epoch"]: event["correct_gcds"] for event in log(name)
                  if event["event"] == "eval"}
        first = next(e for e, right in rights.items() if any(int(k) * n in right for n in right))
        assert first == int(epoch), (k, name)
    assert len(epochs) == 4


def test_base_210_by_pencil_and_paper():
    most = sum(6 / (math.pi * k) ** 2 for k in range(1, 200_000) if pow(210, 18, k) == 0)
    divisors = sum(6 / (math.pi * k) ** 2 for k in range(1, 211) if 210 % k == 0)
    part = exercise("pencil and paper")
    assert f"49/48 = {most:.1%}" in part and f"(1 + 1/49) = {divisors:.1%}" in part
    with_4 = sum(6 / (math.pi * k) ** 2 for k in range(1, 421) if 420 % k == 0)
    assert f"1/16) · (1 + 1/9) · (1 + 1/25) · (1 + 1/49) = {with_4:.1%}" in part
    _, first, *_, last, _ = log("gcd-base210")
    assert f"{first['accuracy']:.1%}" == f"{divisors:.1%}"
    assert last["correct_gcds"] == [k for k in range(1, 101) if 420 % k == 0]


def code(title):
    """The Python of an exercise."""
    return re.search(r"^```python\n(.*?)^```", exercise(title), re.M | re.S)[1]


def test_base_1000_learns_3_at_a_step_and_7_later(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(code("Base 1000"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 13
    uniform, operands, outcomes = lines[1:13], lines[14:26], lines[27:]
    assert all(line.endswith("[2, 5]") for line in uniform)
    assert operands[1] == "     2  85.1%  [2, 5]" and operands[2] == "     3  93.2%  [2, 3, 5]"
    assert operands[8] == "     9  95.7%  [2, 3, 5, 7]" and ", 7" not in operands[7]
    for epoch, p in [(2, 3), (4, 7), (6, 11), (8, 13)]:
        assert f", {p}" in outcomes[epoch - 1] and f", {p}" not in outcomes[epoch - 2]


def test_forward_is_long_where_backward_is_short(monkeypatch, capsys, tmp_path):
    """The code of the page, on sets made here: the sizes are other, the order is the same."""
    monkeypatch.setattr(integrate, "DATA", tmp_path)
    monkeypatch.setattr(integrate, "ATTEMPTS", {"bwd": (2000, 500), "fwd": (400, 100)})
    exec(code("forward model").replace("size=500", "size=12"), {})
    lines = capsys.readouterr().out.splitlines()
    words = [float(line.split()[2]) for line in lines if " words, over 20 words " in line]
    assert len(words) == 4 and words[0] < words[1] and words[2] > words[3]


@pytest.mark.parametrize("title", ["Lengths", "Break the rules", "common multiple"])
def test_code_that_asks_a_model_runs(title, monkeypatch, capsys):
    """With a model that has learned nothing, in the place of the trained one."""
    def untrained(argv):
        return real([flag for flag in argv if flag != "--eval-only"] + ["--test-size", "200"])

    real = train.read_flags
    monkeypatch.setattr(train, "read_flags", untrained)
    exec(code(title).replace("5000", "100"), {})
    assert "%" in capsys.readouterr().out


def test_sampling_is_greedy_when_cold_and_follows_the_model_when_warm():
    names = {"__name__": "exercise"}
    exec(code("beam"), names)
    torch.manual_seed(1)
    model = Transformer(9, 9, src_len=6, tgt_len=5, dim=16, heads=2, enc_layers=1, dec_layers=1,
                        pad=0, bos=1, eos=2, word_std=1.0).eval()
    src = torch.randint(3, 9, (40, 6))
    assert names["sample"](model, src, 1e-5).equal(model.generate(src)[0][:, 0])
    many = names["sample"](model, src[:1].expand(20_000, -1), 2.0)
    p = (model(src[:1], torch.tensor([[1]]))[0, 0] / 2).softmax(dim=-1)
    assert (many[:, 0].bincount(minlength=9) / 20_000 - p).abs().max() < 0.02
    ended = (many == 2).cumsum(dim=1)
    assert ((many == 0) >= (ended - (many == 2).long() > 0)).all()  # after the end, padding


# The patches


@pytest.fixture
def patched(tmp_path, monkeypatch):
    """patched(title): the module that the patch of an exercise makes of ours."""
    def apply(title):
        patch = re.search(r"^```diff\n(.*?)^```", exercise(title), re.M | re.S)[1]
        name = re.search(r"^\+\+\+ b/(\w+)\.py$", patch, re.M)[1]
        shutil.copy(ROOT / f"{name}.py", tmp_path)
        if not (tmp_path / "results").exists():
            (tmp_path / "results").symlink_to(ROOT / "results")
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        subprocess.run(["git", "apply", "-"], input=patch, text=True, cwd=tmp_path, check=True)
        spec = importlib.util.spec_from_file_location(f"patched_{name}", tmp_path / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return apply


def test_least_significant_digit_first(patched):
    for base in (2, 10, 1000):
        integers = patched("Least significant").Integers(base)
        values = torch.tensor([0, 7, 10, 120, -300, 10**6, 2**62])
        decoded, valid = integers.decode(integers.encode(values[:, None]))
        assert decoded.equal(values) and valid.all()
        for n, words in zip(values.tolist(), integers.encode(values[:, None])):
            sign, *digits = integers.text(words).split()
            assert n == (-1 if sign == "-" else 1) * sum(
                int(digit) * base**i for i, digit in enumerate(digits))
            assert integers.write(n) == integers.text(words)
            assert integers.read(integers.write(n)) == n
    assert patched("Least significant").Integers(10).write(123) == "+ 3 2 1"


def test_the_leak_trains_on_test_pairs(patched):
    task = gcd.GCD(base=101, max_int=100, test_size=2000)
    tested = {(min(pair), max(pair)) for pair in task.tests["natural"].tolist()}
    for draw, leaks in [(gcd.GCD.draw, False), (patched("leak").Task.draw, True)]:
        pairs = draw(task, 50_000, torch.Generator().manual_seed(1))[0].tolist()
        trained = {(min(pair), max(pair)) for pair in pairs}
        assert (tested <= trained) == leaks and bool(tested & trained) == leaks
        again = draw(task, 2000, torch.Generator().manual_seed(2308_15594), testing=True)[0]
        assert again.equal(task.tests["natural"])  # the test stays as it was


def test_the_new_distributions(patched, monkeypatch):
    module = patched("distribution of eigenvalues")
    for size in (2, 3, 8):
        generator = torch.Generator().manual_seed(1)
        values = module.new_eigenvalues("student", torch.zeros(200_000, size, dtype=torch.float64), generator)
        t = values.flatten() / (math.sqrt(size / 3) * module.COEFFICIENT) * math.sqrt(3)
        for x, p in [(0.0, 0.5), (1.638, 0.9), (3.182, 0.975), (5.841, 0.995)]:  # Student's table
            assert abs((t < x).double().mean().item() - p) < 0.003
        d = module.new_eigenvalues("same-sign", torch.zeros(200_000, size, dtype=torch.float64), generator)
        alike = (d.sign() == d[:, :1].sign()).all(dim=1).double().mean().item()
        assert abs(alike - (0.5 + 0.5 * 2 * 0.5**size)) < 0.01
        x = d.flatten().abs() / (math.sqrt(size / 3) * module.COEFFICIENT) * math.sqrt(2)
        assert abs((x < 1).double().mean().item() - (1 - math.exp(-1))) < 0.005  # Laplace's sizes
    before = module.new_eigenvalues("laplace", torch.zeros(9, 3), torch.Generator().manual_seed(1))
    assert before.equal(eigen.new_eigenvalues("laplace", torch.zeros(9, 3),
                                              torch.Generator().manual_seed(1)))
    monkeypatch.setitem(sys.modules, "eigen", module)
    for flags in PATCHED:
        args, task, _ = train.read_flags([*flags.split(), "--device", "cpu"])
        task.batch(5, torch.Generator().manual_seed(1))
    with pytest.raises(SystemExit):
        train.read_flags("--task eigen --train-dist cauchy".split())


def test_the_column_of_laplace_is_that_of_its_log():
    last = log("eigen-eigenvalues3-laplace")[-2]
    part = exercise("distribution of eigenvalues")
    for name, accuracy in by_test(last).items():
        assert f"\n| {name} | {accuracy:.1%} |" in part
    for name in ("semicircle", "marchenko-pastur"):
        assert f"{last['accuracy_by_tolerance'][name]['0.01']:.1%} of" in part.replace("\n", " ")


def test_twins(monkeypatch, capsys):
    """The code of the answer, with an untrained model; the matrices of its table, by numpy."""
    real = train.read_flags
    monkeypatch.setattr(train, "read_flags",
                        lambda flags: real([*flags[:4], "--test-size", "300"]))
    names = {}
    exec(code("in common"), names)
    assert capsys.readouterr().out.count("of the wrong answers: off by") == 6

    task = eigen.LinearAlgebra()
    matrix, = task.operands(task.tests["abs-laplace"])
    twin, matrix = names["twin"](matrix).numpy(), matrix.numpy()
    assert (np.trace(twin, axis1=1, axis2=2) == np.trace(matrix, axis1=1, axis2=2)).all()
    assert (twin**2 == matrix**2).all() and (twin == twin.swapaxes(1, 2)).all()
    product = matrix[:, 0, 1] * matrix[:, 0, 2] * matrix[:, 1, 2]
    np.testing.assert_allclose(np.linalg.det(twin), np.linalg.det(matrix) - 4 * product)
    ours, theirs = np.linalg.eigvalsh(matrix), np.linalg.eigvalsh(twin)
    change = np.abs(theirs - ours).sum(axis=1) / np.abs(ours).sum(axis=1)
    counts = np.histogram(change, [0, 0.05, 0.1, 0.2, 0.4, np.inf])[0]
    table = re.findall(r"^\| [^|]*% [^|]*\| (\d+) \|", exercise("in common"), re.M)
    assert [f"{n}" for n in counts] == table
    assert (theirs[change > 0.4, 0] < 0).mean().round(1) == 0.9  # nine in ten


def test_the_solutions_are_least_common_multiples(patched):
    task = patched("common multiple").GCD(base=10, max_int=1000, test_size=300)
    pairs, solutions = task.draw(500, torch.Generator().manual_seed(1))
    for (a, b), (lcm,) in zip(pairs.tolist(), solutions.tolist()):
        assert lcm == math.lcm(a, b) and task.judge([a, b], task.target.write(lcm))[1]
    assert task.source.length(math.lcm(999, 1000)) + 1 <= task.tgt_len

    def taken_for(divisor):
        """The GCDs that one who says a b / divisor is found to think of."""
        said = pairs.prod(dim=1, keepdim=True) // divisor
        return task.grade(pairs, task.target.encode(said)[:, None])[1].tolist()

    pairs = torch.tensor([[12, 18], [10, 35], [7, 9]])  # of GCD 6, 5 and 1
    assert taken_for(1) == [1, 1, 1]
    assert taken_for(6)[0] == 6 and taken_for(5) == [0, 5, 0]


def test_the_learning_rates():
    rows = re.findall(r"^\| 2e-\d \| ([\d.]+) \| .*?results/(.*?)/.*? \| (\d) \| (\d) \| (\d) \|$",
                      PAGE, re.M)
    for loss, name, *told in rows:
        last = log(name)[-2]
        assert f"{last['loss']:.4f}" == loss
        assert [str(last["predictions"][k][0]) for k in "245"] == told
    assert len(rows) == 3


def test_the_task_of_remainders(tmp_path, monkeypatch, capsys):
    """The file of the answer, as a module; and the code that asks it, with an untrained model."""
    count, task_file, _ = re.findall(r"^```python\n(.*?)^```", exercise("of your own"), re.M | re.S)
    (tmp_path / "remainders.py").write_text(task_file)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(train.TASKS, "remainders", "remainders:Remainders")
    flags = ["--task", "remainders", "--device", "cpu", "--test-size", "300"]
    args, task, _ = train.read_flags(flags)
    for (a, b), r in zip(*(x.tolist() for x in task.draw(3000, torch.Generator().manual_seed(1)))):
        assert r == [a % b] and 0 < a < 100_000 and 2 <= b <= 100
        assert task.judge([a, b], task.target.write(a % b))[1]
        assert not task.judge([a, b], task.target.write(a % b + b))[1]
    source, target = task.batch(3000, torch.Generator().manual_seed(1))
    assert source.size(1) == task.src_len and target.size(1) == task.tgt_len + 1
    real = train.read_flags
    monkeypatch.setattr(train, "read_flags", lambda _: real(flags))
    exec(count, {})
    assert capsys.readouterr().out.count("%") == 8
