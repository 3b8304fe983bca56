"""The exercises promise: what they tell to run is understood, what they quote was measured, and the
patches in their answers apply and do what they say."""

import importlib.util
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from copy import copy
from pathlib import Path

import numpy as np
import pytest
import sympy
import torch

import eigen
import gcd
import integrate
import train
from calculus import derivative, from_prefix, parse, to_sympy
from model import Transformer
from task import TALK, by_test, evaluations, held_out
from tests.test_results import PAGE, is_of, log, read_flags
from tokenizers import EOS

ROOT = Path(train.__file__).parent
EXERCISES = (ROOT / "guide" / "exercises.md").read_text()
ANSWERS = (ROOT / "guide" / "answers.md").read_text()
PAGES = EXERCISES + ANSWERS
ALL = re.findall(r"^python train\.py (.*)$", PAGES.replace("\\\n", " "), re.M)
PATCHED = [flags for flags in ALL if "--train-dist s" in flags]  # they need the patch
OWN = [flags for flags in ALL if "waves" in flags]  # they need the file
COMMANDS = [flags for flags in ALL if flags not in PATCHED + OWN and "remainders" not in flags]
QUOTE = r"\[([\d.]+)%(?:,\s+(\d+)\s+GCDs?)?\]\(\.\./results/([^)/]*)/report\.txt\)"


def parts(page):
    """The numbered parts of a page: {(number, title): text}."""
    found = re.findall(r"^## (\d+)\. ([^\n]*)\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return {(int(number), title): text for number, title, text in found}


def part(page, number):
    return next(text for (n, _), text in parts(page).items() if n == number)


def exercise(number):
    return part(EXERCISES, number)


def answer(number):
    return part(ANSWERS, number)


def one_line(text):
    return " ".join(text.split())


def anchor(number, title):
    """Where GitHub's links to a heading lead."""
    return f"{number}-" + re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


# The pages


def test_each_exercise_has_its_answer_and_links_lead_there_and_back():
    assert list(parts(EXERCISES)) == list(parts(ANSWERS))
    assert [number for number, _ in parts(EXERCISES)] == list(range(1, len(parts(EXERCISES)) + 1))
    for (number, title), text in parts(EXERCISES).items():
        assert text.rstrip().endswith(f"\n[Answer](answers.md#{anchor(number, title)})")
    for (number, title), text in parts(ANSWERS).items():
        assert text.rstrip().endswith(f"\n[Exercise](exercises.md#{anchor(number, title)})")
    for page, others in (EXERCISES, EXERCISES), (ANSWERS, ANSWERS), (ANSWERS, EXERCISES):
        file = r"exercises\.md" if page is not others else ""
        for link in re.findall(rf"\]\({file}#(\d.*?)\)", page):
            assert link in {anchor(*key) for key in parts(others)}, link


def test_each_says_for_whom_how_long_and_what_to_do():
    who = r"(In class|At home|In class or at home|Project), .*(minutes|hour|afternoon).*\."
    for number, text in enumerate(parts(EXERCISES).values(), start=1):
        assert re.match(rf"\n\*\*{who}\*\*\n\n", text), number
        for word in ("**Predict.**", "**Check.**"):
            assert text.count(word) == 1, (number, word)
        assert ("**Run**" in text) != ("on paper" in text.splitlines()[1]), number
    for line in PAGES.splitlines():
        length = 100 + line.startswith((" ", "+", "-"))  # one more in a patch
        assert len(line) <= length or line.startswith("|"), line


def test_the_lesson_takes_two_hours():
    lesson = EXERCISES.partition("## A lesson of two hours")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*?) \| (.*?) \|$", lesson, re.M)
    assert sum(int(minutes) for minutes, *_ in rows) == 120
    order = []
    for minutes, what, run in rows[1:]:
        number = int(re.match(r"\[(\d+)\. ", what)[1])
        order.append(number)
        assert f"**In class, {minutes} minutes.**" in exercise(number)
        assert f"**Run** ({run if run != 'nothing' else 'a second'})" in exercise(number)
    assert order == [3, 2, 5, 4, 6]


@pytest.mark.parametrize("flags", COMMANDS)
def test_commands_are_understood(flags):
    read_flags(re.sub(" --(ask|eval-only|plot).*", "", flags))


# What they quote


@pytest.mark.parametrize("accuracy, gcds, name", re.findall(QUOTE, PAGES))
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
                        PAGES)
    for percent, kind, name in shares:
        by_test = log(name)[-2]["accuracy_by_test"]
        assert f"{by_test[dict(backward='bwd', forward='fwd')[kind]]['1']:.1%}" == f"{percent}%"
    assert len(shares) == 2


def test_beams_of_1_and_10_are_those_of_the_log():
    by_beam = log("integrate-bwd")[-2]["accuracy_by_test"]["bwd"]
    one, ten = (f"{by_beam[beam]:.1%}" for beam in ("1", "10"))
    assert f"one of 10 solves {ten}" in one_line(exercise(13))
    assert f"| beam search | {one} | {ten} | 10 |" in answer(13)


def test_epochs_are_those_of_the_logs():
    epochs = re.findall(r"(\d+)\s+in\s+\[epoch\s+(\d+)\]\(\.\./results/(.*?)/log", PAGES)
    for k, epoch, name in epochs:
        rights = {event["epoch"]: event["correct_gcds"] for event in evaluations(log(name))}
        first = next(e for e, right in rights.items() if any(int(k) * n in right for n in right))
        assert first == int(epoch), (k, name)
    assert len(epochs) == 4


def test_the_learning_rates():
    rows = re.findall(r"^\| 2e-\d \| ([\d.]+) \| .*?results/(.*?)/.*? \| (\d) \| (\d) \| (\d) \|$",
                      answer(1), re.M)
    for loss, name, *told in rows:
        last = log(name)[-2]
        assert f"{last['loss']:.4f}" == loss
        assert [str(last["predictions"][k][0]) for k in "245"] == told
    assert len(rows) == 3


def test_base_12_reads_two_digits():
    _, first, *_, last, _ = log("gcd-base12")
    assert last["correct_gcds"] == [k for k in range(1, 101) if 144 % k == 0]
    assert first["correct_gcds"] == sorted({k for k in range(1, 13) if 12 % k == 0} | {8, 36})
    assert [last["predictions"][k][0] for k in ("27", "32")] == [9, 16]  # as the page says
    assert log("gcd-base6")[-2]["predictions"]["16"][0] == 8


def test_base_210_by_pencil_and_paper():
    def share(test):
        return sum(6 / (math.pi * k) ** 2 for k in range(1, 200_000) if test(k))

    most = share(lambda k: pow(210, 18, k) == 0)
    divisors, with_4 = share(lambda k: 210 % k == 0), share(lambda k: 420 % k == 0)
    assert f"49/48 = {most:.1%}" in answer(3) and f"(1 + 1/49) = {divisors:.1%}" in answer(3)
    assert f"1/16) · (1 + 1/9) · (1 + 1/25) · (1 + 1/49) = {with_4:.1%}" in answer(3)
    _, first, *_, last, _ = log("gcd-base210")
    assert f"{first['accuracy']:.1%}" == f"{divisors:.1%}"
    assert last["correct_gcds"] == [k for k in range(1, 101) if 420 % k == 0]


def test_short_integers_by_counting():
    """What to say 1 to every pair is worth, and how many pairs of each length there are."""
    for digits, share in [(1, "68.6%"), (3, "60.8%")]:
        n = np.arange(12 ** (digits - 1), 12**digits)
        assert f"{(np.gcd.outer(n, n) == 1).mean():.1%}" == share and share in answer(4)
    two = np.arange(12, 144)
    products = [k for k in two if all(p in (2, 3) for p in gcd.primes_of(int(k)))]
    known = np.isin(np.gcd.outer(two, two), [1, 2, 3, 4, 6, 8, 9, *products]).mean()
    assert f"{known:.1%} have a product" in one_line(answer(4))
    expected = [1.5e6 * ((min(12**d, 10**6) - 12 ** (d - 1)) / 10**6) ** 2 for d in (3, 4, 5, 6)]
    last = re.findall(r"^\| [3-6] \|.* \| ([\d,]+) \|$", answer(4), re.M)
    np.testing.assert_allclose([int(n.replace(",", "")) for n in last], expected, rtol=0.07)


def test_base_1000_learns_primes_in_their_order(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    exec(code(5), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 * 13
    uniform, operands, outcomes = lines[1:13], lines[14:26], lines[27:]
    assert all(line.endswith("[2, 5]") for line in uniform)
    assert operands[2] == "     3  85.4%  [2, 5]" and operands[3] == "     4  93.4%  [2, 3, 5]"
    assert operands[7] == "     8  95.7%  [2, 3, 5, 7]" and ", 7" not in operands[6]
    for epoch, p in [(2, 3), (4, 7), (6, 11), (8, 13)]:
        assert f", {p}" in outcomes[epoch - 1] and f", {p}" not in outcomes[epoch - 2]
    most = 6 / math.pi**2 * 4 / 3 * 25 / 24
    for number in (most, most * 10 / 9, most * 10 / 9 * 50 / 49, most * 50 / 49):
        assert f"= {number:.1%}" in answer(5) or f"{number:.1%} is the most" in answer(5)
    all_k, of_3, of_7 = (sum(1 / k for k in range(p, 101, p)) for p in (1, 3, 7))
    assert (f"{of_3 / all_k:.0%} of the GCDs are multiples of 3, and {of_7 / all_k:.0%} are "
            "multiples of 7" in one_line(answer(5)))
    near = [abs(float(line.split()[1][:-1]) / 100 - most * 10 / 9) < 0.005 for line in operands]
    assert sum(near) >= 3  # "stays for some epochs"


def test_where_2_leaves_the_list_accuracy_falls():
    evals = log("gcd-base1000-log-uniform-operands-log-uniform-outcomes")[1:-1]
    falls = [now["accuracy"] < before["accuracy"] for before, now in zip(evals, evals[1:])
             if 2 in before["correct_gcds"] and 2 not in now["correct_gcds"]]
    assert len(falls) > 1 and all(falls)


def test_uniform_outcomes_are_answered_by_the_likeliest_first_digit():
    *_, last, end = log("gcd-base10-uniform-outcomes")
    classes = {c: [k for k in range(1, 101) if math.gcd(k, 1000) == c] for c in range(1, 101)}
    for k, (f, _) in last["predictions"].items():
        first = Counter(str(j)[0] for j in classes[math.gcd(int(k), 1000)])
        assert first[str(f)[0]] == max(first.values()), (k, f)
    share = sum(share for _, share in last["predictions"].values()) / len(last["predictions"])
    assert f"only {share:.1%} of" in one_line(answer(6))
    for k in (1, 2, 24):
        assert f"f({k}) = {last['predictions'][str(k)][0]}" in one_line(answer(6))
    words = sum(len(str(k)) for k in range(1, 101)) / 100 + 2  # and the sign and <eos>
    least = sum(len(ks) / 100 * math.log(len(ks)) for ks in classes.values() if ks) / words
    assert f"less than {least:.3f} for a word. It is {last['loss']:.3f}" in one_line(answer(6))


def test_what_a_leak_adds():
    pairs, held = Counter(), Counter()  # of each GCD, and how many of these are held out
    rows = torch.cartesian_prod(torch.arange(1, 101), torch.arange(1, 101))
    for k, out in zip(torch.gcd(*rows.T).tolist(), held_out(rows.sort(dim=1).values).tolist()):
        pairs[k] += 1
        held[k] += out
    last = log("gcd-base101-max100")[-2]
    tested, known = {*map(int, last["predictions"])}, {*last["correct_gcds"]}
    assert tested == {k for k in held if held[k]} and f"{len(tested)} GCDs, all" in answer(8)
    *most, one = sorted(tested - known)
    assert f"{', '.join(map(str, most))} and {one}. Each of" in answer(8)
    assert [pairs[k] for k in (70, 76, 79, 86, 29, 40, 45)] == [1, 1, 1, 1, 7, 3, 3]
    assert {40, 45} <= known and 29 not in known
    assert last["predictions"]["79"][0] == 1 and round(last["examples"] / 100**2) == 60


def code(number):
    """The Python of an exercise."""
    return blocks(exercise(number))[0]


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_forward_is_long_where_backward_is_short(monkeypatch, capsys, tmp_path):
    """The code of the page, on sets made here: the sizes are other, the order is the same."""
    monkeypatch.setattr(integrate, "DATA", tmp_path)
    monkeypatch.setattr(integrate, "ATTEMPTS", {"bwd": (2000, 500), "fwd": (400, 100)})
    exec(code(10).replace("size=500", "size=12"), {})
    lines = capsys.readouterr().out.splitlines()
    words = [float(line.split()[2]) for line in lines if " words, over 20 words " in line]
    assert len(words) == 4 and words[0] < words[1] and words[2] > words[3]


@pytest.fixture
def untrained(monkeypatch):
    """A model that has learned nothing, in the place of the trained one."""
    def read(argv):
        return real([flag for flag in argv if flag != "--eval-only"] + ["--test-size", "200"])

    real = train.read_flags
    monkeypatch.setattr(train, "read_flags", read)


@pytest.mark.parametrize("program", [code(4), blocks(answer(6))[0], code(9), code(17)])
def test_code_that_asks_a_model_runs(program, untrained, capsys):
    exec(program.replace("5000", "100"), {})
    assert "%" in capsys.readouterr().out


def test_digits_that_decide(untrained, monkeypatch, capsys):
    """The code of the page, asking one that knows what divides 1000, and no more."""
    def translate(task, model, pairs):
        known = torch.gcd(torch.gcd(*pairs.T), torch.tensor(1000))
        tokens = task.target.encode(known[:, None])
        return torch.cat([tokens, torch.full_like(tokens[:, :1], EOS)], dim=1)[:, None]

    monkeypatch.setattr(gcd.GCD, "translate", translate)
    exec(code(17), {})
    rows = [[*map(float, re.findall(r"([\d.]+)%", line))]
            for line in capsys.readouterr().out.splitlines()]
    kept, true, new = map(list, zip(*rows))
    assert kept[3:] == [0, 0, 0, 0] and 0 < kept[2] < kept[1] < kept[0]
    assert new[0] == 0 < min(new[1:]) and new[6] == kept[0]  # all digits are new in both
    assert true[6] == 0 and min(true[:6]) > 80  # the truth hangs on every digit


def test_sampling_is_greedy_when_cold_and_follows_the_model_when_warm():
    names = {"__name__": "exercise"}
    exec(blocks(answer(13))[0], names)
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


# On paper


def test_the_last_digits_tell_the_divisors_of_a_power_of_the_base():
    listed = [k for k in range(1, 101) if 1000 % k == 0]
    assert f"{', '.join(map(str, listed[:-1]))} and {listed[-1]}" in one_line(answer(15))
    assert log("gcd-base10")[-2]["correct_gcds"] == [k for k in listed if k != 8]
    assert "all of these but 8" in one_line(answer(15))


def test_the_prediction_of_the_class_is_close_to_the_talk(tmp_path):
    talk = {int(base): cells for base, cells in TALK["gcd"]["uniform operands"].items()
            if cells[0] != "-" and base != "2023"}  # these are of Table 6
    bases = re.search(r"one of ([\d, ]+) and one of ([\d, ]+)\.", one_line(exercise(16))).groups()
    assert sorted(int(base) for base in ", ".join(bases).split(", ")) == sorted(talk)
    row = r"^\| (\d[\d, ]*) \| ([\d, ]+) \| ([\d.]+)% \| (\d+) \| (.*) \|$"
    rows = re.findall(row, answer(16), re.M)
    seen = []
    for primes, group, product, n, cells in rows:
        primes = [*map(int, primes.split(", "))]
        products = [k for k in range(1, 101) if {*gcd.primes_of(k)} <= {*primes}]
        share = 6 / math.pi**2 * math.prod(1 / (1 - p**-2) for p in primes)
        assert (product, n) == (f"{100 * share:.1f}", str(len(products)))
        for base, cell in zip(map(int, group.split(", ")), cells.split("; "), strict=True):
            assert gcd.primes_of(base) == primes and cell == "{}%, {}".format(*talk[base])
            assert abs(100 * share - talk[base][0]) < (0.7 if base != 210 else 1.5)
            seen.append(base)
    assert sorted(seen) == sorted(talk)
    for base in (6, 31):  # the board is filled by logs alone
        (run := tmp_path / f"gcd-base{base}").mkdir()
        shutil.copy(ROOT / "results" / run.name / "log.jsonl", run)
    board = "\n".join(gcd.table(sorted(tmp_path.iterdir())))
    assert re.search(r"base 6 +9[01]\.\d \(91\.5\)", board) and re.search(r"base 31 +\d", board)


def test_bayes(capsys):
    exec(blocks(answer(18))[0], {})
    printed = capsys.readouterr().out.splitlines()
    table = re.findall(r"^\| (1\S*) \| (\d.*%) \|$", answer(18), re.M)
    for line, (weight, cells) in zip(printed, table, strict=True):
        assert re.findall(r"[\d.]+%", line) == cells.split(" | ")
    most = 6 / math.pi**2 * 4 / 3 * 25 / 24
    assert f"25/24 = {most:.1%}" in answer(18)
    known = {2, 3, 4, 8, 10}  # R3, by enumeration: the likeliest of a class, for any D
    seen = {k: frozenset(d for d in known if k % d == 0) for k in range(1, 401)}
    f = {k: min(j for j in seen if seen[j] == seen[k]) for k in range(1, 101)}
    correct = [k for k in f if f[k] == k]
    assert correct == [1, 2, 3, 4, 6, 8, 10, 12, 20, 24, 30, 40, 60]
    assert all(f[k] == max(c for c in correct if k % c == 0) for k in f)


# The patches


@pytest.fixture
def patched(tmp_path, monkeypatch):
    """patched(number): the module that the patch in an answer makes of ours."""
    def apply(number):
        patch = re.search(r"^```diff\n(.*?)^```", answer(number), re.M | re.S)[1]
        name = re.search(r"^\+\+\+ b/(\w+)\.py$", patch, re.M)[1]
        assert (f"The patch changes {name}.py; `git checkout {name}.py` takes the change back."
                in answer(number))
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


def test_all_patches_are_announced():
    with_patch = [number for (number, _), text in parts(ANSWERS).items() if "```diff" in text]
    assert with_patch == [7, 8, 9, 11]
    assert "exercises 7, 8, 9 and 11 change a file" in one_line(EXERCISES)


def test_least_significant_digit_first(patched):
    for base in (2, 10, 1000):
        integers = patched(7).Integers(base)
        values = torch.tensor([0, 7, 10, 120, -300, 10**6, 2**62])
        assert integers.decode(integers.encode(values[:, None])).equal(values)
        for n, words in zip(values.tolist(), integers.encode(values[:, None])):
            sign, *digits = integers.text(words).split()
            assert n == (-1 if sign == "-" else 1) * sum(
                int(digit) * base**i for i, digit in enumerate(digits))
            assert integers.write(n) == integers.text(words)
            assert integers.read(integers.write(n)) == n
    assert patched(7).Integers(10).write(123) == "+ 3 2 1"


def test_the_leak_trains_on_test_pairs(patched):
    task = gcd.GCD(base=101, max_int=100, test_size=2000)
    tested = {(min(pair), max(pair)) for pair in task.tests["natural"].tolist()}
    for draw, leaks in [(gcd.GCD.draw, False), (patched(8).Task.draw, True)]:
        pairs = draw(task, 50_000, torch.Generator().manual_seed(1))[0].tolist()
        trained = {(min(pair), max(pair)) for pair in pairs}
        assert (tested <= trained) == leaks and bool(tested & trained) == leaks
        again = draw(task, 2000, torch.Generator().manual_seed(2308_15594), testing=True)[0]
        assert again.equal(task.tests["natural"])  # the test stays as it was


def test_the_new_distributions(patched, monkeypatch):
    module = patched(11)
    for size in (2, 3, 8):
        generator = torch.Generator().manual_seed(1)
        zeros = torch.zeros(200_000, size, dtype=torch.float64)
        values = module.new_eigenvalues("student", zeros.clone(), generator)
        t = values.flatten() / (math.sqrt(size / 3) * module.COEFFICIENT) * math.sqrt(3)
        for x, p in [(0.0, 0.5), (1.638, 0.9), (3.182, 0.975), (5.841, 0.995)]:  # Student's table
            assert abs((t < x).double().mean().item() - p) < 0.003
        d = module.new_eigenvalues("same-sign", zeros.clone(), generator)
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


def test_the_columns_of_exercise_11_are_those_of_the_logs():
    names = ["laplace", "student", "same-sign", "same-sign-seed2"]
    lasts = [log(f"eigen-eigenvalues3-{name}")[-2] for name in names]
    for name in eigen.DISTRIBUTIONS:
        row = " | ".join(f"{by_test(last)[name]:.1%}" for last in lasts)
        assert f"\n| {name} | {row} |" in answer(11)
    laplace, student = ({name: f"{shares['0.01']:.1%}" for name, shares in
                         last["accuracy_by_tolerance"].items()} for last in lasts[:2])
    assert (f"right on {laplace['semicircle']} of the semicircle and {laplace['marchenko-pastur']} of "
            f"Marchenko-Pastur, Student on {student['semicircle']} and "
            f"{student['marchenko-pastur']}.") in one_line(answer(11))


def test_twins(monkeypatch, capsys):
    """The code of the answer, with an untrained model; the matrices of its table, by numpy."""
    real = train.read_flags
    monkeypatch.setattr(train, "read_flags",
                        lambda flags: real([*flags[:4], "--test-size", "300"]))
    names = {}
    exec(blocks(answer(12))[0], names)
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
    told = re.findall(r"^\| [^|]*% [^|]*\| (\d+)% \|", answer(12), re.M)
    np.testing.assert_allclose([int(share) for share in told], counts / 20, atol=3)
    assert (theirs[change > 0.4, 0] < 0).mean().round(1) == 0.9  # nine in ten
    right = log("eigen-eigenvalues3-laplace")[-2]
    assert f"right on {by_test(right)['abs-laplace']:.1%} of the same" in one_line(exercise(12))


def test_the_solutions_are_least_common_multiples(patched):
    task = patched(9).GCD(base=10, max_int=1000, test_size=300)
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


def test_the_task_of_remainders(tmp_path, monkeypatch, capsys):
    """The file of the answer, as a module; and the code that asks it, with an untrained model."""
    (tmp_path / "remainders.py").write_text(blocks(answer(14))[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(train.TASKS, "remainders", "remainders:Remainders")
    flags = ["--task", "remainders", "--device", "cpu", "--test-size", "300"]
    args, task, _ = train.read_flags(flags)
    for (a, b), r in zip(*(x.tolist() for x in task.draw(500, torch.Generator().manual_seed(1)))):
        assert r == [a % b] and 0 < a < 100_000 and 2 <= b <= 100
        assert task.judge([a, b], task.target.write(a % b))[1]
        assert not task.judge([a, b], task.target.write(a % b + b))[1]
    source, target = task.batch(3000, torch.Generator().manual_seed(1))
    assert source.size(1) == task.src_len and target.size(1) == task.tgt_len + 1
    real = train.read_flags
    monkeypatch.setattr(train, "read_flags", lambda _: real(flags))
    exec(code(14), {})
    assert capsys.readouterr().out.count("%") == 8


def test_what_remainders_are_worth_by_the_last_digits():
    for digits, power in (("last digit", 10), ("last two", 100), ("all digits", 10**6)):
        mean = sum(math.gcd(d, power) / d for d in range(2, 101)) / 99
        assert f"{mean:.1%}" in answer(14), digits


def test_runs_of_ones_own_are_those_of_the_logs():
    _, first, *_, end = log("remainders")
    assert f"right on {first['accuracy']:.1%} of new problems after 100,000" in one_line(answer(14))
    assert f"[{end['accuracy']:.1%}](../results/remainders/report.txt)" in answer(14)
    by_beam, backward = log("integrate-waves")[-2]["accuracy_by_test"].values()
    assert f"[{by_beam['1']:.1%}](../results/integrate-waves/report.txt)" in answer(19)
    assert f"{by_beam['10']:.1%} with a beam of 10" in one_line(answer(19))
    assert f"it solves {backward['1']:.1%}. So" in one_line(answer(19))
    accuracy = log("lcm")[-1]["accuracy"]
    assert f"We got [{accuracy:.1%}](../results/lcm/report.txt)" in answer(9)
    for name in ("gcd-base10-least-first", "gcd-base10-least-first-seed2", "gcd-base10-seed2"):
        *_, last, end = log(name)
        said = f"{end['accuracy']:.1%}, {len(last['correct_gcds'])} GCDs"
        assert f"[{said}](../results/{name}/report.txt)" in answer(7)


def test_functions_of_your_own(tmp_path, monkeypatch, capsys):
    """The code of the page makes a file of right pairs, which its commands take."""
    monkeypatch.chdir(tmp_path)
    exec(code(19).replace("20_500", "60").replace("500", "20"), {})
    trained, tested = (integrate.read_file(f"waves{more}.txt", 1000, 512) for more in ("", "-test"))
    assert len(tested) == 20 and len(trained) == 40 and not trained.keys() & tested.keys()
    x = sympy.Symbol("x")
    for f, F in [*tested.items()][:10]:
        f, F = (to_sympy(from_prefix(text)) for text in (f, F))
        assert abs((F.diff(x) - f).subs(x, 0.37).evalf()) < 1e-6 * abs(f.subs(x, 0.37).evalf())
    assert len(OWN) == 4
    for flags in OWN:
        args, task, _ = train.read_flags(re.sub(r" +--ask.*", "", flags).split())
        assert args.out.name == "integrate-waves"
    task = integrate.Integration(train_data="waves.txt", test_data=["waves-test.txt"])
    assert 30 < len(task.training) <= 40 and len(task.tests["waves-test.txt"]) > 15


def test_what_repetition_did_is_in_the_logs():
    """Exercise 21: accuracy and loss of four runs, side by side."""
    runs = [{event["examples"]: event for event in log(f"gcd-base499-{name}")[1:-1]}
            for name in ("new", "again", "half-again", "slow")]
    rows = re.findall(r"^\| ([\d,]+) \| (.*) \|$", answer(21), re.M)
    assert len(rows) == 4
    for examples, cells in rows:
        for run, cell in zip(runs, cells.split(" | "), strict=True):
            event = run[int(examples.replace(",", ""))]
            said = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell)
            assert said == f"{event['accuracy']:.1%}, loss {event['loss']:.3f}"
    new, again, half, slow = ([2 in event["correct_gcds"] for event in run.values()]
                              for run in runs)
    assert not any(new + half) and again.index(True) == 4 and slow.index(True) == 5


def test_what_other_forms_did():
    """Exercise 22: the model that comes with the code, asked for forms of three functions."""
    rows = re.findall(r"^\| `(.*?)` \| (?:`(.*?)`|none of the ten) \| ([\d.]*) ?\|$",
                      answer(22), re.M)
    args, task, checkpoint = train.read_flags("--task integrate --train-data fwd+bwd+ibp "
                                              "--scale evening --device cpu --ask x".split())
    model, right = train.make_model(args, task, checkpoint), []
    for f, F, probability in rows:
        answers = task.ask(f, model, 10)
        assert (f"  right  {F}  (probability {probability})" if F else "wrong") in answers
        assert bool(F) == ("  right  " in answers)
        right += [F] * bool(F)
        assert not F or integrate.same(parse(f), derivative(parse(F)))
    assert len(rows) == 8 and len(right) == 4
    for first, *others in (rows[:2], rows[2:4], rows[4:]):
        assert all(integrate.same(parse(first[0]), parse(f)) for f, *_ in others)


def test_what_training_on_other_forms_did():
    """Exercise 22: the run of results/README.md, and the one that it begins with."""
    start, *_, after, _ = log("integrate-forms")
    before = log(Path(start["init"]).name)[-2]
    flags, = re.findall(r"^python train\.py (.*integrate-forms)$", PAGE.replace("\\\n", " "), re.M)
    for name in ("init", "train_data", "examples", "epochs", "epoch_size", "scale"):
        assert f"--{name.replace('_', '-')} {start[name]}" in one_line(flags)
    new, old = ([run["accuracy_by_test"][test]["10"] for test in (start["test_data"][-1], "bwd")]
                for run in (after, before))
    for test, accuracy in after["accuracy_by_test"].items():
        row = " +".join(f"{100 * share:.1f}%" for share in accuracy.values())
        assert re.search(rf"^  {re.escape(test)} +{row}$", PAGE, re.M)
    text = one_line(answer(22))
    assert f"it now solves {new[0]:.1%} of the problems that SymPy wrote" in text
    assert f"before it solved {old[0]:.1%}. Of our own backward" in text
    assert f"problems it solves {new[1]:.1%}, before {old[1]:.1%}" in text


@pytest.mark.parametrize("exercise, runs", [
    (23, ["eigen-add8-at-once", "eigen-add8-after-eigen-add8-digits1"]),
    (24, ["eigen-matvec3-even-signs", "eigen-matvec3-uneven-signs"])])
def test_tables_of_two_runs_are_those_of_their_logs(exercise, runs):
    text = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", answer(exercise))
    for pair in zip(*(evaluations(log(name)) for name in runs), strict=True):
        cells = [f"loss {run['loss']:.2f}, {run['accuracy']:.1%}" for run in pair]
        assert "\n| " + " | ".join([f"{pair[1]['examples']:,}", *cells]) + " |\n" in text


def test_what_one_number_tells_about_the_sign_of_a_sum_of_products(capsys):
    """Exercise 24: the page's code, and its table."""
    exec(code(24), {})
    shares = dict(line.removesuffix(" are positive").split(": ")
                  for line in capsys.readouterr().out.splitlines())
    rows = re.findall(r"^\| (A11.*?) \| (\d+%).*? \| (\d+%).*? \|$", answer(24), re.M)
    assert shares == {f"{signs}, {told}": share for told, *both in rows
                      for signs, share in zip(("even", "uneven"), both)}
