"""What every experiment does in the same way: hold out, batch, translate, judge, report, answer.

Slide: "Mathematics as a translation task: three steps". An experiment, a subclass of Task, says

    name, title             of the run's folder, of its report
    source, target          the vocabularies of problems and of solutions        (tokenizers.py)
    src_len, tgt_len        the most words of a problem, and of a solution with its <eos>
    sample(n, generator)    n problems and their solutions                 I.   generate
    read(text)              a problem, from what a person writes           II.  represent
    show(problem)           and back
    judge(problem, words)   the model's answer, and whether it is right    III. train, and judge
"""

import argparse
import json
import math
import textwrap
from contextlib import suppress
from functools import cached_property
from lzma import LZMAError
from pathlib import Path

import torch

from tokenizers import as_target

HELD_OUT = 10  # one problem in this many is held out for testing
RESULTS = Path(__file__).parent / "results"  # runs that come with the code
TALK = json.loads((RESULTS / "talk.json").read_text())  # its numbers


def held_out(rows):
    """Which problems, rows of numbers (n, k), are held out for testing: a tenth of all, (n,) bool.
    A hash of the row decides. So what is held out is the same in all runs, and never trained on."""
    if rows.is_floating_point():
        rows = (rows + 0.0).view(torch.int64)  # their bits; + 0.0 makes 0 of -0
    places = 0x2545F4914F6CDD1D ** torch.arange(1, rows.size(1) + 1, device=rows.device)
    x = (rows * places).sum(dim=1)  # another number for each place; int64 wraps around
    x = (x ^ (x >> 32)) * 0x1B873593CC9E2D51  # now each bit depends on many
    return (x >> 33) % HELD_OUT == 0


class Task:
    """What an experiment may override. The shortest of all is translations/sums.py."""

    scales = {  # what each --scale sets; evening and talk say where they differ from laptop
        "laptop": dict(dim=64, heads=4, enc_layers=1, dec_layers=1, batch_size=128, epochs=6,
                       epoch_size=100_000, optimizer="muon", lr=2e-3, warmup=500, test_size=2000),
        "evening": dict(epochs=60, test_size=10_000),
        "talk": dict(dim=512, heads=8, enc_layers=4, dec_layers=4, batch_size=256, epochs=200,
                     optimizer="adam", lr=1e-4, warmup=4000, test_size=10_000),
    }
    test_flags = set()  # flags that are about tests alone: they may change in --eval-only and --ask
    verifiable = False  # whether an answer can be checked without knowing a right one
    collate = staticmethod(torch.tensor)  # problems as they are read -> as they are drawn

    @staticmethod
    def add_arguments(add):
        """Declare the flags of the task; each becomes an attribute of it. add: argparse's."""

    @classmethod
    def defaults(cls):
        """{flag: default}"""
        parser = argparse.ArgumentParser()
        cls.add_arguments(parser.add_argument)
        parser.set_defaults(test_size=cls.scales["laptop"]["test_size"], device="cpu",
                            examples=200_000)
        return vars(parser.parse_args([]))

    def __init__(self, **flags):
        """Flags by their names, as GCD(base=31). What makes no sense is a ValueError."""
        defaults = self.defaults()
        if unknown := flags.keys() - defaults.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(unknown))}")
        vars(self).update(defaults | flags)  # --base becomes self.base

    # Step I and II: examples

    def identity(self, problems):
        """Rows of numbers, equal for problems that are the same: both are held out, or none is."""
        return problems

    def draw(self, n, generator, testing=False, **kind):
        """n problems and solutions, as of `sample`: of those held out, or of all the others."""
        problems, solutions = self.sample(n, generator, **kind)
        while len(todo := (held_out(self.identity(problems)) != testing).nonzero().flatten()):
            problems[todo], solutions[todo] = self.sample(len(todo), generator, **kind)
        return problems, solutions

    def encode(self, problems):
        """Problems -> their words, a LongTensor (n, <= src_len)."""
        return self.source.encode(problems)

    def batch(self, n, generator):
        """n problems and solutions as padded LongTensors: (n, <= src_len), (n, <= tgt_len + 1)."""
        problems, solutions = self.draw(n, generator)
        return self.encode(problems), as_target(self.target.encode(solutions))

    @cached_property
    def tests(self):
        """{name: problems}, all held out, the same in every run."""
        generator = torch.Generator().manual_seed(2023)
        return {"new problems": self.draw(self.test_size, generator, testing=True)[0]}

    def prepare(self):
        """Make what training needs; train.py calls it before the first step."""
        self.tests, self.batch(1, torch.Generator(self.device))  # tests and sets are kept

    # Step III: judge

    def translate(self, model, problems, beam=1):
        """The model's translations, best first: LongTensor (n, beam, tgt_len)."""
        return model.generate(self.encode(problems), beam)[0]

    def grade(self, problems, tokens):
        """tokens (n, beam, tgt_len) -> whether the best translation of each problem is right,
        (n,) bool; and, for `findings`, what it says: here text, elsewhere an error. Where answers
        are verifiable, the first right one is the best."""
        best = []
        for problem, beam in zip(problems.tolist(), tokens.tolist()):
            texts = [self.target.text(row) for row in (beam if self.verifiable else beam[:1])]
            judged = [(*self.judge(problem, words), words) for words in texts]
            answer, right, words = max(judged, key=lambda one: one[1])  # of equal ones, the first
            best.append((right, words if answer is None else answer))
        solved, said = zip(*best)
        return torch.tensor(solved), [*said]

    def evaluate(self, model, beams=(1,), final=False):
        """Accuracy on each test, at the end with each beam size, before with one; and findings."""
        graded = {test: {str(beam): self.grade(problems, self.translate(model, problems, beam))
                         for beam in (beams if final else beams[:1])}
                  for test, problems in self.tests.items()}
        result = {"accuracy_by_test": {
            test: {beam: right.double().mean().item() for beam, (right, _) in by_beam.items()}
            for test, by_beam in graded.items()}}
        result["accuracy"] = next(iter(by_test(result).values()))  # that on the first test
        return result | self.findings(model, graded, final)

    def findings(self, model, graded, final):
        """What else is said about a model: plain data for the log, of which `explain` makes text.
        graded: {test: {beam: what `grade` returned}}. Here, five answers, and five wrong ones."""
        if not final:
            return {}
        test, problems = next(iter(self.tests.items()))
        right, answers = next(iter(graded[test].values()))
        problems = problems if isinstance(problems, list) else problems.tolist()
        rows = [*zip(problems, answers, right.tolist())]
        some = rows[:5] + [row for row in rows[5:] if not row[2]][:5]
        return {"some": [[self.show(problem), str(answer), ok] for problem, answer, ok in some]}

    def headline(self, result):
        """One evaluation in a few words, for the progress lines."""
        accuracies = by_test(result)
        return ", ".join(f"{test if len(accuracies) > 1 else 'accuracy'} {accuracy:.1%}"
                         for test, accuracy in accuracies.items())

    def report(self, evals):
        """What was learned, for a person: from all the evaluations of a run, the last one final."""
        last, tests = evals[-1], evals[-1]["accuracy_by_test"]
        beams = [*next(iter(tests.values()))]
        lines = [f"{self.title}:\nwhat a transformer learned from {last['examples']:,} examples\n"]
        if len(beams) == len(tests) == 1:
            lines.append(f"Accuracy on new problems: {last['accuracy']:.1%}")
        else:
            rows = [("Accuracy on new problems", [f"beam {beam}" for beam in beams])]
            rows += [("    " + test, [f"{share:.1%}" for share in by_beam.values()])
                     for test, by_beam in tests.items()]
            lines += [f"{name:<32}" + "".join(f"{cell:>10}" for cell in row) for name, row in rows]
        return "\n".join([*lines, *self.explain(evals)])

    def explain(self, evals):
        """The findings as lines of text."""
        some = evals[-1]["some"]
        wide, wider = (max(len(row[column]) for row in some) for column in (0, 1))
        yield "\nSome of them, and the first that it gets wrong:\n"
        for problem, answer, ok in some:
            yield f"  {problem:<{wide}}  =>  {answer:<{wider}}  {'right' if ok else 'wrong'}"

    def show(self, problem):
        """A problem as a person writes it."""
        return self.source.show(problem)

    def question(self, problem):
        """A problem that was asked; where there is one true solution, with it."""
        return self.show(problem)

    def ask(self, text, model, beam=1):
        """Answers to a problem as a person writes it, each judged; ValueError if it is none."""
        problem = self.read(text)
        tokens, logps = model.generate(self.encode(self.collate([problem])), beam)
        lines = [f"{self.question(problem)}; the model says, best first:"]
        for row, logp in zip(tokens[0].tolist(), logps[0].tolist()):
            if logp > -math.inf:
                words = self.target.text(row)
                answer, right = self.judge(problem, words)
                said = words if answer is None else answer
                mark = {True: "right", False: "wrong", None: "?    "}[right]  # ?: nobody can judge
                lines.append(f"  {mark}  {said}  (probability {math.exp(logp):.2g})")
        return "\n".join(lines)


# Runs, and commands


def questions(lines):
    """The problems in lines of text, each up to its #."""
    return filter(None, (line.partition("#")[0].strip() for line in lines))


def listed(heading, items):
    """A heading and items, wrapped."""
    return textwrap.fill(heading + ", ".join(map(str, items)), 96, subsequent_indent="    ")


def evaluations(log):
    return [event for event in log if event["event"] == "eval"]


def by_test(result):
    """{test: accuracy} of an evaluation, with the first beam size."""
    return {test: next(iter(beams.values())) for test, beams in result["accuracy_by_test"].items()}


def read_run(folder):
    """-> the first event of a run's log, which has its flags, and its evaluations."""
    with suppress(ValueError, LookupError, TypeError):
        start, *log = map(json.loads, (Path(folder) / "log.jsonl").read_text().splitlines())
        if start["task"] and evaluations(log):
            return start, evaluations(log)
    raise ValueError(f"{folder} holds no log of a run with an evaluation")


def positive(kind):
    """The argparse type of an int or float above 0."""
    def number(text):
        if not 0 < kind(text) < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return kind(text)
    return number


class Parser(argparse.ArgumentParser):
    """argparse's, but that what is wrong is said in one line, with exit status 2."""

    def error(self, message):
        self.exit(2, f"{self.prog}: {message}\n")

    def call(self, function, *args):
        """function(*args); what a user got wrong is said in one line."""
        try:
            return function(*args)
        except (ValueError, EOFError, LZMAError) as error:  # the last two: of a torn .xz
            self.error(error)
        except RecursionError:
            self.error("an expression is too deep")
        except OSError as error:
            self.error(f"{error.filename or 'output'}: {error.strerror}")


def run_commands(examples, table, argv=None):
    """A generator's commands: none prints examples, "table RUN..." runs beside the talk's table."""
    parser = Parser(description=f"Without a command: {examples.__doc__.splitlines()[0]}")
    command = parser.add_subparsers().add_parser("table", help="runs beside the talk's")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run")
    args = parser.parse_args(argv)
    if "runs" in args:
        parser.call(lambda: print("\n".join(table(args.runs)) or parser.error(
            f"{', '.join(map(str, args.runs))}: no run for this table")))
    else:
        parser.call(examples)
