"""results/ promises: each table quotes logs, which the commands beside them made."""

import argparse
import json
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import eigen
import gcd
import integrate
import train
from calculus import parse, prefix
from task import questions

RESULTS = Path(train.__file__).parent / "results"
PAGE = (RESULTS / "README.md").read_text()
ROWS = re.findall(r"^\| `python train\.py (--task .*?)` \|(.*?) (\d+) min \|$", PAGE, re.M)
MODELS = sorted(path.parent.name for path in RESULTS.glob("*/model.pt"))
BEFORE = {"optimizer": "adam", "word_std": None, "init": None, "small_set": 0,
          "small_every": 2, "muon_lr": None, "digits": 3, "signs": "even",
          "sizes": "equal"}  # not in older logs
GROKKED = re.findall(r"^\| \[(\d)\]\((.*?)/.*?\) \| (.*?) \|$", PAGE, re.M)


def log(name):
    return [json.loads(line) for line in (RESULTS / name / "log.jsonl").read_text().splitlines()]


def folders(pattern="*"):
    """The runs beside the page, in order."""
    return [path for path in sorted(RESULTS.glob(pattern)) if path.is_dir()]


@cache
def read_flags(flags):
    """The flags of a command; out is the folder that it writes to."""
    return train.read_flags([*shlex.split(flags), "--device", "cpu"])[0]


def is_of(start, args):
    """Whether a log, which begins with start, is of the command that these flags are of. Logs of
    before a flag came are of its default."""
    start = BEFORE | start
    config = train.config_of(args)
    if args.task != "integrate":
        del config["examples"]  # of all others it is a flag of --export
    return config.items() <= start.items()


@pytest.mark.parametrize("flags, cells, minutes", ROWS)
def test_a_row_quotes_the_log_of_its_command(flags, cells, minutes):
    args = read_flags(flags)
    start, *evals, end = log(args.out.name)
    assert end["event"] == "end" and is_of(start, args)
    assert int(minutes) == max(1, round(end["seconds"] / 60))
    for quote, name in re.findall(r"\[([\d.]+%.*?)\]\((.*?)/report\.txt\)", cells):
        assert name == args.out.name
        gcds = evals[-1].get("correct_gcds")
        assert quote == f"{end['accuracy']:.1%}" + f", {len(gcds or [])} GCDs" * (gcds is not None)


# Not of odes, whose problems take a minute to make.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "odes"])
def test_a_model_that_comes_with_the_code_is_its_logs(name, tmp_path, monkeypatch):
    """On new problems, 400 of those that take long, it is as often right as its log says."""
    monkeypatch.setattr(integrate, "DATA", tmp_path)
    monkeypatch.setattr(integrate, "ATTEMPTS", {"bwd": (10_000, 1000)})
    n = 400 if name.startswith(("integrate", "lyapunov")) else 1000
    start, *_, end = events = log(name)
    checkpoint = train.load_checkpoint(RESULTS / name, "cpu")
    assert json.loads(json.dumps(checkpoint["log"])) == events and not checkpoint["optimizers"]
    sizes = {"device": "cpu", "init": None, "test_size": n,
             "test_dists": eigen.DISTRIBUTIONS[:1], "test_data": ["bwd"]}
    args = argparse.Namespace(**start | sizes)
    task = train.make_task(pkgutil.resolve_name(train.TASKS[start["task"]]), args)
    accuracy = task.evaluate(train.make_model(args, task, checkpoint))["accuracy"]
    assert abs(accuracy - end["accuracy"]) < 4 * (0.25 / n) ** 0.5


def test_models_are_listed_and_small():
    assert sorted(re.findall(r"\((.*?)/model\.pt\)", PAGE)) == MODELS != []
    assert sum((RESULTS / name / "model.pt").stat().st_size for name in MODELS) < 9e6


@pytest.mark.parametrize("flags, answer", [
    ("--task gcd --base 10 --ask '10 32'", "gcd(10, 32) = 2; the model says, best first:\n  right  2"),
    ("--task eigen --train-dist semicircle --ask '[[2,1,0],[1,3,-4],[0,-4,5]]'", "\n  right  [8."),
])
def test_without_a_run_they_answer(flags, answer, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train.main(shlex.split(flags))
    assert answer in capsys.readouterr().out


def test_the_table_at_a_glance_quotes_the_logs():
    """Accuracy and, of a GCD run, how many are learned; of integrals, accuracy at three beams."""
    glance = PAGE.partition("## At a glance")[2].partition("\n## ")[0]
    quotes = [(line, *quote) for line in glance.splitlines()
              for quote in re.findall(r"\[([^]]*%[^]]*)\]\((.*?)/report\.txt\)", line)]
    assert len(quotes) >= 18
    for line, quote, name in quotes:
        start, *_, last, end = log(name)
        if start["task"] == "integrate":
            kind = "ibp" if "by parts" in line else "fwd" if "forward" in line else "bwd"
            by_beam = last["accuracy_by_test"][kind]
            assert quote == " / ".join(f"{100 * by_beam[n]:.1f}" for n in ("1", "10", "50")) + "%"
        else:
            assert quote.partition(", ")[0] == f"{end['accuracy']:.1%}"
            assert quote.partition(", ")[2] in ("", f"{len(last.get('correct_gcds', []))} GCDs")


def test_a_run_is_kept(tmp_path):
    """keep.py copies log and report; the model it keeps is half as exact, and answers."""
    run, results = tmp_path / "runs" / "tiny", tmp_path / "results"
    train.main(f"--task gcd --base 6 --max-int 200 --dim 16 --epoch-size 512 --epochs 1 --device cpu "
               f"--test-size 300 --out {run}".split())
    results.mkdir()
    shutil.copy(RESULTS / "keep.py", results)
    subprocess.run([sys.executable, results / "keep.py", run, "--weights"], check=True)
    kept = results / "tiny"
    assert {path.name for path in kept.iterdir()} == {"log.jsonl", "report.txt", "model.pt"}
    assert (kept / "log.jsonl").read_bytes() == (run / "log.jsonl").read_bytes()
    whole, half = (torch.load(path) for path in (run / "checkpoint.pt", kept / "model.pt"))
    assert whole["log"] == half["log"] and half["optimizers"] == []
    for name, weights in whole["model"].items():
        assert torch.allclose(weights, half["model"][name].float(), rtol=1e-3, atol=1e-6)
    (run / "report.txt").unlink()  # as of a run that was stopped: the kept one stays
    said = subprocess.run([sys.executable, results / "keep.py", run], capture_output=True)
    assert said.returncode == 2 and b"is the run finished?" in said.stderr
    assert (kept / "model.pt").exists()


def test_every_run_is_on_a_page():
    assert len(ROWS) > 40
    quoted = {read_flags(flags).out.name for flags, *_ in ROWS}
    for page in (RESULTS.parent / "guide").glob("*.md"):
        quoted |= {*re.findall(r"\]\(\.\./results/([^)/]*)/", page.read_text())}
    assert quoted == {path.name for path in folders()}


@pytest.mark.parametrize("seed, name, cells", GROKKED)
def test_the_grokking_table_quotes_the_logs(seed, name, cells):
    start, *evals, end = log(name)
    *learned, final = cells.split(" | ")
    for prime, cell in zip((2, 3, 5), learned, strict=True):
        assert cell == f"{next(e['examples'] for e in evals if prime in e['correct_gcds']):,}"
    assert final == f"{evals[-1]['accuracy']:.1%}, {len(evals[-1]['correct_gcds'])} GCDs"
    assert start["seed"] == int(seed)


def test_epochs_of_grokking_are_those_of_the_logs():
    rows = re.findall(r"\]\((gcd-base\d+.*?)/report\.txt\) \((\d in \d+.*?)\) \|", PAGE)
    for name, learned in rows:
        for k, epoch in re.findall(r"(\d) in (\d+)", learned):
            assert int(epoch) == next(
                e["epoch"] for e in log(name)[1:-1] if int(k) in e["correct_gcds"])
    assert len(rows) >= 3


def test_tables_are_printed_by_their_commands():
    commands = re.findall(r"`python (eigen|integrate)\.py\s+table\s+(.*?)`", PAGE, re.S)
    assert len(commands) == 4
    for module, runs in commands:
        paths = [path for run in runs.split() for path in folders(run.removeprefix("results/"))]
        table = pkgutil.resolve_name(f"{module}:table")
        assert "\n".join(table(paths)).strip() in PAGE


def test_all_twenty_bases():
    block, *others = "\n".join(gcd.table(folders("gcd-*"))).strip().split("\n\n")
    assert len(others) == 2 and all(other in PAGE for other in others)  # log-uniform ones
    rows = re.findall(r"base (\d+) +([\d.]+) \(([\d.]+)\) +(\d+) \((\d+)\)", block)
    rows = [row for row in rows if int(row[0]) <= 1024]  # the larger ones are of Table 6
    assert block in PAGE and len(rows) == 20
    short = [base for base, ours, talk, *_ in rows if float(ours) < float(talk) - 1]
    text = " ".join(PAGE.split())
    assert f"In all of them but {', '.join(short[:-1])} and {short[-1]}, the accuracy is within" in text
    ours, talk = (sum(int(row[i]) for row in rows) for i in (3, 4))
    assert f"our models know {ours} GCDs, and the talk's, each the best of six, {talk}." in text


def test_the_evening_models_of_integrals():
    mixed, published = "fwd+bwd+ibp", "results/published.txt.xz"
    for data, test in [(mixed, "bwd"), (mixed, "fwd"), (mixed, "ibp"),
                       ("fwd", published), ("bwd", published), ("bwd+ibp", published),
                       (mixed, published)]:
        last = log(f"integrate-{data.replace('+', '-')}-ops15-evening")[-2]
        row = [f"{100 * last['accuracy_by_test'][test][n]:.1f}%" for n in ("1", "10", "50")]
        name = re.escape(data if test == published else test)
        assert re.search(rf"^  {name} +{' +'.join(row)}$", PAGE, re.M)
    answers = (RESULTS / "integrate-slides.txt").read_text().split("the integral of ")[1:]
    solved = sum("  right  " in answer for answer in answers)
    assert len(answers) == 18 and f"model solves [{solved}](integrate-slides.txt)" in PAGE
    assert (RESULTS / "integrate-multiples.txt").read_text() in PAGE


def test_sympy_and_what_it_left_are_those_of_the_files():
    sympy, answers = ((RESULTS / f"integrate-{name}.txt").read_text() for name in ("sympy", "unsolved"))
    share, = re.findall(r"^# bwd: SymPy solves ([\d.]+%) of 500$", sympy, re.M)
    left = [*questions(sympy.splitlines())]
    asked = re.findall(r"^the integral of (.*); the model says", answers, re.M)
    solved = sum("  right  " in part for part in answers.split("the integral of "))
    assert asked == left and f"it solves [{share} of 500](integrate-sympy.txt)" in PAGE
    assert f"Of {len(left)} problems that SymPy left, the model solves [{solved}]" in PAGE


def test_the_gallery_of_integrals_is_right_and_was_the_models():
    answers = (RESULTS / "integrate-unsolved.txt").read_text()
    gallery = re.findall(r"^\| `(.*x.*?)` \| `(.*?)` \|$", PAGE, re.M)
    assert len(gallery) >= 5
    for f, F in gallery:
        answer = answers.partition(f"the integral of {f}; ")[2].partition("the integral")[0]
        assert f"  right  {F}  (probability" in answer
        assert integrate.Integration().judge(prefix(parse(f)), prefix(parse(F)))[1]


def test_reports_say_what_the_logs_say():
    """Each report.txt is what the task writes about its log today. Older logs have the accuracy on
    the first test alone, and say less of flags that came later."""
    for path in folders():
        start, *evals, _ = log(path.name)
        # Not of a task of one's own, or of a file of pairs, which are not here.
        if start["task"] in train.TASKS and ".txt" not in start.get("train_data", ""):
            start = BEFORE | start | {"device": "cpu"}
            task_class = pkgutil.resolve_name(train.TASKS[start["task"]])
            task = train.make_task(task_class, argparse.Namespace(**start))
            test = {"gcd": "natural", "eigen": getattr(task, "distribution", "")}.get(
                start["task"], "new problems")
            evals = [{"accuracy_by_test": {test: {"1": event["accuracy"]}}} | event
                     for event in evals if event["event"] == "eval"]
            assert task.report(evals) + "\n" == (path / "report.txt").read_text()


def test_speeds_are_those_of_the_benchmark():
    rows = re.findall(r"^\|.*?\|(.*\d.*)\|$", PAGE.partition("### How fast")[2], re.M)
    numbers = re.findall(r"[\d.]+ s\b|\d+,\d+|\d+%|\de-\d", "\n".join(rows))
    assert len(rows) == 6 and len(numbers) == 17
    for number in numbers:
        assert f" {number}" in (RESULTS / "bench.txt").read_text(), number


def test_list_prints_the_commands_of_the_page(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--list"])
    listed = re.findall(r"^ +(\d+) min  python train.py (.*)$", capsys.readouterr().out, re.M)
    assert not stop.value.code and listed == [(minutes, flags) for flags, _, minutes in ROWS]
    hours = sum(int(minutes) for _, _, minutes in ROWS) / 60
    assert f"one run after the other, takes {hours:.0f} hours:" in PAGE
