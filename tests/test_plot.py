"""plot.py promises: what a picture shows is what was logged, parsed and computed; without
matplotlib it says so before any work. Those tests that draw are left out where it is missing."""

import json
import re
import shlex
import subprocess
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
from task import TALK, by_test, read_run
from tokenizers import ARITY, PAD, read_prefix

from .test_model import copy_attention, make, sources
from .test_train import refused_by

ROOT = Path(plot.__file__).parent
RESULTS = ROOT / "results"
PAGES = {page: page.read_text() for page in [
    ROOT / "README.md", *sorted((ROOT / "guide").glob("*.md")), RESULTS / "README.md"]
    if page.exists()}
COMMANDS = re.findall(r"python plot\.py ((?:[^`\n ]| (?! ))+)", "\n".join(PAGES.values()))
TINY = ("--task gcd --base 10 --max-int 200 --dim 16 --heads 2 --epoch-size 512 --batch-size 64 "
        "--epochs 2 --test-size 300 --warmup 10 --device cpu").split()


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib")


def test_it_does_without_train():
    """train.py calls plot.py, and not the other way round."""
    code = "import sys, plot; print({'train', 'model', 'matplotlib'} & {*sys.modules})"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True)
    assert result.stdout.strip() == "set()", result.stderr


# What there is to draw


def test_when_gcds_were_learned_is_what_the_log_says():
    """Each GCD once, at the first evaluation that has it; all those of the last, and no others."""
    _, evals = read_run(RESULTS / "gcd-base31-max900-adam")
    news = plot.learned(evals)
    assert sorted(sum((gcds for _, gcds in news), [])) == sorted(evals[-1]["correct_gcds"])
    for event, gcds in news:
        before = evals[: evals.index(event)]
        for gcd in gcds:
            assert gcd in event["correct_gcds"]
            assert not any(gcd in earlier["correct_gcds"] for earlier in before)


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
        layer.norm2.register_forward_hook(lambda _, args, x: inputs.append(x))
        layer.cross_attention.register_forward_hook(lambda _, args, y: outputs.append(y))
    memory = []
    model.encoder_norm.register_forward_hook(lambda _, args, x: memory.append(x))
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
    (eigen.LinearAlgebra(size="2"), "[[2,1],[1,3]]", "V2 V2 200E-2 100E-2 100E-2 300E-2")])
def test_the_problem_is_read_as_the_model_sees_it(task, problem, words, matplotlib):
    model = make(len(task.source), len(task.target), task.src_len, task.tgt_len)
    figure = plot.attention(task, model, problem)
    maps = [ax for ax in figure.axes if ax.get_title("left").startswith("layer")]
    assert len(maps) == 8  # 2 layers of 4 heads
    assert " ".join(label.get_text() for label in maps[-1].get_xticklabels()) == words
    answer = model.generate(task.encode(task.collate([task.read(problem)])))[0][0, 0]
    rows = [task.target.words[word] for word in answer if word != PAD]
    assert [label.get_text() for label in maps[0].get_yticklabels()] == rows
    for ax in maps:
        weights = ax.images[0].get_array()
        assert weights.shape == (len(rows), len(words.split()))
        assert weights.sum(axis=1).tolist() == pytest.approx([1] * len(rows), abs=1e-5)


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
    (["curves", RESULTS / "gcd-base2", RESULTS / "eigen-add8"], "runs of eigen and gcd"),
    (["table", RESULTS / "gcd-base2"], "gcd-base2 holds no run of eigenvalues"),
    (["table", RESULTS / "eigen-inverse2"], "eigen-inverse2 holds no run of eigenvalues"),
    (["table", *RESULTS.glob("eigen-eigenvalues?-laplace")], "sizes 3 and 4 do not go into"),
    (["sieve", RESULTS / "eigen-add8"], "eigen-add8 holds no run of gcd"),
    (["digits", RESULTS / "eigen-add8"], "eigen-add8 holds no model of gcd"),
    (["distributions", "five"], "'five' is no size of matrices"),
    (["tree", "x*cos(2*x"], "'x*cos(2*x': that is not an expression"),
    (["tree", "f(x)"], "'f(x)' is not a function of x"),
    (["tree", "1/(x-x)"], "division by zero"),
    (["tree", "x", "1"], "unrecognized arguments: 1"),
    (["curves"], "the following arguments are required: RUN"),
    ([], "the following arguments are required: PICTURE"),
    (["picture", "x"], "invalid choice: 'picture'")])
def test_bad_input(argv, why, capsys, monkeypatch):
    monkeypatch.setattr(plot, "need_matplotlib", lambda: None)
    assert why in refused_by(plot.main, capsys, *argv)


@pytest.mark.parametrize("log", [
    '{"event": "start", "task": "gcd"}\n', "", "{", "[]\n"])
def test_a_log_without_evaluations(log, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(plot, "need_matplotlib", lambda: None)
    (tmp_path / "log.jsonl").write_text(log)
    for picture in ("curves", "table"):
        assert "holds no log of a run" in refused_by(plot.main, capsys, picture, tmp_path)


def test_a_file_that_cannot_be_written(matplotlib, tmp_path, capsys):
    path = tmp_path / "none" / "tree.png"
    assert f"{path}: No such file" in refused_by(plot.main, capsys, "tree", "x", "--plot", path)


# Pictures


def texts(figure):
    import matplotlib.text
    return [text.get_text().strip() for text in figure.findobj(matplotlib.text.Text)]


def test_curves_end_with_their_names_and_accuracies(matplotlib):
    figure = plot.curves(RESULTS / "gcd-base30", RESULTS / "gcd-base31")
    for base in (30, 31):
        _, evals = read_run(RESULTS / f"gcd-base{base}")
        assert f"base {base}: {evals[-1]['accuracy']:.1%}" in texts(figure)
        assert [[e["examples"], 100 * e["accuracy"]] for e in evals] in [
            line.get_xydata().tolist() for line in figure.axes[0].lines]


def test_the_curve_of_one_run_tells_the_gcds_it_learned(matplotlib):
    _, evals = read_run(RESULTS / "gcd-base31-max900-adam")
    drawn = texts(plot.curves(RESULTS / "gcd-base31-max900-adam"))
    assert any(text.startswith("base 31 max 900 adam: ") for text in drawn)
    gcds = [int(gcd) for text in drawn if re.fullmatch(r"\d+(, \d+)*", text)
            for gcd in text.split(", ")]
    assert {*evals[-1]["correct_gcds"]} <= {*gcds} and "2" in drawn


def drawn_table(*folders):
    """{(trained on, tested on): [ours, (the talk's)]}, as drawn."""
    ax = plot.table(*folders).axes[0]
    rows, columns = ([label.get_text() for label in labels]
                     for labels in (ax.get_yticklabels(), ax.get_xticklabels()))
    cells = {}
    for text in ax.texts:
        x, y = (round(number) for number in text.get_position())
        cells.setdefault((rows[y], columns[x]), []).append(text.get_text())
    return cells


def test_the_heat_map_is_what_the_logs_say(matplotlib):
    cells = drawn_table(*RESULTS.glob("eigen-eigenvalues3-*"))
    assert len(cells) == 49
    for (row, column), (ours, talk) in cells.items():
        _, evals = read_run(RESULTS / f"eigen-eigenvalues3-{row}")
        assert ours == f"{100 * by_test(evals[-1])[column]:.0f}"
        theirs = TALK["eigenvalues"]["5"][row]
        assert talk == f"({theirs[eigen.DISTRIBUTIONS.index(column)]})"


def test_the_sieve_is_what_the_log_says(matplotlib):
    image = plot.sieve(RESULTS / "gcd-base31-max900").axes[0].images[0].get_array()
    _, evals = read_run(RESULTS / "gcd-base31-max900")
    assert image.shape == (len(evals), 100)
    for row, event in zip(image, evals):
        assert [k for k, known in enumerate(row, 1) if known] == event["correct_gcds"]


def test_embeddings_in_a_plane_are_drawn_as_they_are(matplotlib, tmp_path):
    """Ten points of a plane in 16 dimensions: in the picture they have the same distances."""
    points = torch.randn(10, 2) @ torch.linalg.qr(torch.randn(16, 2))[0].T + 3
    weights = {"src_embedding.weight": torch.cat([torch.randn(5, 16), points])}
    torch.save({"model": weights}, tmp_path / "model.pt")
    events = [{"event": "start", "task": "gcd", "base": 10}, {"event": "eval"}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    texts = plot.digits(tmp_path).axes[0].texts
    assert [text.get_text() for text in texts] == [*"0123456789"]
    drawn = torch.tensor([text.xy for text in texts], dtype=torch.float32)
    assert torch.allclose(torch.cdist(drawn, drawn), torch.cdist(points, points), atol=1e-4)


def test_the_last_digits_decide(matplotlib):
    """In base 10, GCDs up to 25 can be told by the last three digits, and by no others."""
    args, task, checkpoint = train.read_flags("--task gcd --base 10 --eval-only".split())
    ax, = plot.deciding(task, train.make_model(args, task, checkpoint), 1000).axes
    heights = [bar.get_height() for bar in ax.patches]
    assert len(heights) == 6 and max(heights[:3]) < 1 and heights[5] > heights[4] > heights[3] > 0.5
    assert [text.get_text() for text in ax.texts] == [f"{height:.1f}" for height in heights]


def test_the_histograms_of_eigenvalues(matplotlib):
    """Uniform ones fill an interval of deviation 10 sqrt(5/3); absolute values are not negative."""
    axes = {ax.get_title("left"): [(bar.get_x(), bar.get_height()) for bar in ax.patches]
            for ax in plot.distributions("5").axes if ax.patches}
    assert [*axes] == eigen.DISTRIBUTIONS
    inside = [height for x, height in axes["uniform"] if -22 <= x < 20.5]
    assert min(inside) > 0.02 and max(inside) < 0.025  # 1 / (2 sqrt(3) deviation) = 0.0224
    assert all(height == 0 for x, height in axes["uniform"] if not -24 < x < 22.5)
    assert all(height == 0 for x, height in axes["abs-laplace"] if x < -1.5)


def test_lengths_of_a_file(matplotlib, tmp_path):
    (tmp_path / "pairs.txt").write_text("INT+ 1\tx\nmul INT+ 2 x\tmul x x\n")
    ax, = plot.lengths(tmp_path / "pairs.txt").axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "problems, 3 on average", "solutions, 2 on average"]


def test_the_first_beam_goes_into_the_heat_map(matplotlib, tmp_path):
    result = {"accuracy_by_test": {"laplace": {"1": 0.5, "10": 0.75},
                                   "uniform": {"1": 0.25, "10": 0.5}}}
    events = [{"event": "start", "task": "eigen", "op": "eigenvalues", "size": "8",
               "train_dist": None}, {"event": "eval", "accuracy": 0.5} | result]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    cells = drawn_table(tmp_path)
    assert cells["semicircle", "laplace"] == ["50", "(0)"]  # the talk's of 8x8
    assert cells["semicircle", "uniform"] == ["25", "(0)"]
    assert cells["semicircle", "gaussian"] == ["-", "(0)"]


def test_plot_with_train(matplotlib, tmp_path, capsys):
    """--plot draws how the run learned, or where it looks; the run is the same without it."""
    train.main([*TINY, "--out", str(tmp_path / "a"), "--plot"])
    assert f"The picture is in {tmp_path / 'a' / 'curve.png'}" in capsys.readouterr().out
    assert "plot" not in (tmp_path / "a" / "log.jsonl").read_text()
    for mode, name in ((["--eval-only"], "curve.png"), (["--ask", "10 32"], "attention.png")):
        (tmp_path / "a" / name).unlink(missing_ok=True)
        train.main([*TINY, "--out", str(tmp_path / "a"), *mode, "--plot"])
        assert (tmp_path / "a" / name).read_bytes().startswith(b"\x89PNG")
    shipped = tmp_path / "gcd-base6"  # not run here: the log that comes with the code is drawn
    train.main(f"--task gcd --base 6 --test-size 300 --out {shipped} --eval-only --plot".split())
    assert (shipped / "curve.png").exists()
    with pytest.raises(SystemExit) as stop:  # before any question is read
        train.main([*TINY, "--out", str(tmp_path / "a"), "--ask", "--plot"])
    assert stop.value.code == 2 and "--ask PROBLEM" in capsys.readouterr().err


def test_the_pictures_are_there_and_shown():
    shown = {(page.parent / path).resolve() for page, text in PAGES.items()
             for path in re.findall(r"!\[.*?\]\((.*?\.png)\)", text)}
    assert shown == {*(ROOT / "guide").glob("*.png")} and len(shown) >= 4
    for path in shown:
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size < 150_000


def test_there_are_commands_to_test():
    assert {command.split()[0] for command in COMMANDS} == {
        "curves", "sieve", "digits", "distributions", "table", "lengths", "tree"}


@pytest.mark.parametrize("command", sorted({*COMMANDS}))
def test_the_commands_of_the_pages(command, matplotlib, tmp_path):
    (tmp_path / "pairs.txt").write_text("cos x\tsin x\n")
    command = command.replace("data/*-test-*.txt", str(tmp_path / "pairs.txt"))
    argv = [path for word in shlex.split(command) for path in
            (sorted(ROOT.glob(word)) if word.startswith("results/") else [word])]
    plot.main([*map(str, argv), "--plot", str(tmp_path / "picture.png")])
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
