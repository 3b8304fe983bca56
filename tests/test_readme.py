"""README.md promises: two lines do everything, its code runs, its output is real."""

import re
from pathlib import Path

import gcd
import train
from tests.test_results import is_of, log, read_flags

ROOT = Path(train.__file__).parent
README = (ROOT / "README.md").read_text()


def code(language=""):
    """The blocks of code of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def test_two_lines_do_everything():
    lines = [block for block in code() if block.startswith("python3 -m venv")]
    install = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
    assert lines == [install + "python train.py --task gcd --base 30\n",
                     install + "python -m pytest -q\n"]


def test_the_pairs_are_those_that_gcd_prints(capsys):
    gcd.examples()
    printed = capsys.readouterr().out
    shown = next(block for block in code() if block.startswith("In base 2"))
    assert printed.startswith(shown.removesuffix("...\n"))


def test_all_of_it_on_one_screen_runs(capsys):
    """The code of the page, with fewer steps: it learns, and its model answers."""
    program, = code("python")
    assert len(program.splitlines()) <= 25
    short = program.replace("1501", "61").replace("step % 300", "step % 30").replace(
        "GCD(base=30)", "GCD(base=30, test_size=500)")
    exec(short, {})
    first, last, question, answer = capsys.readouterr().out.splitlines()
    losses = [float(re.search(r"loss ([\d.]+):", line)[1]) for line in (first, last)]
    assert losses[1] < losses[0] < 3.5 and "15,360 examples" in last and "accuracy" in last
    assert question.startswith("gcd(10, 32) = 2") and answer.split()[0] in ("right", "wrong")


def test_the_first_two_experiments_are_those_in_results():
    for base, quote in re.findall(r"base (30|31)[^.]*?\[([\d.]+%[^\]]*?)\]\(results/", README):
        start, *evals, end = log(f"gcd-base{base}")
        assert quote.startswith(f"{end['accuracy']:.1%}")
        assert is_of(start, read_flags(f"--task gcd --base {base}"))
        assert base == "31" or f"{len(evals[-1]['correct_gcds'])} of the GCDs" in README
    assert len(re.findall(r"\(results/gcd-base3[01]/report\.txt\)", README)) == 2


def test_its_commands_are_understood():
    commands = re.findall(r"^python train\.py (--task .*?)(?:   .*)?$", README, re.M)
    commands += re.findall(r"`python train\.py (--task [^`]*)`", README)
    assert len(commands) >= 5
    for flags in commands:
        flags = re.sub(r"--(help|resume|eval-only|ask).*", "", flags)
        read_flags(flags)
