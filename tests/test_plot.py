"""plot.py promises: what a picture shows is what was logged, parsed and computed; without
matplotlib it says so before any work. Those tests that draw are left out where it is missing."""

import doctest
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import calculus
import eigen
import plot
import train
from gcd import GCD
from integrate import Integration
from tokenizers import ARITY, PAD, read_prefix

from .test_model import copy_attention, make, sources
from .test_train import refused_by

ROOT = Path(plot.__file__).parent
RESULTS = ROOT / "results"
README = (ROOT / "README.md").read_text()
TINY = ("--task gcd --base 10 --max-int 200 --dim 16 --heads 2 --epoch-size 512 --batch-size 64 "
        "--epochs 2 --test-size 300 --warmup 10 --device cpu").split()


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def test_example():
    assert doctest.testmod(plot).failed == 0


# What there is to draw


def test_the_grokking_table_of_the_readme():
    rows = re.findall(r"^\| \[\d\]\(results/(.*?)/.*?\)" + 3 * r" \| (.*?)" + r" \|", README, re.M)
    assert len(rows) == 3
    for name, *examples in rows:
        news = plot.learned(plot.read_run(RESULTS / name)[-1])
        when = {gcd: event["examples"] for event, gcds in news for gcd in gcds}
        assert [f"{when[gcd]:,}" for gcd in (2, 3, 5)] == examples


def test_a_gcd_that_was_forgotten_is_not_learned():
    evals = [{"correct_gcds": gcds} for gcds in ([1], [1, 7], [2, 1], [2, 1], [1, 2, 3, 6])]
    news = [(evals.index(event), gcds) for event, gcds in plot.learned(evals)]
    assert news == [(0, [1]), (2, [2]), (4, [3, 6])]


def test_labels_do_not_overlap():
    assert list(plot.spread([1, 2, 5], gap=1)) == [1, 2, 5]  # far enough apart: each where it is
    assert list(plot.spread([1, 1, 1.5, 2, 9], gap=1)) == [1, 2, 3, 4, 9]


@pytest.mark.parametrize("text", ["x", "3", "-1/2", "x*cos(2*x)", "x^2 * exp(x) + sin(x)/x - 12",
                                  "atan(sqrt(x + 1)) * (x + tanh(x^3))"])
def test_a_tree_is_its_prefix_notation(text):
    words = calculus.prefix(calculus.parse(text))
    nodes = plot.layout(read_prefix(words))
    assert " ".join(word for word, *_ in nodes) == words
    for number, (word, x, depth, above) in enumerate(nodes):
        under = [node for node in nodes if node[3] == number]
        assert len(under) == ARITY.get(word, 0)
        assert above is None or nodes[above][2] == depth - 1
        if under:
            assert x == (under[0][1] + under[-1][1]) / 2
    for depth in {node[2] for node in nodes}:  # left to right, with room between
        row = [x for _, x, d, _ in nodes if d == depth]
        assert all(b - a >= 1 for a, b in zip(row, row[1:]))


def test_attention_is_that_of_torch():
    """The weights that torch's own module, fed with the same vectors, says it used."""
    model, src, tgt = make(dec=3), sources(1, length=6), torch.randint(3, 7, (1, 4))
    src[0, 4:] = PAD
    weights = plot.cross_attention(model, src, tgt)
    assert weights.shape == (3, 4, 4, 6)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(3, 4, 4))
    assert (weights[..., 4:] == 0).all() and (weights[..., :4] > 0).all()

    inputs, outputs = [], []
    for layer in model.decoder:
        layer.norm2.register_forward_hook(lambda _, args, x: inputs.append(x[None]))
        layer.cross_attention.register_forward_hook(lambda _, args, y: outputs.append(y[None]))
    memory = []
    model.encoder_norm.register_forward_hook(lambda _, args, x: memory.append(x[None]))
    model(src, tgt)
    for layer, x, y, ours in zip(model.decoder, inputs, outputs, weights, strict=True):
        reference = nn.MultiheadAttention(16, 4, batch_first=True)
        copy_attention(layer.cross_attention, reference)
        out, theirs = reference(x, memory[0], memory[0], key_padding_mask=src == PAD,
                                average_attn_weights=False)
        torch.testing.assert_close(ours, theirs[0])
        torch.testing.assert_close(out, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("task, problem, words", [
    (GCD(base=10), "10 32", "+ 1 0 + 3 2"),
    (eigen.LinearAlgebra(size="2"), "[[2,1],[1,3]]", "V2 V2 200E-2 100E-2 100E-2 300E-2"),
    (Integration(), "x*cos(x)", "mul x cos x")])
def test_the_words_of_a_problem_are_those_that_the_model_sees(task, problem, words):
    model = make(task.src_words, task.tgt_words, task.src_len, task.tgt_len)
    src = plot.source_words(task, model, problem)
    assert src.shape[0] == 1 and task.source.text(src[0]) == words
    assert not model.src_embedding._forward_pre_hooks


# What can go wrong


def test_without_matplotlib(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not there
    assert "pip install matplotlib" in refused_by(plot.main, capsys, "tree", "x")
    out = tmp_path / "run"
    assert "pip install matplotlib" in refused_by(train.main, capsys, *TINY, "--out", out, "--plot")
    assert not out.exists()


@pytest.mark.parametrize("argv, why", [
    (["curves", "none"], "none/log.jsonl: No such file"),
    (["curves", ROOT / "tests"], "No such file"),
    (["curves", RESULTS / "gcd-base2", RESULTS / "eigen-add7"], "runs of eigen and gcd"),
    (["table", RESULTS / "gcd-base2"], "no evaluated run of eigenvalues"),
    (["tree", "x*cos(2*x"], "'x*cos(2*x': that is not an expression"),
    (["tree", "f(x)"], "'f(x)' is not a function of x"),
    (["tree", "1/(x-x)"], "division by zero"),
    (["attention", RESULTS / "gcd-base2", "10 32"], "there is no checkpoint"),
    (["attention", RESULTS / "gcd-base2"], "attention: missing a required argument: 'problem'"),
    (["tree", "x", "1"], "tree: too many positional arguments"),
    (["picture", "x"], "invalid choice: 'picture'")])
def test_bad_input(argv, why, capsys, monkeypatch):
    monkeypatch.setattr(plot, "need_matplotlib", lambda: None)
    assert why in refused_by(plot.main, capsys, *argv)


@pytest.mark.parametrize("log, why", [
    ('{"event": "start", "task": "gcd"}\n', "holds no evaluation yet"),
    ("", "holds no log of a run"), ("{", "holds no log of a run"), ("[]\n", "no log of a run")])
def test_a_log_without_evaluations(log, why, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plot, "need_matplotlib", lambda: None)
    (tmp_path / "log.jsonl").write_text(log)
    assert why in refused_by(plot.main, capsys, "curves", tmp_path)


def test_a_file_that_cannot_be_written(matplotlib, tmp_path, capsys):
    path = tmp_path / "none" / "tree.png"
    assert f"{path}: No such file" in refused_by(plot.main, capsys, "tree", "x", "--plot", path)


# Pictures


def texts(figure):
    import matplotlib.text
    return [text.get_text().strip() for text in figure.findobj(matplotlib.text.Text)]


def test_curves_end_with_their_names_and_accuracies(matplotlib):
    figure = plot.curves(RESULTS / "gcd-base30", RESULTS / "gcd-base31")
    assert {"base 30: 93.4%", "base 31: 61.2%"} <= {*texts(figure)}  # as in the README's table


def test_the_curve_of_one_run_tells_the_gcd_it_learned(matplotlib):
    """As in the README: base 31, integers up to 900, with Adam."""
    drawn = texts(plot.curves(RESULTS / "gcd-base31-max900-adam"))
    assert {"base 31 max 900 adam: 96.5%", "2", "3, 6", "4, 12, 31, 62, 93"} <= {*drawn}


def test_the_heat_map_is_the_table_of_the_readme(matplotlib):
    figure = plot.table(*RESULTS.glob("eigen-eigenvalues3-*"))
    cells = [a + b for a, b in re.findall(r" (\d+) (\(\d+\))", README.partition("trained on ")[2])]
    drawn = texts(figure)
    pairs = [a + b for a, b in zip(drawn, drawn[1:]) if b.startswith("(")]
    assert pairs == cells and len(cells) == 49


def test_plot_with_train(matplotlib, tmp_path, capsys):
    """--plot draws how the run learned, or where it looks; the run is the same without it."""
    train.main([*TINY, "--out", str(tmp_path / "a"), "--plot"])
    assert f"The picture is in {tmp_path / 'a' / 'curve.png'}" in capsys.readouterr().out
    assert "plot" not in (tmp_path / "a" / "log.jsonl").read_text()
    for mode, name in ((["--eval-only"], "curve.png"), (["--ask", "10 32"], "attention.png")):
        (tmp_path / "a" / name).unlink(missing_ok=True)
        train.main([*TINY, "--out", str(tmp_path / "a"), *mode, "--plot"])
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")
    figure = plot.attention(tmp_path / "a", "10 32")
    words = [label.get_text() for label in figure.axes[1].get_xticklabels()]  # head 2
    assert " ".join(words) == "+ 1 0 + 3 2"
    assert "--plot draws one problem" in refused_by(
        train.main, capsys, *TINY, "--out", tmp_path / "a", "--plot", "--ask", "-")


PAGES = {page: page.read_text() for page in [ROOT / "README.md", *(ROOT / "guide").glob("*.md")]}
COMMANDS = re.findall(r"python plot\.py ((?:[^`\n ]| (?! ))+)", "\n".join(PAGES.values()))


def test_the_pictures_are_there_and_shown():
    shown = {(page.parent / path).resolve() for page, text in PAGES.items()
             for path in re.findall(r"!\[.*?\]\((.*?\.png)\)", text)}
    assert shown == {*(ROOT / "guide").glob("*.png")} and len(shown) >= 4
    for path in shown:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 150_000


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_readme(command, tmp_path):
    argv = [path for word in shlex.split(command) for path in
            (sorted(ROOT.glob(word)) if word.startswith("results/") else [word])]
    if argv[0] == "attention":  # of a trained model, which is not here, but its command is
        assert f"results/{Path(argv[1]).name}/" in README
    else:
        pytest.importorskip("matplotlib")
        plot.main([*map(str, argv), "--plot", str(tmp_path / "picture.png")])
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
