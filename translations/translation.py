"""What the four small tasks beside it have in common: all but the mathematics.

Slide: "Mathematics as a translation task". A task of your own is a class with the few lines that
sums.py has, and an entry in TASKS, in train.py. What one has to say is listed below; what this file
then does with it: hold test problems out of training, write batches, judge, report, answer.
"""

import math

import torch

from tokenizers import as_target, held_out


class Translation:
    """A task as train.py sees it. Its subclasses say what it is about:

    name, title           for the run's folder, for the report
    source, target        the vocabularies of problems and of solutions
    src_len, tgt_len      the most words of a problem, and of a solution with <eos>
    sample(n, generator)  n problems, a LongTensor of n rows, and their solutions, n rows too
    read(text)            a problem that someone asks, as a row; ValueError if it is none
    show(problem)         a row, as one writes it by hand
    judge(problem, words) the model's answer, as one writes it by hand (None if its words say
                          nothing), and whether it is right: computed, not looked up
    """

    scales = {
        "laptop": dict(dim=128, heads=4, enc_layers=1, dec_layers=1, batch_size=128, epochs=6,
                       epoch_size=100_000, lr=2e-3, warmup=500, test_size=2000),
        "talk": dict(dim=512, heads=8, enc_layers=4, dec_layers=4, batch_size=256, epochs=20,
                     lr=1e-4, warmup=4000, test_size=10_000),
    }

    free = set()

    @staticmethod
    def add_arguments(parser):
        """Flags of its own, for its constructor: none."""

    def __init__(self, test_size=2000, device="cpu"):
        self.test_size, self.device, self.tests = test_size, device, None
        self.src_words, self.tgt_words = len(self.source), len(self.target)

    def draw(self, n, generator, testing=False):
        """n problems and solutions, of the tenth held out for testing or of all others."""
        problems, solutions = self.sample(n, generator)
        while len(todo := (self.for_testing(problems) != testing).nonzero().flatten()):
            problems[todo], solutions[todo] = self.sample(len(todo), generator)
        return problems, solutions

    def for_testing(self, problems):
        """Which of the problems (n, k) are held out for testing, by a hash of all they hold."""
        number = torch.zeros_like(problems[:, 0])
        for column in problems.T:
            number = 1_000_003 * number + column
        return held_out(number)

    def batch(self, n, generator):
        """n problems and solutions as padded LongTensors: (n, <= src_len), (n, <= tgt_len + 1)."""
        problems, solutions = self.draw(n, generator)
        return self.source.encode(problems), as_target(self.target.encode(solutions))

    def prepare(self):
        """Draw the test problems, each of them once; they are the same for all runs."""
        if self.tests is None:
            generator = torch.Generator().manual_seed(2023)
            problems, _ = self.draw(2 * self.test_size, generator, testing=True)
            self.tests = [*dict.fromkeys(map(tuple, problems.tolist()))][: self.test_size]

    def translate(self, model, problems, beam=1):
        """The model's answers to rows of problems, best first: for each row a list of (answer,
        whether it is right, log-probability)."""
        rows = torch.tensor(problems, device=self.device)
        tokens, logps = model.generate(self.source.encode(rows), beam)
        for problem, hypotheses, logp in zip(problems, tokens.tolist(), logps.tolist()):
            texts = [self.target.text(words) for words in hypotheses]
            judged = [self.judge(problem, words) for words in texts]
            yield [(words if answer is None else str(answer), right, p)
                   for words, (answer, right), p in zip(texts, judged, logp) if p > -math.inf]

    def evaluate(self, model, beams=(1,), final=False):
        """The share of test problems that the best answer is right for.

        At the end, also five problems with their answers, and the first five that are wrong; and,
        for several beam sizes, the accuracy of the best translation at each.
        """
        self.prepare()
        judged = {str(beam): [(self.show(problem), *answers[0][:2]) for problem, answers
                              in zip(self.tests, self.translate(model, self.tests, beam))]
                  for beam in (beams if final else beams[:1])}
        accuracy = {beam: sum(right for *_, right in answers) / len(answers)
                    for beam, answers in judged.items()}
        first = judged[str(beams[0])]
        result = {"accuracy": accuracy[str(beams[0])]}
        if final:
            result["some"] = first[:5] + [answer for answer in first[5:] if not answer[2]][:5]
        if len(accuracy) > 1:
            result["accuracy_by_beam"] = accuracy
        return result

    def headline(self, result):
        """One evaluation in a few words, for the progress lines."""
        return f"accuracy {result['accuracy']:.1%}"

    def report(self, evals):
        """What was learned, for a person: from all the evaluations of a run, the last one final."""
        last = evals[-1]
        wide, wider = (max(len(row[column]) for row in last["some"]) for column in (0, 1))
        return "\n".join([
            f"{self.title}: what a transformer learned from {last['examples']:,} examples", "",
            f"Accuracy on new problems: {last['accuracy']:.1%}",
            *(f"    beam {beam}: {accuracy:.1%}"
              for beam, accuracy in last.get("accuracy_by_beam", {}).items()), "",
            "Some of them, and the first that it gets wrong:", "",
            *(f"  {problem:<{wide}}  =>  {answer:<{wider}}  {verdict(right)}"
              for problem, answer, right in last["some"])])

    def ask(self, text, model, beams=(1,)):
        """The model's answers to a problem, best first, each checked; ValueError if it is none."""
        problem = self.read(text)
        [answers] = self.translate(model, [problem], max(beams))
        return "\n".join([f"{self.show(problem)}; the model says, best first:"] + [
            f"  {answer:<10}  {verdict(right)}  (probability {math.exp(logp):.2g})"
            for answer, right, logp in answers])


def verdict(right):
    return "right" if right else "wrong"
