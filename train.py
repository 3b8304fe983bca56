"""Step III of the talk, train: teach a transformer any of the tasks, on any device, and look at it.

    python train.py --task gcd --base 31
    python train.py --task gcd --base 31 --resume           go on after Ctrl-C or a crash
    python train.py --task gcd --base 31 --ask "10 32"      put a question to the trained model
    python train.py --list                                  the talk's experiments, as commands
    torchrun --nproc_per_node=2 train.py --task gcd         two processes, or two GPUs

This is the only file that sees all the others. It knows no task by name: a task is a class with a
few methods (see gcd.py), and adding one is adding a file and an entry in TASKS.
"""

import argparse
import ctypes
import datetime
import importlib
import inspect
import json
import math
import os
import pkgutil
import random
import re
import signal
import sys
import time
import types
from pathlib import Path


class Lazy(types.ModuleType):
    """A module that is imported when it is first used: torch takes seconds, --help shall not."""

    def __getattr__(self, name):
        if sys.modules[self.__name__] is self:
            del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(vars(module))
        return getattr(module, name)


sys.modules.setdefault("torch", Lazy("torch"))

import torch

from tokenizers import BOS, EOS, PAD, trim

# Where each task's class is. What it has: scales, the defaults of each --scale; add_arguments, its
# flags, which its constructor takes, with test_size and device; free, those of its flags that may
# change in a run taken up again; device, where its batches are made; name, for the run's folder;
# source and target, its vocabularies; src_words, tgt_words, src_len, tgt_len, the sizes of these
# and of its sequences; and prepare, batch, evaluate, headline, report and ask.
TASKS = {"gcd": "gcd:GCD", "eigen": "eigen:LinearAlgebra", "integrate": "integrate:Integration",
         "sums": "translations.sums:Sums",
         "roots": "translations.roots:Roots",
         "derivatives": "translations.derivatives:Derivatives",
         "recurrences": "translations.recurrences:Recurrences"}

RANK = int(os.environ.get("RANK", 0))  # which process this is, of how many: torchrun sets it
WORLD = int(os.environ.get("WORLD_SIZE", 1))


# Training


def learning_rate(step, total, peak, warmup):
    """Rise to the peak along a line, then fall to zero along a cosine."""
    return peak * min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / total))


def batch_seed(*numbers):
    """The seed of one batch of one process: a run taken up again sees the batches it would have."""
    return random.Random(repr(numbers)).getrandbits(63)


def autocast(device):
    """On CUDA, matrix products in bfloat16; elsewhere nothing changes."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda"))


def evaluate(args, task, model, final):
    """What the task measures on the model; final: all of it."""
    with autocast(args.device):
        return task.evaluate(model, args.beam, final)


def evals_of(log):
    """The evaluations of a log."""
    return [event for event in log if event["event"] == "eval"]


def make_optimizers(args, model):
    """Adam for all of the model; or Muon for the matrices of its layers, and Adam for the rest."""
    fused = args.device != "mps"
    if args.optimizer != "muon":
        return [torch.optim.Adam(model.parameters(), fused=fused)]
    from muon import Muon  # it needs torch at once
    matrices = [p for layer in [*model.encoder, *model.decoder] for p in layer.parameters()
                if p.ndim == 2]
    inside = set(matrices)
    rest = [p for p in model.parameters() if p not in inside]
    return [torch.optim.Adam(rest, fused=fused), Muon(matrices)]


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_memory():
    """Have glibc keep the memory of freed tensors for the next step. The large ones it would give
    back to the system, which clears every page before it gives it again: 3 to 15% of a step."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


class Trainer:
    """A training run. Its state: model, optimizers, step, start, loss_sum and log."""

    def __init__(self, args, task, model, checkpoint):
        self.args, self.task, self.model = args, task, model
        self.optimizers = make_optimizers(args, model)
        self.generator = torch.Generator(task.device)
        # A GPU makes the examples of many steps at once: it must wait to be told how many are held
        # out and how long the longest is, and small batches would take longer than the steps. Not
        # too many: its eigenvalue solver refuses more than some 32,000 matrices.
        many = max(1, 2**14 // args.batch_size)
        self.ahead, self.batches = many if task.device.startswith("cuda") else 1, []
        self.examples_per_step = args.batch_size * WORLD
        self.steps_per_epoch = math.ceil(args.epoch_size / self.examples_per_step)
        self.total_steps = args.epochs * self.steps_per_epoch
        self.step, self.log, seconds = 0, [], 0.0
        self.loss_sum = torch.zeros((), device=args.device)  # over the steps of this epoch
        self.stop_asked = self.stopped = False
        if checkpoint:
            for optimizer, state in zip(self.optimizers, checkpoint["optimizers"]):
                optimizer.load_state_dict(state)
            self.step, seconds = checkpoint["step"], checkpoint["seconds"]
            self.loss_sum, self.log = checkpoint["loss_sum"], checkpoint["log"]
        self.start = time.perf_counter() - seconds

    def batch(self):
        """The examples of this step."""
        place = self.step % self.ahead
        if place == 0 or not self.batches:
            self.batches = self.make_batches(self.step - place)
        return self.batches[place]

    def make_batches(self, first):
        """The examples of so many steps from the first. For a compiled model, sequences are as long
        as any can be: each new length would be compiled anew."""
        args, task = self.args, self.task
        self.generator.manual_seed(batch_seed(args.seed, RANK, first))
        sides = task.batch(args.batch_size * self.ahead, self.generator)
        if args.compile:
            sides = [torch.nn.functional.pad(t, (0, longest - t.size(1)), value=PAD)
                     for t, longest in zip(sides, (task.src_len, task.tgt_len + 1))]
        if task.device == "cpu" and args.device.startswith("cuda"):
            sides = [t.pin_memory() for t in sides]  # so that nobody waits for the copy
        batches = zip(*(t.to(args.device, non_blocking=t.is_pinned()).split(args.batch_size)
                        for t in sides))
        if args.compile or self.ahead == 1:
            return [*batches]
        return [[*map(trim, batch)] for batch in batches]

    def train_step(self):
        """One batch: its loss, its gradient, one step of the optimizers."""
        args = self.args
        lr = learning_rate(self.step, self.total_steps, args.lr, args.warmup)
        src, tgt = self.batch()
        with autocast(args.device):
            logits = self.parallel_model(src, tgt[:, :-1])
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), tgt[:, 1:].flatten(), ignore_index=PAD)
        self.model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        self.loss_sum = self.loss_sum + loss.detach()
        self.step += 1

    def train_epoch(self):
        """Steps to the end of the epoch, or to Ctrl-C, and progress lines; -> examples/s."""
        begin, first, shown = time.perf_counter(), self.step, time.perf_counter()
        while True:
            self.train_step()
            now = time.perf_counter()
            speed = (self.step - first) * self.examples_per_step / (now - begin)
            self.stopped = self.agree_to_stop()
            if self.stopped or self.step % self.steps_per_epoch == 0:
                return speed
            if RANK == 0 and now - shown > (0.5 if sys.stdout.isatty() else 30):
                shown = now
                show(self.progress(speed), live=True)

    def end_epoch(self, speed):
        """Evaluate, log, save."""
        result = evaluate(self.args, self.task, self.model, self.step == self.total_steps)
        show(f"{self.progress(speed)}  {self.task.headline(result)}")
        self.write({"event": "eval", **self.position(), "loss": self.loss(),
                    "examples_per_second": round(speed), **result})
        self.loss_sum = torch.zeros_like(self.loss_sum)
        self.save()

    def wrap(self, model):
        """The model as it is trained: in step with other processes, compiled. Small models leave a
        GPU idle, waiting for the next kernel; reduce-overhead records them all as a CUDA graph."""
        if WORLD > 1:
            model = torch.nn.parallel.DistributedDataParallel(model)
        if self.args.compile:
            cuda = self.args.device.startswith("cuda")
            model = torch.compile(model, mode="reduce-overhead" if cuda else None)
        return model

    def run(self):
        """Train to the end, or to Ctrl-C; -> whether it got to the end."""
        self.parallel_model = self.wrap(self.model)
        handler = signal.signal(signal.SIGINT, self.ask_to_stop)
        while self.step < self.total_steps and not self.stopped:
            speed = self.train_epoch()
            if RANK == 0 and self.step % self.steps_per_epoch == 0:
                self.end_epoch(speed)
        if RANK == 0 and self.stopped:
            self.save()
        signal.signal(signal.SIGINT, handler)
        return self.step == self.total_steps

    def ask_to_stop(self, *_):
        """Ctrl-C: stop after the step at hand. A second one does not wait for it."""
        self.stop_asked = True
        if WORLD == 1:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def agree_to_stop(self):
        """Whether to stop now. Several processes must do so after the same step, so they vote."""
        if WORLD == 1:
            return self.stop_asked
        if self.step % 20:
            return False
        vote = torch.tensor(float(self.stop_asked), device=self.args.device)
        torch.distributed.all_reduce(vote, torch.distributed.ReduceOp.MAX)
        return vote.item() > 0

    # What it says and writes

    def loss(self):
        """The mean loss of this epoch so far."""
        return self.loss_sum.item() / ((self.step - 1) % self.steps_per_epoch + 1)

    def position(self):
        """How far it is."""
        return {"epoch": self.step // self.steps_per_epoch,
                "examples": self.step * self.examples_per_step,
                "seconds": round(time.perf_counter() - self.start, 1)}

    def progress(self, speed):
        """A progress line: examples, examples/s, loss, time left."""
        left = int((self.total_steps - self.step) * self.examples_per_step / speed)
        return (f"{self.step * self.examples_per_step:>12,} examples  {speed:,.0f}/s  "
                f"loss {self.loss():.4f}  {left // 60}m {left % 60:02}s left")

    def claim_folder(self):
        """Make the run's folder, unless it is another's."""
        out = self.args.out
        out.mkdir(parents=True, exist_ok=True)
        if (out / "checkpoint.pt").exists() or (out / "log.jsonl").exists():
            raise ValueError(f"{out} holds a run already: go on with it by --resume, or choose "
                             "another folder with --out")

    def open_log(self, resumed):
        """Begin the run's log, or put it back to where its checkpoint was saved."""
        out, device = self.args.out, self.args.device
        if device.startswith("cuda"):
            device = torch.cuda.get_device_name(device)
        event = {"event": "resume" if resumed else "start", **config_of(self.args),
                 "torch": str(torch.__version__), "device": device, "processes": WORLD}
        self.log.append(event)
        self.save()  # from the first moment on there is something to resume
        (out / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in self.log))

    def write(self, event):
        """Append an event to the log, in memory and on disk."""
        self.log.append(event)
        with open(self.args.out / "log.jsonl", "a") as file:
            file.write(json.dumps(event) + "\n")

    def save(self):
        """All that --resume needs, and what --ask and --eval-only do."""
        save_checkpoint(
            self.args.out / "checkpoint.pt", config=config_of(self.args), processes=WORLD,
            step=self.step, **self.position(), loss_sum=self.loss_sum, log=self.log,
            model=self.model.state_dict(),
            optimizers=[optimizer.state_dict() for optimizer in self.optimizers])

    def finish(self):
        """The last line of the log, and the report on all of it."""
        evals = evals_of(self.log)
        self.write({"event": "end", **{name: evals[-1][name]
                                       for name in ["epoch", "examples", "seconds", "accuracy"]}})
        report = self.task.report(evals)
        (self.args.out / "report.txt").write_text(report + "\n")
        print(f"\n{report}\n\nThis report, the log and the model are in {self.args.out}")


def show(line, live=False):
    """Print a line; on a terminal, a live one is written over by the next."""
    terminal = sys.stdout.isatty()
    end = "" if live and terminal else "\n"
    print(("\r\033[K" if terminal else "") + line, end=end, flush=True)


def save_checkpoint(path, **state):
    """Written beside and renamed, so that a kill at any moment leaves a whole checkpoint."""
    temporary = path.with_suffix(".tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
    os.replace(temporary, path)


def load_checkpoint(path, device):
    """weights_only: a checkpoint is data, whoever made it; opening one runs no code of theirs."""
    if not path.exists():
        raise ValueError(f"there is no checkpoint {path}: train first")
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch has no common class for what can be wrong with a file
        raise ValueError(f"{path} is not a whole checkpoint ({type(error).__name__})") from None
    ours = {"config", "step", "log", "model", "optimizers"}
    if not isinstance(checkpoint, dict) or not ours <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint of this program")
    return checkpoint


# The command line

MODE = {"out", "device", "compile", "resume", "eval_only", "ask", "plot"}  # this call, not the run
FREE = {"scale", "epochs", "test_size", "beam"}  # flags that may change in a run taken up again


def config_of(args):
    """What a run is, as plain data."""
    return {name: value for name, value in vars(args).items() if name not in MODE}


def fail(message):
    """One clear line, and exit status 2."""
    if RANK == 0:
        print("train.py:", message, file=sys.stderr)
    raise SystemExit(2)


def positive(kind):
    """The argparse type of an int or float above zero."""
    def parse(text):
        if not 0 < kind(text) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above zero")
        return kind(text)
    parse.__name__ = kind.__name__  # argparse's "invalid int value"
    return parse


class ListExperiments(argparse.Action):
    """--list: the README's commands, under the titles of their slides, with their times."""

    def __init__(self, **settings):
        super().__init__(nargs=0, default=argparse.SUPPRESS, **settings)

    def __call__(self, *_):
        for line in Path(__file__).with_name("README.md").read_text().splitlines():
            if match := re.match(r"\*\*(.*?)\.?\*\*", line):
                title = f"\n{match[1]}\n\n"
            if match := re.match(r"\| `(python train\.py .*?)` .* (\d+ min) \|$", line):
                print(f"{title}{match[2]:>8}  {match[1]}")
                title = ""
        raise SystemExit


def add_run_flags(add):
    """What a run is."""
    add("--task", choices=TASKS, required=True, help="which experiment; --task X --help: its flags")
    add("--scale", choices=["laptop", "talk"], default="laptop",
        help="defaults for a laptop (minutes) or as on the slides (a GPU); flags given by hand win")
    add("--epochs", type=positive(int), help="epochs to train")
    add("--epoch-size", type=positive(int), default=300_000,
        help="examples in an epoch (300000, or as said below)")
    add("--batch-size", type=positive(int), help="examples in a step, on each process")
    add("--optimizer", choices=["adam", "muon"], default="adam",
        help="muon: for the matrices inside the layers, and adam for the rest (adam, or as said "
             "below)")
    add("--lr", type=positive(float), help="peak learning rate")
    add("--warmup", type=positive(int), help="steps in which the learning rate rises to its peak")
    add("--dim", type=positive(int), help="width of the transformer")
    add("--heads", type=positive(int), help="attention heads")
    add("--enc-layers", type=positive(int), help="encoder layers")
    add("--dec-layers", type=positive(int), help="decoder layers")
    add("--word-std", type=positive(float),
        help="deviation of the words' embeddings at the start (1 / sqrt(dim))")
    add("--seed", type=int, default=1, help="the same seed gives the same numbers (1)")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto",
        help="auto takes CUDA if it is there")
    add("--compile", action="store_true",
        help="compile the model first, which takes minutes; on CUDA, as one graph of kernels")
    add("--beam", type=positive(int), nargs="+", default=[1],
        help="beam sizes to evaluate (1, or as said below)")
    add("--test-size", type=positive(int), help="held-out test examples")
    add("--out", type=Path, help="the run's folder (runs/<task and main flags>)")


def add_mode_flags(parser):
    """What to do with it; without any, train."""
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--resume", action="store_true", help="go on from the folder's checkpoint")
    mode.add_argument("--eval-only", action="store_true", help="evaluate the folder's checkpoint")
    mode.add_argument("--ask", metavar="PROBLEM",
                      help='have the folder\'s checkpoint solve it; "-": those of standard input')
    mode.add_argument("--list", action=ListExperiments, help="list the talk's experiments")
    parser.add_argument("--plot", action="store_true", help="also draw the folder's curve.png; "
                        "with --ask, its attention.png (needs matplotlib)")


def make_parser(task, scale):
    """All flags: the common ones and, where it is known, the task's."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = fail
    add_run_flags(parser.add_argument)
    add_mode_flags(parser)
    if task:
        task.add_arguments(parser.add_argument_group("the task"))
        defaults = task.scales.get(scale, {})
        parser.set_defaults(**defaults)
        parser.epilog = f"--scale {scale}: " + " ".join(
            f"--{name.replace('_', '-')} {str(value).strip('[]').replace(',', '')}"
            for name, value in defaults.items())
    return parser


def make_task(task_class, args):
    """The task of these flags. Apple's GPU has no 64-bit floats: there the CPU makes the data."""
    flags = {name: getattr(args, name) for name in inspect.signature(task_class).parameters}
    return task_class(**flags | {"device": "cpu" if args.device == "mps" else args.device})


def read_flags(argv):
    """-> the flags, the task they describe, and the checkpoint to start from, if any."""
    first = argparse.ArgumentParser(add_help=False)
    first.error = fail
    first.add_argument("--list", action=ListExperiments)
    first.add_argument("--task")
    first.add_argument("--scale", default="laptop")
    known = first.parse_known_args(argv)[0]
    task_class = pkgutil.resolve_name(TASKS[known.task]) if known.task in TASKS else None
    parser = make_parser(task_class, known.scale)
    args = parser.parse_args(argv)
    args.device = pick_device(args.device)
    task = make_task(task_class, args)
    args.out = args.out or Path("runs", task.name + "-talk" * (args.scale == "talk")
                                + f"-seed{args.seed}" * (args.seed != 1))
    if not args.resume and not args.eval_only and args.ask is None:
        return args, task, None
    checkpoint = load_checkpoint(args.out / "checkpoint.pt", args.device)
    args = recall(parser, argv, args, checkpoint, FREE | task_class.free)
    return args, make_task(task_class, args), checkpoint


def recall(parser, argv, given, checkpoint, free):
    """The flags of the checkpoint's run. One given now must agree, unless it is free to change."""
    config = checkpoint["config"]

    def must_agree(flag, was, now):
        if was != now:
            raise ValueError(f"{given.out} holds a run of {flag} {was}, not {now}")

    must_agree("--task", config["task"], given.task)
    parser.set_defaults(**config)
    args = parser.parse_args(argv)
    args.out, args.device = given.out, given.device
    for name in config.keys() - free:
        must_agree("--" + name.replace("_", "-"), config[name], getattr(args, name))
    if given.resume:
        must_agree("torchrun --nproc_per_node", checkpoint["processes"], WORLD)
        if args.epochs < config["epochs"]:
            raise ValueError(f"{given.out}: --epochs can only grow, from {config['epochs']}")
    return args


def pick_device(name):
    """auto -> what there is; cuda -> this process's GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: there is no Apple GPU here")
    if name != "cuda":
        return name
    gpus, needed = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if gpus < needed:
        raise ValueError(f"--device cuda: CUDA devices needed: {needed}, here: {gpus}")
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}"


def answer(args, task, model):
    """Print the model's answers to the problem asked, or to those of standard input, one a line.
    There, a line that is no problem is said to be none, and what follows # is a comment."""
    if args.ask != "-":
        print(task.ask(args.ask, model, args.beam))
        return
    for line in sys.stdin:
        try:
            if problem := line.partition("#")[0].strip():
                print(task.ask(problem, model, args.beam), flush=True)
        except ValueError as error:
            print("train.py:", error, file=sys.stderr)


def make_model(args, task, checkpoint):
    """The model of these flags, with the checkpoint's weights if there is one."""
    from model import Transformer  # it needs torch at once
    torch.manual_seed(args.seed)
    model = Transformer(task.src_words, task.tgt_words, task.src_len, task.tgt_len, args.dim,
                        args.heads, args.enc_layers, args.dec_layers, PAD, BOS, EOS,
                        args.word_std)
    if checkpoint:
        model.load_state_dict(checkpoint["model"])
    return model.to(args.device)


def evaluate_only(args, task, model, checkpoint):
    """Print the report on a checkpoint; write nothing."""
    now = {"epoch": checkpoint["epoch"], "examples": checkpoint["examples"]}
    result = evaluate(args, task, model, final=True)
    print(task.report([*evals_of(checkpoint["log"]), {**now, **result}]))


def draw(args, task, model):
    """--plot: where the model looks in the problem asked, or how it learned."""
    import plot
    if args.ask is not None:
        plot.save(plot.attention_map(task, model, args.ask), args.out / "attention.png")
    else:
        plot.save(plot.curves(args.out), args.out / "curve.png")


def train(trainer):
    """Train, and say what was learned, or how to go on after Ctrl-C."""
    if WORLD > 1:
        cuda = trainer.args.device.startswith("cuda")
        if cuda:
            torch.cuda.set_device(trainer.args.device)
        torch.distributed.init_process_group("nccl" if cuda else "gloo",
                                             timeout=datetime.timedelta(days=1))
    done = trainer.run()
    if WORLD > 1:
        del trainer.parallel_model  # else it keeps the group alive to the exit, which then can hang
        torch.distributed.barrier()  # the last evaluation is over on rank 0: now all may leave
        torch.distributed.destroy_process_group()
    if RANK == 0 and done:
        trainer.finish()
        if trainer.args.plot:
            draw(trainer.args, trainer.task, trainer.model)
    elif RANK == 0:
        show("Stopped. To go on: the same command with --resume")
        raise SystemExit(130)


def main(argv=None):
    try:  # what a user can get wrong comes to light here, before any work starts
        args, task, checkpoint = read_flags(argv)
        if args.plot:
            import plot  # only here and in draw: most calls do not need it
            plot.need_matplotlib()
            if args.ask == "-":
                raise ValueError("--plot draws one problem, not those of standard input")
        model = make_model(args, task, checkpoint)
        to_train = args.ask is None and not args.eval_only
        if args.ask is not None and RANK == 0:
            with autocast(args.device):
                answer(args, task, model)
        if args.eval_only and RANK == 0:
            evaluate_only(args, task, model, checkpoint)
        if args.plot and not to_train and RANK == 0:
            draw(args, task, model)
        if to_train:
            keep_memory()
            trainer = Trainer(args, task, model, checkpoint)
            if RANK == 0 and not args.resume:
                trainer.claim_folder()
            task.prepare()
            if RANK == 0:
                trainer.open_log(resumed=args.resume)
    except ValueError as error:
        fail(error)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        raise SystemExit(130)  # nothing was learned yet; data that were made are kept
    if to_train:
        train(trainer)


if __name__ == "__main__":
    main()
