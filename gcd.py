"""Learning the greatest common divisor.

Slides: "Maths as translation: learning GCD", and "Can transformers learn the greatest common
divisor?" to the last. Paper: Charton, same title, arXiv 2308.15594.

    python train.py --task gcd --base 31

Step I, generate: pairs of integers and their GCD, made on the fly much faster than a model can read
them. Then a look at what the trained model really learned: the talk's three rules.

>>> task = GCD(base=10)
>>> source, target = task.batch(1, torch.Generator().manual_seed(3))
>>> task.source.text(source[0]), task.target.text(target[0])
('+ 3 4 1 0 9 + 2 8 6 7 4 1', '<bos> + 2 3')
"""

import math
import textwrap

import torch

from tokenizers import HELD_OUT, Integers, as_target, held_out

GCDS = 100  # the GCD that are tested one by one, and drawn when the outcomes are engineered
RIGHT = 0.95  # a GCD is learned when this share of its pairs is predicted right


# Step I: generate


def random_integers(law, high, generator):
    """One random integer in 1..h for each h of the LongTensor high.

    law: "uniform", or "log-uniform", P(k) = log(1 + 1/k) / log(1 + h), almost proportional to 1/k:
    as many integers of one digit as of six (slide "Engineering the training distribution").
    """
    u = torch.rand(high.shape, generator=generator, device=high.device, dtype=torch.float64)
    k = u * high + 1 if law == "uniform" else (high + 1.0) ** u
    return k.long().minimum(high)  # against rounding at the upper end


def random_coprimes(law, high, generator):
    """A coprime pair in 1..h for each h of high (n,): (n, 2), drawn until it is coprime."""
    pairs = torch.zeros(len(high), 2, dtype=torch.int64, device=high.device)
    todo = torch.arange(len(high), device=high.device)
    while len(todo):
        pairs[todo] = random_integers(law, high[todo, None].expand(-1, 2), generator)
        todo = todo[torch.gcd(*pairs[todo].T) != 1]
    return pairs


def for_testing(pairs):
    """Which of the pairs (n, 2) are held out for testing, in either order."""
    a, b = pairs.amin(dim=1), pairs.amax(dim=1)
    return held_out(a * 0x2545F4914F6CDD1D + b * 0x1B873593CC9E2D51)


class GCD:
    """The task as train.py sees it: sizes, batches, evaluation, report, answers."""

    scales = {
        "laptop": dict(dim=64, heads=4, enc_layers=1, dec_layers=1, batch_size=256, epochs=5,
                       optimizer="muon", lr=2e-3, warmup=500, test_size=20_000),
        "talk": dict(dim=64, heads=8, enc_layers=1, dec_layers=1, batch_size=256, epochs=150,
                     lr=1e-3, warmup=1000, test_size=100_000),
    }

    free = set()

    @staticmethod
    def add_arguments(parser):
        add = parser.add_argument
        add("--base", type=int, default=30, help="the base integers are written in (30)")
        add("--max-int", type=int, default=1_000_000, help="the operands are 1..max-int (1000000)")
        add("--operands", choices=["uniform", "log-uniform"], default="uniform",
            help="law of the training operands; if GCD are drawn first, of operand / GCD (uniform)")
        add("--outcomes", choices=["natural", "log-uniform", "uniform"], default="natural",
            help="the law of the training GCD: as they come, or drawn in 1..100 (natural)")

    def __init__(self, base=30, max_int=1_000_000, operands="uniform", outcomes="natural",
                 test_size=20_000, device="cpu"):
        if not 10 <= max_int < 2**31:  # fewer leave no pair to test on, more are not exact in float
            raise ValueError(f"--max-int {max_int}: it can be 10 to 2147483647")
        if not 2 <= base <= 1_000_000:
            raise ValueError(f"--base {base}: it can be 2 to 1000000")
        self.base, self.max_int, self.operands, self.outcomes = base, max_int, operands, outcomes
        self.test_size, self.device, self.tests = test_size, device, None
        self.source = self.target = Integers(base)
        self.src_words = self.tgt_words = len(self.source)
        self.src_len = 2 * self.source.length(max_int)
        self.tgt_len = self.target.length(max_int) + 1  # and <eos>
        self.name = "-".join([f"gcd-base{base}"]
                             + [f"max{max_int}"] * (max_int != 1_000_000)
                             + [f"{operands}-operands"] * (operands != "uniform")
                             + [f"{outcomes}-outcomes"] * (outcomes != "natural"))

    def sample(self, n, generator):
        """n pairs of the training law: (n, 2)."""
        high = torch.full((n,), self.max_int, device=self.device)
        if self.outcomes == "natural":
            return random_integers(self.operands, high[:, None].expand(-1, 2), generator)
        k = torch.arange(1, min(GCDS, self.max_int) + 1, device=self.device)
        weights = 1.0 / k if self.outcomes == "log-uniform" else torch.ones_like(k).float()
        gcds = k[weights.multinomial(n, replacement=True, generator=generator)]
        return gcds[:, None] * random_coprimes(self.operands, high // gcds, generator)

    def draw(self, n, generator):
        """n training pairs (n, 2), none of them held out, and their GCD (n,)."""
        pairs = self.sample(n, generator)
        while len(todo := for_testing(pairs).nonzero().flatten()):
            pairs[todo] = self.sample(len(todo), generator)
        return pairs, torch.gcd(*pairs.T)

    def batch(self, n, generator):
        """n problems and solutions as padded LongTensors: (n, <= src_len), (n, <= tgt_len + 1)."""
        pairs, gcds = self.draw(n, generator)
        return self.source.encode(pairs), as_target(self.target.encode(gcds[:, None]))

    def make_tests(self):
        """The two held-out tests, of a seed of their own: pairs (n, 2) and their GCD (n,) of each.

        natural: uniform operands, whatever the training law. stratified: each GCD 1..100 as often;
        one without a held-out pair, as 97 under --max-int 100 may be, is left out.
        """
        generator = torch.Generator().manual_seed(2308_15594)

        def keep(pairs, n):
            return pairs[for_testing(pairs)][:n]

        def bounds(n, high):  # twice what it takes for n of them to be held out
            return torch.full((2 * HELD_OUT * n + 1000,), high)

        each, high = max(1, self.test_size // GCDS), bounds(self.test_size, self.max_int)
        natural = random_integers("uniform", high[:, None].expand(-1, 2), generator)
        strata = []
        for k in range(1, min(GCDS, self.max_int) + 1):
            cofactors = random_coprimes("uniform", bounds(each, self.max_int // k), generator)
            strata.append(keep(k * cofactors, each))
        tests = keep(natural, self.test_size).to(self.device), torch.cat(strata).to(self.device)
        return [(pairs, torch.gcd(*pairs.T)) for pairs in tests]

    def prepare(self):
        """Make the tests, once."""
        self.tests = self.tests or self.make_tests()

    # Step III: judge

    def predict(self, model, pairs, beam=1):
        """The model's GCD for each pair (n, 2); 0 where what it writes is not an integer."""
        tokens, _ = model.generate(self.source.encode(pairs), beam)
        return self.target.decode(tokens[:, 0])[0]

    def evaluate(self, model, beams=(1,), final=False):
        """Accuracy on the natural test; on the stratified one, which GCD are predicted right.

        At the end, also f(k) for every k and, for several beam sizes, the accuracy of the best
        translation at each.
        """
        self.prepare()
        (pairs, gcds), (strata, truth) = self.tests
        accuracy = {str(beam): (self.predict(model, pairs, beam) == gcds).sum().item() / len(gcds)
                    for beam in (beams if final else beams[:1])}
        answers, predictions = self.predict(model, strata, beams[0]), {}
        for k in truth.unique().tolist():
            values, counts = answers[truth == k].unique(return_counts=True)
            top = counts.argmax()
            predictions[k] = [values[top].item(), counts[top].item() / counts.sum().item()]
        result = {"accuracy": accuracy[str(beams[0])], "correct_gcds": learned(predictions)}
        if len(accuracy) > 1:
            result["accuracy_by_beam"] = accuracy
        return result | ({"predictions": predictions} if final else {})

    def headline(self, result):
        """One evaluation in a few words, for the progress lines."""
        return f"accuracy {result['accuracy']:.1%}, {len(result['correct_gcds'])} GCD of {GCDS}"

    def report(self, evals):
        """What was learned, for a person: from all the evaluations of a run, the last one final."""
        last, primes = evals[-1], primes_of(self.base)
        predictions = {int(k): v for k, v in last["predictions"].items()}
        gcds = last["correct_gcds"]
        expected = 6 / math.pi**2 * sum(k**-2 for k in gcds)
        most = 6 / math.pi**2 * math.prod(1 / (1 - p**-2) for p in primes)
        return "\n".join([
            f"The greatest common divisor of integers up to {self.max_int:,}, in base {self.base}:",
            f"what a transformer learned from {last['examples']:,} examples", "",
            f"Accuracy on new pairs: {last['accuracy']:.1%}",
            *(f"    beam {beam}: {accuracy:.1%}"
              for beam, accuracy in last.get("accuracy_by_beam", {}).items()),
            f"GCD it gets right at least {RIGHT:.0%} of the time, of 1 to {GCDS}: {len(gcds)}",
            listed("    ", gcds), "",
            "For pairs of GCD k, the answer it gives most often, f(k), and how often (* = right):",
            "",
            prediction_table(predictions), "",
            "Does it compute GCD? Not if it follows the talk's three rules. Then it recognises the",
            "multiples of some integers by their digits, as we do those of 5, and no more.",
            "", *rules(predictions, self.base, evals), "",
            "A share 6 / (pi k)^2 of all pairs has GCD k. So a model is right on",
            f"{expected:8.1%} of pairs if it knows the {len(gcds)} GCD above and no other "
            f"(measured: {last['accuracy']:.1%})",
            f"{most:8.1%} if it knows all products of {', '.join(map(str, primes))}: "
            "the most that R2 allows",
        ])

    def ask(self, text, model, beams=(1,)):
        """The model's answers to a problem like "10 32", best first, each checked; ValueError if it
        is none."""
        try:
            a, b = map(int, text.replace(",", " ").split())
        except ValueError:
            raise ValueError(f'{text!r} is not a problem: two integers are, as in --ask "10 32"')
        if not (1 <= a <= self.max_int and 1 <= b <= self.max_int):
            raise ValueError(f"gcd({a}, {b}): this model knows integers from 1 to {self.max_int}")
        src = self.source.encode(torch.tensor([[a, b]], device=self.device))
        tokens, logps = model.generate(src, max(beams))
        lines = [f"gcd({a}, {b}) = {math.gcd(a, b)}; the model says, best first:"]
        for row, logp in zip(tokens[0].tolist(), logps[0].tolist()):
            if logp > -math.inf:
                words = self.target.text(row)
                answer = self.target.read(words)
                verdict = "right" if answer == math.gcd(a, b) else "wrong"
                shown = words if answer is None else answer
                lines.append(f"  {shown:<10}  {verdict}  (probability {math.exp(logp):.2g})")
        return "\n".join(lines)


# What did it learn? All of it is read off one table: predictions[k] = (f(k), share), the most
# frequent prediction f(k) for pairs of GCD k, and the share of these pairs that get it.


def learned(predictions):
    """The GCD k that count as learned: k itself is predicted, for at least 95% of the pairs."""
    return [k for k, (f, share) in predictions.items() if f == k and share >= RIGHT]


def primes_of(n):
    """The prime divisors of n >= 1: 12 -> [2, 3]."""
    def is_prime(p):
        return all(p % q for q in range(2, math.isqrt(p) + 1))
    return [p for p in range(2, n + 1) if n % p == 0 and is_prime(p)]


def listed(heading, items):
    """A heading and items, or "none", wrapped."""
    text = heading + (", ".join(map(str, items)) or "none")
    return textwrap.fill(text, width=96, subsequent_indent="    ")


def prediction_table(predictions):
    """The talk's Table 3: predictions for GCD 1 to 36, in three columns."""
    def cell(k):
        if k not in predictions:
            return " " * 26
        f, share = predictions[k]
        return f"{k:>5}{f:>7}{'*' if f == k else ' '}{share:>8.1%}     "

    lines = ["    k   f(k)        %     " * 3]
    lines += [cell(row) + cell(row + 12) + cell(row + 24) for row in range(1, 13)]
    return "\n".join(line.rstrip() for line in lines)


def rules(predictions, base, evals):
    """The three rules of the talk, each judged on this model: lines of text (paper, section 4)."""
    r1 = sum(share for _, share in predictions.values()) / len(predictions)
    yield f"R1  Predictions are deterministic: {r1:.1%} of pairs get the f(k) of their GCD k."

    correct = [k for k, (f, _) in predictions.items() if f == k]
    # k is a product of the base's primes if it divides base^7: no k up to 100 has 7 prime factors
    grokked = [k for k in correct if pow(base, 7, k) != 0]
    yield (f"R2  Correct predictions, f(k) = k, are products of the primes of {base}: "
           f"{len(correct) - len(grokked)} of {len(correct)} are.")
    if grokked:
        def epoch(k):
            return next((e["epoch"] for e in evals if k in e["correct_gcds"]), "not yet 95%")
        yield listed("    The others, grokked, and the epoch in which each was learned: ",
                     (f"{k} ({epoch(k)})" for k in grokked))

    largest = {k: max((d for d in correct if k % d == 0), default=None) for k in predictions}
    broken = [k for k, (f, _) in predictions.items() if f != largest[k]]
    yield (f"R3  f(k) is the largest correct prediction that divides k: for "
           f"{len(predictions) - len(broken)} of {len(predictions)} GCD k.")
    if broken:
        yield listed("    Exceptions: ", (f"f({k}) = {predictions[k][0]}"
                     + (f", not {largest[k]}" if largest[k] else " (no right divisor)")
                     for k in broken))
