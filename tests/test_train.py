"""train.py promises: its command line is a contract, nothing is lost, the same command gives the
same numbers, and what is wrong is said in one line."""

import io
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import train

ROOT = Path(train.__file__).parent
TINY = ("--task gcd --base 6 --max-int 200 --dim 16 --heads 2 --epoch-size 512 --batch-size 64 "
        "--epochs 3 --test-size 300 --warmup 10 --device cpu").split()


def run(out, *flags):
    train.main([*TINY, "--out", str(out), *map(str, flags)])


def make_trainer(*flags):
    args, task, _ = train.read_flags([*TINY, *flags])
    trainer = train.Trainer(args, task, train.make_model(args, task, None), None)
    trainer.parallel_model = trainer.wrap(trainer.model)
    return trainer


def log(out):
    return [json.loads(line) for line in (Path(out) / "log.jsonl").read_text().splitlines()]


def numbers(out):
    """All that a run's evaluations say, but for the time it took."""
    return [{k: v for k, v in event.items() if k not in ("seconds", "examples_per_second")}
            for event in log(out) if event["event"] in ("eval", "end")]


def weights(out):
    return torch.load(Path(out) / "checkpoint.pt", weights_only=True)["model"]


def same_weights(a, b):
    pairs = zip(weights(a).values(), weights(b).values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "done"
    run(out)
    return out


# It learns


def test_it_learns_the_gcd_of_small_numbers(tmp_path, capsys):
    """Base 6, integers up to 200: in seconds most answers are right, on pairs it never saw."""
    run(tmp_path / "a", "--dim", 32, "--epoch-size", 50_000, "--epochs", 1, "--lr", 3e-3)
    end = log(tmp_path / "a")[-1]
    assert end["accuracy"] > 0.75  # 61% of pairs have GCD 1, and 85% a GCD of 1, 2, 3 or 6
    report = capsys.readouterr().out
    assert "R1 " in report and "R3 " in report and report.count("Accuracy on new pairs") == 1


# The log and the report


def test_the_log_is_the_contracts(done):
    first, *evals, end = log(done)
    assert first["event"] == "start" and first["torch"] == torch.__version__
    assert first["device"] == "cpu" and first["base"] == 6 and first["warmup"] == 10
    assert [e["event"] for e in evals] == ["eval"] * 3 and end["event"] == "end"
    assert [e["epoch"] for e in evals] == [1, 2, 3]
    assert [e["examples"] for e in evals] == [512, 1024, 1536]
    for e in evals:
        assert {"seconds", "loss", "examples_per_second", "accuracy", "correct_gcds"} <= e.keys()
        assert 0 <= e["accuracy"] <= 1
    assert evals[-1]["predictions"].keys() <= {str(k) for k in range(1, 101)}
    assert "predictions" not in evals[0]
    assert evals[0]["loss"] > evals[-1]["loss"] > 0
    report = (done / "report.txt").read_text()
    assert report.startswith("The greatest common divisor of integers up to 200, in base 6")


def test_the_same_command_gives_the_same_numbers_and_another_seed_others(done, tmp_path):
    run(tmp_path / "again")
    run(tmp_path / "other", "--seed", 2)
    assert numbers(tmp_path / "again") == numbers(done) and same_weights(tmp_path / "again", done)
    assert numbers(tmp_path / "other") != numbers(done)


def test_eval_only_prints_the_report_and_changes_nothing(done, capsys):
    before = {path: path.read_bytes() for path in done.iterdir()}
    run(done, "--eval-only")
    assert capsys.readouterr().out == (done / "report.txt").read_text()
    train.main(["--task", "gcd", "--out", str(done), "--eval-only", "--beam", "1", "3"])
    assert {path: path.read_bytes() for path in done.iterdir()} == before


def test_ask(done, capsys):
    run(done, "--ask", "12 18")
    one = capsys.readouterr().out
    assert "gcd(12, 18) = 6" in one and one.count("right") + one.count("wrong") == 1
    train.main(["--task", "gcd", "--out", str(done), "--ask", "12 18", "--beam", "5"])
    five = capsys.readouterr().out
    assert five.count("right") + five.count("wrong") == 5


def test_help_does_not_wait_for_torch():
    script = ("import sys, train\ntry: train.main(['--task', 'gcd', '--help'])\n"
              "except SystemExit: sys.exit('torch._C' in sys.modules)")
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_ask_reads_problems_line_by_line(done, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("12 18\n\n# easy ones\nnonsense\n2 4  # 2\n"))
    run(done, "--ask", "-")
    out, err = capsys.readouterr()
    assert "gcd(12, 18) = 6" in out and "gcd(2, 4) = 2" in out and out.count("gcd") == 2
    assert "nonsense" in err and err.count("\n") == 1


def test_beam_sizes_are_evaluated_apart(tmp_path):
    run(tmp_path / "beams", "--beam", 1, 3, "--epochs", 1)
    by_beam = log(tmp_path / "beams")[-2]["accuracy_by_beam"]
    report = (tmp_path / "beams" / "report.txt").read_text()
    assert by_beam.keys() == {"1", "3"} and f"beam 3: {by_beam['3']:.1%}" in report


# Stopping and going on


def stop_after(steps, how):
    """A train_step that does `how` after so many steps."""
    step, count = train.Trainer.train_step, [0]

    def train_step(self):
        step(self)
        count[0] += 1
        if count[0] == steps:
            how(self)
    return train_step


@pytest.mark.parametrize("steps", [1, 8, 11, 23])
def test_ctrl_c_saves_and_resume_gives_the_same_numbers(steps, done, tmp_path, monkeypatch, capsys):
    """Mid-epoch or between: bit for bit the run that was never stopped."""
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "train_step",
                      stop_after(steps, lambda self: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(SystemExit) as stop:
            run(out)
    assert stop.value.code == 130 and "--resume" in capsys.readouterr().out
    run(out, "--resume")
    assert numbers(out) == numbers(done) and same_weights(out, done)


def test_resume_drops_what_was_logged_after_the_checkpoint(done, tmp_path, monkeypatch):
    """Killed between log line and checkpoint, the last line torn: no line twice, none lost."""
    out = tmp_path / "torn"

    def fail(self):
        raise RuntimeError("power cut")
    with monkeypatch.context() as patch:
        save, saves = train.Trainer.save, []
        patch.setattr(train.Trainer, "save", lambda self: saves.append(1) or (
            save(self) if len(saves) < 2 else fail(self)))
        with pytest.raises(RuntimeError):
            run(out)
    assert len(log(out)) == 2  # the start and an evaluation newer than the checkpoint
    with open(out / "log.jsonl", "a") as file:
        file.write('{"event": "eval", "epo')
    run(out, "--resume")
    assert numbers(out) == numbers(done) and same_weights(out, done)


def test_a_finished_run_can_be_trained_further(done, tmp_path):
    out = tmp_path / "longer"
    run(out)
    run(out, "--resume")  # nothing left to do
    assert numbers(out) == numbers(done)
    run(out, "--resume", "--epochs", 4)
    assert [e["epoch"] for e in log(out) if e["event"] == "eval"] == [1, 2, 3, 4]


KILL_9 = """
import os, random, signal, sys, time
import train
out, *flags = sys.argv[1:]
path = out + "/checkpoint.pt"
for kill in range(10):
    child = os.fork()
    if child == 0:
        train.main([*flags, "--out", out, *["--resume"] * (kill > 0)])
    saves, last = random.randint(2, 8), None  # let it save so many times, then strike
    while saves:
        time.sleep(0.001)
        now = os.path.exists(path) and os.stat(path).st_mtime_ns
        saves, last = saves - (now != last), now
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed after", train.load_checkpoint(train.Path(path), "cpu")["epoch"])
"""


def test_kill_9_while_it_saves(tmp_path):
    """A run that does little but save is killed ten times; each time it goes on where it was."""
    out = tmp_path / "killed"
    flags = [*TINY, "--epoch-size", "64", "--epochs", "100000", "--test-size", "100"]
    result = subprocess.run([sys.executable, "-c", KILL_9, out, *flags], cwd=ROOT, text=True,
                            capture_output=True)
    epochs = [int(line.split()[-1]) for line in result.stdout.splitlines() if "killed" in line]
    assert len(epochs) == 10 and epochs == sorted(epochs) and epochs[-1] > 10, result.stderr
    logged = [event["epoch"] for event in train.load_checkpoint(out / "checkpoint.pt", "cpu")["log"]
              if event["event"] == "eval"]
    assert logged == list(range(1, epochs[-1] + 1))  # none lost, none twice


def test_a_save_that_fails_half_way_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def torn(state, file):
        file.write(b"half a check")
        raise OSError("disk full")
    path = tmp_path / "checkpoint.pt"
    state = {"config": {}, "log": [], "model": {}, "optimizers": []}
    train.save_checkpoint(path, step=1, **state)
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError):
        train.save_checkpoint(path, step=2, **state)
    assert train.load_checkpoint(path, "cpu")["step"] == 1


def test_a_second_run_does_not_write_over_the_first(done, capsys):
    before = {path: path.read_bytes() for path in done.iterdir()}
    assert "--resume" in refused(capsys, "--out", done)
    assert {path: path.read_bytes() for path in done.iterdir()} == before


# Compiled


def test_a_compiled_step_has_the_same_losses(monkeypatch):
    """Sequences are all as long as any can be, and the losses those of the eager step. Here the
    model is only traced; on CUDA, mode reduce-overhead makes kernels of it, and a graph of them."""
    compile, modes, losses = torch.compile, [], {}
    monkeypatch.setattr(torch, "compile", lambda model, mode: modes.append(mode) or compile(
        model, backend="eager"))
    for flag in ("", "--compile"):
        trainer = make_trainer(*flag.split())
        for _ in range(8):
            trainer.train_step()
            losses.setdefault(flag, []).append(trainer.loss_sum.item())
    assert losses[""] == pytest.approx(losses["--compile"], rel=1e-5) and modes == [None]
    task = trainer.task
    assert {tuple(t.shape) for t in trainer.batch()} == {(64, task.src_len), (64, task.tgt_len + 1)}


# On a GPU, which computes while Python goes on


def test_examples_of_many_steps_can_be_made_at_once():
    """As on a GPU: the same ones wherever a run is taken up, each batch as long as its longest."""
    trainer, again = make_trainer(), make_trainer()
    trainer.ahead = again.ahead = 4
    batches = []
    for trainer.step in range(8):
        batches.append(trainer.batch())
    again.step = 6
    assert all(a.equal(b) for a, b in zip(again.batch(), batches[6]))
    generator = torch.Generator().manual_seed(train.batch_seed(trainer.args.seed, 0, 4))
    for side, whole in enumerate(trainer.task.batch(4 * 64, generator)):
        parts = [batch[side] for batch in batches[4:]]
        assert all((part[:, -1] != 0).any() for part in parts)
        rows = [row[row != 0] for part in parts for row in part]
        assert all(row.equal(other[other != 0]) for row, other in zip(rows, whole, strict=True))


class Waiting(TorchDispatchMode):
    """Records the operations for whose numbers a GPU must be waited for, by PyTorch's own tags."""

    def __init__(self):
        super().__init__()
        self.found = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & {*function.tags}:
            self.found.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_step_waits_for_nothing_once_its_examples_are_made(optimizer):
    trainer = make_trainer("--optimizer", optimizer)
    trainer.ahead = 2
    for expected in ({"nonzero", "_local_scalar_dense"}, set()):
        with Waiting() as waiting:
            trainer.train_step()
        assert waiting.found == expected


# Several processes


def torchrun(out, *flags):
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
            "train.py", *TINY, "--out", str(out), *flags]


def test_two_processes_are_one_with_the_batches_of_both(tmp_path):
    """torchrun: each rank has examples of its own, gradients are averaged, rank 0 alone writes."""
    out = tmp_path / "two"
    result = subprocess.run(torchrun(out, "--optimizer", "adam"), cwd=ROOT, text=True,
                            capture_output=True, timeout=100)
    assert result.returncode == 0, result.stderr
    assert [e["examples"] for e in log(out) if e["event"] == "eval"] == [512, 1024, 1536]
    assert log(out)[0]["processes"] == 2 and result.stdout.count("R1 ") == 1

    args, task, _ = train.read_flags([*TINY, "--optimizer", "adam", "--out", str(tmp_path)])
    model = train.make_model(args, task, None)
    adam = torch.optim.Adam(model.parameters())
    for step in range(12):  # 3 epochs of 512 examples, 2 x 64 at a time
        adam.param_groups[0]["lr"] = train.learning_rate(step, 12, args.lr, args.warmup)
        adam.zero_grad()
        for rank in (0, 1):
            seed = train.batch_seed(args.seed, rank, step)
            src, tgt = task.batch(64, torch.Generator().manual_seed(seed))
            logits = model(src, tgt[:, :-1]).transpose(1, 2)
            (torch.nn.functional.cross_entropy(logits, tgt[:, 1:], ignore_index=0) / 2).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        adam.step()
    expected = model(src, tgt[:, :-1])
    model.load_state_dict(weights(out))
    torch.testing.assert_close(model(src, tgt[:, :-1]), expected, rtol=1e-3, atol=1e-3)
    run(out, "--eval-only")  # one process can read it,
    with pytest.raises(SystemExit):
        run(out, "--resume")  # but not go on with it: its batches would be others


def test_ctrl_c_on_two_processes(tmp_path):
    out = tmp_path / "two"
    process = subprocess.Popen(torchrun(out, "--epochs", "100000"), cwd=ROOT, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while "accuracy" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert "Stopped" in process.communicate(timeout=60)[0]
    assert train.load_checkpoint(out / "checkpoint.pt", "cpu")["step"] % 20 == 0


# Bad input


def refused_by(main, capsys, *argv):
    """Runs, sees it refused, and returns the one line that says why."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, argv)])
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == "" and err.count("\n") == 1, err
    return err


def refused(capsys, *flags):
    err = refused_by(train.main, capsys, *TINY, *flags)
    assert err.startswith("train.py: "), err
    return err


@pytest.mark.parametrize("flags, why", [
    ("--base 1", "base 1"),
    ("--base 1000000000", "--base 1000000000"),
    ("--task", "--task: expected one argument"),
    ("--base abc", "invalid int value: 'abc'"),
    ("--max-int 0", "--max-int 0"),
    ("--heads 3 --dim 64", "3 heads do not divide dimension 64"),
    ("--epochs 0", "0 is not above zero"),
    ("--beam 0", "0 is not above zero"),
    ("--lr nan", "nan is not above zero"),
    ("--batch-size -5", "-5 is not above zero"),
    ("--operands normal", "invalid choice: 'normal'"),
    ("--task chess", "invalid choice: 'chess'"),
    ("--scale huge", "invalid choice: 'huge'"),
    ("--nonsense 3", "unrecognized arguments"),
    ("--resume --eval-only", "not allowed with"),
])
def test_bad_flags(flags, why, tmp_path, capsys):
    assert why in refused(capsys, *flags.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(tmp_path, capsys):
    why = refused(capsys, "--device", "cuda", "--out", tmp_path / "run")
    assert "CUDA devices needed: 1, here: 0" in why


def test_no_task(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([])
    assert stop.value.code == 2 and "--task" in capsys.readouterr().err


@pytest.mark.parametrize("mode", [["--resume"], ["--eval-only"], ["--ask", "10 32"]])
def test_no_checkpoint(mode, tmp_path, capsys):
    assert "there is no checkpoint" in refused(capsys, *mode, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flags, why", [
    (["--resume", "--base", 7], "holds a run of --base 6, not 7"),
    (["--resume", "--epochs", 2], "--epochs can only grow"),
    (["--eval-only", "--dim", 32], "holds a run of --dim 16, not 32"),
    (["--ask", "12 abc"], "'12 abc' is not a problem"),
    (["--ask", "0 0"], "integers from 1 to 200"),
])
def test_a_checkpoint_and_flags_that_contradict_it(flags, why, done, capsys):
    assert why in refused(capsys, *flags, "--out", done)


def test_a_truncated_checkpoint(done, tmp_path, capsys):
    whole = (done / "checkpoint.pt").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "checkpoint.pt").write_bytes(whole[:size])
        assert "is not a whole checkpoint" in refused(capsys, "--resume", "--out", tmp_path)
        assert (tmp_path / "checkpoint.pt").read_bytes() == whole[:size]


class Malice:
    def __reduce__(self):
        return os.mkdir, (os.environ["MALICE"],)


def test_opening_a_strangers_checkpoint_runs_none_of_his_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MALICE", str(tmp_path / "was here"))
    torch.save({"config": Malice()}, tmp_path / "checkpoint.pt")
    refused(capsys, "--ask", "1 2", "--out", tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(pickle.dumps(Malice()))
    refused(capsys, "--ask", "1 2", "--out", tmp_path)
    torch.save([1, 2], tmp_path / "checkpoint.pt")  # harmless, but not ours
    why = refused(capsys, "--ask", "1 2", "--out", tmp_path)
    assert "is not a checkpoint of this program" in why
    assert not (tmp_path / "was here").exists()


def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert str(tmp_path / "file") in refused(capsys, "--out", tmp_path / "file" / "run")
    assert str(tmp_path / "file") in refused(capsys, "--out", tmp_path / "file")


def test_help(capsys):
    for argv, words in [(["--help"], ["--task", "--scale"]),
                        (["--task", "gcd", "--help"], ["--base", "--operands", "--epochs"])]:
        with pytest.raises(SystemExit) as stop:
            train.main(argv)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert all(word in out for word in words)
