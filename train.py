"""Step III of the talk, train: teach a transformer any of the tasks, on any device, and look at it.

    python train.py --task gcd --base 31
    python train.py --task gcd --base 31 --resume           go on after Ctrl-C, a crash, a power cut
    python train.py --task gcd --base 31 --ask "10 32"      put a question to the trained model
    torchrun --nproc_per_node=2 train.py --task gcd         two processes, or two GPUs

This is the only file that sees all the others. It knows no task by name: a task is a class with a
few methods (see gcd.py), and adding one is adding a file and an entry in TASKS.
"""

import argparse
import json
import math
import os
import pkgutil
import random
import shlex
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

from model import Transformer
from tokenizers import BOS, EOS, PAD

TASKS = {"gcd": "gcd:GCD"}  # name: where its class is

RANK, WORLD = (int(os.environ.get(name, default)) for name, default in
               [("RANK", 0), ("WORLD_SIZE", 1)])  # which of how many processes: set by torchrun


# The command line

MODE = {"out", "device", "resume", "eval_only", "ask"}  # flags about this call, not about the run
FREE = {"scale", "epochs", "test_size", "beam"}  # flags that may change when a run is taken up again


class Parser(argparse.ArgumentParser):
    def error(self, message):
        fail(message)


def fail(message):
    """One clear line, and exit status 2."""
    if RANK == 0:
        print("train.py:", message, file=sys.stderr)
    raise SystemExit(2)


def positive(number):
    """The argparse type of numbers above zero."""
    def parse(text):
        if not 0 < number(text) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return number(text)
    parse.__name__ = number.__name__  # argparse's "invalid int value"
    return parse


def make_parser(task, scale):
    """-> the parser of all flags, and the names of those that the task added."""
    own = argparse.ArgumentParser(add_help=False)
    if task:
        task.add_arguments(own)
    parser = Parser(description=__doc__, parents=[own],
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--task", choices=TASKS, required=True, help="which experiment; --task X --help: its flags")
    add("--scale", choices=["laptop", "talk"], default="laptop",
        help="defaults for a laptop (minutes) or as on the slides (a GPU); flags given by hand win")
    add("--epochs", type=positive(int), help="epochs to train")
    add("--epoch-size", type=positive(int), default=300_000, help="examples in an epoch (300000)")
    add("--batch-size", type=positive(int), help="examples in a step, on each process")
    add("--lr", type=positive(float), help="peak learning rate")
    add("--warmup", type=positive(int), help="steps in which the learning rate rises to its peak")
    add("--dim", type=positive(int), help="width of the transformer")
    add("--heads", type=positive(int), help="attention heads")
    add("--enc-layers", type=positive(int), help="encoder layers")
    add("--dec-layers", type=positive(int), help="decoder layers")
    add("--seed", type=int, default=1, help="the same seed gives the same numbers (1)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto",
        help="auto takes CUDA if it is there")
    add("--beam", type=positive(int), nargs="+", default=[1], help="beam sizes to evaluate (1)")
    add("--test-size", type=positive(int), help="held-out test examples")
    add("--out", type=Path, help="the run's folder (runs/<task and main flags>)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    mode.add_argument("--eval-only", action="store_true", help="evaluate the folder's checkpoint")
    mode.add_argument("--ask", metavar="PROBLEM", help="have the folder's checkpoint solve it")
    if task:
        parser.set_defaults(**task.scales.get(scale, {}))
    return parser, list(vars(own.parse_args([])))


def read_flags(argv):
    """-> the flags, the task they describe, and the checkpoint to start from, if any."""
    first = argparse.ArgumentParser(add_help=False)
    first.add_argument("--task")
    first.add_argument("--scale", default="laptop")
    known = first.parse_known_args(argv)[0]
    task_class = pkgutil.resolve_name(TASKS[known.task]) if known.task in TASKS else None
    parser, task_flags = make_parser(task_class, known.scale)

    def make_task(args):
        # Apple's GPU has no 64-bit floats: its data are made on the CPU
        device = "cpu" if args.device == "mps" else args.device
        return task_class(**{name: getattr(args, name) for name in task_flags},
                          test_size=args.test_size, device=device)

    args = parser.parse_args(argv)
    args.device = pick_device(args.device)
    task = make_task(args)
    args.out = args.out or Path("runs", task.name + "-talk" * (args.scale == "talk")
                                + f"-seed{args.seed}" * (args.seed != 1))
    if not args.resume and not args.eval_only and args.ask is None:
        return args, task, None
    checkpoint = load_checkpoint(args.out / "checkpoint.pt", args.device)
    args = recall(parser, argv, args, checkpoint)
    return args, make_task(args), checkpoint


def recall(parser, argv, given, checkpoint):
    """The flags of the checkpoint's run: what is given by hand now must not contradict them."""
    config = checkpoint["config"]
    if config["task"] != given.task:
        raise ValueError(f"{given.out} holds a run of --task {config['task']}, not {given.task}")
    if given.resume and checkpoint["processes"] != WORLD:
        raise ValueError(f"{given.out} holds a run of {checkpoint['processes']} processes, not {WORLD}")
    mode = {name: getattr(given, name) for name in MODE}
    args = parser.parse_args(argv, argparse.Namespace(**config, **mode))  # config is the default
    args.out, args.device = given.out, given.device
    for name in config.keys() - FREE:
        if getattr(args, name) != config[name]:
            raise ValueError(f"{given.out} holds a run of --{name.replace('_', '-')} {config[name]}, "
                             f"not {getattr(args, name)}")
    return args


def pick_device(name):
    """auto -> what there is; cuda -> this process's GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: there is no CUDA device here")
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: there is no Apple GPU here")
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" else name


# The run's folder: checkpoint.pt, log.jsonl, report.txt


def save_checkpoint(path, **state):
    """Written beside and renamed, so that a kill at any moment leaves a whole checkpoint."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path, device):
    """weights_only: a checkpoint is data, whoever made it; opening one runs no code of his."""
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch has no common class for what can be wrong with a file
        raise ValueError(f"{path} is not a whole checkpoint ({type(error).__name__})") from None
    if not isinstance(checkpoint, dict) or "config" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of this program")
    return checkpoint


def read_log(path):
    """The events of a log.jsonl; a last line torn by a crash is left out."""
    events = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return events


def write_log(path, events, mode="a"):
    with open(path, mode) as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def open_folder(args, checkpoint):
    """Make the run's folder and begin its log, or cut it back to where the checkpoint was saved."""
    log, temporary = args.out / "log.jsonl", args.out / "log.tmp"
    cuda = args.device.startswith("cuda")
    machine = {"torch": torch.__version__, "processes": WORLD,
               "device": torch.cuda.get_device_name(args.device) if cuda else args.device}
    if checkpoint:
        kept = [event for event in read_log(log)
                if event["event"] != "end" and event.get("examples", 0) <= checkpoint["examples"]]
        kept.append({"event": "resume", "examples": checkpoint["examples"], **machine})
    else:
        args.out.mkdir(parents=True, exist_ok=True)
        if (args.out / "checkpoint.pt").exists() or len(read_log(log)) > 1:
            raise ValueError(f"{args.out} holds a run already: go on with it by --resume, or choose "
                             "another folder with --out")
        kept = [{"event": "start", **config_of(args), **machine}]
    write_log(temporary, kept, "w")
    os.replace(temporary, log)


def config_of(args):
    """What a run is, as plain data."""
    return {name: value for name, value in vars(args).items() if name not in MODE}


# Training


def learning_rate(step, total, peak, warmup):
    """Rise to the peak along a line, then fall to zero along a cosine."""
    return peak * min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / total))


def batch_seed(*numbers):
    """The seed of one batch of one process: a run taken up again sees the batches it would have."""
    return random.Random(repr(numbers)).getrandbits(63)


def clock(seconds):
    return f"{int(seconds) // 60}m {int(seconds) % 60:02}s"


def show(line, live=False):
    """Print a line; on a terminal, a live one is written over by the next."""
    terminal = sys.stdout.isatty()
    print(("\r\033[K" if terminal else "") + line, end="" if live and terminal else "\n", flush=True)


def autocast(device):
    """On CUDA, matrix products in bfloat16; elsewhere nothing changes."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda"))


class Trainer:
    """A training run. What it is at any moment is the model, the optimizer and four numbers."""

    def __init__(self, args, task, model, checkpoint):
        self.args, self.task, self.model = args, task, model
        self.net = torch.nn.parallel.DistributedDataParallel(model) if WORLD > 1 else model
        self.optimizer = torch.optim.Adam(model.parameters(), fused=args.device != "mps")
        self.generator = torch.Generator(task.device)
        self.step_size = args.batch_size * WORLD
        self.steps_per_epoch = math.ceil(args.epoch_size / self.step_size)
        self.total_steps = args.epochs * self.steps_per_epoch
        self.step, self.seconds = 0, 0.0
        self.loss_sum, self.loss_steps = torch.zeros((), device=args.device), 0  # since an epoch began
        if checkpoint:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.step, self.seconds = checkpoint["step"], checkpoint["seconds"]
            self.loss_sum, self.loss_steps = checkpoint["loss_sum"], checkpoint["loss_steps"]
        self.start, self.stopped = time.time() - self.seconds, False

    def save(self):
        self.seconds = time.time() - self.start
        save_checkpoint(
            self.args.out / "checkpoint.pt", config=config_of(self.args), processes=WORLD,
            step=self.step, examples=self.step * self.step_size, seconds=self.seconds,
            loss_sum=self.loss_sum, loss_steps=self.loss_steps, model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict())

    def train_step(self):
        """One batch: its loss, its gradient, one step of the optimizer."""
        args = self.args
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.total_steps, args.lr, args.warmup)
        self.generator.manual_seed(batch_seed(args.seed, RANK, self.step))
        src, tgt = (t.to(args.device) for t in self.task.batch(args.batch_size, self.generator))
        with autocast(args.device):
            logits = self.net(src, tgt[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), tgt[:, 1:].flatten(), ignore_index=PAD)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.loss_sum, self.loss_steps = self.loss_sum + loss.detach(), self.loss_steps + 1
        self.step += 1

    def train_epoch(self):
        """Steps to the end of the epoch or to Ctrl-C, with a progress line now and then; -> examples/s."""
        begin, first, shown = time.time(), self.step, time.time()
        while True:
            self.train_step()
            speed = (self.step - first) * self.step_size / (time.time() - begin)
            if self.stopped or self.step % self.steps_per_epoch == 0:
                return speed
            if RANK == 0 and time.time() - shown > (0.5 if sys.stdout.isatty() else 30):
                shown = time.time()
                show(self.progress(speed), live=True)

    def progress(self, speed):
        left = (self.total_steps - self.step) * self.step_size / speed
        return (f"{self.step * self.step_size:>12,} examples  {speed:,.0f}/s  "
                f"loss {self.loss_sum.item() / self.loss_steps:.4f}  {clock(left)} left")

    def end_epoch(self, speed):
        """Evaluate, log, save."""
        with autocast(self.args.device):
            result = self.task.evaluate(self.model, self.args.beam, self.step == self.total_steps)
        show(f"{self.progress(speed)}  {self.task.headline(result)}")
        write_log(self.args.out / "log.jsonl", [{
            "event": "eval", "epoch": self.step // self.steps_per_epoch,
            "examples": self.step * self.step_size, "seconds": round(time.time() - self.start, 1),
            "loss": self.loss_sum.item() / self.loss_steps, "examples_per_second": round(speed),
            **result}])
        self.loss_sum, self.loss_steps = torch.zeros_like(self.loss_sum), 0
        self.save()

    def stop(self, *_):
        """Ctrl-C lets the step at hand end; a second one does not wait."""
        self.stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def run(self):
        """Train to the end, or to Ctrl-C; -> whether it got to the end."""
        handler = signal.signal(signal.SIGINT, self.stop)
        if RANK == 0:
            self.save()  # from the first moment on there is something to resume
        while self.step < self.total_steps and not self.stopped:
            speed = self.train_epoch()
            if RANK == 0 and self.step % self.steps_per_epoch == 0:
                self.end_epoch(speed)
        if RANK == 0:
            self.save()
        signal.signal(signal.SIGINT, handler)
        return self.step == self.total_steps


def finish(args, task):
    """The last line of the log, and the report from all of it."""
    log = args.out / "log.jsonl"
    evals = [event for event in read_log(log) if event["event"] == "eval"]
    end = {name: evals[-1][name] for name in ["epoch", "examples", "seconds", "accuracy"]}
    write_log(log, [{"event": "end", **end}])
    report = task.report(evals)
    (args.out / "report.txt").write_text(report + "\n")
    print(f"\n{report}\n\nThis report, the log and the model are in {args.out}")


def make_model(args, task, checkpoint):
    torch.manual_seed(args.seed)
    model = Transformer(task.src_words, task.tgt_words, task.src_len, task.tgt_len, args.dim,
                        args.heads, args.enc_layers, args.dec_layers, PAD, BOS, EOS)
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
    return model.to(args.device)


def evaluate_only(args, task, model, checkpoint):
    """Print the report of a checkpoint; write nothing."""
    with autocast(args.device):
        result = task.evaluate(model, args.beam, final=True)
    evals = [event for event in read_log(args.out / "log.jsonl") if event["event"] == "eval"]
    now = {"epoch": checkpoint["examples"] // args.epoch_size, "examples": checkpoint["examples"]}
    print(task.report([*evals, {**now, **result}]))


def train(args, task, model, checkpoint, argv):
    """Train, and say what was learned, or how to go on after Ctrl-C."""
    if WORLD > 1:
        cuda = args.device.startswith("cuda")
        if cuda:
            torch.cuda.set_device(args.device)
        dist.init_process_group("nccl" if cuda else "gloo")
    done = Trainer(args, task, model, checkpoint).run()
    if WORLD > 1:
        dist.destroy_process_group()
    if RANK == 0 and done:
        finish(args, task)
    elif RANK == 0:
        command = [flag for flag in argv if flag != "--resume"]
        show(f"Stopped. To go on: python train.py {shlex.join(command)} --resume")
        raise SystemExit(130)


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    try:  # what a user can get wrong comes to light here, before any work starts
        args, task, checkpoint = read_flags(argv)
        model = make_model(args, task, checkpoint)
        if args.ask is not None:
            with autocast(args.device):
                return print(task.ask(args.ask, model, args.beam))
        if RANK == 0 and not args.eval_only:
            open_folder(args, checkpoint)
    except ValueError as error:
        fail(error)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    if args.eval_only:
        evaluate_only(args, task, model, checkpoint)
    else:
        train(args, task, model, checkpoint, argv)


if __name__ == "__main__":
    main()
