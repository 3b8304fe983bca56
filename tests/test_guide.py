"""The guide promises: what it tells to read is there, what it quotes was measured, and what it
tells to run is understood."""

import importlib
import math
import operator
import re
from pathlib import Path

import pytest

import train
from task import by_test
from tests.test_results import PAGE, is_of, log, read_flags

ROOT = Path(train.__file__).parent
REFERENCE = (ROOT / "guide" / "reference.md").read_text()
GUIDE = (ROOT / "guide" / "README.md").read_text()
NAMES = re.findall(r"\[`([\w.]+)`\]\(\.\./(.*?)\.py\)", GUIDE)
QUOTES = re.findall(
    r"\[([\d.]+)%(?:, (\d+) GCDs)?.*?\]\(\.\./results/([^)]*)/report\.txt\)", GUIDE)


@pytest.mark.parametrize("name, module", NAMES)
def test_what_it_tells_to_read_is_there(name, module):
    assert operator.attrgetter(name)(importlib.import_module(module.replace("/", ".")))


def test_it_quotes_the_logs():
    assert len(QUOTES) >= 7
    for percent, gcds, name in QUOTES:
        assert f"{log(name)[-1]['accuracy']:.1%}" == f"{percent}%", name
        assert not gcds or len(log(name)[-2]["correct_gcds"]) == int(gcds)


def test_it_quotes_the_tests_of_several_kinds():
    text = " ".join(GUIDE.split())
    last = log("lyapunov")[-2]
    backward, forward = by_test(last).values()
    assert (f"right on {backward:.1%} of the systems that were made from a V, and on {forward:.1%} of"
            f" those that were drawn at random, less than the "
            f"{last['guess']['forward']:.1%} of always answering x^2+y^2") in text
    bwd, _, ibp = by_test(log("integrate-fwd")[-2]).values()
    assert f"See [ours](../results/integrate-fwd/report.txt): {ibp:.1%} and {bwd:.1%}." in text
    bwd, _, ibp, _ = by_test(log("integrate-fwd-ops15-evening")[-2]).values()
    assert f"is tested on functions of up to 15 operators: {ibp:.1%} and {bwd:.1%}." in text
    at_home = log("integrate-bwd-ops15-evening")[-2]["accuracy_by_test"]["bwd"]
    assert "ours are {:.1%}, {:.1%} and {:.1%}, for functions".format(*at_home.values()) in text
    evals = log("gcd-base211-max44000")[1:-1]
    two, three = (next(e["examples"] for e in evals if p in e["correct_gcds"]) for p in (2, 3))
    assert f"2 is learned after {two // 1000},000 pairs" in text and three > 4 * two
    page = " ".join(PAGE.split())
    assert f"2 is learned after {two:,} pairs" in page
    assert f"after {three:,} the model knows 3" in page
    for event in log("gcd-base31-max900")[1:-1]:
        if event["examples"] in (60_416, 120_832):
            assert f"{event['accuracy']:.1%} after {event['examples'] // 1000},000" in text


def test_its_commands_are_understood(tmp_path):
    (tmp_path / "divisors.txt").write_text("+ 1\t+ 1\n")
    pages = GUIDE + REFERENCE
    commands = re.findall(r"`python train\.py (--task[^`]*)`", pages.replace("\n", " "))
    commands += re.findall(r"^python train\.py (--task .*?)(?:   .*)?$", pages, re.M)
    assert len(commands) >= 10
    for flags in commands:
        flags = re.sub("--(ask|help|resume|eval-only|export|train-data pairs).*", "", flags)
        read_flags(flags.replace("divisors.txt", str(tmp_path / "divisors.txt")))


def test_the_file_of_divisors_is_made_and_learned(tmp_path, monkeypatch, capsys):
    """The code of reference.md, with fewer numbers: true pairs, and a model that reads them."""
    code, = re.findall(r"^```python\n(import random\n.*?)```", REFERENCE, re.M | re.S)
    assert "100_000" in code
    monkeypatch.chdir(tmp_path)
    exec(code.replace("100_000", "1000"), {})
    for line in Path("divisors.txt").read_text().splitlines():
        n, count = (int(part.replace(" ", "")) for part in line.split("\t"))
        assert count == sum((1 if d * d == n else 2) for d in range(1, math.isqrt(n) + 1)
                            if n % d == 0)
    train.main("--task file --train-data divisors.txt --epochs 1 --epoch-size 2000 --dim 32 "
               "--device cpu".split())
    assert "The pairs of divisors.txt" in capsys.readouterr().out


def test_the_links_of_all_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "results" / "README.md", *(ROOT / "guide").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)[)#]", page.read_text()):
            assert (page.parent / link).exists(), (page.name, link)


def test_the_walk_through_a_task_shows_all_of_it():
    """Its pieces of code are the file, in its order."""
    walk = GUIDE.partition("## A task of your own")[2]
    pieces = re.findall(r"^```python\n(.*?)\n```$", walk, re.M | re.S)
    squeezed = re.sub(r"\n{2,}", "\n", "\n".join(pieces) + "\n")
    assert squeezed == re.sub(r"\n{2,}", "\n", (ROOT / "translations" / "sums.py").read_text())


def test_the_small_tasks_were_trained_by_their_commands():
    rows = re.findall(r"`python train\.py ([^`]*)` \| \[.*?\]\(\.\./results/(.*?)/", GUIDE)
    assert len(rows) == 12  # and the eight of the fourth slide
    for flags, name in rows:
        args = read_flags(flags)
        assert is_of(log(name)[0], args) and args.out.name == name
