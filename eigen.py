"""Linear algebra: eigenvalues, and seven other problems on matrices of real numbers.

Slides: "Linear algebra with transformers", and "Computing eigenvalues - the importance of training
distributions" to the table of 8x8 matrices. Papers: Charton, arXiv 2112.01898 and 2211.00170.

    python train.py --task eigen --train-dist laplace
    python eigen.py table runs/eigen-*           several runs beside the talk's Table 1

Step I, generate: random matrices, and the solution by torch.linalg. The model sees numbers of three
significant digits, and the problem is what it sees: first the matrix is rounded, then it is solved.

>>> task = LinearAlgebra(size="2", train_dist="laplace")
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('V2 V2 -550E-2 -450E-2 -450E-2 -258E-2', '<bos> + 691 E-3 - 877 E-2')
"""

import argparse
import json
import math
from pathlib import Path

import torch

from tokenizers import EOS, HELD_OUT, Floats, as_target, held_out

TOLERANCES = [0.05, 0.02, 0.01, 0.005]
COEFFICIENT = 10.0  # coefficients are uniform in -10..10, or Gaussian of the same deviation
LAWS = ["semicircle", "uniform", "gaussian", "laplace", "abs-semicircle", "abs-laplace",
        "marchenko-pastur"]
SHORT = ["semi-circle", "uniform", "gaussian", "laplace", "abs-sc", "abs-lapl", "marchenko"]
TABLE_1 = {  # the talk's: rows are training laws, columns test laws; 5x5 matrices, percent
    "semicircle": [100, 34, 36, 39, 1, 5, 0],
    "uniform": [93, 100, 76, 70, 92, 70, 2],
    "gaussian": [100, 100, 100, 100, 100, 100, 99],
    "laplace": [100, 100, 100, 100, 100, 100, 100],
    "abs-semicircle": [0, 5, 4, 4, 100, 78, 20],
    "abs-laplace": [0, 4, 5, 5, 100, 100, 100],
    "marchenko-pastur": [0, 4, 4, 4, 100, 76, 100],
}


# Step I: generate


def normal(*shape, generator):
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float64)


def uniform(*shape, generator):
    """In -1..1."""
    u = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float64)
    return 2 * u - 1


def mirror(m):
    """Make matrices (n, size, size) symmetric: their lower triangle decides."""
    return m.tril() + m.tril(-1).mT


def wigner(n, size, generator):
    """n symmetric matrices of independent Gaussian coefficients: (n, size, size)."""
    return mirror(COEFFICIENT / math.sqrt(3) * normal(n, size, size, generator=generator))


def new_eigenvalues(law, d, generator):
    """Eigenvalues of a law, in the place of those of Wigner matrices, d (n, size).

    All laws have about the deviation of the Wigner matrices' semicircle. Marchenko-Pastur is the
    law of A^T A, A Gaussian: random covariance matrices (slide "Tweaking the training
    distribution").
    """
    size, law, absolute = d.size(1), law.removeprefix("abs-"), law.startswith("abs-")
    deviation = math.sqrt(size / 3) * COEFFICIENT
    if law == "uniform":
        d = deviation * math.sqrt(3) * uniform(*d.shape, generator=generator)
    elif law == "gaussian":
        d = deviation * normal(*d.shape, generator=generator)
    elif law == "laplace":
        u = uniform(*d.shape, generator=generator)
        d = -deviation / math.sqrt(2) * u.sign() * (-u.abs()).log1p()
    elif law == "marchenko-pastur":
        a = math.sqrt(COEFFICIENT / 3) * normal(len(d), size, size, generator=generator)
        d = torch.linalg.svdvals(a) ** 2
    return d.abs() if absolute else d


def symmetric(law, n, size, generator):
    """n symmetric matrices (n, size, size) whose eigenvalues follow the law.

    Decompose a Gaussian matrix, M = H D H^T, replace D and recompose: H is random, so M's
    eigenvectors point in all directions alike.
    """
    d, h = torch.linalg.eigh(wigner(n, size, generator))
    return mirror((h * new_eigenvalues(law, d, generator)[:, None]) @ h.mT)


# The eight problems. Operands and solutions are tuples of float tensors (n, rows, columns) or
# (n, k). An error says how far an answer is from doing what it should; nan is as far as can be.


def distance(x, truth):
    """L1 distance from the truth, relative to the truth's L1 norm, for each of the batch."""
    x, truth = x.flatten(1), truth.flatten(1)
    return (x - truth).abs().sum(1) / truth.abs().sum(1).clamp_min(1e-30)


def distance_to_identity(x):
    return distance(x, torch.ones_like(x[:, 0]).diag_embed())


def unorthogonality(h):
    """How far the rows of h (n, k, size) are from being orthogonal and of length 1."""
    return distance_to_identity(h @ h.mT)


def fixed_signs(h):
    """Of the vectors v and -v, rows of h, the one that begins with a positive number."""
    return h * torch.where(h[..., :1] < 0, -1.0, 1.0)


class Problem:
    """One matrix in, rows x columns; the answer is right when its numbers are.

    A problem is a handful of functions: there are no objects of this class, and no self.
    """

    square = symmetric = False
    sizes = -2, 4  # numbers in the solution: from 10^-2 to 10^4
    parts = ["solution"]  # names of the matrices and vectors in it
    criterion = "all their numbers together (L1)"

    def shapes(rows, columns):
        return [(rows, columns)]

    @classmethod
    def error(cls, operands, answer):
        return distance(answer[0], cls.solve(*operands)[0])


class Transpose(Problem):
    sizes = -2, 1

    def solve(a):
        return (a.mT,)


class Add(Problem):
    sizes = -2, 2

    def shapes(rows, columns):
        return [(rows, columns), (rows, columns)]

    def solve(a, b):
        return (a + b,)


class Product(Problem):
    def shapes(rows, columns):
        return [(rows, columns), (columns, rows)]

    def solve(a, b):
        return (a @ b,)


class MatrixVector(Product):
    def shapes(rows, columns):
        return [(rows, columns), (columns, 1)]


class Eigenvalues(Problem):
    """The eigenvalues of a symmetric matrix, the largest first."""

    square = symmetric = True
    parts = ["eigenvalues"]

    def solve(m):
        return (torch.linalg.eigvalsh(m).flip(1),)


class Eigenvectors(Problem):
    """D and H^T, the eigenvalues and in each row an eigenvector: H^T M H = D, and H orthogonal."""

    square = symmetric = True
    sizes = -3, 4
    parts = ["D", "H^T"]
    criterion = "H^T M H = D and in H^T H = I"

    def solve(m):
        d, h = torch.linalg.eigh(m)
        return d.flip(1), fixed_signs(h.mT.flip(1))

    def error(operands, answer):
        (m,), (d, ht) = operands, answer
        return torch.maximum(distance(ht @ m @ ht.mT, d.diag_embed()), unorthogonality(ht))


class SVD(Problem):
    """S, U^T and V^T: A = U S V^T, and U and V have orthogonal columns."""

    sizes = -3, 3
    parts = ["S", "U^T", "V^T"]
    criterion = "U S V^T = A, in U^T U = I and in V^T V = I"

    def solve(a):
        u, s, vt = torch.linalg.svd(a, full_matrices=False)
        ut = fixed_signs(u.mT)
        return s, ut, vt * (ut * u.mT).sum(2, keepdim=True)  # the sign that went to u^T

    def error(operands, answer):
        (a,), (s, ut, vt) = operands, answer
        return torch.stack([distance(ut.mT @ (s[:, :, None] * vt), a),
                            unorthogonality(ut), unorthogonality(vt)]).amax(0)


class Inverse(Problem):
    """X, such that A X = I."""

    square = True
    sizes = -4, 3
    parts = ["inverse"]
    criterion = "A X = I"

    def solve(a):
        return (torch.linalg.inv_ex(a).inverse,)

    def error(operands, answer):
        return distance_to_identity(operands[0] @ answer[0])


OPS = {"transpose": Transpose, "add": Add, "matvec": MatrixVector, "matmul": Product,
       "eigenvalues": Eigenvalues, "eigenvectors": Eigenvectors, "svd": SVD, "inverse": Inverse}


def parse_size(text):
    """"5" -> (5, 5); "4x6" -> (4, 6)."""
    try:
        rows, columns = map(int, text.split("x") if "x" in text else (text, text))
        if rows < 1 or columns < 1:
            raise ValueError
    except ValueError:
        raise ValueError(f"--size {text}: it is a number from 1, as 5, or two of them, as 4x6")
    return rows, columns


class LinearAlgebra:
    """The task as train.py sees it: sizes, batches, evaluation, report, answers."""

    # The many words of numbers must get all their meaning from training: see word_std in model.py.
    scales = {
        "laptop": dict(size="3", dim=64, heads=8, enc_layers=2, dec_layers=1, word_std=0.01,
                       batch_size=128, epochs=4, optimizer="muon", lr=3e-3, warmup=200,
                       test_size=2_000),
        "talk": dict(size="5", dim=512, heads=8, enc_layers=6, dec_layers=1, word_std=0.01,
                     batch_size=1024, epochs=120, lr=3e-4, warmup=3000, test_size=10_000),
    }

    free = {"test_dists", "tolerance"}

    @staticmethod
    def add_arguments(parser):
        add = parser.add_argument
        add("--op", choices=OPS, default="eigenvalues", help="the problem (eigenvalues)")
        add("--size", metavar="N", help="5: matrices of 5 rows and columns; 4x6: 4 rows, 6 columns")
        add("--train-dist", choices=LAWS, default=None,
            help="law of the eigenvalues of symmetric matrices to train on (semicircle)")
        add("--test-dists", choices=LAWS, nargs="+", default=LAWS, metavar="LAW",
            help="laws of the eigenvalues to test on (all seven)")
        add("--source-encoding", choices=["p10", "p1000", "b1999", "fp15"], default="fp15",
            help="how the coefficients are written (fp15)")
        add("--target-encoding", choices=["p10", "p1000", "b1999", "fp15"], default="p1000",
            help="how the solution is written (p1000)")
        add("--tolerance", type=float, default=0.05,
            help="the relative error up to which an answer is right (0.05)")

    def __init__(self, op="eigenvalues", size="3", train_dist=None, test_dists=LAWS,
                 source_encoding="fp15", target_encoding="p1000", tolerance=0.05, test_size=2_000,
                 device="cpu"):
        self.rows, self.columns = parse_size(size)
        self.op, self.problem, self.size = op, OPS[op], f"{self.rows}x{self.columns}"
        size = str(self.rows) if self.rows == self.columns else self.size
        if self.problem.square and self.rows != self.columns:
            raise ValueError(f"--size {size}: --op {op} is for square matrices")
        if train_dist and not self.problem.symmetric:
            raise ValueError(f"--train-dist is for symmetric matrices, not for --op {op}")
        if not 0 < tolerance < 1:
            raise ValueError(f"--tolerance {tolerance}: it can be above 0 and below 1, as 0.05")
        self.law, self.test_laws = "uniform coefficients", []
        if self.problem.symmetric:
            self.law, self.test_laws = train_dist or "semicircle", test_dists
        self.tolerance, self.test_size, self.device, self.tests = tolerance, test_size, device, None

        self.shapes = self.problem.shapes(self.rows, self.columns)
        dimensions = sorted({size for shape in self.shapes for size in shape})
        low, high = (-2, 3) if self.problem.symmetric else (-2, 1)
        self.source = Floats(source_encoding, low, high, [f"V{d}" for d in dimensions], device)
        self.target = Floats(target_encoding, *self.problem.sizes, device=device)
        self.src_words, self.tgt_words = len(self.source), len(self.target)
        self.src_len = sum(2 + r * c * self.source.width for r, c in self.shapes)
        solution = self.problem.solve(*(torch.eye(*shape)[None] for shape in self.shapes))
        self.part_shapes = [part.shape[1:] for part in solution]
        self.numbers = sum(math.prod(shape) for shape in self.part_shapes)
        self.tgt_len = self.numbers * self.target.width + 1  # and <eos>
        self.name = "-".join([f"eigen-{op}{size}"] + [self.law] * self.problem.symmetric
                             + [source_encoding] * (source_encoding != "fp15")
                             + [target_encoding] * (target_encoding != "p1000"))

    def sample(self, law, n, generator):
        """The words of n problems: (n, src_len)."""
        if self.problem.symmetric:
            operands = [symmetric(law, n, self.rows, generator)]
        else:
            operands = [COEFFICIENT * uniform(n, *shape, generator=generator)
                        for shape in self.shapes]
        return self.encode(operands)

    def encode(self, operands):
        """Matrices -> the words of a problem: (n, src_len)."""
        return torch.cat([self.source.encode_matrix(x.to(self.device)) for x in operands], dim=1)

    def operands(self, src):
        """The matrices that the model sees, from their words: [(n, rows, columns), ...]."""
        sizes = [2 + r * c * self.source.width for r, c in self.shapes]
        return [self.source.decode(words[:, 2:]).unflatten(1, shape)
                for words, shape in zip(src.split(sizes, dim=1), self.shapes)]

    def answer(self, tokens):
        """What the model wrote, (n, tgt_len) words -> the parts of a solution."""
        numbers = self.target.decode(tokens[:, :-1])
        numbers = numbers.masked_fill(tokens[:, -1:] != EOS, math.nan)
        sizes = [math.prod(shape) for shape in self.part_shapes]
        return [part.unflatten(1, shape)
                for part, shape in zip(numbers.split(sizes, dim=1), self.part_shapes)]

    def for_testing(self, src):
        """Which of the problems (n, src_len) are held out for testing."""
        powers = 1_000_003 ** torch.arange(src.size(1), device=src.device)  # they wrap around
        return held_out((src * powers).sum(dim=1))

    def solve(self, src):
        """The words of problems -> the words of their solutions."""
        parts = self.problem.solve(*self.operands(src))
        return self.target.encode(torch.cat([part.flatten(1) for part in parts], dim=1))

    def batch(self, n, generator):
        """n problems and solutions as LongTensors: (n, src_len), (n, tgt_len + 1)."""
        src = self.sample(self.law, n, generator)
        while len(todo := self.for_testing(src).nonzero().flatten()):
            src[todo] = self.sample(self.law, len(todo), generator)
        return src, as_target(self.solve(src))

    def make_test(self, law):
        """The held-out problems of a law, from a seed of their own."""
        generator = torch.Generator().manual_seed(2112_01898)  # the same on all devices
        src = self.sample(law, (HELD_OUT + 1) * self.test_size + 1000, generator)  # enough: a tenth
        return src[self.for_testing(src)][: self.test_size]

    def prepare(self):
        """Make the tests, once."""
        laws = dict.fromkeys([self.law, *self.test_laws])  # each once, in this order
        self.tests = self.tests or {law: self.make_test(law) for law in laws}

    # Step III: judge

    def errors(self, model, src, beam):
        """How far the model's best answers are from what they should do: (n,), nan if malformed."""
        tokens, _ = model.generate(src, beam)
        return self.problem.error(self.operands(src), self.answer(tokens[:, 0]))

    def evaluate(self, model, beams=(1,), final=False):
        """Accuracy on each law, for each tolerance; "accuracy" is that on the training law.

        At the end, for several beam sizes, the accuracy of the best translation at each.
        """
        self.prepare()
        errors = {law: self.errors(model, src, beams[0]) for law, src in self.tests.items()}

        def accuracy(errors, tolerance=self.tolerance):
            return (errors <= tolerance).sum().item() / len(errors)

        src = self.tests[self.law]
        truth = self.answer(as_target(self.solve(src))[:, 1:])
        rounded = self.problem.error(self.operands(src), truth)
        result = {"accuracy": accuracy(errors[self.law])}
        if self.test_laws:
            result["accuracy_by_dist"] = {law: accuracy(errors[law]) for law in self.test_laws}
        result["accuracy_by_tolerance"] = {
            law: {str(t): accuracy(errors[law], t) for t in TOLERANCES} for law in errors}
        result["best_possible"] = {str(t): accuracy(rounded, t) for t in TOLERANCES}
        if final and len(beams) > 1:
            result["accuracy_by_beam"] = {str(beams[0]): result["accuracy"]} | {
                str(beam): accuracy(self.errors(model, src, beam)) for beam in beams[1:]}
        return result

    def headline(self, result):
        """One evaluation in a few words, for the progress lines."""
        by_dist = result.get("accuracy_by_dist", {"accuracy": result["accuracy"]})
        return ", ".join(f"{law} {accuracy:.1%}" for law, accuracy in by_dist.items())

    def report(self, evals):
        """What was learned, for a person: from all the evaluations of a run."""
        def row(name, accuracy):
            return f"    {name:<21}" + "".join(f"{a:>8.1%}" for a in accuracy)

        last, learned_from = evals[-1], self.law + " eigenvalues" * self.problem.symmetric
        lines = [f"{self.op} of {self.size} matrices, {self.source.encoding} in, "
                 f"{self.target.encoding} out:",
                 f"what a transformer learned from {last['examples']:,} examples ({learned_from})",
                 "", "Right answers to new problems, by the relative error that is allowed in",
                 f"{self.problem.criterion}:", "", row("", TOLERANCES)]
        lines += [row(law, by.values()) for law, by in last["accuracy_by_tolerance"].items()]
        lines.append(row("(best possible)", last["best_possible"].values())
                     + "    the true solution, rounded")
        lines += [row(f"{self.law}, beam {beam}", [accuracy])
                  for beam, accuracy in last.get("accuracy_by_beam", {}).items()]
        if self.op == "eigenvalues":
            lines += ["", "Its row of the talk's Table 1, percent right within "
                      f"{self.tolerance:.1%} (and the talk's, for 5x5 matrices):", "",
                      table({self.law: last["accuracy_by_dist"]})]
        return "\n".join(lines)

    def ask(self, text, model, beams=(1,)):
        """The model's answers to a problem like "[[2,1],[1,3]]", best first, each checked;
        ValueError if it is none."""
        src = self.encode(self.read(text))
        operands = self.operands(src)
        truth = self.problem.solve(*operands)
        if not all((part.abs() < 10 ** self.problem.sizes[1]).all() for part in truth):
            raise ValueError(f"{text!r} has no {self.op}, or one of numbers too large to write")
        tokens, logps = model.generate(src, max(beams))
        lines = ["problem " + self.shown("AB", operands),  # as the model sees it: rounded
                 "true    " + self.shown(self.problem.parts, truth)]
        for row, logp in zip(tokens[0], logps[0].tolist()):
            if logp > -math.inf:
                answer = self.answer(row[None])
                error = self.problem.error(operands, answer).item()
                verdict = "right" if error <= self.tolerance else "wrong"
                said = f"{self.shown(self.problem.parts, answer)}   {verdict}, error {error:.1%}"
                if math.isnan(error):
                    said = f"{self.target.text(row.tolist())}   wrong, not numbers"
                lines.append(f"model   {said} (probability {math.exp(logp):.1g})")
        return "\n".join(lines)

    def read(self, text):
        """A problem as a person writes it -> its operands, a batch of one."""
        problem = repr(text if len(text) < 60 else text[:60] + "...")
        try:
            operands = [torch.tensor(x, dtype=torch.float64, device=self.device)
                        for x in json.loads(f"[{text}]")]
        except (ValueError, TypeError, RuntimeError, OverflowError):  # torch's and json's
            raise ValueError(f"{problem} is not a problem: write a matrix of numbers, row by row, "
                             'as in --ask "[[2,1],[1,3]]"') from None
        operands = [x[:, None] if x.ndim == 1 else x for x in operands]  # a vector is a column
        if [tuple(x.shape) for x in operands] != self.shapes:
            raise ValueError(f"{problem}: --op {self.op} of this model takes "
                             + " and ".join(f"{r}x{c}" for r, c in self.shapes))
        largest = self.source.values.max().item()
        if not all((x.abs() < largest * 1.0005).all() for x in operands):
            raise ValueError(f"{problem}: {self.source.encoding} holds numbers up to {largest:g}")
        if self.problem.symmetric and not operands[0].equal(operands[0].T):
            raise ValueError(f"{problem}: --op {self.op} takes a symmetric matrix")
        return [x[None] for x in operands]

    @staticmethod
    def shown(names, matrices):
        """The first of each batch of matrices, numbers in three digits."""
        def digits(x):
            return f"[{', '.join(map(digits, x))}]" if x.ndim else f"{x:.3g}"
        return "  ".join(f"{name} {digits(x[0])}" for name, x in zip(names, matrices))


# Several runs in one table


def table(rows):
    """The talk's Table 1: rows {training law: {test law: accuracy}}; the talk's numbers beside."""
    lines = [f"{'trained on':<17}" + "".join(f"{law:>11}" for law in SHORT)]
    for law in filter(rows.get, LAWS):
        cells = [f"{100 * rows[law][test]:.0f} ({talk})" if test in rows[law] else f"- ({talk})"
                 for test, talk in zip(LAWS, TABLE_1[law])]
        lines.append(f"{law:<17}" + "".join(f"{cell:>11}" for cell in cells))
    return "\n".join(lines)


def read_run(folder):
    """-> the training law of a run of eigenvalues, and its last accuracy on each law."""
    try:
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        last = [event for event in log if event["event"] == "eval"][-1]
        if log[0]["op"] != "eigenvalues":
            raise ValueError
        return log[0]["train_dist"] or "semicircle", last["accuracy_by_dist"]
    except (ValueError, LookupError):
        raise ValueError(f"{folder} holds no evaluated run of eigenvalues") from None


def main(argv=None):
    parser = argparse.ArgumentParser(description="Several runs beside the talk's Table 1.")
    parser.error = lambda message: parser.exit(2, f"eigen.py: {message}\n")
    parser.add_argument("command", choices=["table"])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    args = parser.parse_args(argv)
    try:
        print(table(dict(map(read_run, args.runs))))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(error)


if __name__ == "__main__":
    main()
