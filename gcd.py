"""Learning the greatest common divisor.

Slides: "Maths as translation: learning GCD", and "Can transformers learn the greatest common
divisor?" to the last. Paper: Charton, same title, arXiv 2308.15594.

    python train.py --task gcd --base 31
    python gcd.py                       a few pairs as the model sees them, in three bases
    python gcd.py table runs/gcd-*      several runs beside the talk's tables

Step I, generate: pairs of integers and their GCD, made on the fly much faster than a model can read
them. Then a look at what the trained model really learned: the talk's three rules.

>>> task = GCD(base=10)
>>> source, target = task.batch(1, torch.Generator().manual_seed(3))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 3 4 1 0 9 + 2 8 6 7 4 1', '<bos> + 2 3')
"""

import math
from functools import cached_property

import torch

from task import TALK, Task, listed, read_run, run_commands
from tokenizers import Integers

GCDS = 100  # the GCDs that are tested one by one, and drawn when the outcomes are engineered
LEARNED = 0.95  # a GCD is learned when this share of its pairs is predicted right


# Step I: generate


def random_integers(distribution, high, generator):
    """A random integer k in 1..h for each h of high: uniform, or log-uniform, with probability
    log(1 + 1/k) / log(1 + h), nearly proportional to 1/k: as many of one digit as of six."""
    u = torch.rand(high.shape, generator=generator, device=high.device, dtype=torch.float64)
    k = u * high + 1 if distribution == "uniform" else (high + 1.0) ** u
    return k.long().minimum(high)  # against rounding at the upper end


def random_coprimes(distribution, high, generator):
    """A coprime pair in 1..h for each h of high (n,): (n, 2), drawn until it is coprime."""
    high = high[:, None].expand(-1, 2)
    pairs = random_integers(distribution, high, generator)
    while len(todo := (torch.gcd(*pairs.T) != 1).nonzero().flatten()):
        pairs[todo] = random_integers(distribution, high[todo], generator)
    return pairs


class GCD(Task):
    """Pairs of integers and their greatest common divisor."""

    scales = {
        "laptop": dict(dim=64, heads=4, enc_layers=1, dec_layers=1, batch_size=256, epochs=5,
                       optimizer="muon", lr=2e-3, warmup=500, test_size=20_000),
        "evening": dict(epochs=150, test_size=100_000),
        "talk": dict(heads=8, epochs=150, optimizer="adam", lr=1e-3, warmup=1000,
                     test_size=100_000),
    }

    @staticmethod
    def add_arguments(add):
        add("--base", type=int, default=30, help="the base integers are written in")
        add("--max-int", type=int, default=1_000_000, help="the operands are 1..max-int")
        add("--operands", choices=["uniform", "log-uniform"], default="uniform",
            help="distribution of the training operands; if GCDs are drawn, of operand / GCD")
        add("--outcomes", choices=["natural", "log-uniform", "uniform"], default="natural",
            help="distribution of the training GCDs: as they come, or drawn in 1..100")

    def __init__(self, **flags):
        super().__init__(**flags)
        base, max_int = self.base, self.max_int
        if not 10 <= max_int < 2**31:  # fewer leave no pair to test on, products of more overflow
            raise ValueError(f"--max-int {max_int}: it can be 10 to 2147483647")
        if not 2 <= base <= 1_000_000:
            raise ValueError(f"--base {base}: it can be 2 to 1000000")
        self.source = self.target = Integers(base)
        self.src_len = 2 * self.source.length(max_int)
        self.tgt_len = self.target.length(max_int) + 1  # and <eos>
        self.title = f"The greatest common divisor of integers up to {max_int:,}, in base {base}"
        self.name = "-".join([f"gcd-base{base}"] + [f"max{max_int}"] * (max_int != 1_000_000)
                             + [f"{self.operands}-operands"] * (self.operands != "uniform")
                             + [f"{self.outcomes}-outcomes"] * (self.outcomes != "natural"))

    def sample(self, n, generator):
        """n pairs (n, 2) and their GCDs (n, 1)."""
        device = generator.device
        high = torch.full((n,), self.max_int, device=device)
        if self.outcomes == "natural":
            pairs = random_integers(self.operands, high[:, None].expand(-1, 2), generator)
        else:
            k = torch.arange(1, min(GCDS, self.max_int) + 1, device=device)
            weights = 1.0 / k if self.outcomes == "log-uniform" else torch.ones_like(k).float()
            gcds = k[weights.multinomial(n, replacement=True, generator=generator)]
            pairs = gcds[:, None] * random_coprimes(self.operands, high // gcds, generator)
        return pairs, torch.gcd(*pairs.T)[:, None]

    def identity(self, problems):
        """gcd(a, b) is gcd(b, a)."""
        return problems.sort(dim=1).values

    def test_pairs(self, outcomes):
        """Held-out pairs of uniform operands, whatever the training distribution."""
        generator = torch.Generator().manual_seed(2308_15594)
        task = GCD(base=self.base, max_int=self.max_int, outcomes=outcomes)
        return task.draw(self.test_size, generator, testing=True)[0]

    @cached_property
    def tests(self):
        return {"natural": self.test_pairs("natural")}

    @cached_property
    def stratified(self):
        """As many pairs of each GCD 1..100, but for chance; without those of no held-out pair."""
        return self.test_pairs("uniform")

    # Step III: judge

    def read(self, text):
        """ "10 32" -> [10, 32]"""
        try:
            a, b = map(int, text.replace(",", " ").split())
        except ValueError:
            raise ValueError(f'{text!r} is not a problem: two integers are, as in --ask "10 32"')
        if not (1 <= a <= self.max_int and 1 <= b <= self.max_int):
            raise ValueError(f"gcd({a}, {b}): this model knows integers from 1 to {self.max_int}")
        return [a, b]

    def show(self, problem):
        return "{}, {}".format(*problem)

    def question(self, problem):
        return f"gcd({self.show(problem)}) = {math.gcd(*problem)}"

    def judge(self, problem, words):
        answer = self.target.read(words)
        return answer, answer == math.gcd(*problem)

    def grade(self, problems, tokens):
        """As judge does, of the best translations of all problems at once; 0 is no integer."""
        answers = self.target.decode(tokens[:, 0]).to(problems.device)
        return answers == torch.gcd(*problems.T), answers

    def findings(self, model, graded, final):
        """Which GCDs are predicted right; at the end, also what is predicted for each."""
        pairs = self.stratified
        _, answers = self.grade(pairs, self.translate(model, pairs))
        gcds = torch.gcd(*pairs.T)
        predictions = {k: most_frequent(answers[gcds == k]) for k in gcds.unique().tolist()}
        correct = [k for k, (f, share) in predictions.items() if f == k and share >= LEARNED]
        return {"correct_gcds": correct} | ({"predictions": predictions} if final else {})

    def headline(self, result):
        n = len(result["correct_gcds"])
        return f"{super().headline(result)}, {n} GCD{'s' * (n != 1)} of {GCDS}"

    def explain(self, evals):
        last, primes = evals[-1], primes_of(self.base)
        predictions = {int(k): v for k, v in last["predictions"].items()}
        gcds = last["correct_gcds"]
        expected = 6 / math.pi**2 * sum(k**-2 for k in gcds)
        most = 6 / math.pi**2 * math.prod(1 / (1 - p**-2) for p in primes)
        return [
            f"GCDs it gets right at least {LEARNED:.0%} of the time, of 1 to {GCDS}: {len(gcds)}",
            listed("    ", gcds or ["none"]), "",
            "For pairs of GCD k, the answer it gives most often, f(k), and how often (* = right):",
            "", *prediction_table(predictions), "",
            "Does it compute GCDs? Not if it follows the talk's three rules. Then it recognises "
            "the\nmultiples of some integers by their digits, as we do those of 5, and no more.",
            "", *rules(predictions, self.base, evals), "",
            "A share 6 / (pi k)^2 of all pairs has GCD k. So a model is right on",
            f"{expected:8.1%} of pairs if it knows the {len(gcds)} GCDs above and no other "
            f"(measured: {last['accuracy']:.1%})",
            f"{most:8.1%} if it knows all products of {', '.join(map(str, primes))}: "
            "the most that R2 allows"]


# What did it learn? All of it is read off one table: predictions[k] = (f(k), share), the most
# frequent prediction f(k) for pairs of GCD k, and the share of these pairs that get it.


def most_frequent(answers):
    """The most frequent of answers (n,), and its share."""
    f = answers.mode().values.item()
    return [f, (answers == f).double().mean().item()]


def primes_of(n):
    """The prime divisors of n >= 1: 12 -> [2, 3]."""
    return [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]


def prediction_table(predictions):
    """The talk's Table 3: predictions for GCD 1 to 36, in three columns."""
    cells = {k: f"{k:>5}{f:>7}{'*' if f == k else ' '}{share:>8.1%}     "
             for k, (f, share) in predictions.items()}
    yield ("    k   f(k)        %     " * 3).rstrip()
    for row in range(1, 13):
        yield "".join(cells.get(k, " " * 26) for k in (row, row + 12, row + 24)).rstrip()


def beyond_the_base(predictions, base):
    """The primes that do not divide the base, and yet divide a GCD k that is told from others:
    pairs of GCD k are answered k, and no pair whose GCD is no multiple of k."""
    wrong = {f for j, (f, _) in predictions.items() if f and j % f}
    told = {k for k, (f, _) in predictions.items() if f == k} - wrong
    return sorted({p for k in told for p in primes_of(k) if base % p})


def rules(predictions, base, evals):
    """The talk's three rules, each judged on this model: lines of text (paper, section 4). R1 to
    R3; or where a prime beyond those of the base was learned, G1 to G3, the rules with grokking
    (slide "Large bases and grokking"), which allow the small primes in their order."""
    grokked = beyond_the_base(predictions, base)
    missed = [p for p in range(2, GCDS) if primes_of(p) == [p] and base % p and p not in grokked]
    small = [p for p in grokked if p < min(missed, default=GCDS)]  # the later ones: out of order
    r = "G" if grokked else "R"
    share = sum(share for _, share in predictions.values()) / len(predictions)
    yield f"{r}1  Predictions are deterministic: {share:.1%} of pairs get the f(k) of their GCD k."

    correct = [k for k, (f, _) in predictions.items() if f == k]
    allowed = {*primes_of(base), *small}
    others = [k for k in correct if not allowed.issuperset(primes_of(k))]
    what = f"Correct predictions, f(k) = k, are products of the primes of {base}"
    if small:
        what += f" and of the small prime{'s' * (len(small) > 1)} {', '.join(map(str, small))}"
    yield listed(f"{r}2  {what}: ", [f"{len(correct) - len(others)} of {len(correct)} are."])
    if others:
        yield listed("    Exceptions: ", others)
    if grokked:
        epochs = {p: event["epoch"] for event in reversed(evals) for p in event["correct_gcds"]}
        yield listed("    Grokked, and the epoch in which each was learned: ",
                     (f"{p} ({epochs.get(p, 'not yet 95%')})" for p in grokked))

    largest = {k: max((d for d in correct if k % d == 0), default="a divisor") for k in predictions}
    broken = [f"f({k}) = {f}, not {largest[k]}" for k, (f, _) in predictions.items()
              if f != largest[k]]
    yield (f"{r}3  f(k) is the largest correct prediction that divides k: for "
           f"{len(predictions) - len(broken)} of {len(predictions)} GCDs k.")
    if broken:
        yield listed("    Exceptions: ", broken)


def examples():
    """The same pairs in three bases. In which of them does one see the multiples of 4?"""
    for base in (2, 10, 31):
        write = Integers(base).write
        print(f"In base {base}:\n")
        for a, b in [(10, 32), (12, 28), (36, 100), (310, 930)]:
            print(f"    gcd({a}, {b})".ljust(19), write(a), write(b), "=>", write(math.gcd(a, b)))
        print()


def table(runs):
    """The best run in each base, up to a million, beside the talk's: accuracy and GCDs learned."""
    kinds = [("uniform", "natural"), ("log-uniform", "natural"), ("log-uniform", "log-uniform")]
    runs = sorted(map(read_run, runs), key=lambda run: run[1][-1]["accuracy"])
    for kind, (title, talk) in zip(kinds, TALK["gcd"].items()):
        ours = {start["base"]: (f"{100 * last['accuracy']:.1f}", len(last["correct_gcds"]))
                for start, (*_, last) in runs if start["task"] == "gcd"
                and start.get("max_int") == 1_000_000
                and (start["operands"], start["outcomes"]) == kind}
        if ours:
            yield f"{title.capitalize()}: accuracy, and GCDs learned (in brackets the talk's)"
            for base, (accuracy, gcds) in sorted(ours.items()):
                theirs = talk.get(str(base), ["-", "-"])
                yield f"  base {base:<6}{accuracy:>6} ({theirs[0]}) {gcds:>5} ({theirs[1]})"
            yield ""


if __name__ == "__main__":
    run_commands(examples, table)
