"""results/ promises: each table quotes logs, which the commands beside them made."""

import argparse
import json
import pkgutil
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

import eigen
import integrate
import train
from calculus import parse, prefix

RESULTS = Path(train.__file__).parent / "results"
PAGE = (RESULTS / "README.md").read_text()
ROWS = re.findall(r"^\| `python train\.py (--task .*?)` \|(.*?) (\d+) min \|$", PAGE, re.M)
GROKKED = re.findall(r"^\| \[(\d)\]\((.*?)/.*?\) \| (.*?) \|$", PAGE, re.M)


def log(name):
    return [json.loads(line) for line in (RESULTS / name / "log.jsonl").read_text().splitlines()]


@cache
def read_flags(flags):
    """The flags of a command; out is the folder that it writes to."""
    return train.read_flags([*shlex.split(flags), "--device", "cpu"])[0]


def is_of(start, args):
    """Whether a log, which begins with start, is of the command that these flags are of. Logs of
    before --optimizer and --word-std came are Adam's, and of its default."""
    start = {"optimizer": "adam", "word_std": None} | start
    other = {"workers"} if args.task == "integrate" else {"examples"}  # flags that change no run
    config = {name: value for name, value in train.config_of(args).items() if name not in other}
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


def test_every_run_is_on_a_page():
    assert len(ROWS) > 40
    quoted = {read_flags(flags).out.name for flags, *_ in ROWS}
    for page in (RESULTS.parent / "guide").glob("*.md"):
        quoted |= {*re.findall(r"\]\(\.\./results/([^)/]*)/", page.read_text())}
    assert quoted == {path.name for path in RESULTS.iterdir() if path.is_dir()}


@pytest.mark.parametrize("seed, name, cells", GROKKED)
def test_the_grokking_table_quotes_the_logs(seed, name, cells):
    start, *evals, end = log(name)
    *learned, final = cells.split(" | ")
    for gcd, cell in zip((2, 3, 5), learned, strict=True):
        assert cell == f"{next(e['examples'] for e in evals if gcd in e['correct_gcds']):,}"
    assert final == f"{evals[-1]['accuracy']:.1%}, {len(evals[-1]['correct_gcds'])} GCDs"
    assert start["seed"] == int(seed)


def test_tables_are_printed_by_their_commands():
    tables = [(eigen.table, "eigen-eigenvalues3-*"), (integrate.table, "integrate-*")]
    for table, runs in tables:
        folders = [path for path in sorted(RESULTS.glob(runs)) if path.is_dir()]
        assert "\n".join(table(folders)).strip() in PAGE


def test_the_gallery_of_integrals_is_right_and_was_the_models():
    answers = (RESULTS / "integrate-unsolved.txt").read_text()
    gallery = re.findall(r"^\| `(.*x.*?)` \| `(.*?)` \|$", PAGE, re.M)
    assert len(gallery) >= 5
    for f, F in gallery:
        answer = answers.partition(f"the integral of {f}; ")[2].partition("the integral")[0]
        assert f"  right  {F}  (probability" in answer
        assert integrate.Integration().judge(prefix(parse(f)), prefix(parse(F)))[1]


def test_reports_say_what_the_logs_say():
    """Each report.txt is what the task writes about its log today. Logs of before the rebuilding
    begin without an epoch; their reports are those of their time."""
    today = 0
    for path in filter(Path.is_dir, RESULTS.iterdir()):
        start, *evals, _ = log(path.name)
        if "epoch" in start:
            task_class = pkgutil.resolve_name(train.TASKS[start["task"]])
            task = train.make_task(task_class, argparse.Namespace(**start | {"device": "cpu"}))
            assert task.report(evals) + "\n" == (path / "report.txt").read_text()
            today += 1
    assert today >= 2


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
