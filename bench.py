"""How fast is it? A table for each task, in three minutes in all, on a CPU or on CUDA.

    python bench.py                     the three tasks
    python bench.py "eigen, talk"       at the talk's size, for a GPU
    python bench.py growth              how a training step grows with each size

Each row but the last has two speeds and their ratio, medians of several repeats that take turns, so
that a busy machine slows both sides alike:

    training, nn.Transformer    64 steps, the making of their examples included, beside the same
                                steps of the same model built on torch.nn.Transformer, with
                                PyTorch's Adam, in a process that leaves memory to PyTorch
    training, its matrix products alone    one step beside these, recorded and done again
    making examples             a batch beside the step that reads it
    greedy, beam 10, without a cache    decoding beside a decoder that reads all its words anew
    memory, nn.Transformer      the most that a process held after twenty steps, beside the other's
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
import warnings
from functools import partial

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import train
from model import Transformer

warnings.filterwarnings("ignore", "enable_nested_tensor")  # torch, about its own encoder

REPEATS, STEPS = 5, 64
CASES = {  # name: flags
    "gcd": "--task gcd --heads 8 --optimizer adam",
    "eigen": "--task eigen --train-dist laplace --optimizer adam",
    "integrate": "--task integrate --examples 20000",
    "gcd, talk": "--task gcd --scale talk",
    "gcd, talk, compiled": "--task gcd --scale talk --compile",
    "eigen, talk": "--task eigen --train-dist laplace --scale talk",
    "integrate, talk": "--task integrate --scale talk --examples 20000",
}


class Reference(nn.Module):
    """The same architecture, built on torch.nn.Transformer."""

    def __init__(self, ours, heads):
        super().__init__()
        dim, self.pad = ours.src_embedding.embedding_dim, ours.pad
        self.src_embedding = nn.Embedding(ours.src_embedding.num_embeddings, dim)
        self.tgt_embedding = nn.Embedding(ours.tgt_embedding.num_embeddings, dim)
        self.src_position = nn.Embedding(ours.src_len, dim)
        self.tgt_position = nn.Embedding(ours.tgt_len, dim)
        self.transformer = nn.Transformer(dim, heads, len(ours.encoder), len(ours.decoder), 4 * dim,
                                          dropout=0.0, norm_first=True, batch_first=True)

    def forward(self, src, tgt):
        """src (n, s), tgt (n, t) -> logits (n, t, words)."""
        padding = torch.zeros(src.shape, device=src.device).masked_fill(src == self.pad, -torch.inf)
        causal = nn.Transformer.generate_square_subsequent_mask(tgt.size(1), device=src.device)
        x = self.src_embedding(src) + self.src_position.weight[: src.size(1)]
        y = self.tgt_embedding(tgt) + self.tgt_position.weight[: tgt.size(1)]
        y = self.transformer(x, y, tgt_mask=causal, src_key_padding_mask=padding,
                             memory_key_padding_mask=padding, tgt_is_causal=True)
        return y @ self.tgt_embedding.weight.T


class NoCache(Transformer):
    """Our model, but that its decoder keeps words alone, and reads all of them at each step."""

    @classmethod
    def of(cls, model):
        """The same model, its weights shared."""
        twin = cls.__new__(cls)
        twin.__dict__ = model.__dict__
        return twin

    def decode(self, tgt, memory, memory_mask, cache=None):
        words = torch.cat([cache[0][0], tgt], dim=1) if cache else tgt
        return super().decode(words, memory, memory_mask)[0], [[words]]


class MatrixProducts(TorchDispatchMode):
    """Records the matrix products that are done under it, forward and backward."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in {"mm", "addmm", "bmm", "baddbmm"}:
            self.calls.append((function, [a.detach().clone() if torch.is_tensor(a) else a
                                          for a in args]))
        return function(*args, **(kwargs or {}))

    def replay(self):
        for function, args in self.calls:
            function(*args)


def make_trainer(flags, reference=False):
    """A trainer, ready for its first step, of our model or of its reference."""
    args, task, _ = train.read_flags(flags.split())
    if not reference:
        train.keep_memory()
    model = train.make_model(args, task, None)
    if reference:
        model = Reference(model, args.heads).to(args.device)
    trainer = train.Trainer(args, task, model, None)
    trainer.parallel_model = trainer.wrap(model)
    if reference:
        trainer.optimizers = [torch.optim.Adam(model.parameters())]
    return trainer


def take_steps(trainer, steps=range(STEPS)):
    """The training steps of these numbers, which decide about their examples."""
    for trainer.step in steps:
        trainer.train_step()


def seconds(function, calls):
    """What so many calls take."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def child(name, *kind):
    """The command of a process of its own, for what this file does when it is asked to by kind."""
    return [sys.executable, __file__, name, *kind]


def serve_reference(name):
    """Take the reference's steps for each line read, and say when they are done."""
    trainer = make_trainer(CASES[name], reference=True)
    for _ in sys.stdin:
        seconds(partial(take_steps, trainer), 1)
        print("done", flush=True)


def reference_steps(process):
    """Have a process that serves the reference take its steps, and wait for it."""
    print(file=process.stdin, flush=True)
    answer = process.stdout.readline()
    assert answer == "done\n", answer


def compare(*functions, budget=1.0):
    """The median seconds of a call of each function, by turns, each turn as long as the budget."""
    calls = [max(1, int(budget / seconds(f, 2) * 2)) for f in functions]  # and they are warm
    rounds = [[seconds(f, n) / n for f, n in zip(functions, calls)] for _ in range(REPEATS)]
    return [statistics.median(column) for column in zip(*rounds)]


def row(what, mine, other, unit, n):
    print(f"    {what:<38}{n / mine:>10,.0f}{n / other:>10,.0f} {unit:<12}"
          f"{other / mine:>6.2f} times as fast", flush=True)


def memory(name):
    """The peaks of our model and of its reference, in MB, each in a process of its own, which says
    it last: before that it may have made its data, and said so."""
    return [int(subprocess.check_output(child(name, "--memory", *kind)).split()[-1])
            for kind in ([], ["--reference"])]


def bench(name, peaks):
    """The rows of one case; peaks: those of memory."""
    ours = make_trainer(CASES[name])
    n, generator = ours.args.batch_size, ours.generator
    one_step, products = partial(take_steps, ours, [1]), MatrixProducts()
    one_step()  # a GPU makes the examples of many steps now
    with products:
        one_step()
    with subprocess.Popen(child(name, "--reference"), text=True, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        steps, theirs, step, floor, batches = compare(
            partial(take_steps, ours), partial(reference_steps, process), one_step,
            products.replay, partial(ours.make_batches, 0))
    print(f"{name}: {CASES[name]}, batches of {n}, {len(products.calls)} matrix products a step")
    print(f"{'':<42}{'ours':>10}{'the other':>10}")
    row("training, nn.Transformer", steps, theirs, "examples/s", n * STEPS)
    row("training, its matrix products alone", step, floor, "examples/s", n)
    row("making examples, training on them", batches / ours.ahead, steps / STEPS, "examples/s", n)
    src = ours.task.batch(32, generator)[0]
    plain = NoCache.of(ours.model)
    for beam in (1, 10):
        cached, uncached = compare(*(partial(model.generate, src, beam)
                                     for model in (ours.model, plain)), budget=0.5)
        row(f"beam {beam}, without a cache" if beam > 1 else "greedy, without a cache",
            cached, uncached, "problems/s", len(src))
    mine, other = peaks
    print(f"    {'memory, nn.Transformer':<38}{mine:>10,}{other:>10,} {'MB':<12}"
          f"{other / mine:>6.2f} times as little\n", flush=True)


def peak_memory(name, reference):
    """The most this process, or its GPU, has held after some steps, in MB."""
    trainer = make_trainer(CASES[name], reference)
    take_steps(trainer, range(20))
    if trainer.args.device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() // 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


GROWTH = {  # what grows, and the flags at each size
    "layers": [f"--task gcd --enc-layers {n} --dec-layers {n}" for n in (1, 2, 4)],
    "dimensions": [f"--task gcd --dim {n}" for n in (64, 128, 256)],
    "base (fewer digits)": [f"--task gcd --base {n}" for n in (2, 10, 1000)],
    "batch size": [f"--task gcd --batch-size {n}" for n in (64, 256, 1024)],
    "matrix size": [f"--task eigen --size {n}" for n in (3, 5, 8)],
    "operators": [f"--task integrate --max-ops {n} --max-words 512 --examples 5000"
                  for n in (5, 10, 15)],
}


def growth():
    """Milliseconds of a training step as each size grows."""
    for what, sizes in GROWTH.items():
        print(what)
        for flags in sizes:
            trainer = make_trainer(flags)
            step, = compare(trainer.train_step, budget=0.5)
            src, tgt = trainer.task.batch(trainer.args.batch_size, trainer.generator)
            print(f"    {flags:<70}{src.size(1):>4} ->{tgt.size(1):>4} words{1000 * step:>9.1f} ms",
                  flush=True)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = lambda message: parser.exit(2, f"bench.py: {message}\n")
    parser.add_argument("cases", nargs="*", metavar="CASE", default=["gcd", "eigen", "integrate"],
                        help="as above, or of one task alone (the three tasks)")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--reference", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    for name in args.cases:
        if name not in {*CASES, "growth"}:
            parser.error(f"{name}: there are {', '.join(CASES)} and growth")
    if args.memory:
        print(peak_memory(args.cases[0], args.reference))
        return
    if args.reference:
        serve_reference(args.cases[0])
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads\n")
    # first of all: a process begins with its parent's peak
    peaks = {name: memory(name) for name in args.cases if name in CASES}
    for name in args.cases:
        growth() if name == "growth" else bench(name, peaks[name])


if __name__ == "__main__":
    main()
