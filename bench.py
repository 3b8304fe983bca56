"""How long does one wait? In about 12 minutes on two cores, or on a GPU where there is one:

    python bench.py result    seconds to an accuracy, with the defaults of train.py, beside those of
                              a plain model of the same sizes, built on torch.nn.Transformer, that
                              the talk's optimizer, Adam, trains at three learning rates
    python bench.py speed     examples/s of both models, each trained by Adam; and the share of our
                              time that the matrix products alone take: no code can do without
    python bench.py beam      seconds to search for integrals with each beam, and to judge them
    python bench.py sympy     the test problems of integration that SymPy leaves after 30 s each
    python bench.py           the first two; after one of these words, flags of train.py may follow

The clock stands still while a model is tested. Speeds are medians of turns that both models take.
"""

import argparse
import math
import warnings
from functools import partial
from statistics import median
from time import perf_counter
from timeit import timeit

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import train
from integrate import parallel, sympy_integral
from model import Transformer
from task import Parser, by_test
from tokenizers import BOS, EOS, PAD

warnings.filterwarnings("ignore", "enable_nested_tensor")  # torch, about its own encoder

RATES = ["1e-3", "3e-3", "3e-4"]  # Adam's, at their peak
RESULTS = [  # accuracies to reach on all tests, seconds for each rate, flags: many short epochs
    ([0.85, 0.92], 50, "--task gcd --base 30 --epochs 100 --epoch-size 15000 --test-size 2000"),
    ([0.9], 120, "--task eigen --train-dist laplace --epochs 60 --epoch-size 20000 --test-size 500 "
     "--test-dists semicircle uniform gaussian laplace abs-semicircle abs-laplace")]
SPEEDS = ["--task gcd", "--task eigen --train-dist laplace", "--task integrate --examples 5000"]
STEPS, TURNS = 16, 20  # steps that are timed together, and how often


class Reference(Transformer):
    """Our embeddings and search, around torch.nn.Transformer."""

    def __init__(self, args, task):
        super().__init__(len(task.source), len(task.target), task.src_len, task.tgt_len, args.dim,
                         args.heads, 0, 0, PAD, BOS, EOS)
        del self.encoder_norm, self.decoder_norm  # torch's has norms of its own
        self.transformer = nn.Transformer(args.dim, args.heads, args.enc_layers, args.dec_layers,
                                          4 * args.dim, 0.0, norm_first=True, batch_first=True)

    def encode(self, src):
        mask = src == self.pad
        x = self.src_embedding(src) + self.src_position.weight[: src.size(1)]
        return [[self.transformer.encoder(x, src_key_padding_mask=mask)]], mask  # as in model.py

    def decode(self, tgt, memory, mask, cache=None):
        words = torch.cat([cache[0][0], tgt], dim=1) if cache else tgt  # all that it keeps
        causal = nn.Transformer.generate_square_subsequent_mask(words.size(1), words.device)
        y = self.tgt_embedding(words) + self.tgt_position.weight[: words.size(1)]
        y = self.transformer.decoder(y, memory[0][0], causal, memory_key_padding_mask=mask,
                                     tgt_is_causal=True)
        return y @ self.tgt_embedding.weight.T, [[words]]


class MatrixProducts(TorchDispatchMode):
    """Records the matrix products that are done under it, forward and backward."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.overloadpacket.__name__ in {"mm", "addmm", "bmm", "baddbmm"}:
            self.calls.append((function, [a.clone() if torch.is_tensor(a) else a for a in args]))
        return function(*args, **(kwargs or {}))

    def replay(self):
        for function, args in self.calls:
            product = function(*args)
        product.sum().item()  # waits for a GPU


def make_training(flags, reference=False):
    """-> args, task, model, optimizers: what train.train_epoch takes."""
    args, task, _ = train.read_flags(flags.split())
    torch.manual_seed(train.make_seed(args.seed))
    model = Reference(args, task) if reference else train.make_model(args, task, None)
    return args, task, model.to(args.device), train.make_optimizers(args, model)


def learn(name, targets, budget, args, task, model, optimizers):
    """Train until all targets are reached, or for so many seconds. -> the seconds to the last."""
    steps, epoch, clock, accuracy = math.ceil(args.epoch_size / args.batch_size), 0, 0.0, 0.0
    for target in targets:
        while accuracy < target and clock < budget and epoch < args.epochs:
            epoch += 1
            clock += timeit(lambda: train.train_epoch(args, task, model, optimizers, epoch, steps),
                            number=1)
            accuracy = min(by_test(task.evaluate(model)).values())
        print(f"    {name:<21}{target:.0%}{'' if accuracy >= target else ' not':>5} in "
              f"{clock:>6.1f} s, {epoch * steps * args.batch_size:>9,} examples", flush=True)
    return clock if accuracy >= target else math.inf


def result(flags):
    for targets, budget, case in RESULTS:
        print(case)
        learn("ours", targets, math.inf, *make_training(case + flags))
        for rate in RATES:
            adam = make_training(f"{case} --optimizer adam --lr {rate}{flags}", reference=True)
            budget = min(budget, learn(f"nn.Transformer, {rate}", targets, budget, *adam))


def speed(flags):
    for case in SPEEDS:
        case, products = f"{case} --optimizer adam{flags}", MatrixProducts()
        ours, theirs = make_training(case), make_training(case, reference=True)
        with products:
            train.train_epoch(*ours, 1, 1)
        timed = [lambda: train.train_epoch(*ours, 1, STEPS),
                 lambda: train.train_epoch(*theirs, 1, STEPS),
                 lambda: train.train_epoch(*ours, 1, 1), products.replay]
        turns = [[timeit(run, number=1) for run in timed] for _ in range(TURNS)]
        mine, other, step, floor = map(median, zip(*turns))
        n = STEPS * ours[0].batch_size
        print(f"{case:<70}\n    ours {n / mine:,.0f} examples/s, nn.Transformer {n / other:,.0f}: "
              f"{other / mine:.2f} times as fast\n    {len(products.calls)} matrix products "
              f"alone take {floor / step:.0%} of our time", flush=True)  # <70: over a progress line


def beam(flags):
    """With the trained model, that of runs/ or the one that comes with the code."""
    args, task, checkpoint = train.read_flags(f"--task integrate --eval-only{flags}".split())
    model = train.make_model(args, task, checkpoint)
    for test, problems in task.tests.items():
        for size in args.beam:
            start = perf_counter()
            tokens = task.translate(model, problems, size)
            search = perf_counter() - start
            solved = task.grade(problems, tokens)[0].double().mean()
            judging = perf_counter() - start - search
            print(f"{test}, beam {size}: {solved:.1%} of {len(problems)}, search {search:.1f} s, "
                  f"judging {judging:.1f} s", flush=True)


def sympy(flags):
    """As train.py's --ask - reads them: a problem on each line that does not begin with #."""
    _, task, _ = train.read_flags(f"--task integrate{flags}".split())
    ask = partial(sympy_integral, seconds=30, heurisch=None, meijerg=None)
    for test, problems in task.tests.items():
        solutions = zip(problems, parallel(ask, problems, task.workers))
        unsolved = [task.show(f) for f, F in solutions if not F]
        share = 1 - len(unsolved) / len(problems)
        print(f"# {test}: SymPy solves {share:.1%} of {len(problems)}", *unsolved, sep="\n")


def main(argv=None):
    parser = Parser(prog="bench.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["result", "speed", "beam", "sympy"])
    args, flags = parser.parse_known_args(argv)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"# torch {torch.__version__}, {device}, {torch.get_num_threads()} threads", flush=True)
    for function in {None: [result, speed], "result": [result], "speed": [speed],
                     "beam": [beam], "sympy": [sympy]}[args.what]:
        parser.call(function, "".join(f" {flag}" for flag in flags))


if __name__ == "__main__":
    main()
