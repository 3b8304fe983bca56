"""Symbolic integration: from a function f, an integral F of it.

Slides: "Deep learning for symbolic mathematics" to "More out-of-distribution results". Paper:
Lample and Charton, same title, arXiv 1912.01412.

    python train.py --task integrate
    python integrate.py                           ten examples of each kind
    python integrate.py table runs/integrate-*    several runs beside the talk's table

Step I, generate, in three ways: forward, draw f and have SymPy integrate it; backward, draw F and
differentiate it; by parts, draw F and G and get the integral of F g from a known one of f G. They
do not make the same problems, and this decides what a model learns.

>>> f, F = backward(5, random.Random(0))
>>> infix(f), infix(F)
('x/sqrt(-x**2 + 1) + asin(x) + 1', 'x*asin(x) + x')
"""

import lzma
import multiprocessing
import os
import random
import signal
import zlib
from bisect import bisect
from contextlib import suppress
from fractions import Fraction
from functools import cache, cached_property, partial
from itertools import accumulate, count, islice
from pathlib import Path

import mpmath
import torch

from calculus import (Undefined, add, content_and_rest, derivative, evaluate, forget, from_prefix,
                      infix, is_constant, is_real, multiply, normal, parse, prefix, scale,
                      to_sympy, without_constants)
from task import HELD_OUT, RESULTS, TALK, Task, positive, questions, read_run, run_commands
from tokenizers import Expressions

WORDS = 512  # no problem or solution of ours is longer

# Random functions (paper, section 2.3 and appendix C). Each word stands in its list as often as its
# weight in the published code says.

LEAVES = ["x"] * 15 + [1, 2, 3, 4, 5]
UNARY = (["sqrt", "pow2", "ln", "exp", "sin", "cos", "tan"] * 4 + ["pow3"] * 2 + ["pow4", "pow5"]
         + ["asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"])
BINARY = ["add"] * 10 + ["sub"] * 3 + ["mul"] * 10 + ["div"] * 5


@cache
def trees(n):
    """How many shapes of trees have n >= 1 operators, as running totals: those whose root has one
    branch; with those of two branches and 0, then 1, ..., n - 1 operators in the left one."""
    shapes = [1] + [trees(i)[-1] for i in range(1, n)]
    return [*accumulate([shapes[n - 1], *(shapes[i] * shapes[n - 1 - i] for i in range(n))])]


def draw_tree(n, rng):
    """A random tree of n operators, every shape as likely: "x", 3 or ("add", tree, tree)."""
    if n == 0:
        return rng.choice(LEAVES)
    shape = bisect(trees(n), rng.randrange(trees(n)[-1]))
    if shape == 0:
        return rng.choice(UNARY), draw_tree(n - 1, rng)
    return rng.choice(BINARY), draw_tree(shape - 1, rng), draw_tree(n - shape, rng)


def draw_function(max_ops, rng):
    """A function of x in normal form, of 1 to max_ops operators, or Undefined."""
    e = normal(draw_tree(rng.randint(1, max_ops), rng))
    if is_constant(e) or not any(is_real(e, x) for x in (0.7, 2.3, -1.2, 0.3, 5.1)):
        raise Undefined("a constant, or nowhere real")
    return e


# Step I, generate: expressions f and F, F' = f; or Undefined, where a value is complex or infinite,
# or f and F are not what is wanted.


def backward(max_ops, rng):
    """BWD: draw F, differentiate it."""
    F = without_constants(draw_function(max_ops, rng))
    f = derivative(F)
    if not f:  # asin(x) + acos(x)
        raise Undefined("a constant")
    return f, F


def forward(max_ops, rng):
    """FWD: draw f. Its integral is left to sympy_integral, which takes much longer."""
    return draw_function(max_ops, rng), None


def by_parts(max_ops, rng, known):
    """IBP: draw F and G; where the integral of f G is known, that of F g is F G minus it."""
    F, G = draw_function(max_ops, rng), draw_function(min(4, max_ops), rng)
    rest = scale(known_integral(known, expand(derivative(F), G)), -1)
    problem = multiply(F, derivative(G))
    solutions = [without_constants(add(FG, rest)) for FG in (multiply(F, G), expand(F, G))]
    solution = min(solutions, key=lambda e: len(prefix(e)))
    if not problem or not solution:
        raise Undefined("a constant")
    learn(known, problem, solution)
    return problem, solution


def expand(a, b):
    """a b, multiplied out."""
    return add(*(multiply({p: c}, {q: d}) for p, c in a.items() for q, d in b.items()))


def learn(known, f, F):
    """Note an integral of f, so that it is found again, up to a factor. known: {f: F}, texts."""
    c, f = content_and_rest(f)
    known.setdefault(prefix(f), prefix(scale(F, Fraction(1) / c)))


def known_integral(known, f):
    """The integral of f, or of its terms, up to a factor; or Undefined."""
    if f:
        c, rest = content_and_rest(f)
        if F := known.get(prefix(rest)):
            return scale(from_prefix(F), c)
    if len(f) == 1:
        raise Undefined("not a known integral")
    return add(*(known_integral(known, {term: a}) for term, a in f.items()))


def known_integrals(pairs):
    """Pairs of texts as by_parts takes them."""
    known = {}
    for f, F in pairs.items():
        learn(known, from_prefix(f), from_prefix(F))
        forget()
    return known


class OutOfTime(BaseException):
    """Not an Exception: SymPy has "except Exception" in many places, and would go on."""


def in_time(seconds, function, *args):
    """function(*args), or None if it takes more processor time; on Windows there is no limit."""
    def stop(*_):
        raise OutOfTime

    if not hasattr(signal, "setitimer"):
        return function(*args)
    signal.signal(signal.SIGPROF, stop)
    with suppress(OutOfTime):  # raised every 0.1 s, should mpmath lose one in a bare "except:"
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.1)
        try:
            return function(*args)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


@cache
def load_sympy():
    """SymPy. It loads most of itself when it is first asked, which shall not count as its time."""
    import sympy
    for f in ("x*exp(x)", "log(x)/x", "sin(x)^2", "1/(x^2+1)", "sqrt(1-x^2)", "exp(sin(x))"):
        sympy.integrate(f, heurisch=False, meijerg=False)
    return sympy


def sympy_integral(problem, seconds=0.05, heurisch=False, meijerg=False):
    """The elementary integral that SymPy finds in so many seconds, or ""; both are texts. With six
    times as many seconds, or with heurisch and meijerg, its slowest methods, it finds 5% more."""
    sympy = load_sympy()
    for name in ("_integral_cache", "_parts_u_cache"):  # notes on what was not finished in time
        getattr(sympy.integrals.manualintegrate, name, {}).clear()
    try:
        f = from_prefix(problem)
        ask = partial(sympy.integrate, heurisch=heurisch, meijerg=meijerg)
        answer = in_time(seconds, ask, to_sympy(f), sympy.Symbol("x")) or sympy.nan
        answer = answer.replace(sympy.Piecewise, lambda *pieces: next(  # the one that is real
            piece for piece, _ in pieces if not piece.has(sympy.I)))
        F = without_constants(parse(str(answer)))
        return prefix(F) if same(f, derivative(F)) else ""  # SymPy errs
    except Exception:  # those of SymPy are of all classes; a ValueError of parse, as of nan
        return ""


POINTS = [mpmath.mpf(x) / 100 for x in (-910, -493, -389, -310, -226, -167, -131, -97, -71, -42,
          -18, 7, 29, 53, 83, 96, 128, 171, 214, 279, 347, 412, 491, 730, 1310, 5170)]


def same(f, g):
    """Whether f and g have the same values, to 20 digits, at those of the points where f and all
    its parts are real; if these are fewer than three, at complex numbers."""
    with mpmath.workdps(50):
        for shift in (0, mpmath.mpc("0.37", "0.41")):
            compared = 0
            for z in POINTS:
                y = evaluate(f, z + shift, mpmath)
                if mpmath.isfinite(y) and (shift or not isinstance(y, mpmath.mpc)):
                    compared += abs(y) > 1e-20  # a smaller one tells nothing
                    error = abs(y - evaluate(g, z + shift, mpmath))
                    if not error <= (abs(y) + 1e-20) / 10**20:  # nan is not
                        return False
            if compared >= 3:
                return True
    return False


# Many examples, {problem: solution}, both texts

GENERATORS = {"fwd": forward, "bwd": backward, "ibp": by_parts}
ATTEMPTS = {"fwd": (1000, 250), "bwd": (50_000, 1000), "ibp": (100_000, 5000)}  # a block, a job
KNOWN = 100_000  # backward examples: the known integrals that integration by parts begins with


def is_held_out(problem):
    return zlib.crc32(problem.encode()) % HELD_OUT == 0


def without_factor(f):
    """The same text for all multiples of a function."""
    return prefix(content_and_rest(f)[1])


@cache
def slides():
    """The functions on the talk's slides, without a factor: no set has a multiple of one."""
    page = (RESULTS.parent / "guide" / "integrals.txt").read_text()
    return {without_factor(parse(f)) for f in questions(page.splitlines())}


def fits(f, F, max_words):
    """Whether neither a problem nor its solution has more words than that."""
    return max(f.count(" "), F.count(" ")) < max_words


def draw_examples(kind, part, max_ops, known, attempts):
    """What a range of attempts makes, each drawn from a seed of its own. Forward problems have the
    solution "" as yet. What by_parts learns is forgotten: no range depends on another."""
    pairs, more = {}, [dict(known)] if kind == "ibp" else []
    for i in attempts:
        with suppress(Undefined):
            rng = random.Random(f"{kind} {part} {max_ops} {i}")
            f, F = GENERATORS[kind](max_ops, rng, *more)
            problem, solution = prefix(f), "" if F is None else prefix(F)
            if (is_held_out(problem) == (part == "test") and fits(problem, solution, WORDS)
                    and without_factor(f) not in slides()):
                pairs.setdefault(problem, solution)
    forget()
    return pairs


# Sets of examples: a text file each, in the published format, "1|sub Y' f <tab> F". It only grows,
# by whole blocks. Its name has a hash of the code that makes it: calculus.py, and this file so far.

DATA, END = Path("data"), "# end of a block\n"
CODE = zlib.crc32(Path(__file__).read_bytes().partition(b"\n# Sets of examples")[0]
                  + Path(__file__).with_name("calculus.py").read_bytes())


def parallel(function, items, workers):
    """Yield function(item) for each item, in order, from so many processes. They ignore Ctrl-C."""
    if workers == 1:
        yield from map(function, items)
    else:
        with multiprocessing.Pool(workers, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
            yield from pool.imap(function, items)


def make_set(kind, part, max_ops, size, workers, max_words=WORDS):
    """So many examples, read from the set's file, which is made longer if need be; fewer if there
    are no more. The same for any number of workers, but for what SymPy solves just in time."""
    path = DATA / f"{kind}-{part}-ops{max_ops}-{CODE:08x}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs, seen, known = {}, set(), None
    with open(path, "a+", newline="\n") as file:  # "a": what is written comes at the end
        file.seek(0)
        *blocks, torn = dict.fromkeys(file.read().split(END))  # two runs may have made the same
        if torn:  # a kill has left part of a block
            file.truncate(file.tell() - len(torn))
        for number in count():
            if number == len(blocks):
                print(f"{path}: {len(pairs):,} of {size:,} examples", flush=True)
                if kind == "ibp" and not known:
                    known = known_integrals(make_set("bwd", "train", max_ops, KNOWN, workers))
                blocks.append(make_block(kind, part, max_ops, number, workers, seen, known))
                file.write(blocks[number] + END)
                file.flush()
            block = dict(map(read_line, blocks[number].splitlines()))
            new = {f: F for f, F in block.items() if F and fits(f, F, max_words)}
            seen |= block.keys()
            pairs |= new
            if len(pairs) >= size or not new:
                return dict(islice(pairs.items(), size))


def make_block(kind, part, max_ops, number, workers, seen, known):
    """The text of a block: examples that were not seen before; and after a # the problems that
    SymPy does not solve, so that none is put to it twice."""
    size, job = ATTEMPTS[kind]
    jobs = [range(i, i + job) for i in range(number * size, (number + 1) * size, job)]
    drawn = parallel(partial(draw_examples, kind, part, max_ops, known), jobs, workers)
    pairs = {f: F for pairs in drawn for f, F in pairs.items() if f not in seen}
    if kind == "fwd":
        load_sympy()
        pairs = dict(zip(pairs, parallel(sympy_integral, pairs, workers)))
    head = f"# {kind} {part}, block {number}, made by code {CODE:08x}\n"
    return head + "".join(f"{'' if F else '# '}1|sub Y' {f}\t{F}\n" for f, F in pairs.items())


def read_line(line):
    """A line of such a file, or the same without what comes before f -> f, F"""
    f, _, F = line.rstrip("\n").partition("\t")
    return f[f.find("|") + 1 :].removeprefix("sub Y' "), F


def read_file(path, size, max_words, part=None):
    """The first examples of a file of anyone's, in normal form; other lines are skipped. part: only
    those problems that are held out, "test", or only the others, "train"."""
    pairs, skipped = {}, 0
    with (lzma.open if Path(path).suffix == ".xz" else open)(path, "rt", errors="replace") as file:
        for line in file:
            f = F = ""
            with suppress(ValueError, RecursionError):
                f, F = (prefix(from_prefix(text)) for text in read_line(line))
            if not (F and fits(f, F, max_words)):
                skipped += line[0] != "#"
            elif not part or is_held_out(f) == (part == "test"):
                pairs.setdefault(f, F)
            forget()
            if len(pairs) == size:
                break
    print(f"{path}: {len(pairs):,} examples; {skipped:,} lines have no normal form or are too long")
    return pairs


# Step III, judge: is F' = f?

def is_integral(problem, text):
    """Whether the derivative of a hypothesis is the problem, or has the same values. Texts."""
    with suppress(Undefined, RecursionError):
        f, g = from_prefix(problem), derivative(from_prefix(text))
        return g == f or same(f, g)
    return False


def first_integral(item):
    """(problem, hypotheses), texts -> the first hypothesis that is right, or ""."""
    right = next((text for text in item[1] if is_integral(item[0], text)), "")
    forget()
    return right


class Integration(Task):
    """Functions of x and their integrals. Problems and solutions are texts, those of a set."""

    scales = {
        "laptop": dict(dim=64, heads=4, enc_layers=2, dec_layers=2, batch_size=32, epochs=2,
                       optimizer="muon", lr=4e-3, warmup=300, beam=[1, 10], test_size=500),
        "evening": dict(max_ops=15, max_words=200, examples=300_000, dim=96, lr=3e-3, epochs=8,
                        beam=[1, 10, 50]),
        "talk": dict(max_ops=15, max_words=WORDS, examples=5_000_000, dim=256, heads=8,
                     enc_layers=6, dec_layers=6, batch_size=256, epochs=100, optimizer="adam",
                     lr=3e-4, warmup=3000, beam=[1, 10, 50], test_size=5000),
    }
    test_flags = {"test_data"}
    source = target = Expressions()
    collate = list

    @staticmethod
    def add_arguments(add):
        add("--train-data", default="bwd", metavar="DATA",
            help="fwd, bwd, ibp, a file, or several of them, as bwd+ibp")
        add("--test-data", nargs="+", metavar="DATA",
            help="the same, for tests; if not given, as the training data")
        add("--max-ops", type=positive(int), default=5, help="operators in a function (fwd: max 5)")
        add("--max-words", type=positive(int), default=50, help="words in a problem or a solution")
        add("--workers", type=positive(int), default=os.cpu_count(), help="processes for the data")

    def __init__(self, **flags):
        super().__init__(**flags)
        kinds = self.train_data.split("+")
        self.test_data = self.test_data or kinds
        for kind in "+".join([*kinds, *self.test_data]).split("+"):
            if kind not in GENERATORS and not Path(kind).is_file():
                raise ValueError(f"{kind}: neither fwd, bwd or ibp, nor a file")
        self.src_len, self.tgt_len = self.max_words, self.max_words + 1  # and <eos>
        self.title = f"Integrals of functions of up to {self.max_ops} operators ({self.train_data})"
        self.name = "-".join(["integrate", *(Path(kind).stem for kind in kinds)]
                             + [f"ops{self.max_ops}"] * (self.max_ops != 5))

    def load(self, data, part, size):
        """So many examples of each kind, or file, that data names."""
        pairs = {}
        for kind in data.split("+"):
            ops = min(5, self.max_ops) if kind == "fwd" else self.max_ops  # SymPy is slow at more
            path = RESULTS / f"{kind}-{part}-ops{ops}.txt.xz"  # one that took hours
            if kind not in GENERATORS:  # a file: all of it is a test, if none of it is trained on
                own = part if kind in self.train_data.split("+") else None
                pairs |= read_file(kind, size, self.max_words, own)
            elif path.exists():
                pairs |= read_file(path, size, self.max_words)
            else:
                pairs |= make_set(kind, part, ops, size, self.workers, self.max_words)
        if not pairs:
            raise ValueError(f"{data}: no examples to {part} on, of up to {self.max_words} words")
        return pairs

    @cached_property
    def tests(self):
        return {data: [*self.load(data, "test", self.test_size)] for data in self.test_data}

    @cached_property
    def training(self):
        """Problems, of no test, and solutions. The shortest come first."""
        taken = {f for problems in self.tests.values() for f in problems}
        pairs = self.load(self.train_data, "train", self.examples).items()
        pairs = [pair for pair in pairs if pair[0] not in taken]
        if not pairs:
            raise ValueError(f"{self.train_data}: all its examples are in the tests")
        random.Random(1).shuffle(pairs)  # those of one length come in no order
        return sorted(pairs, key=lambda pair: pair[0].count(" ") + pair[1].count(" "))

    def draw(self, n, generator):
        """n problems and solutions of similar lengths: neighbours in the training set."""
        first = torch.randint(max(1, len(self.training) - n + 1), (), generator=generator,
                              device=generator.device).item()
        return zip(*self.training[first : first + n])

    def read(self, text):
        """ "x*cos(x)" -> mul x cos x"""
        try:
            problem = prefix(parse(text))
        except ValueError as error:
            raise ValueError(f'{text!r}: {error}; ask as in --ask "x*cos(x)"') from None
        if not fits(problem, "", self.max_words):
            raise ValueError(f"{text!r} is too long: this model takes {self.max_words} words")
        return problem

    def show(self, problem):
        return infix(from_prefix(problem))

    def question(self, problem):
        return f"the integral of {self.show(problem)}"

    def judge(self, problem, words):
        return self.say(words), is_integral(problem, words)

    def grade(self, problems, tokens):
        """Solved, if a hypothesis of the beam is right; says the first such, or the likeliest."""
        texts = [[*map(self.target.text, beam)] for beam in tokens.tolist()]
        judge = partial(in_time, 20, first_integral)
        right = [*parallel(judge, zip(problems, texts), self.workers)]
        said = [self.say(F or beam[0]) for F, beam in zip(right, texts)]
        return torch.tensor([*map(bool, right)]), said

    def say(self, words):
        """An answer as one would write it; as its words, if it is no function."""
        forget()
        with suppress(Undefined, RecursionError):
            return self.show(words)
        return words


def table(runs):
    """Runs beside the talk's out-of-distribution results, in percent; of each kind, the last."""
    ours = {start["train_data"]: evals[-1]["accuracy_by_test"] for start, evals
            in map(read_run, runs) if start["task"] == "integrate"}
    for test in GENERATORS:
        yield f"tested on {test}" + "".join(f"{f'beam {beam}':>15}" for beam in (1, 10, 50))
        for kind, talk in TALK["integration"].items():
            by = ours.get(kind, {}).get(test, {})
            cells = [f"{f'{100 * by[beam]:.1f}' if beam in by else '-'} ({theirs})"
                     for beam, theirs in talk[test].items()]
            yield f"  {kind:<12}" + "".join(f"{cell:>15}" for cell in cells)
        yield ""


def examples():
    """Ten short examples of each kind: functions and their integrals."""
    show = Integration().show
    known = known_integrals(draw_examples("bwd", "train", 5, None, range(8000)))
    for kind, generate in GENERATORS.items():
        pairs = draw_examples(kind, "train", 5, known, range(1000)).items()
        solved = ((show(f), F or sympy_integral(f, 0.5)) for f, F in pairs if 8 < len(show(f)) < 45)
        short = ((f, show(F)) for f, F in solved if F and len(show(F)) < 50)
        print(generate.__doc__, *(f"    {f:<46}{F}" for f, F in islice(short, 10)), "", sep="\n")


if __name__ == "__main__":
    run_commands(examples, table)
