"""The README promises: its tables quote logs in results/, made by the commands beside them."""

import argparse
import json
import re
import shlex
from pathlib import Path

import pytest

import eigen
import integrate
import train
from calculus import parse, prefix

ROOT = Path(train.__file__).parent
README = (ROOT / "README.md").read_text()
RUNS = re.findall(r"`python train\.py (.*?)` \|.*\[(.*?%), (\d+) GCD\]\(results/(.*?)/", README)
SOLVED = re.findall(r"`python train\.py (--task .*?)` \|.*\[([\d.]+%)\]\(results/(.*?)/", README)
LAWS = [path.name for path in sorted((ROOT / "results").glob("eigen-eigenvalues3-*"))]
INTEGRATED = re.findall(r"`python train\.py (--task integrate .* --beam 1 10 50.*?)` \|", README)
GROKKED = re.findall(r"^\| \[(\d)\]\(results/(.*?)/.*?\) \| (.*?) \|$", README, re.M)


def log(name):
    lines = (ROOT / "results" / name / "log.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def is_of(start, args):
    """Whether a log, which begins with start, is of the command that these flags are of. A flag
    that came later than the log, and is not given, changes nothing; before --optimizer came, it
    was Adam."""
    start = {"optimizer": "adam"} | start
    config = {name: value for name, value in train.config_of(args).items()
              if (name in start or value is not None) and name != "workers"}
    return config.items() <= start.items()


def read_flags(flags):
    """The flags of a command; out is the folder that it writes to."""
    return train.read_flags([*shlex.split(flags), "--device", "cpu"])[0]


def test_every_result_is_quoted_and_every_quote_has_its_result():
    quoted = {run[-1] for run in RUNS + SOLVED} | {name for _, name, _ in GROKKED} | {*LAWS}
    quoted |= {read_flags(flags).out.name for flags in INTEGRATED}
    for page in (ROOT / "guide").glob("*.md"):
        quoted |= {*re.findall(r"\]\(\.\./results/([^)/]*)/", page.read_text())}
    assert quoted == {path.name for path in (ROOT / "results").iterdir() if path.is_dir()}
    assert len(RUNS) >= 8 and len(GROKKED) == 3 and SOLVED and len(LAWS) == 7


@pytest.mark.parametrize("flags, accuracy, gcds, name", RUNS)
def test_the_tables_quote_the_logs(flags, accuracy, gcds, name):
    start, *evals, end = log(name)
    assert end["event"] == "end" and f"{evals[-1]['accuracy']:.1%}" == accuracy
    assert len(evals[-1]["correct_gcds"]) == int(gcds)
    assert evals[-1]["epoch"] == start["epochs"] and len(evals) == start["epochs"]
    args = read_flags(flags)
    assert is_of(start, args)
    assert args.out == Path("runs") / name


@pytest.mark.parametrize("seed, name, cells", GROKKED)
def test_the_grokking_table_quotes_the_logs(seed, name, cells):
    start, *evals, end = log(name)
    *learned, final = cells.split(" | ")
    for gcd, cell in zip((2, 3, 5), learned, strict=True):
        assert cell == f"{next(e['examples'] for e in evals if gcd in e['correct_gcds']):,}"
    assert final == f"{evals[-1]['accuracy']:.1%}, {len(evals[-1]['correct_gcds'])} GCD"
    flags = re.search(r"python train.py (.* --max-int 900 .*?)`", README)[1] + f" --seed {seed}"
    args = read_flags(flags)
    assert is_of(start, args)
    assert args.out == Path("runs") / name


@pytest.mark.parametrize("flags, accuracy, name", SOLVED)
def test_the_tables_of_accuracies_quote_the_logs(flags, accuracy, name):
    start, *evals, end = log(name)
    assert end["event"] == "end" and f"{end['accuracy']:.1%}" == accuracy
    args = read_flags(flags)
    assert is_of(start, args) and args.out == Path("runs") / name


@pytest.mark.parametrize("flags", INTEGRATED)
def test_the_integration_runs_were_made_by_their_commands(flags):
    args = read_flags(flags)
    start, *evals, end = log(args.out.name)
    assert end["event"] == "end" and is_of(start, args)


def test_the_integration_table_is_printed_by_its_command():
    folders = [ROOT / "results" / read_flags(flags).out.name for flags in INTEGRATED]
    assert integrate.table(dict(map(integrate.read_run, folders))) in README


def test_the_gallery_of_integrals_is_right_and_was_the_models():
    answers = (ROOT / "results" / "integrate-unsolved.txt").read_text()
    gallery = re.findall(r"^\| `(.*x.*?)` \| `(.*?)` \|$", README, re.M)
    assert len(gallery) >= 5
    for f, F in gallery:
        answer = answers.partition(f"the integral of {f}; ")[2].partition("the integral")[0]
        assert f"  right  {F}  (probability" in answer
        assert integrate.judge((prefix(parse(f)), [prefix(parse(F))]))[0] in integrate.RIGHT


@pytest.mark.parametrize("name", LAWS)
def test_the_rows_of_table_1_were_trained_in_the_same_way(name):
    start, *evals, end = log(name)
    law = name.removeprefix("eigen-eigenvalues3-")
    args = read_flags(f"--task eigen --train-dist {law}")
    assert end["event"] == "end" and is_of(start, args)


def test_table_1_is_printed_by_its_command():
    assert eigen.table(dict(eigen.read_run(ROOT / "results" / name) for name in LAWS)) in README


def test_reports_say_what_the_logs_say():
    """Each report.txt is what the task writes about its log today."""
    for path in filter(Path.is_dir, (ROOT / "results").iterdir()):
        start, *evals, end = log(path.name)
        task_class = train.pkgutil.resolve_name(train.TASKS[start["task"]])
        task = train.make_task(task_class, argparse.Namespace(**start | {"device": "cpu"}))
        assert task.report(evals) + "\n" == (path / "report.txt").read_text()


def test_list_prints_the_commands_of_the_slides(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--list"])
    listed = re.findall(r"^ +\d+ min  python train.py (.*)$", capsys.readouterr().out, re.M)
    assert not stop.value.code and {flags for flags, *_ in RUNS + SOLVED} <= {*listed}
    for flags in listed:
        read_flags(flags)


def test_the_commands_of_the_readme_are_understood():
    for flags in re.findall(r"^python train\.py (--task .*?)(?:   .*)?$", README, flags=re.M):
        known = re.sub(r'(--help|--resume|--eval-only|--ask).*', "", flags)
        train.read_flags(["--device", "cpu", *known.split()])


def test_the_speeds_are_those_of_the_benchmark():
    bench = (ROOT / "results" / "bench.txt").read_text()
    rows = re.findall(r"^\| .* \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \| ([\d.]+) times.* \|$",
                      README, re.M)
    assert len(rows) == 3
    for ours, theirs, share, ratio in rows:
        assert re.search(rf"nn.Transformer +{ours} +{theirs} ", bench)
        assert re.search(rf"alone .* {share} times", bench)
        assert ratio in {f"{float(x):.1f}" for x in re.findall(r"beam 10.* ([\d.]+) times", bench)}
