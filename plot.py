"""Pictures of what was learned, where one would rather look than read.

    python plot.py curves results/gcd-base30 results/gcd-base31    accuracy of runs
    python plot.py curves results/gcd-base31-max900-adam           of one run, the GCDs learned too
    python plot.py sieve results/gcd-base31-max900                 which GCDs it knew, and when
    python plot.py digits results/gcd-base10                       the digits, as the model has them
    python plot.py distributions 5                                 eigenvalues of 5x5 matrices
    python plot.py table results/eigen-eigenvalues3-*              the talk's Table 1
    python plot.py lengths data/*-test-*.txt                       of problems and solutions
    python plot.py tree "x*cos(2*x)"                               an expression
    python train.py --task gcd --plot                              the curve of this run
    python train.py --task gcd --ask "10 32" --plot                where its model looks

Slides: "Learning the greatest common divisor", "Large bases and grokking", "Eigenvalues -
out-of-distribution generalization", "Deep learning for symbolic mathematics".

Each command writes a PNG file, and all need matplotlib, which nothing else here does.

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
import itertools
import math
import re
import textwrap
from pathlib import Path

import numpy as np
import torch

from calculus import infix, parse, prefix, write_number
from eigen import DISTRIBUTIONS, symmetric
from integrate import WORDS, read_file
from task import RESULTS, TALK, Parser, by_test, read_run
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


def name_of(folder, start):
    """results/gcd-base30 -> base 30"""
    name = Path(folder).resolve().name.removeprefix(start["task"] + "-").replace("-", " ")
    return re.sub(r"(?<=[a-z])(?=\d)", " ", name)


def learned(evals):
    """When the GCDs known in the end were learned: [(evaluation, [GCD, ...]), ...]."""
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


def scale_examples(ax, evaluations):
    """The axis of examples: from 0, or logarithmic where they are in many evaluations."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter
    if evaluations > 10:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 300k, 1M
    ax.grid(color="0.92")


def curves(*folders):
    """Accuracy against examples, a line for each run; on that of a single one, the GCDs learned."""
    starts, logs = zip(*map(read_run, folders))
    if len(tasks := {start["task"] for start in starts}) > 1:
        raise ValueError(f"runs of {' and '.join(sorted(tasks))} do not go into one picture")
    runs = sorted(zip(map(name_of, folders, starts), logs), key=lambda run: run[1][-1]["accuracy"])
    labels = [f"{name}: {evals[-1]['accuracy']:.1%}" for name, evals in runs]
    figure = new_figure(4.6 + 0.075 * max(map(len, labels)), 3.4)
    ax = figure.add_subplot(xlabel="training examples", ylabel="accuracy (%)")
    lines = [ax.plot(*zip(*map(point, evals)), marker="o", markersize=2.5, linewidth=1.2)[0]
             for _, evals in runs]
    scale_examples(ax, max(len(evals) for _, evals in runs))
    gap = 0.055 * np.ptp(ax.get_ylim())  # the height of a line of text
    heights = spread([point(evals[-1])[1] for _, evals in runs], gap)
    for line, label, (_, evals), height in zip(lines, labels, runs, heights):
        annotate(ax, label, point(evals[-1]), (1.03, height), line.get_color(),
                 textcoords=ax.get_yaxis_transform())
    if len(runs) == 1 and (news := learned(runs[0][1])):
        draw_learned(ax, news, gap)
    return figure


def draw_learned(ax, news, gap):
    """Write the GCDs that were learned below the curve, where they were; gap: a line's height."""
    points = [point(event) for event, _ in news]
    heights = -spread([gap - y for _, y in reversed(points)], gap)[::-1]
    for (x, y), (_, gcds), height in zip(points, news, heights):
        annotate(ax, ", ".join(map(str, gcds)), (x, y), (1.12 * x, height), COLOURS[1])
    ax.set_ylim(bottom=min(ax.get_ylim()[0], heights[0] - gap))
    ax.set_title("on the curve: where it learned the GCDs that it knows in the end")


def sieve(folder):
    """The GCDs 1 to 100 that a run knew, black, at each evaluation."""
    start, evals = read_run(folder)
    if start["task"] != "gcd":
        raise ValueError(f"{folder} holds no run of gcd")
    known = np.array([[k in event["correct_gcds"] for k in range(1, 101)] for event in evals])
    figure = new_figure(8, 1.2 + min(5, 0.09 * len(evals)))
    ax = figure.add_subplot(xlabel="GCD", ylabel="epoch", title=name_of(folder, start))
    ax.imshow(known, cmap="Greys", aspect="auto", interpolation="none",
              extent=(0.5, 100.5, evals[-1]["epoch"] + 0.5, evals[0]["epoch"] - 0.5))
    ax.set_xticks([1, *range(5, 101, 5)])
    return figure


def digits(folder):
    """The digits of a base as points: their embeddings, along the two directions in which they
    differ most (principal components)."""
    start, _ = read_run(folder)
    path = next((path for path in (Path(folder, "checkpoint.pt"), Path(folder, "model.pt"))
                 if path.exists()), None)
    if start["task"] != "gcd" or path is None:
        raise ValueError(f"{folder} holds no model of gcd")
    weights = torch.load(path, map_location="cpu", weights_only=True)["model"]
    points = weights["src_embedding.weight"][-start["base"]:].float()  # the last words: digits
    points = points - points.mean(dim=0)
    x, y = (points @ torch.linalg.svd(points, full_matrices=False)[2][:2].T).T.tolist()
    figure = new_figure(5, 5)
    ax = figure.add_subplot(title=f"embeddings of the digits of {name_of(folder, start)}")
    ax.plot(x, y, linestyle="none")  # so that the axes have room for all
    for digit, place in enumerate(zip(x, y)):
        ax.annotate(str(digit), place, ha="center", va="center")
    ax.set_aspect("equal")
    return figure


def deciding(task, model, n=5000):
    """Which digits decide: draw one of the first number anew, and see how many answers change."""
    generator = torch.Generator().manual_seed(1)
    places = next(k for k in itertools.count(1) if task.base ** (k + 1) > task.max_int)
    low, high = task.base ** (places - 1), task.base**places  # numbers of so many digits
    pairs, shares = torch.randint(low, high, (n, 2), generator=generator), []
    before = task.grade(pairs, task.translate(model, pairs))[1]
    for power in task.base ** torch.arange(places - 1, -1, -1):
        new = torch.randint(int(power == low), task.base, (n,), generator=generator)
        changed = pairs.clone()
        changed[:, 0] += (new - changed[:, 0] // power % task.base) * power
        after = task.grade(changed, task.translate(model, changed))[1]
        shares.append(100 * (after != before).double().mean().item())
    figure = new_figure(5, 3)
    ax = figure.add_subplot(xlabel="digit of the first number, drawn anew", title=task.name,
                            ylabel="answers that change (%)", xticks=range(1, places + 1))
    ax.bar_label(ax.bar(range(1, places + 1), shares, color=COLOURS[0]), fmt="%.1f")
    return figure


# Eigenvalues


def distributions(size):
    """Eigenvalues of random symmetric matrices, as many as the size says, of each distribution."""
    if not size.isdecimal() or not 0 < int(size) <= 100:
        raise ValueError(f"{size!r} is no size of matrices, as 5 is")
    figure = new_figure(8, 3.6)
    axes = figure.subplots(2, 4, sharex=True)
    for ax, name in zip(axes.flat, DISTRIBUTIONS):
        generator = torch.Generator().manual_seed(1)
        matrices = symmetric(name, 100_000 // int(size), int(size), generator)
        values = torch.linalg.eigvalsh(matrices).flatten()
        ax.hist(values.numpy(), bins=80, range=(-60, 60), density=True, color=COLOURS[0])
        ax.set(title=name, yticks=[])
    axes.flat[-1].set_axis_off()
    figure.supxlabel(f"eigenvalues of {size}x{size} matrices", fontsize=9)
    return figure


def table(*folders):
    """Accuracy by distributions of eigenvalues, beside the talk's tables, as a heat map."""
    results, sizes = {}, set()
    for folder, (start, evals) in zip(folders, map(read_run, folders)):
        if start.get("op") != "eigenvalues":
            raise ValueError(f"{folder} holds no run of eigenvalues")
        results[start["train_dist"] or "semicircle"] = by_test(evals[-1])
        sizes.add(start["size"].split("x")[0])
    if len(sizes) > 1:
        raise ValueError(f"sizes {' and '.join(sorted(sizes))} do not go into one picture")
    talk = TALK["eigenvalues"].get(*sizes, TALK["eigenvalues"]["5"])
    rows = [name for name in DISTRIBUTIONS if name in results]
    if not rows:
        raise ValueError("none of these was trained on one of the talk's seven distributions")
    figure = new_figure(6.6, 1.4 + 0.5 * len(rows))
    ax = figure.add_subplot()
    cells = np.array([[100 * results[row].get(column, math.nan) for column in DISTRIBUTIONS]
                      for row in rows])
    image = ax.imshow(cells, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for (row, column), accuracy in np.ndenumerate(cells):
        theirs = talk[rows[row]][column] if rows[row] in talk else "-"
        text = dict(color="white" if accuracy > 60 else "black", ha="center")
        ours = "-" if math.isnan(accuracy) else f"{accuracy:.0f}"
        ax.text(column, row - 0.05, ours, va="bottom", **text)
        ax.text(column, row + 0.08, f"({theirs})", va="top", fontsize=7, **text)
    ax.set_xticks(range(len(DISTRIBUTIONS)), DISTRIBUTIONS, rotation=30, ha="right")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel="tested on", ylabel="trained on")
    ax.spines[:].set_visible(False)
    figure.colorbar(image, label="accuracy (%), in brackets the talk's")
    return figure


# Expressions


def lengths(*files):
    """How many words problems and solutions have, in files of integrals."""
    figure = new_figure(8, 1.2 + 1.3 * len(files))
    axes = figure.subplots(len(files), 1, squeeze=False, sharex=True)[:, 0]
    for ax, path in zip(axes, files):
        pairs = [*read_file(path, 10_000, WORDS).items()]
        if not pairs:
            raise ValueError(f"{path} holds no pairs of functions and integrals")
        for texts, what, colour in zip(zip(*pairs), ("problems", "solutions"), COLOURS):
            counts = [len(text.split()) for text in texts]
            ax.hist(counts, bins=range(1, max(counts) + 2), density=True, histtype="step",
                    color=colour, label=f"{what}, {sum(counts) / len(counts):.0f} on average")
        ax.set(title=Path(path).stem, yticks=[])
        ax.legend(frameon=False)
    axes[-1].set_xlabel("words")
    return figure


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


def attention(task, model, problem):
    """What the model looks at in a problem while it writes its answer, word by word."""
    src = task.encode(task.collate([task.read(problem)])).to(model.src_position.weight.device)
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


# The command line


def check(args):
    """Whether train.py can draw what it is asked for: it looks before it works."""
    need_matplotlib()
    if args.ask == "-":
        raise ValueError("--plot draws where the model looks in one problem: --ask PROBLEM")


def for_train(args, task, model):
    """What train.py --plot draws: where the model looks in a problem, or the curve of the run."""
    args.out.mkdir(parents=True, exist_ok=True)
    ran = args.out if (args.out / "log.jsonl").exists() else RESULTS / args.out.name
    figure = attention(task, model, args.ask) if args.ask else curves(ran)
    save(figure, args.out / ("attention.png" if args.ask else "curve.png"))


def main(argv=None):
    parser = Parser(prog="plot.py", description=__doc__.partition("\n\n>>>")[0],
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="PICTURE", required=True)
    for draw, inputs, number in [
            (curves, "RUN", "+"), (sieve, "RUN", 1), (digits, "RUN", 1), (distributions, "SIZE", 1),
            (table, "RUN", "+"), (lengths, "FILE", "+"), (tree, "FUNCTION", 1)]:
        command = commands.add_parser(draw.__name__, help=draw.__doc__)
        command.add_argument("inputs", nargs=number, metavar=inputs)
        command.add_argument("--plot", type=Path, metavar="FILE", help="the PNG (<picture>.png)",
                             default=f"{draw.__name__}.png")
        command.set_defaults(draw=draw)
    args = parser.parse_args(argv)
    parser.call(need_matplotlib)  # before it reads anything
    parser.call(lambda: save(args.draw(*args.inputs), args.plot))


if __name__ == "__main__":
    main()
