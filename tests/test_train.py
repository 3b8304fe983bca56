"""train.py promises: its command line is a contract, nothing is lost, the same command gives the
same numbers, and what is wrong is said in one line."""

import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import train

ROOT = Path(train.__file__).parent
TINY = ("--task gcd --base 6 --max-int 200 --dim 16 --heads 2 --epoch-size 512 --batch-size 64 "
        "--epochs 3 --test-size 300 --warmup 10 --device cpu").split()


def run(out, *flags):
    train.main([*TINY, "--out", str(out), *map(str, flags)])


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
    assert "R1 " in report and "R3 " in report and report.count("Accuracy on new problems") == 1


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
        assert e["accuracy"] == e["accuracy_by_test"]["natural"]["1"] and 0 <= e["accuracy"] <= 1
    assert evals[-1]["predictions"].keys() <= {str(k) for k in range(1, 101)}
    assert "predictions" not in evals[0]
    assert evals[0]["loss"] > evals[-1]["loss"] > 0
    report = (done / "report.txt").read_text()
    assert report.startswith("The greatest common divisor of integers up to 200, in base 6")


def test_the_same_command_gives_the_same_numbers_and_another_seed_others(done, tmp_path):
    run(tmp_path / "again")
    run(tmp_path / "other", "--seed", -99999999999999999999999)
    assert numbers(tmp_path / "again") == numbers(done) and same_weights(tmp_path / "again", done)
    assert numbers(tmp_path / "other") != numbers(done)


def test_a_small_set_comes_back_among_new_examples(tmp_path):
    """--small-set: every second batch, or every k-th, is one of a few, in turn; no other is seen
    twice. And it is nothing else than the examples that change."""
    def batches(*flags):
        args = train.read_flags([*TINY, *flags])[0]
        return [train.batch_number(args, step) for step in range(1, 101)]

    assert batches() == [*range(1, 101)]
    every_second = batches("--small-set", "150")  # in batches of 64: three of them
    assert every_second[::2] == [*range(1, 101, 2)]
    assert every_second[1::2] == [every_second[i] for i in (1, 3, 5)] * 16 + every_second[1:5:2]
    assert len({*every_second}) == 50 + 3
    assert len({*batches("--small-set", "640", "--small-every", "1")}) == 10
    assert len({*batches("--small-set", "1", "--small-every", "4")}) == 75 + 1

    class Examples(train.Task):
        """Random numbers instead of problems: which are drawn twice?"""
        def batch(self, n, generator):
            seen.extend(torch.randint(2**62, (n,), generator=generator).tolist())
            return task.batch(n, generator)

    for flags, different in [((), 1536), (["--small-set", "128"], 768 + 128)]:
        args, task, _ = train.read_flags([*TINY, *flags])
        seen, model = [], train.make_model(args, task, None)
        for epoch in (1, 2, 3):
            train.train_epoch(args, Examples(), model, train.make_optimizers(args, model), epoch, 8)
        assert len(seen) == 1536 and len({*seen}) == different


def test_muon_may_have_a_rate_of_its_own():
    for flags, share in [((), 1.0), (["--muon-lr", "2e-4"], 0.1)]:  # --lr is 2e-3
        args, task, _ = train.read_flags([*TINY, *flags])
        model = train.make_model(args, task, None)
        adam, muon = optimizers = train.make_optimizers(args, model)
        train.train_epoch(args, task, model, optimizers, 1, 15)  # the rate rises, then falls
        adam_lr, *others = (group["lr"] for o in (adam, muon) for group in o.param_groups)
        assert 0 < adam_lr < 2e-3 and others == pytest.approx([share * adam_lr] * len(others))


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


def test_ask_reads_problems_line_by_line(done, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("12 18\n\n# easy ones\nnonsense\n2 4  # 2\n"))
    run(done, "--ask", "-")
    out, err = capsys.readouterr()
    assert "gcd(12, 18) = 6" in out and "gcd(2, 4) = 2" in out and out.count("gcd") == 2
    assert "nonsense" in err and err.count("\n") == 1


def test_ask_on_a_terminal_is_a_prompt(done, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("12 18\n2 4\n"))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    run(done, "--ask")
    assert [line[:10] for line in capsys.readouterr().out.splitlines() if "gcd" in line] == [
        "problem? g"] * 2


def test_beam_sizes_are_evaluated_apart(tmp_path):
    run(tmp_path / "beams", "--beam", 1, 3, "--epochs", 1)
    by_beam = log(tmp_path / "beams")[-2]["accuracy_by_test"]["natural"]
    report = (tmp_path / "beams" / "report.txt").read_text()
    assert by_beam.keys() == {"1", "3"}
    assert re.search(rf"natural +{by_beam['1']:.1%} +{by_beam['3']:.1%}\n", report)


# Stopping and going on


def stop_after(steps, how):
    """A train_step that does `how` after so many steps."""
    step, count = train.train_step, [0]

    def train_step(*args):
        loss = step(*args)
        count[0] += 1
        if count[0] == steps:
            how()
        return loss
    return train_step


@pytest.mark.parametrize("steps", [1, 8, 11, 23])
def test_ctrl_c_and_resume_gives_the_same_numbers(steps, done, tmp_path, monkeypatch, capsys):
    """In an epoch or at its end: bit for bit the run that was never stopped."""
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", stop_after(
            steps, lambda: signal.raise_signal(signal.SIGINT)))
        with pytest.raises(SystemExit) as stop:
            run(out)
    assert stop.value.code == 130 and "--resume" in capsys.readouterr().out
    assert len(log(out)) == 1 + (steps - 1) // 8  # the start, and whole epochs
    run(out, "--resume")
    assert numbers(out) == numbers(done) and same_weights(out, done)


def test_resume_puts_the_log_back_to_the_checkpoint(done, tmp_path, monkeypatch):
    """Killed between checkpoint and log, its last line torn: no line twice, none lost."""
    out = tmp_path / "torn"

    def power_cut(out, state):
        save(out, state)
        if state["epoch"] == 2:
            raise RuntimeError("power cut")
    with monkeypatch.context() as patch:
        save = train.save
        patch.setattr(train, "save", power_cut)
        with pytest.raises(RuntimeError):
            run(out)
    lines = (out / "log.jsonl").read_text().splitlines(keepends=True)
    (out / "log.jsonl").write_text("".join(lines[:-1]) + lines[-1][:30])
    run(out, "--resume")
    assert numbers(out) == numbers(done) and same_weights(out, done)


def test_a_finished_run_can_be_trained_further(done, tmp_path):
    out = shutil.copytree(done, tmp_path / "longer")
    before = (out / "log.jsonl").read_text()
    run(out, "--resume")  # nothing left to do, and no second end
    assert (out / "log.jsonl").read_text() == before
    run(out, "--resume", "--epochs", 4)
    events = [(event["event"], event["epoch"]) for event in log(out)]
    assert events == [("start", 0), ("eval", 1), ("eval", 2), ("eval", 3), ("resume", 3),
                      ("eval", 4), ("end", 4)]


KILL_9 = """
import os, random, signal, sys, time
import torch._dynamo, train  # which each child would else import anew
out, *flags = sys.argv[1:]
path = out + "/checkpoint.pt"
for kill in range(3):
    child = os.fork()
    if child == 0:
        train.main([*flags, "--out", out, *["--resume"] * (kill > 0)])
    saves, last = random.randint(5, 9), None  # it sees no file, the start, then epochs
    while saves:
        time.sleep(0.001)
        now = os.path.exists(path) and os.stat(path).st_mtime_ns
        saves, last = saves - (now != last), now
    time.sleep(random.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed after", train.load_checkpoint(train.Path(path).parent, "cpu")["epoch"])
"""


def test_kill_9_while_it_saves(tmp_path):
    """A run that does little but save is killed three times; each time it goes on where it was."""
    out = tmp_path / "killed"
    flags = [*TINY, "--epoch-size", "64", "--epochs", "100000", "--test-size", "100"]
    result = subprocess.run([sys.executable, "-c", KILL_9, out, *flags], cwd=ROOT, text=True,
                            capture_output=True, timeout=100)
    epochs = [int(line.split()[-1]) for line in result.stdout.splitlines() if "killed" in line]
    assert len(epochs) == 3 and epochs == sorted(epochs) and epochs[-1] > 3, result.stderr
    logged = [event["epoch"] for event in train.load_checkpoint(out, "cpu")["log"]
              if event["event"] == "eval"]
    assert logged == list(range(1, epochs[-1] + 1))  # none lost, none twice


def test_a_save_that_fails_half_way_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    def torn(state, file):
        file.write(b"half a check")
        raise OSError("disk full")
    state = {"config": {}, "log": [], "model": {}, "optimizers": []}
    train.save(tmp_path, {"epoch": 1} | state)
    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError):
        train.save(tmp_path, {"epoch": 2} | state)
    assert train.load_checkpoint(tmp_path, "cpu")["epoch"] == 1


def test_a_full_disk_is_said(tmp_path, capsys):
    (tmp_path / "checkpoint.tmp").symlink_to("/dev/full")  # Linux has a disk that is always full
    assert "No space left on device" in refused(capsys, "--out", tmp_path)


def test_a_second_run_does_not_write_over_the_first(done, capsys):
    before = {path: path.read_bytes() for path in done.iterdir()}
    assert "--resume" in refused(capsys, "--out", done)
    assert {path: path.read_bytes() for path in done.iterdir()} == before


def test_a_run_begins_with_the_weights_of_another(done, tmp_path, capsys):
    """--init: at a learning rate of almost nothing, the new run says what the old one says."""
    out = tmp_path / "second"
    train.main([*TINY, "--init", str(done), "--lr", "1e-12", "--out", str(out), "--seed", "7"])
    for name, before in weights(done).items():
        torch.testing.assert_close(weights(out)[name], before, rtol=0, atol=1e-5)
    assert log(out)[-1]["accuracy"] == log(done)[-1]["accuracy"]
    assert log(out)[0]["init"] == str(done) and log(out)[0]["epoch"] == 0
    assert "other words or sizes" in refused(capsys, "--dim", "32", "--init", done)
    assert "no checkpoint" in refused(capsys, "--init", tmp_path / "nothing")
    args = train.read_flags(["--task", "gcd", "--init", "runs/gcd-base30"])[0]
    assert args.out.name == "gcd-base30-after-gcd-base30"


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
    for step in range(1, 13):  # 3 epochs of 512 examples, 2 x 64 at a time
        adam.param_groups[0]["lr"] = train.learning_rate(step, 12, args.lr, args.warmup)
        adam.zero_grad()
        for rank in (0, 1):
            seed = train.make_seed(args.seed, rank, step)
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
    ("--epochs 0", "0 is not above 0"),
    ("--beam 0", "0 is not above 0"),
    ("--lr nan", "nan is not above 0"),
    ("--batch-size -5", "-5 is not above 0"),
    ("--small-set 0", "0 is not above 0"),
    ("--optimizer adam --muon-lr 1e-3", "--muon-lr is for --optimizer muon"),
    ("--operands normal", "invalid choice: 'normal'"),
    ("--task chess", "invalid choice: 'chess'"),
    ("--scale huge", "invalid choice: 'huge'"),
    ("--nonsense 3", "unrecognized arguments"),
    ("--resume --eval-only", "not allowed with"),
    ("--dim 100000000", "GB of memory"),
    ("--enc-layers 1000000000", "GB of memory"),
    ("--batch-size 1000000000", "GB of memory"),
])
def test_bad_flags(flags, why, tmp_path, capsys):
    assert why in refused(capsys, *flags.split(), "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("op", ["eigenvalues", "transpose", "matmul", "svd"])
def test_matrices_that_do_not_fit(op, tmp_path, capsys):
    flags = f"--task eigen --op {op} --size 1000 --out {tmp_path / 'run'}".split()
    assert "GB of memory" in refused_by(train.main, capsys, *flags)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_where_there_is_none(tmp_path, capsys):
    why = refused(capsys, "--device", "cuda", "--out", tmp_path / "run")
    assert "CUDA devices: 0" in why


def test_no_task(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main([])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "--list" in err and err.count("\n") == 1


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
    assert "is not a whole checkpoint of this program" in why
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
