"""Pictures of what was learned, where one would rather look than read.

    python plot.py curves results/gcd-base30 results/gcd-base31    accuracy of runs
    python plot.py curves results/gcd-base31-max900-adam           of one run, the GCD learned too
    python plot.py table results/eigen-eigenvalues3-*              the talk's Table 1
    python plot.py tree "x*cos(2*x)"                               an expression
    python plot.py attention runs/gcd-base10 "10 32"               where a trained model looks

Slides: "Learning the greatest common divisor", "Large bases and grokking", "Eigenvalues -
out-of-distribution generalization", "Deep learning for symbolic mathematics".

Each command writes a PNG, which --plot names. It needs matplotlib, which nothing else here does;
what there is to draw is found without it.

>>> for node in layout(read_prefix(prefix(parse("x*cos(2*x)")))):
...     print(node)
('mul', 0.75, 0, None)
('x', 0.0, 1, 0)
('cos', 1.5, 1, 0)
('mul', 1.5, 2, 2)
('INT+ 2', 1.0, 3, 3)
('x', 2.0, 3, 3)
"""

import argparse
import importlib.util
import inspect
import itertools
import json
import math
import re
import textwrap
from pathlib import Path

import numpy as np
import torch

import eigen
from calculus import infix, parse, prefix, write_number
from tokenizers import read_prefix

# Okabe and Ito's colours, which the colour-blind can tell apart, in three kinds of lines.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
STYLE = {"font.size": 9, "axes.titlesize": 9, "axes.titlelocation": "left", "savefig.dpi": 150,
         "axes.spines.top": False, "axes.spines.right": False,
         "axes.prop_cycle": f"cycler(linestyle=['-', '--', ':']) * cycler(color={COLOURS})"}


def need_matplotlib():
    if not importlib.util.find_spec("matplotlib"):
        raise ValueError("pictures need matplotlib: python -m pip install matplotlib")


def new_figure(width, height):
    """An empty figure of so many inches."""
    import matplotlib
    from matplotlib.figure import Figure
    matplotlib.rcParams.update(STYLE)
    return Figure(figsize=(width, height), layout="constrained")


def save(figure, path):
    figure.savefig(path, format="png")
    print(f"The picture is in {path}")


# Learning curves


def read_run(folder):
    """-> the task of a run, what the run is called, and its evaluations."""
    try:
        start, *log = map(json.loads, (Path(folder) / "log.jsonl").read_text().splitlines())
        task, evals = start["task"], [event for event in log if event["event"] == "eval"]
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{folder} holds no log of a run") from None
    if not evals:
        raise ValueError(f"{folder} holds no evaluation yet")
    name = Path(folder).resolve().name.removeprefix(f"{task}-").replace("-", " ")
    return task, re.sub(r"(?<=[a-z])(?=\d)", " ", name), evals  # gcd-base30: base 30


def learned(evals):
    """When the GCD that are known in the end were learned: [(evaluation, [GCD, ...]), ...]."""
    news, rest = [], set(evals[-1].get("correct_gcds", []))
    for event in evals:
        if new := rest.intersection(event.get("correct_gcds", [])):
            news.append((event, sorted(new)))
            rest -= new
    return news


def point(event):
    return event["examples"], 100 * event["accuracy"]


def spread(values, gap):
    """Ascending places for labels: each at its value or above it, by gap above the one before."""
    steps = gap * np.arange(len(values))
    return np.maximum.accumulate(np.array(values) - steps) + steps


def annotate(ax, text, end, place, colour, **settings):
    """Text at a place, and a thin line from there to the point end."""
    line = dict(arrowstyle="-", color=colour, linewidth=0.6, relpos=(0, 0.5), shrinkA=0, shrinkB=1)
    ax.annotate(" " + text, end, place, va="center", arrowprops=line, **settings)


def scale_examples(ax, runs):
    """The axis of examples: from 0, or logarithmic where they are in many evaluations."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
    if max(len(evals) for *_, evals in runs) > 10:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 300k, 1M
    ax.grid(color="0.92")


def curves(*folders):
    """Accuracy against examples, a line for each run; on that of a single one, the GCD learned."""
    runs = sorted(map(read_run, folders), key=lambda run: run[-1][-1]["accuracy"])
    if len(tasks := {task for task, *_ in runs}) > 1:
        raise ValueError(f"runs of {' and '.join(sorted(tasks))} do not go into one picture")
    labels = [f"{name}: {evals[-1]['accuracy']:.1%}" for _, name, evals in runs]
    figure = new_figure(4.6 + 0.075 * max(map(len, labels)), 3.4)
    ax = figure.add_subplot(xlabel="training examples", ylabel="accuracy (%)")
    lines = [ax.plot(*zip(*map(point, evals)), marker="o", markersize=2.5, linewidth=1.2)[0]
             for *_, evals in runs]
    scale_examples(ax, runs)
    gap = 0.055 * np.ptp(ax.get_ylim())  # the height of a line of text
    heights = spread([point(evals[-1])[1] for *_, evals in runs], gap)
    for line, label, (*_, evals), height in zip(lines, labels, runs, heights):
        annotate(ax, label, point(evals[-1]), (1.03, height), line.get_color(),
                 textcoords=ax.get_yaxis_transform())
    if len(runs) == 1 and (news := learned(runs[0][-1])):
        points = [point(event) for event, _ in news]
        heights = -spread([gap - y for _, y in reversed(points)], gap)[::-1]  # below the curve
        for (x, y), (_, gcds), height in zip(points, news, heights):
            annotate(ax, ", ".join(map(str, gcds)), (x, y), (1.12 * x, height), COLOURS[1])
        ax.set_ylim(bottom=min(ax.get_ylim()[0], heights[0] - gap))
        ax.set_title("on the curve: where it learned the GCD that it knows in the end")
    return figure


# Eigenvalues


def table(*folders):
    """The talk's Table 1, accuracy by laws of eigenvalues, as a heat map."""
    rows = dict(eigen.read_run(Path(folder)) for folder in folders)
    laws = [law for law in eigen.LAWS if law in rows]
    cells = np.array([[100 * rows[law].get(test, math.nan) for test in eigen.LAWS] for law in laws])
    figure = new_figure(6.6, 1.4 + 0.5 * len(laws))
    ax = figure.add_subplot()
    image = ax.imshow(cells, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), accuracy in np.ndenumerate(cells):
        colour = "white" if accuracy > 60 else "black"
        ours, talk = f"{accuracy:.0f}".replace("nan", "-"), eigen.TABLE_1[laws[row]][column]
        ax.text(column, row - 0.05, ours, color=colour, ha="center", va="bottom")
        ax.text(column, row + 0.08, f"({talk})", color=colour, ha="center", va="top", fontsize=7)
    ax.set_xticks(range(len(eigen.LAWS)), eigen.LAWS, rotation=30, ha="right")
    ax.set_yticks(range(len(laws)), laws)
    ax.set(xlabel="tested on", ylabel="trained on")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label="accuracy (%), in brackets the talk's")
    return figure


# Expressions


def layout(tree):
    """A tree -> its nodes (words, x, depth, number of the node above), in prefix order.

    Leaves stand side by side at x = 0, 1, ..., a node in the middle above its arguments.
    """
    nodes, leaves = [], itertools.count()

    def place(tree, depth, above):
        name, *args = tree if isinstance(tree, tuple) else (tree,)
        number = len(nodes)
        nodes.append(None)
        places = [place(arg, depth + 1, number) for arg in args] or [next(leaves)]
        x = (places[0] + places[-1]) / 2
        nodes[number] = (write_number(name) if isinstance(name, int) else name, x, depth, above)
        return x

    place(tree, 0, None)
    return nodes


def tree(expression):
    """An expression as a tree, with its prefix notation."""
    try:
        e = parse(expression)
    except ValueError as error:
        raise ValueError(f"{expression!r}: {error}") from None
    nodes = layout(read_prefix(prefix(e)))
    width, depth = max(x for _, x, _, _ in nodes), max(depth for _, _, depth, _ in nodes)
    figure = new_figure(max(3, 0.7 * width + 1), 0.55 * depth + 1.2)
    ax = figure.add_subplot()
    operators = {above for *_, above in nodes}
    for number, (word, x, y, above) in enumerate(nodes):
        if above is not None:
            ax.plot([x, nodes[above][1]], [-y, -nodes[above][2]], "-", color="0.6", zorder=0)
        box = dict(boxstyle="round", facecolor="white" if number in operators else "#DCEBF7")
        ax.text(x, -y, word, ha="center", va="center", bbox=box)
    ax.set_title(infix(e), loc="center")
    ax.set_axis_off()
    figure.supxlabel(textwrap.fill(prefix(e), width=int(12 * figure.get_figwidth())), fontsize=9,
                     family="monospace")
    return figure


# Attention


def source_words(task, model, problem):
    """A problem in the words that the model sees, (1, time): it looks them up to answer."""
    seen = []
    with model.src_embedding.register_forward_pre_hook(lambda _, args: seen.extend(args)):
        task.ask(problem, model)
    return seen[0]


@torch.no_grad()
def cross_attention(model, src, tgt):
    """Where each decoder layer and head looks in src (1, s), after each word of tgt (1, t):
    (layers, heads, t, s), rows that add up to 1."""
    weights = []

    def look(attention, inputs):
        x, keys, _, mask = inputs
        weights.append(attention.weights(x, keys, mask)[0].transpose(-2, -1))

    hooks = [layer.cross_attention.register_forward_pre_hook(look) for layer in model.decoder]
    model(src, tgt)
    for hook in hooks:
        hook.remove()
    return torch.stack(weights)


def attention_map(task, model, problem):
    """The figure of what the model looks at while it writes its answer, word by word."""
    src = source_words(task, model, problem)
    answer = model.generate(src)[0][0]  # (1, tgt_len)
    answer = answer[:, answer[0] != model.pad]
    tgt = torch.cat([torch.full_like(answer[:, :1], model.bos), answer[:, :-1]], dim=1)
    weights = cross_attention(model, src, tgt).cpu().numpy()
    layers, heads, height, width = weights.shape
    read, write = task.source.words, task.target.words
    words = [read[i] for i in src[0]]
    columns = max(c for c in (1, 2, 4, 8) if c == 1 or heads % c == 0 and c * width <= 32)
    rows = layers * heads // columns
    figure = new_figure(1.6 + columns * (0.22 * width + 0.2), 0.6 + rows * (0.22 * height + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for ax, (layer, head) in zip(axes.flat, np.ndindex(layers, heads)):
        image = ax.imshow(weights[layer, head], cmap="Blues", vmin=0, vmax=1)
        ax.set_title(f"layer {layer + 1}, head {head + 1}", fontsize=8)
        ax.set_xticks(range(width), words, rotation=90 * (max(map(len, words)) > 3))
        ax.set_yticks(range(height), [write[i] for i in answer[0]])
    figure.supxlabel("problem", fontsize=9)
    figure.supylabel("answer", fontsize=9)
    figure.colorbar(image, ax=axes, label="attention weight")
    return figure


def attention(run, problem):
    """Where the trained model of a run looks in a problem, for each word of its answer."""
    import train  # only here: the other pictures do not need it
    args, task, checkpoint = train.read_flags(
        ["--task", read_run(run)[0], f"--out={run}", f"--ask={problem}", "--device", "cpu"])
    return attention_map(task, train.make_model(args, task, checkpoint), problem)


# The command line

PICTURES = {"curves": curves, "table": table, "tree": tree, "attention": attention}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n>>>")[0],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"plot.py: {message}\n")
    parser.add_argument("picture", choices=PICTURES)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="what to draw, as above")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="the PNG (<picture>.png)")
    args = parser.parse_args(argv)
    draw = PICTURES[args.picture]
    try:
        inspect.signature(draw).bind(*args.inputs)
    except TypeError as error:
        parser.error(f"{args.picture}: {error}")
    try:
        need_matplotlib()
        save(draw(*args.inputs), args.plot or f"{args.picture}.png")
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(error)


if __name__ == "__main__":
    main()
