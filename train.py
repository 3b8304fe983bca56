"""Step III of the talk, train: teach a transformer any of the tasks, on any device, and look at it.

    python train.py --task gcd --base 31
    python train.py --task gcd --base 31 --resume           go on after Ctrl-C or a crash
    python train.py --task gcd --base 31 --ask "10 32"      put a question to the trained model
    python train.py --list                                  the talk's experiments, as commands
    torchrun --nproc_per_node=2 train.py --task gcd         two processes, or two GPUs
"""

import argparse
import datetime
import io
import json
import math
import os
import pkgutil
import random
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from model import Transformer
from muon import Muon
from task import RESULTS, Parser, Task, evaluations, positive, questions
from tokenizers import BOS, EOS, PAD

TASKS = {"gcd": "gcd:GCD", "eigen": "eigen:LinearAlgebra", "integrate": "integrate:Integration"}
for path in sorted(Path(__file__).with_name("translations").glob("[!_]*.py")):  # sums.py: Sums
    TASKS[path.stem] = f"translations.{path.stem}:{path.stem.title()}"

RANK = int(os.environ.get("RANK", 0))  # which process this is, of how many: torchrun sets it
WORLD = int(os.environ.get("WORLD_SIZE", 1))


# Training


def learning_rate(step, total, peak, warmup):
    """Rise to the peak along a line, then fall to zero along a cosine. Steps are 1 to total."""
    return peak * min(step / warmup, 0.5 + 0.5 * math.cos(math.pi * step / total))


def make_seed(*numbers):
    """One number of several, as --seed, process and step: a resumed run sees the same batches."""
    return random.Random(repr(numbers)).getrandbits(63)


def make_optimizers(args, model):
    """Adam for all of the model; or Muon for the matrices of its layers, and Adam for the rest."""
    muon, matrices, rest = args.optimizer == "muon", [], []
    for name, p in model.named_parameters():
        inside = p.ndim == 2 and name.startswith(("encoder", "decoder"))
        (matrices if muon and inside else rest).append(p)
    adam = torch.optim.Adam(rest, fused=args.device != "mps")
    return [adam, Muon(matrices)] if muon else [adam]


def train_step(model, optimizers, src, tgt, rates):
    """One batch: its loss, which is returned, its gradient, one step of each optimizer."""
    logits = model(src, tgt[:, :-1])
    loss = cross_entropy(logits.flatten(0, 1).float(), tgt[:, 1:].flatten(), ignore_index=PAD)
    model.zero_grad()
    loss.backward()
    if WORLD > 1:  # the processes take one step together, along the mean of their gradients
        gradients = [p.grad for p in model.parameters()]
        mean = torch.nn.utils.parameters_to_vector(gradients) / WORLD
        torch.distributed.all_reduce(mean)  # one message: each takes a millisecond
        torch.nn.utils.vector_to_parameters(mean, gradients)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    for optimizer, lr in zip(optimizers, rates):
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
    return loss.detach()


def batch_number(args, step):
    """Which batch a step takes: a new one; or, every few steps, one of the small set, which come
    back again and again (two-set training: Charton and Kempe 2024, arXiv 2410.07041)."""
    batches = math.ceil(args.small_set / (args.batch_size * WORLD))
    small = batches and step % args.small_every == 0
    return -(step // args.small_every % batches) if small else step


def train_epoch(args, task, model, optimizers, epoch, steps):
    """The steps of an epoch, with progress lines; -> the mean loss, examples/s, the last line."""
    generator, per_step = torch.Generator(task.device), args.batch_size * WORLD
    loss_sum, begin, shown = 0.0, time.perf_counter(), time.perf_counter()
    end, pause = ("\033[K\r", 0.5) if sys.stdout.isatty() else ("\n", 30)  # of progress lines
    for done in range(1, steps + 1):
        step = (epoch - 1) * steps + done
        generator.manual_seed(make_seed(args.seed, RANK, batch_number(args, step)))
        src, tgt = (t.to(args.device) for t in task.batch(args.batch_size, generator))
        rates = [learning_rate(step, args.epochs * steps, peak, args.warmup)
                 for peak in (args.lr, args.muon_lr or args.lr)]
        loss_sum = loss_sum + train_step(model, optimizers, src, tgt, rates)
        if done == steps or time.perf_counter() - shown > pause:
            loss = loss_sum.item() / done  # .item() waits for a GPU, so not in every step
            shown = time.perf_counter()
            speed = done * per_step / (shown - begin)
            left = int((args.epochs * steps - step) * per_step / speed)
            line = (f"{step * per_step:>12,} examples  {speed:,.0f}/s  loss {loss:.4f}  "
                    f"{left // 60}m {left % 60:02}s left")
            if done < steps:
                print(line, end=end, flush=True)
    return loss, speed, line


def train(args, task, model, checkpoint):
    """Train to the last epoch. At the end of each: evaluate, log, save."""
    optimizers = make_optimizers(args, model)
    start = checkpoint or {"log": [], "epoch": 0, "seconds": 0.0, "optimizers": []}
    for optimizer, state in zip(optimizers, start["optimizers"]):
        optimizer.load_state_dict(state)
    log = [event for event in start["log"] if event["event"] != "end"]
    begin = time.perf_counter() - start["seconds"]
    steps = math.ceil(args.epoch_size / (args.batch_size * WORLD))

    def write(epoch, events):
        """Log what happened, and save it with all that --resume needs."""
        position = {"epoch": epoch, "examples": epoch * steps * args.batch_size * WORLD,
                    "seconds": round(time.perf_counter() - begin, 1)}
        log.extend({"event": event} | position | facts for event, facts in events.items())
        save(args.out, {"config": config_of(args), "log": log} | position | {
            "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers]})

    if RANK == 0 and start["epoch"] < args.epochs:
        device = torch.cuda.get_device_name() if args.device == "cuda" else args.device
        write(start["epoch"], {"resume" if checkpoint else "start": config_of(args) | {
            "torch": str(torch.__version__), "device": device}})
    for epoch in range(start["epoch"] + 1, args.epochs + 1):
        loss, speed, line = train_epoch(args, task, model, optimizers, epoch, steps)
        if RANK == 0:  # the others wait at the next mean of gradients
            result = task.evaluate(model, args.beam, final=epoch == args.epochs)
            events = {"eval": {"loss": loss, "examples_per_second": round(speed)} | result}
            if epoch == args.epochs:
                events["end"] = {"accuracy": result["accuracy"]}
            write(epoch, events)
            print(f"{line}  {task.headline(result)}", flush=True)
    if RANK == 0:
        report = task.report(evaluations(log))
        (args.out / "report.txt").write_text(report + "\n")
        print(f"\n{report}\n\nThis report, the log and the model are in {args.out}")


def join_processes(args, task):
    """Meet the other processes. The first one makes the data; the others wait for it."""
    torch.distributed.init_process_group("nccl" if args.device == "cuda" else "gloo",
                                         timeout=datetime.timedelta(days=1))
    if RANK == 0:
        task.prepare()
    torch.distributed.barrier()


# The folder of a run


def save(out, state):
    """The checkpoint, and its log as text: after a kill at any moment both are whole."""
    buffer = io.BytesIO()
    torch.save(state, buffer)  # into a file, it would not say when the disk is full
    (out / "checkpoint.tmp").write_bytes(buffer.getbuffer())
    os.replace(out / "checkpoint.tmp", out / "checkpoint.pt")
    (out / "log.tmp").write_text("".join(json.dumps(event) + "\n" for event in state["log"]))
    os.replace(out / "log.tmp", out / "log.jsonl")


def load_checkpoint(folder, device, to_resume=False):
    """The checkpoint of a run; where there is none, the model that comes with the code, if any.
    weights_only: a checkpoint is data, whoever made it; opening one runs no code of theirs."""
    path, shipped = folder / "checkpoint.pt", RESULTS / folder.name / "model.pt"
    if not to_resume and not path.exists() and shipped.exists():
        path = shipped
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}: train first")
    with suppress(Exception):  # torch has no common class for what can be wrong with a file
        checkpoint = torch.load(path, map_location=device, weights_only=True)
        if {"config", "epoch", "log", "model", "optimizers"} <= checkpoint.keys():
            return checkpoint
    raise ValueError(f"{path} is not a whole checkpoint of this program")


# The command line


def config_of(args):
    """What a run is, as plain data: the flags, without those of this call."""
    call = {"out", "device", "workers", "resume", "eval_only", "ask", "export", "list", "plot"}
    return {k: v for k, v in vars(args).items() if k not in call} | {"processes": WORLD}


def list_experiments():
    """--list: the commands of results/README.md, under the titles of their slides."""
    page = (RESULTS / "README.md").read_text()
    for title, command, minutes in re.findall(
            r"^## (?!At a)(.*)|^\| `(python train\.py .*?)` .* (\d+ min) \|$", page, re.M):
        print(f"\n{title}\n" if title else f"{minutes:>8}  {command}")
    raise SystemExit


def make_parser(task, scale):
    """All flags: the common ones and, where it is known, the task's."""
    parser = Parser(prog="train.py", description=__doc__,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--task", choices=TASKS, help="which experiment; --task X --help: its flags")
    add("--scale", choices=Task.scales, default="laptop",
        help="sets defaults: 10 minutes or two hours on a laptop, or the talk's sizes, on a GPU")
    add("--epochs", type=positive(int), help="epochs to train")
    add("--epoch-size", type=positive(int), default=300_000, help="examples in an epoch")
    add("--batch-size", type=positive(int), help="examples in a step, on each process")
    add("--optimizer", choices=["adam", "muon"], default="adam", help="muon: for layers' matrices")
    add("--lr", type=positive(float), help="peak learning rate")
    add("--muon-lr", type=positive(float), help="peak learning rate of Muon, if not that of --lr")
    add("--warmup", type=positive(int), help="steps in which the learning rate rises to its peak")
    add("--dim", type=positive(int), help="width of the transformer")
    add("--heads", type=positive(int), help="attention heads")
    add("--enc-layers", type=positive(int), help="encoder layers")
    add("--dec-layers", type=positive(int), help="decoder layers")
    add("--word-std", type=positive(float), help="deviation of embeddings at first; else dim**-0.5")
    add("--seed", type=int, default=1, help="the same seed, the same numbers")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto", help="CUDA if there")
    add("--beam", type=positive(int), nargs="+", default=[1], help="beam sizes to evaluate")
    add("--test-size", type=positive(int), help="held-out test examples")
    add("--examples", type=positive(int), default=200_000,
        help="examples to export; of integrate, also those of each kind to train on")
    add("--small-set", type=positive(int), default=0, help="examples that are read again and again")
    add("--small-every", type=positive(int), default=2, help="each n-th batch is of the small set")
    add("--init", metavar="RUN", help="begin with the weights of this run, as of an easier one")
    add("--out", type=Path, help="the run's folder; if not given, runs/<task and main flags>")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the last whole epoch")
    mode.add_argument("--eval-only", action="store_true", help="evaluate the folder's checkpoint")
    mode.add_argument("--ask", nargs="?", const="-", metavar="PROBLEM",
                      help='let the model solve it, as --ask="-x"; alone: those of standard input')
    mode.add_argument("--export", type=Path, metavar="FILE", help="write examples, as words")
    mode.add_argument("--list", action="store_true", help="list the talk's experiments")
    add("--plot", action="store_true", help="also draw curve.png; with --ask, attention.png")
    if task:
        task.add_arguments(parser.add_argument_group("the task").add_argument)
        parser.set_defaults(**task.scales["laptop"] | task.scales.get(scale, {}))
    for action in parser._actions:
        if action.default not in (None, False, argparse.SUPPRESS):
            action.help += " (%(default)s)"
    return parser


def read_flags(argv=None):
    """-> the flags, the task they describe, and the checkpoint to start from, if any."""
    first = Parser(prog="train.py", add_help=False)
    first.add_argument("--task")
    first.add_argument("--scale", default="laptop")
    known = first.parse_known_args(argv)[0]
    task_class = pkgutil.resolve_name(TASKS[known.task]) if known.task in TASKS else None
    parser = make_parser(task_class, known.scale)
    args = parser.parse_args(argv)
    if args.list:
        list_experiments()
    if not args.task:
        raise ValueError("--task NAME is needed, as in --task gcd; --list lists the experiments")
    if args.muon_lr and args.optimizer != "muon":
        raise ValueError("--muon-lr is for --optimizer muon")
    args.device = pick_device(args.device)
    task = make_task(task_class, args)
    more = f"-{args.scale}" * (args.scale != "laptop") + f"-seed{args.seed}" * (args.seed != 1)
    more += f"-after-{Path(args.init).name}" if args.init else ""
    args.out = args.out or Path("runs", task.name + more)
    if not args.resume and not args.eval_only and args.ask is None:
        return args, task, None
    checkpoint = load_checkpoint(args.out, args.device, args.resume)
    parser.set_defaults(**checkpoint["config"])
    vars(args).update(config_of(parser.parse_args(argv)))  # its flags, where none are given now
    check_agreement(args, checkpoint["config"], task.test_flags)
    return args, make_task(task_class, args), checkpoint


def make_task(task_class, args):
    """The task of these flags. Apple's GPU has no 64-bit floats: there the CPU makes the data."""
    flags = {name: vars(args)[name] for name in task_class.defaults().keys() & vars(args)}
    return task_class(**flags | {"device": "cpu" if args.device == "mps" else args.device})


def check_agreement(args, config, test_flags):
    """Refuse flags that are not those of the checkpoint's run, but for a few that may change."""
    may_change = {"epochs", "test_size", "beam", "workers"}  # workers: of older checkpoints
    may_change |= set() if args.resume else {"processes", *test_flags}
    for name in config.keys() - may_change:
        if config[name] != vars(args)[name]:
            raise ValueError(f"{args.out} holds a run of --{name.replace('_', '-')} "
                             f"{config[name]}, not {vars(args)[name]}")
    if args.resume and args.epochs < config["epochs"]:
        raise ValueError(f"{args.out}: --epochs can only grow, from {config['epochs']}")


def pick_device(name):
    """auto -> what there is; cuda -> this process's GPU, which becomes the current one."""
    gpus, number = torch.cuda.device_count(), int(os.environ.get("LOCAL_RANK", 0))
    name = name.replace("auto", "cuda" if gpus else "cpu")
    there = {"cpu": True, "cuda": number < gpus, "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise ValueError(f"there is no {name} for process {number + 1}; CUDA devices: {gpus}")
    if name == "cuda":
        torch.cuda.set_device(number)
    torch.set_flush_denormal(True)  # sharp attention has weights near 1e-40, slow to multiply
    return name


def make_model(args, task, checkpoint):
    """The model of these flags, with the checkpoint's weights if there is one."""
    layers, longest = args.enc_layers + args.dec_layers, max(task.src_len, task.tgt_len)
    weights = args.dim * (len(task.source) + len(task.target) + 14 * args.dim * layers)
    kept = args.batch_size * layers * longest * (args.heads * longest + 16 * args.dim)
    tested = longest * (args.test_size + max(args.beam) * layers * args.dim)
    if (numbers := 4 * weights + 2 * kept + 2 * tested) > 2**34:  # of 4 bytes: what grows fastest
        raise ValueError(f"this takes {numbers / 2**28:,.0f} GB of memory: choose smaller sizes")
    torch.manual_seed(make_seed(args.seed))
    model = Transformer(len(task.source), len(task.target), task.src_len, task.tgt_len, args.dim,
                        args.heads, args.enc_layers, args.dec_layers, PAD, BOS, EOS, args.word_std)
    if begin := checkpoint or args.init and load_checkpoint(Path(args.init), args.device):
        try:
            model.load_state_dict(begin["model"])
        except RuntimeError:
            raise ValueError(f"{args.init or args.out}: a model of other words or sizes") from None
    return model.to(args.device)


def answer(args, task, model):
    """Print the answers to the problem asked, or to each line of standard input, up to its #."""
    if args.ask != "-":
        return print(task.ask(args.ask, model, max(args.beam)))
    prompt = "problem? " if sys.stdin.isatty() else ""
    print(end=prompt, flush=True)
    for problem in questions(sys.stdin):
        try:
            print(task.ask(problem, model, max(args.beam)))
        except ValueError as error:
            print("train.py:", error, file=sys.stderr)
        print(end=prompt, flush=True)


def export(args, task):
    """Write examples of the training data: lines of a problem, a tab and its solution, in words."""
    generator = torch.Generator(task.device).manual_seed(make_seed(args.seed))
    open(args.export, "a").close()  # fails before the work, if it must
    src, tgt = task.batch(args.examples, generator)
    with open(args.export, "w") as file:
        for problem, solution in zip(src.tolist(), tgt[:, 1:].tolist()):
            print(task.source.text(problem), task.target.text(solution), sep="\t", file=file)
    print(f"{args.export}: {len(src):,} examples")


def run(argv):
    """Do what the command line says; what a user can get wrong comes to light before any work."""
    args, task, checkpoint = read_flags(argv)
    if args.plot:
        import plot  # most calls do not need it
        plot.check(args)
    if args.export:
        return export(args, task)
    model = make_model(args, task, checkpoint)
    if args.ask is not None:
        answer(args, task, model)
    elif args.eval_only:
        result = task.evaluate(model, args.beam, final=True)
        print(task.report([*evaluations(checkpoint["log"]), checkpoint | result]))
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        taken = {"log.jsonl", "checkpoint.pt"} & {*os.listdir(args.out)}
        if RANK == 0 and not args.resume and taken:
            raise ValueError(f"{args.out} holds a run: go on by --resume, or choose another --out")
        if WORLD > 1:
            join_processes(args, task)
        task.prepare()
        train(args, task, model, checkpoint)
        if WORLD > 1:
            torch.distributed.barrier()  # until the first process has evaluated
            torch.distributed.destroy_process_group()
    if args.plot:
        plot.for_train(args, task, model)


def main(argv=None):
    if RANK > 0:
        sys.stdout = open(os.devnull, "w")  # the first process speaks for all
    try:
        Parser(prog="train.py").call(run, argv)
    except KeyboardInterrupt:
        print("\nStopped. If it was training, --resume goes on from the last whole epoch")
        raise SystemExit(130)


if __name__ == "__main__":
    main()
