"""Linear algebra: eigenvalues, and seven other problems on matrices of real numbers.

Slides: "Linear algebra with transformers", and "Computing eigenvalues - the importance of training
distributions" to the table of 8x8 matrices. Papers: Charton, arXiv 2112.01898 and 2211.00170.

    python train.py --task eigen --train-dist laplace
    python eigen.py                       each problem, as a person writes it and in words
    python eigen.py table runs/eigen-*    several runs beside the talk's tables

Step I, generate: random matrices, and the solution by torch.linalg. The model sees numbers of three
significant digits, and the problem is what it sees: first the matrix is rounded, then it is solved.

>>> task = LinearAlgebra(size="2", train_dist="laplace")
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('V2 V2 -608E-3 115E-2 115E-2 -168E-2', '<bos> + 125 E-3 - 241 E-2')
"""

import json
import math
from functools import cached_property, partial

import torch

from task import TALK, Task, by_test, read_run, run_commands
from tokenizers import EOS, Floats

TOLERANCES = [0.05, 0.02, 0.01, 0.005]
ENCODINGS = ["p10", "p1000", "b1999", "fp15"]
COEFFICIENT = 10.0  # coefficients are uniform in -10..10, or Gaussian of the same deviation
DISTRIBUTIONS = ["semicircle", "uniform", "gaussian", "laplace", "abs-semicircle", "abs-laplace",
                 "marchenko-pastur"]
SHORT = ["semi-circle", "uniform", "gaussian", "laplace", "abs-sc", "abs-lapl", "marchenko"]


# Step I: generate


def new_eigenvalues(distribution, d, generator):
    """Eigenvalues of a distribution, in the place of those of Wigner matrices, d (n, size). Their
    root mean square is 10 sqrt(size / 3), as that of the Wigner matrices' semicircle; but not of
    Marchenko-Pastur, the distribution of random covariance matrices, A^T A, A Gaussian."""
    size, new = d.size(1), torch.empty_like(d)
    deviation = math.sqrt(size / 3) * COEFFICIENT
    absolute, distribution = distribution.startswith("abs-"), distribution.removeprefix("abs-")
    if distribution == "uniform":
        d = math.sqrt(3) * deviation * new.uniform_(-1, 1, generator=generator)
    elif distribution == "gaussian":
        d = deviation * new.normal_(generator=generator)
    elif distribution == "laplace":
        u = new.uniform_(-1, 1, generator=generator)
        d = -deviation / math.sqrt(2) * u.sign() * (-u.abs()).log1p()
    elif distribution == "marchenko-pastur":
        a = d.new_empty(len(d), size, size).normal_(generator=generator)
        d = COEFFICIENT / 3 * torch.linalg.svdvals(a) ** 2
    return d.abs() if absolute else d


def symmetric(distribution, n, size, generator):
    """n symmetric matrices (n, size, size) whose eigenvalues follow the distribution: decompose a
    Wigner matrix, M = H D H^T, replace D and recompose. M is Gaussian, so its eigenvectors, the
    columns of H, point in nearly all directions alike."""
    m = torch.empty(n, size, size, dtype=torch.float64, device=generator.device)
    m.normal_(0, COEFFICIENT / math.sqrt(3), generator=generator)
    d, h = torch.linalg.eigh(m)  # it takes the lower triangle of M, as if M were symmetric
    m = (h * new_eigenvalues(distribution, d, generator)[:, None]) @ h.mT
    return (m + m.mT) / 2  # M and M^T differ by rounding errors


def eigenvectors(m):
    """D, the eigenvalues, the largest first, and H^T, an eigenvector in each row."""
    d, h = torch.linalg.eigh(m)
    h = torch.where(h[:, :1] < 0, -h, h)  # of v and -v, the one that begins with a positive number
    return [d.flip(1), h.mT.flip(1)]


def svd(a):
    """S, U^T and V^T, with signs so that each row of U^T begins with a positive number."""
    u, s, vt = torch.linalg.svd(a, full_matrices=False)
    signs = torch.where(u[:, :1] < 0, -1.0, 1.0)
    return [s, (u * signs).mT, vt * signs.mT]


OPS = {
    # The eight problems: the shapes of the operands and of the parts of a solution (r is rows, c
    # columns, k the smaller); its numbers, from which power of 10 to which; and operands -> parts.
    "transpose": ("rc", "cr", (-2, 1), lambda a: [a.mT]),
    "add": ("rc rc", "rc", (-2, 2), lambda a, b: [a + b]),
    "matvec": ("rc c1", "r1", (-2, 4), lambda a, b: [a @ b]),
    "matmul": ("rc cr", "rr", (-2, 4), lambda a, b: [a @ b]),
    "eigenvalues": ("rr", "r", (-2, 4), lambda m: [torch.linalg.eigvalsh(m).flip(1)]),
    "eigenvectors": ("rr", "r rr", (-3, 4), eigenvectors),
    "svd": ("rc", "k kr kc", (-3, 3), svd),
    "inverse": ("rr", "rr", (-4, 3), lambda a: [torch.linalg.inv_ex(a).inverse]),
}
EQUATIONS = {
    # What an answer has to fulfil, where it need not be that of OPS: operands and parts -> the two
    # sides of each equation. (Ones, diagonal: the identity matrix.)
    "eigenvectors": ("H^T M H = D and H^T H = I", lambda m, d, ht: [
        (ht @ m @ ht.mT, d.diag_embed()), (ht @ ht.mT, torch.ones_like(d).diag_embed())]),
    "svd": ("U S V^T = A, U^T U = I, V^T V = I and S = |S|", lambda a, s, ut, vt: [
        (ut.mT @ s.diag_embed() @ vt, a), (ut @ ut.mT, torch.ones_like(s).diag_embed()),
        (vt @ vt.mT, torch.ones_like(s).diag_embed()), (s, s.abs())]),
    "inverse": ("A X = I", lambda a, x: [(a @ x, torch.ones_like(a[:, 0]).diag_embed())]),
}


def distance(left, right):
    """L1 distance of left from right, relative to the L1 norm of right, for each of the batch."""
    return (left - right).flatten(1).abs().sum(1) / right.flatten(1).abs().sum(1).clamp_min(1e-30)


def unflatten(rows, shapes):
    """Rows of numbers (n, k) -> the matrices and vectors of these shapes that they hold."""
    parts = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes)]


class LinearAlgebra(Task):
    """A problem is a row of numbers, all coefficients of its operands, and so is a solution."""

    # The many words of numbers must get all their meaning from training: see word_std in model.py.
    scales = {
        "laptop": dict(dim=64, heads=8, enc_layers=2, dec_layers=1, word_std=0.01, batch_size=128,
                       epochs=4, optimizer="muon", lr=3e-3, warmup=200, test_size=2_000),
        "evening": dict(size="5", epochs=32),
        "talk": dict(size="5", dim=512, enc_layers=6, batch_size=1024, epochs=120,
                     optimizer="adam", lr=3e-4, warmup=3000, test_size=10_000),
    }
    test_flags = {"test_dists", "tolerance"}
    collate = staticmethod(partial(torch.tensor, dtype=torch.float64))

    @staticmethod
    def add_arguments(add):
        add("--op", choices=OPS, default="eigenvalues", help="the problem")
        add("--size", default="3", help="5: 5 rows and columns; 4x6: 4 rows and 6 columns")
        add("--train-dist", choices=DISTRIBUTIONS,
            help="distribution of the training eigenvalues; if not given, semicircle")
        add("--test-dists", choices=DISTRIBUTIONS, nargs="+", default=DISTRIBUTIONS, metavar="DIST",
            help="distributions of the eigenvalues to test on")
        add("--source-encoding", choices=ENCODINGS, default="fp15", help="of problems")
        add("--target-encoding", choices=ENCODINGS, default="p1000", help="of solutions")
        add("--signs", choices=["even", "uneven"], default="even",
            help="uneven: minus is rarer in training, in each problem to another degree")
        add("--sizes", choices=["equal", "mixed"], default="equal",
            help="mixed: training has smaller problems, too, each in a corner of a matrix of zeros")
        add("--digits", type=int, choices=[1, 2, 3], default=3, help="digits of problems")
        add("--tolerance", type=float, default=0.05, help="the relative error that is still right")

    def __init__(self, **flags):
        super().__init__(**flags)
        takes, gives, sizes, self.solution = OPS[self.op]
        self.symmetric = self.op in ("eigenvalues", "eigenvectors")
        size = self.size.split("x")
        if len(size) > 2 or not all(n.isdecimal() and 0 < int(n) <= 1000 for n in size):
            raise ValueError(f"--size {self.size}: a number up to 1000, as 5, or two, as 4x6")
        self.rows, columns = rows, columns = int(size[0]), int(size[-1])
        if takes == "rr" and rows != columns:
            raise ValueError(f"--size {self.size}: --op {self.op} is for square matrices")
        if self.train_dist and not self.symmetric:
            raise ValueError(f"--train-dist is for symmetric matrices, not for --op {self.op}")
        if self.signs == "uneven" and self.symmetric:
            raise ValueError(f"--signs uneven is not for symmetric matrices, as of --op {self.op}")
        if self.sizes == "mixed" and (self.symmetric or self.op in EQUATIONS):
            raise ValueError(f"--sizes mixed is for sums, products and transposes, not {self.op}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"--tolerance {self.tolerance}: it is between 0 and 1, as 0.05")
        eigenvalues = self.train_dist or "semicircle"
        self.distribution = eigenvalues if self.symmetric else "uniform coefficients"
        length = {"r": rows, "c": columns, "k": min(rows, columns), "1": 1}
        self.shapes, self.part_shapes = (
            [tuple(length[letter] for letter in shape) for shape in letters.split()]
            for letters in (takes, gives))
        dimensions = tuple(f"V{d}" for d in sorted({d for shape in self.shapes for d in shape}))
        highest = 3 if self.symmetric else 1  # coefficients are below 10^highest
        self.source = Floats(self.source_encoding, -2, highest, dimensions, self.device)
        self.target = Floats(self.target_encoding, *sizes, device=self.device)
        self.src_len = sum(2 + math.prod(shape) * self.source.width for shape in self.shapes)
        self.tgt_len = sum(map(math.prod, self.part_shapes)) * self.target.width + 1  # and <eos>
        more = [f"digits{self.digits}"] * (self.digits < 3)
        more += ["uneven-signs"] * (self.signs == "uneven")
        more += ["mixed-sizes"] * (self.sizes == "mixed")
        self.title = ", ".join([f"{self.op} of {rows}x{columns} matrices", self.distribution,
                                f"{self.source_encoding} in", f"{self.target_encoding} out", *more])
        self.name = "-".join([f"eigen-{self.op}{rows}" + f"x{columns}" * (rows != columns)]
                             + [self.distribution] * self.symmetric + more
                             + [self.source_encoding] * (self.source_encoding != "fp15")
                             + [self.target_encoding] * (self.target_encoding != "p1000"))

    def sample(self, n, generator, distribution=None):
        """n problems (n, k), in the digits that the model sees, and their solutions (n, m)."""
        if self.symmetric:
            x = symmetric(distribution or self.distribution, n, self.rows, generator).flatten(1)
        else:
            x = torch.empty(n, sum(map(math.prod, self.shapes)), device=generator.device)
            x.uniform_(-COEFFICIENT, COEFFICIENT, generator=generator)
            options = dict(generator=generator, device=x.device)
            if self.signs == "uneven" and not distribution:  # only tests name one
                lost = torch.rand(x.shape, **options) < torch.rand(n, 1, **options)
                x = torch.where(lost, x.abs(), x)  # in each row another share
            if self.sizes == "mixed" and not distribution:
                places = [torch.cartesian_prod(*map(torch.arange, s)).amax(1) for s in self.shapes]
                k = torch.randint(max(self.shapes[0]), (n, 1), **options)  # k + 1 is the size
                x = x * (torch.cat(places).to(x.device) <= k)  # row and column are at most k
        problems = self.source.round(x.to(self.device), self.digits)
        return problems, self.solve(problems)

    def operands(self, problems):
        """Problems (n, k) -> their matrices, [(n, rows, columns), ...]."""
        return unflatten(problems.to(self.device), self.shapes)

    def encode(self, problems):
        """Problems -> their words: each operand's dimensions and coefficients."""
        return torch.cat([self.source.encode_matrix(x) for x in self.operands(problems)], dim=1)

    def solve(self, problems):
        """Problems -> solutions (n, m)."""
        return torch.cat([x.flatten(1) for x in self.solution(*self.operands(problems))], dim=1)

    @cached_property
    def tests(self):
        """{distribution: held-out problems}, that of training first, the same in every run."""
        tests, others = {}, self.test_dists if self.symmetric else []
        for name in dict.fromkeys([self.distribution, *others]):
            generator = torch.Generator().manual_seed(2112_01898)
            tests[name], _ = self.draw(self.test_size, generator, testing=True, distribution=name)
        return tests

    # Step III: judge

    def answers(self, tokens):
        """What the model wrote, words (n, tgt_len) -> numbers (n, m), nan where it wrote none."""
        return self.target.decode(tokens[:, :-1]).masked_fill(tokens[:, -1:] != EOS, math.nan)

    def errors(self, problems, answers):
        """How far answers (n, m) are from what they should be: (n,), nan where they are none."""
        if self.op not in EQUATIONS:
            return distance(answers, self.solve(problems))
        matrices = [*self.operands(problems), *unflatten(answers, self.part_shapes)]
        sides = EQUATIONS[self.op][1](*matrices)
        return torch.stack([distance(*pair) for pair in sides]).amax(0)  # nan, if one is

    def grade(self, problems, tokens):
        """Which of the best translations are right within the tolerance, and the errors of all."""
        errors = self.errors(problems, self.answers(tokens[:, 0].to(self.device)))
        return errors <= self.tolerance, errors

    def findings(self, model, graded, final):
        """Accuracy at each tolerance, for each test; and that of the true solutions, rounded."""
        problems = self.tests[self.distribution]
        errors = {test: next(iter(by_beam.values()))[1] for test, by_beam in graded.items()}
        errors["truth"] = self.errors(problems, self.target.round(self.solve(problems)))
        shares = {name: {str(t): (error <= t).double().mean().item() for t in TOLERANCES}
                  for name, error in errors.items()}
        return {"best_possible": shares.pop("truth"), "accuracy_by_tolerance": shares}

    def explain(self, evals):
        last, (what, _) = evals[-1], EQUATIONS.get(self.op, ("all its numbers together", None))
        yield f"\nAn answer is right up to a relative error (L1) of {self.tolerance:.1%} in {what}."
        yield "\n    with a tolerance of  " + "".join(f"{t:>8.1%}" for t in TOLERANCES)
        rows = last["accuracy_by_tolerance"] | {"(the truth, rounded)": last["best_possible"]}
        for name, row in rows.items():
            yield f"    {name:<21}" + "".join(f"{share:>8.1%}" for share in row.values())
        if self.op == "eigenvalues":
            yield from ["", *beside_the_talk(self.rows, {self.distribution: last})]

    def read(self, text):
        """ "[[2, 1], [1, 3]]" -> [2, 1, 1, 3]; "[[2, 1], [1, 3]], [1, 2]" if it takes two."""
        largest, shapes = self.source.sizes.max().item(), [f"{r}x{c}" for r, c in self.shapes]
        try:
            operands = [self.collate(x) for x in json.loads(f"[{text}]")]
            operands = [x[:, None] if x.ndim == 1 else x for x in operands]  # a vector is a column
            row = torch.cat([x.flatten() for x in operands])
            if ([x.shape for x in operands] != self.shapes or not (row.abs() <= largest).all()
                    or self.symmetric and not operands[0].equal(operands[0].mT)):
                raise ValueError
        except (ValueError, TypeError, RuntimeError, OverflowError):  # torch's and json's
            kind = "symmetric " * self.symmetric + " and ".join(shapes)
            raise ValueError(f"{text[:60]!r} is not a problem: this model takes {kind} matrices of "
                             f"numbers up to {largest:g}; a 2x2 one is [[2,1],[1,3]]") from None
        problems = self.source.round(row[None].to(self.device), self.digits)
        if not (self.solve(problems).abs() <= self.target.sizes.max()).all():
            raise ValueError(f"{text[:60]!r} has no {self.op}, or one of too large numbers")
        return problems[0].tolist()

    def show(self, problem, shapes=None):
        """The operands of a problem, or what else has these shapes: "[[2, 1], [1, 3]]"."""
        def digits(x):
            return f"[{', '.join(map(digits, x))}]" if x.ndim else f"{x:.3g}"
        parts = unflatten(self.collate([problem]), shapes or self.shapes)
        return ", ".join(digits(part[0]) for part in parts)

    def question(self, problem):
        solution = self.solve(self.collate([problem]))[0].tolist()
        return f"{self.op} of {self.show(problem)} = {self.show(solution, self.part_shapes)}"

    def judge(self, problem, words):
        """As grade does, of one translation: ("[3.62, 1.39], error 0.2%", True)."""
        ids = self.target.ids(words)
        tokens = torch.tensor([ids + [EOS] * (self.tgt_len - len(ids))], device=self.device)
        right, error = (x.item() for x in self.grade(self.collate([problem]), tokens[None]))
        said = self.show(self.answers(tokens)[0].tolist(), self.part_shapes)
        return (None, False) if math.isnan(error) else (f"{said}, error {error:.1%}", right)


def examples():
    """A 2x2 example of each problem, and of each encoding of numbers."""
    for op, encoding in [(op, "fp15") for op in OPS] + [("eigenvalues", e) for e in ENCODINGS]:
        task = LinearAlgebra(op=op, size="2", source_encoding=encoding, target_encoding=encoding)
        problems, solutions = task.draw(1, torch.Generator().manual_seed(1))
        print(task.question(problems[0].tolist()))
        print(f"    in {encoding}: {task.source.text(task.encode(problems)[0])}  =>  "
              f"{task.target.text(task.target.encode(solutions)[0])}\n")


def beside_the_talk(size, results):
    """Evaluations {training distribution: result} of matrices of a size, beside the talk's."""
    theirs = size if str(size) in TALK["eigenvalues"] else 5
    yield f"Eigenvalues, {size}x{size}: percent right (in brackets the talk's, {theirs}x{theirs})\n"
    yield f"{'trained on':<17}" + "".join(f"{name:>11}" for name in SHORT)
    for name in filter(results.get, DISTRIBUTIONS):
        ours = by_test(results[name])
        talk = TALK["eigenvalues"][str(theirs)].get(name, ["-"] * len(DISTRIBUTIONS))
        cells = [f"{f'{100 * ours[test]:.0f}' if test in ours else '-'} ({percent})"
                 for test, percent in zip(DISTRIBUTIONS, talk)]
        yield f"{name:<17}" + "".join(f"{cell:>11}" for cell in cells)


def table(runs):
    """Runs beside the talk's Tables 1 and 2, one for each size; of a distribution, its last run."""
    tables = {}
    for start, evals in map(read_run, runs):
        if start.get("op") == "eigenvalues":
            size = int(start["size"].split("x")[0])
            tables.setdefault(size, {})[start["train_dist"] or "semicircle"] = evals[-1]
    for size in sorted(tables):
        yield from [*beside_the_talk(size, tables[size]), ""]


if __name__ == "__main__":
    run_commands(examples, table)
