"""Learning with errors: a => b, from samples b = a.s + e mod q of one secret s; and s read off it.

    python train.py --task lwe
    python train.py --task lwe --ask "125 e22"

Lattice cryptography is safe as long as s cannot be found. a has n numbers modulo q, s has zeros and
a few ones, e is a small error. The model learns to translate a into b, and never sees s. Then it is
asked for large multiples K e_i of the unit vectors: the true b is near K where s_i is 1, and near 0
where s_i is 0. This is the direct attack of SALSA: Wenger, Chen, Charton and Lauter, arXiv
2207.04785, section 4.

The distribution of a decides. In mixed a, a random share of the numbers is 0: from sums of a few
numbers, the model learns those of many (Saxena et al., arXiv 2410.03569). From uniform a, as in
SALSA, it learns nothing in the same time. But the attacker of a real cipher cannot choose a; and
where only one number of a is not 0, b shows s without a model. SALSA also has few samples, each
used many times, a second attack, and two words for a number; here a number is one word.

>>> task = Lwe(n=6, ones=2)
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('5 0 97 235 56 172', '<bos> 236')
"""

import re
from functools import cached_property

import torch

from task import Task, listed
from tokenizers import SPECIAL, Vocabulary

ERROR = 3  # the standard deviation of e, as in SALSA
TOLERANCE = 0.1  # an answer is right if it is within this share of q: SALSA's tau


class Residues(Vocabulary):
    """The numbers modulo q, each of them a word."""

    def encode(self, values):
        return values + len(SPECIAL)


class Lwe(Task):
    """Samples of learning with errors, and the secret that made them."""

    scales = Task.scales | {"laptop": dict(
        dim=64, heads=2, enc_layers=1, dec_layers=1, batch_size=256, epochs=8, epoch_size=50_000,
        optimizer="muon", lr=2e-3, warmup=500, test_size=2000)}

    @staticmethod
    def add_arguments(add):
        add("--n", type=int, default=30, help="how many numbers a has, and the secret")
        add("--ones", type=int, default=3, help="how many numbers of the secret are 1")
        add("--modulus", type=int, default=251, help="q")
        add("--secret", type=int, default=1, help="the seed of the secret")
        add("--samples", choices=["mixed", "uniform"], default="mixed",
            help="the training a: uniform, or mixed, where a random share of the numbers is 0")

    def __init__(self, **flags):
        super().__init__(**flags)
        n, ones, q = self.n, self.ones, self.modulus
        if not (1 <= ones <= n <= 1000 and 50 <= q <= 10_000):
            raise ValueError(f"--n {n} --ones {ones} --modulus {q}: n can be 1 to 1000, ones 1 to "
                             "n, the modulus 50 to 10000")
        self.source = self.target = Residues([*map(str, range(q))])
        self.src_len, self.tgt_len = n, 2  # b and <eos>
        self.title = f"Learning with errors: n = {n}, q = {q}, {ones} ones in the secret"
        self.name = f"lwe-n{n}-ones{ones}-q{q}-secret{self.secret}-{self.samples}"
        order = torch.randperm(n, generator=torch.Generator().manual_seed(self.secret))
        self.s = (order < ones).long()

    def sample(self, n, generator, samples=None):
        """n samples, a (n, self.n) and b (n, 1), of the kind `samples`, or of --samples. In mixed
        ones, the share of numbers that are not 0 is uniform in 0..1."""
        options = dict(generator=generator, device=generator.device)
        a = torch.randint(self.modulus, (n, self.n), **options)
        if (samples or self.samples) == "mixed":
            a *= torch.rand(n, self.n, **options) < torch.rand(n, 1, **options)
        e = (ERROR * torch.randn(n, **options)).round().long()
        return a, ((a * self.s.to(a.device)).sum(dim=1) + e)[:, None] % self.modulus

    @cached_property
    def tests(self):
        """Uniform a, whatever the training samples are."""
        generator = torch.Generator().manual_seed(2023)
        return {"uniform a": self.draw(self.test_size, generator, True, samples="uniform")[0]}

    def read(self, text):
        """ "125 e2 + 7 e5" -> [0, 125, 0, 0, 7, 0, ...]"""
        problem = [0] * self.n
        for term in text.split("+"):
            match = re.fullmatch(r"\s*(\d+)\s*e(\d+)\s*", term)
            if not match or not 1 <= int(match[2]) <= self.n:
                raise ValueError(f'{text!r}: multiples of unit vectors e1 to e{self.n} are a '
                                 'problem, as "125 e2 + 7 e5"')
            problem[int(match[2]) - 1] += int(match[1])
        return [number % self.modulus for number in problem]

    def show(self, problem):
        return " + ".join(f"{k} e{i}" for i, k in enumerate(problem, 1) if k) or "0 e1"

    def distance(self, x, y):
        """How far apart numbers modulo q are: of 251, 1 and 250 are 2 apart."""
        return torch.minimum((x - y) % self.modulus, (y - x) % self.modulus)

    def judge(self, problem, words):
        """Right if b is near a.s."""
        if not words.isdecimal():
            return None, False
        a, b = torch.tensor(problem), int(words)
        return b, self.distance(b, (a * self.s).sum()).item() <= TOLERANCE * self.modulus

    def findings(self, model, graded, final):
        """The attack. near: for each i, the share of 25 large K for which the answer to K e_i is
        nearer to K than to 0. Where that is high, the guess is s_i = 1. 200 new samples test it."""
        k = torch.linspace(self.modulus / 4, self.modulus * 3 / 4, 25).long()[:, None]
        questions = (k[:, :, None] * torch.eye(self.n).long()).flatten(0, 1)
        b = self.translate(model, questions)[:, 0, 0].cpu().view(25, -1) - len(SPECIAL)
        near = (self.distance(b, k) < self.distance(b, 0)).double().mean(dim=0)
        guess = (near > near.max() / 2).long()
        a, b = self.draw(200, torch.Generator().manual_seed(2024), True, samples="uniform")
        rest = self.distance(b[:, 0], a @ guess).double().mean().item()
        return {"near": near.tolist(), "ones": (guess.nonzero()[:, 0] + 1).tolist(),
                "rest": rest, "found": rest < 2 * ERROR}  # the error alone is 2.4 on average

    def headline(self, result):
        return super().headline(result) + ", secret found" * result["found"]

    def explain(self, evals):
        last = evals[-1]
        yield f"(right: within {TOLERANCE:.0%} of q; one constant answer would have 20%)\n"
        yield "Asked for K e_i, for 25 large K, it answers nearer to K than to 0 in this share:\n"
        near = {f"e{i}": share for i, share in enumerate(last["near"], 1)}
        ones = [f"e{i} {near.pop(f'e{i}'):.0%}" for i in last["ones"]]
        yield listed("    ", ones or ["none"])
        yield f"    all others: at most {max(near.values(), default=0):.0%}"
        yield ("\nSo it says that s is 1 there, and 0 elsewhere. In 200 new samples, b is then "
               f"{last['rest']:.1f}\nfrom a.s on average; with a wrong s, {self.modulus / 4:.0f}.")
        found = [f"{event['examples']:,}" for event in evals if event["found"]]
        yield f"The secret was found after {found[0]} samples." if found else (
            "The secret was not found.")
