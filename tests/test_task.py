"""task.py promises: what is held out is never trained on, an accuracy is a share of right answers,
and a report says what was found. The judges are Python's own integers, on a toy task."""

import json

import pytest
import torch

from task import HELD_OUT, Parser, Task, held_out, read_run, run_commands
from tokenizers import EOS, Integers


class Squares(Task):
    """+ 1 2 is translated into + 1 4 4."""

    name, title = "squares", "The square of an integer"
    source = target = Integers(10)
    src_len, tgt_len = 5, 10

    @staticmethod
    def add_arguments(add):
        add("--most", type=int, default=9999, help="the largest integer")

    def sample(self, n, generator):
        numbers = torch.randint(self.most + 1, (n, 1), generator=generator)
        return numbers, numbers**2

    def read(self, text):
        if not text.isdecimal():
            raise ValueError(f"{text!r} is no integer")
        return [int(text)]

    def show(self, problem):
        return f"{problem[0]}^2"

    def judge(self, problem, words):
        answer = self.target.read(words)
        return answer, answer == problem[0] ** 2


class Squarer:
    """A "model" whose k-th translation of n is n^2 + k - 1, so the best is right; but of `wrong`
    ones it is n^2 + k, unless the beam is wider than 1. Probabilities are 1, 1/e, 1/e^2, ..."""

    def __init__(self, task, wrong=()):
        self.task, self.wrong = task, wrong

    def generate(self, src, beam=1):
        tokens = torch.zeros(len(src), beam, self.task.tgt_len, dtype=torch.int64)
        for i, row in enumerate(src):
            n = self.task.source.read(self.task.source.text(row))
            for k in range(beam):
                words = self.task.target.write(n**2 + k + (beam == 1 and n in self.wrong))
                ids = self.task.target.ids(words) + [EOS]
                tokens[i, k, : len(ids)] = torch.tensor(ids)
        return tokens, -torch.arange(beam).float().expand(len(src), -1)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# Examples


def test_flags_have_defaults_and_no_others_are_taken():
    assert Squares().most == 9999 and Squares(most=5, test_size=7).most == 5
    assert Squares(test_size=7).test_size == 7 and Squares().test_size == 2000
    with pytest.raises(TypeError, match="Squares has no mots"):
        Squares(mots=5)


def test_a_tenth_is_held_out_and_never_trained_on():
    task = Squares(test_size=3000)
    (tests,) = task.tests.values()
    trained, solutions = task.draw(50_000, rng())
    assert solutions.equal(trained**2)
    assert not {*tests.flatten().tolist()} & {*trained.flatten().tolist()}
    every = torch.arange(10_000)[:, None]
    assert held_out(every).double().mean().item() == pytest.approx(1 / HELD_OUT, abs=0.015)
    assert len(trained.unique()) > 0.98 * (~held_out(every)).sum()
    assert tests.equal(Squares(test_size=3000).tests["new problems"])  # the same in every run


def test_floats_are_held_out_by_their_bits():
    rows = torch.rand(50_000, 3, generator=rng(), dtype=torch.float64)
    assert held_out(rows).double().mean().item() == pytest.approx(0.1, abs=0.008)
    zero, minus = rows.clone(), rows.clone()
    zero[:, 1], minus[:, 1] = 0.0, -0.0
    assert held_out(zero).equal(held_out(minus))
    assert not held_out(rows).equal(held_out(rows.nextafter(rows + 1)))


def test_two_ways_to_write_a_problem_are_held_out_together():
    """As -12 and 12 have one square, a task can say that they are one problem."""
    class Absolute(Squares):
        def sample(self, n, generator):
            numbers = torch.randint(-99, 100, (n, 1), generator=generator)
            return numbers, numbers**2

        def identity(self, problems):
            return problems.abs()

    task = Absolute(test_size=500)
    tests = {abs(n) for n in task.tests["new problems"].flatten().tolist()}
    trained = {abs(n) for n in task.draw(5000, rng())[0].flatten().tolist()}
    assert not tests & trained and tests | trained == {*range(100)}


def test_a_batch_is_words_of_problems_and_solutions():
    task = Squares()
    source, target = task.batch(200, rng(1))
    problems, _ = task.draw(200, rng(1))
    for n, x, y in zip(problems.flatten().tolist(), source, target):
        assert task.source.text(x) == task.source.write(n)
        assert task.target.text(y) == "<bos> " + task.source.write(n * n)


# Judging


def test_accuracy_is_the_share_of_best_translations_that_are_right():
    task = Squares(test_size=400)
    numbers = task.tests["new problems"].flatten().tolist()
    wrong = {*numbers[:100]}
    share = sum(n not in wrong for n in numbers) / 400
    result = task.evaluate(Squarer(task, wrong), beams=[1, 3], final=True)
    assert result["accuracy"] == share
    assert result["accuracy_by_test"] == {"new problems": {"1": share, "3": 1}}
    assert json.loads(json.dumps(result)) == result
    report = task.report([{"examples": 1} | result])
    assert ["new", "problems", f"{share:.1%}", "100.0%"] in map(str.split, report.splitlines())
    before = task.evaluate(Squarer(task, wrong), beams=[1, 3])
    assert before == {"accuracy": share, "accuracy_by_test": {"new problems": {"1": share}}}


def test_the_report_shows_some_answers_and_the_first_wrong_ones():
    task = Squares(test_size=400)
    numbers = task.tests["new problems"].flatten().tolist()
    result = task.evaluate(Squarer(task, {numbers[200]}), final=True)
    report = task.report([{"examples": 12_000} | result])
    assert report.startswith("The square of an integer:\nwhat a transformer learned from 12,000 ex")
    assert f"Accuracy on new problems: {result['accuracy']:.1%}" in report
    n = numbers[200]
    assert f"{n}^2" in report and f"{n**2 + 1}" in report and report.count("wrong") == 2
    assert report.count("right") == 5
    assert task.headline(result) == f"accuracy {result['accuracy']:.1%}"


def test_several_tests_and_beams_make_a_table():
    task = Squares()
    by_test = {"small": {"1": 0.5, "10": 0.75}, "large": {"1": 0.0, "10": 0.25}}
    result = {"accuracy": 0.5, "accuracy_by_test": by_test, "some": [["1^2", "1", True]]}
    lines = [line.split() for line in task.report([{"examples": 1} | result]).splitlines()]
    assert ["small", "50.0%", "75.0%"] in lines and ["large", "0.0%", "25.0%"] in lines
    assert task.headline(result) == "small 50.0%, large 0.0%"


def test_answers_come_with_a_verdict():
    task = Squares()
    question, *answers = task.ask("12", Squarer(task), 3).splitlines()
    assert question == "12^2; the model says, best first:"
    assert answers == ["  right  144  (probability 1)", "  wrong  145  (probability 0.37)",
                       "  wrong  146  (probability 0.14)"]
    with pytest.raises(ValueError, match="'twelve' is no integer"):
        task.ask("twelve", Squarer(task))


# Runs, and commands


def test_a_log_is_read(tmp_path):
    events = [{"event": "start", "task": "gcd"}, {"event": "eval", "epoch": 1}, {"event": "resume"},
              {"event": "eval", "epoch": 2}, {"event": "end"}]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert read_run(tmp_path) == (events[0], [events[1], events[3]])
    for text in ("", "{", "[]", "7\n8", '{"event": "start"}\n{"event": "eval"}',
                 '{"event": "start", "task": "gcd"}\n'):
        (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(ValueError, match="holds no log of a run"):
            read_run(tmp_path)


def test_a_run_that_is_not_there_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        Parser(prog="it.py").call(read_run, tmp_path / "gone")
    line = f"it.py: {tmp_path / 'gone' / 'log.jsonl'}: No such file or directory\n"
    assert capsys.readouterr().err == line


def test_a_module_prints_examples_or_a_table(capsys):
    def examples():
        """A few examples."""
        print("7+9")

    def table(runs):
        return [f"{len(runs)} runs", runs[0].name]

    run_commands(examples, table, [])
    run_commands(examples, table, ["table", "runs/a", "runs/b"])
    assert capsys.readouterr().out == "7+9\n2 runs\na\n"
    with pytest.raises(SystemExit) as stop:
        run_commands(examples, table, ["table"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("error, line", [
    (ValueError("no such thing"), "it.py: no such thing\n"),
    (FileNotFoundError(2, "No such file", "x"), "it.py: x: No such file\n")])
def test_what_a_user_got_wrong_is_one_line_and_status_2(error, line, capsys):
    def fail():
        raise error
    with pytest.raises(SystemExit) as stop:
        Parser(prog="it.py").call(fail)
    assert stop.value.code == 2 and capsys.readouterr().err == line
    with pytest.raises(SystemExit) as stop:
        Parser(prog="it.py").parse_args(["--nonsense"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):  # a bug of ours is none of a user's
        Parser(prog="it.py").call(lambda: 1 / 0)
