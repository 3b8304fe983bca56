"""Any file of pairs: each line holds a problem, a tab and its solution, all in words.

    python train.py --task file --train-data divisors.txt
    python train.py --task file --train-data divisors.txt --ask "+ 3 6 0"

Whoever has a table of problems and solutions trains a model on it, and writes no code. Words are
what stands between spaces: + 3 6 0<tab>+ 2 4. It is the format of Int2Int, the author's own tool,
and of --export, with which every task can write such a file:

    python train.py --task gcd --base 1000 --export gcd.txt --examples 1000000

A file cannot say which other solutions are right too. So here only the file's are. Vocabularies and
lengths are those of the training data.
"""

import random
from functools import cache, cached_property
from pathlib import Path
from zlib import crc32

import torch

from task import HELD_OUT, Task
from tokenizers import PAD, Vocabulary


@cache  # train.py may make a task twice
def read_pairs(path):
    """-> the pairs of a file, [(problem, solution)], texts; other lines are counted and skipped."""
    with open(path, errors="replace") as file:
        lines = [[" ".join(part.split()) for part in line.split("\t")] for line in file]
    pairs = [tuple(parts) for parts in lines if len(parts) == 2 and all(parts)]
    print(f"{path}: {len(pairs):,} pairs; {len(lines) - len(pairs):,} other lines are skipped")
    if not pairs:
        raise ValueError(f"{path} holds no pairs: lines of a problem, a tab and its solution")
    return pairs


class File(Task):
    """The pairs of --train-data, without those of a tested problem: a tenth of the problems, or
    those of --test-data."""

    @staticmethod
    def add_arguments(add):
        add("--train-data", metavar="FILE", help="lines of a problem, a tab and its solution")
        add("--test-data", metavar="FILE", help="the same; if not given, a tenth is held out")

    def __init__(self, **flags):
        super().__init__(**flags)
        if not self.train_data:
            raise ValueError("--train-data FILE is needed: lines of a problem, a tab, its solution")
        texts = [*zip(*read_pairs(self.train_data))]
        self.source, self.target = (Vocabulary(sorted({*" ".join(part).split()}))
                                    for part in texts)
        self.src_len, longest = (max(len(text.split()) for text in part) for part in texts)
        self.tgt_len = longest + 1  # and <eos>
        self.title = f"The pairs of {self.train_data}"
        self.name = f"file-{Path(self.train_data).stem}"

    @cached_property
    def held_out(self):
        """The problems that may be tested, and are not trained on: texts."""
        if not self.test_data:
            return {f for f, _ in read_pairs(self.train_data) if crc32(f.encode()) % HELD_OUT == 0}
        problems = {f for f, _ in read_pairs(self.test_data)}
        known = {f for f in problems if self.can_read(f)}
        print(f"{self.test_data}: {len(problems) - len(known):,} problems skipped: they are longer "
              f"than those of {self.train_data}, or have other words")
        return known

    def can_read(self, text):
        words = text.split()
        return 0 < len(words) <= self.src_len and self.source.number.keys() >= {*words}

    @cached_property
    def tests(self):
        texts = sorted(self.held_out)
        if not texts:
            raise ValueError(f"{self.test_data or self.train_data} holds no problem to test on")
        random.Random(1).shuffle(texts)
        return {"new problems": self.source.rows(texts[: self.test_size])}

    @cached_property
    def training(self):
        """Problems and solutions to train on, as words: LongTensors (n, width)."""
        pairs = [pair for pair in read_pairs(self.train_data) if pair[0] not in self.held_out]
        if not pairs:
            raise ValueError(f"{self.train_data}: all its pairs are held out for the test")
        problems, solutions = zip(*pairs)
        return self.source.rows(problems), self.target.rows(solutions)

    def draw(self, n, generator):
        problems, solutions = self.training
        rows = torch.randint(len(problems), (n,), generator=generator, device=generator.device)
        return problems[rows.cpu()], solutions[rows.cpu()]

    @cached_property
    def known(self):
        """All pairs of the files, for a problem may have several solutions; and all problems."""
        pairs = {*read_pairs(self.train_data), *read_pairs(self.test_data or self.train_data)}
        return pairs, {problem for problem, _ in pairs}

    def read(self, text):
        """ "+ 3 6 0" -> the numbers of its words"""
        if not self.can_read(text):
            raise ValueError(f"{text!r}: a problem is up to {self.src_len} words, with spaces "
                             f"between, all of them words of {self.train_data}")
        return self.source.ids(text)

    def show(self, problem):
        return self.source.text(problem)

    def judge(self, problem, words):
        """Right or wrong where the files have the problem; None where they do not."""
        (pairs, problems), f = self.known, self.show(problem)
        return words, (f, words) in pairs if f in problems else None

    def findings(self, model, graded, final):
        """Also the accuracy by length: {words of the problem: [right, tested]}."""
        (test, by_beam), = graded.items()
        lengths, (right, _) = (self.tests[test] != PAD).sum(dim=1), next(iter(by_beam.values()))
        return super().findings(model, graded, final) | {"by_length": {
            n: [right[lengths == n].sum().item(), (lengths == n).sum().item()]
            for n in lengths.unique().tolist()}}

    def explain(self, evals):
        yield from super().explain(evals)
        yield "\nBy the length of the problem:\n"
        for length, (right, tested) in evals[-1]["by_length"].items():
            yield f"  {length:>4} words {right / tested:>8.1%} of {tested:,}"
