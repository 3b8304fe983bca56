"""Symbolic integration: from a function f, its primitive F.

Slides: "Deep learning for symbolic mathematics" to "More out-of-distribution results". Paper:
Lample and Charton, same title, arXiv 1912.01412.

    python train.py --task integrate
    python integrate.py                        ten examples of each kind

Step I, generate, in three ways: forward, draw f and have SymPy integrate it; backward, draw F and
differentiate it; by parts, draw F and G and get the integral of F g from a known one of f G. They
do not make the same problems, and this decides what a model learns.

>>> f, F = backward(5, random.Random(17))
>>> infix(f), infix(F)
('12*x*(x + 4) + 6*x**2', '6*(x + 4)*x**2')
"""

import argparse
import gc
import json
import math
import multiprocessing
import multiprocessing.connection
import os
import random
import signal
import sys
import time
import zlib
from bisect import bisect
from collections import Counter
from fractions import Fraction
from functools import cache, cached_property, partial
from itertools import accumulate, count, islice
from pathlib import Path

import numpy as np
import torch

from calculus import (Undefined, add, derivative, evaluate, forget, from_sympy, infix,
                      is_constant, multiply, normal, parse, prefix, primitive, real_value, scale,
                      to_sympy, without_constants)
from tokenizers import HELD_OUT, PAD, Expressions, as_target, read_prefix

DATA = Path("data")  # where sets are kept
WORDS = 512  # no problem or solution is longer

# Random functions: trees, every shape as likely (paper, section 2.3 and appendix C), with the
# published code's weights

UNARY = {"sqrt": 4, "pow2": 4, "pow3": 2, "pow4": 1, "pow5": 1, "ln": 4, "exp": 4, "sin": 4,
         "cos": 4, "tan": 4, "asin": 1, "acos": 1, "atan": 1, "sinh": 1, "cosh": 1, "tanh": 1,
         "asinh": 1, "acosh": 1, "atanh": 1}
BINARY = {"add": 10, "sub": 3, "mul": 10, "div": 5}
LEAVES = {"x": 15} | dict.fromkeys((1, 2, 3, 4, 5), 1)


@cache
def trees(empty, operators):
    """How many trees can grow from so many empty places by so many operators: D(e, n)."""
    if operators == 0 or empty == 0:
        return int(operators == 0)
    return (trees(empty - 1, operators) + trees(empty, operators - 1)
            + trees(empty + 1, operators - 1))


@cache
def next_operator(empty, operators):
    """Where it can go, as (empty places left of it, its arity), in proportion to the trees."""
    return cumulative({(skip, arity): trees(empty - skip - 1 + arity, operators - 1)
                       for skip in range(empty) for arity in (1, 2)})


def cumulative(weights):
    """{choice: weight} -> choices, and their cumulative probabilities."""
    total = sum(weights.values())
    return list(weights), [w / total for w in accumulate(weights.values())]


def choose(choices, rng):
    things, odds = choices
    return things[bisect(odds, rng.random())]


KINDS_OF_NODE = [cumulative(LEAVES), cumulative(UNARY), cumulative(BINARY)]  # by arity


def draw_tree(operators, rng):
    """A random tree: "x", 3 or ("add", tree, tree). First its nodes' arities, in the order of
    prefix notation, then from the right the nodes themselves."""
    arities, empty = [], 1
    for left in range(operators, 0, -1):
        skip, arity = choose(next_operator(empty, left), rng)
        arities += [0] * skip + [arity]
        empty += arity - skip - 1
    stack = []
    for arity in [0] * empty + arities[::-1]:
        node = choose(KINDS_OF_NODE[arity], rng)
        stack.append((node, *(stack.pop() for _ in range(arity))) if arity else node)
    return stack[0]


def draw_function(max_ops, rng):
    """A function of x in normal form, of 1 to max_ops operators, real somewhere, or Undefined."""
    e = normal(draw_tree(rng.randint(1, max_ops), rng))
    if is_constant(e):
        raise Undefined("a constant")
    for x in (0.7, 2.3, -1.2, 0.3, 5.1):
        try:
            real_value(e, x)
            return e
        except Undefined:
            pass
    raise Undefined("nowhere real")


# Step I, generate. Each of the three returns a pair of expressions, f and F, F' = f, or raises
# Undefined: a value that is complex or infinite somewhere in them, or not what is looked for.


def backward(max_ops, rng):
    """BWD: draw F, differentiate it."""
    F = without_constants(draw_function(max_ops, rng))
    f = derivative(F)
    if not f:  # asin(x) + acos(x)
        raise Undefined("a constant")
    return f, F


def forward(max_ops, rng):
    """FWD: draw f; sympy_integral finds F."""
    return draw_function(max_ops, rng), None


def sympy_integral(f):
    """F, an elementary function, as SymPy finds it; checked, because SymPy errs.

    Most of integrate's time goes to two of its methods, which try for seconds and find one integral
    in twenty that the others do not: heurisch and meijerg. They are not asked.
    """
    import sympy
    x = sympy.Symbol("x")
    try:
        answer = sympy.integrate(to_sympy(f), x, meijerg=False, heurisch=False)
        F = without_constants(from_sympy(answer))
    except Exception:  # from_sympy's, of what is no function of ours, and SymPy's, of all classes
        raise Undefined("SymPy finds no elementary integral") from None
    if not agree(f, derivative(F)):
        raise Undefined("SymPy's answer is wrong")
    return F


@cache
def warm_up():
    """SymPy loads most of itself when it is first asked. Do so before the workers start."""
    for f in ("x*exp(x)", "log(x)/x", "sin(x)^2", "1/(x^2+1)", "sqrt(1-x^2)", "exp(sin(x))"):
        try:
            sympy_integral(parse(f))
        except Undefined:
            pass


def read(text):
    """Prefix notation, not malformed -> the expression, or Undefined."""
    return normal(read_prefix(text))


class KnownIntegrals:
    """Integrals of functions, found again up to a factor, and in sums term by term."""

    def __init__(self, table):
        self.table = table

    def learn(self, f, F):
        c, f = primitive(f)
        self.table.setdefault(prefix(f), (c, prefix(F)))

    def integral(self, f):
        """The integral, or Undefined."""
        if not f:
            return f
        c, key = primitive(f)
        found = self.table.get(prefix(key))
        if found:
            return scale(read(found[1]), Fraction(c) / found[0])
        if len(f) == 1:
            raise Undefined("not a known integral")
        return add(*(self.integral({term: a}) for term, a in f.items()))


def known_integrals(pairs):
    """The table to begin with, of [(f, F), ...] as texts."""
    known = KnownIntegrals({})
    for f, F in pairs:
        known.learn(read(f), read(F))
    forget()
    return known


def by_parts(max_ops, rng, known):
    """IBP: draw F and G; where the integral of f G is known, that of F g is F G minus it."""
    F, G = draw_function(max_ops, rng), draw_function(min(4, max_ops), rng)
    rest = scale(known.integral(expand(derivative(F), G)), -1)
    problem = multiply(F, derivative(G))
    solutions = [without_constants(add(FG, rest)) for FG in (multiply(F, G), expand(F, G))]
    solution = min(solutions, key=lambda e: len(prefix(e)))
    if not problem or not solution:
        raise Undefined("a constant")
    known.learn(problem, solution)
    return problem, solution


def expand(a, b):
    """a b, multiplied out."""
    return add(*(multiply({p: c}, {q: d}) for p, c in a.items() for q, d in b.items()))


# Worker processes


def work(function, seconds, parent, pipe):
    """A worker's life: function(item) for each item that comes, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    while True:
        while not pipe.poll(5):
            if os.getppid() != parent:
                return
        item = pipe.recv()
        signal.setitimer(signal.ITIMER_PROF, seconds or 0)
        result = function(item)
        signal.setitimer(signal.ITIMER_PROF, 0)
        pipe.send(result)


def start_worker(function, seconds):
    """-> our end of the pipe to a new worker, and its process."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=work, args=(function, seconds, os.getpid(), theirs), daemon=True)
    process.start()
    theirs.close()
    return ours, process


def parallel(function, items, workers, seconds=None):
    """Yield function(item) for each item, in order, from so many processes.

    seconds: of processor time for one item. Who takes more is ended by the system, for SymPy would
    catch any exception, and the result is None.
    """
    start = partial(start_worker, function, seconds)
    jobs, idle, busy, results, wanted = enumerate(items), [], {}, {}, 0
    try:
        idle = [start() for _ in range(workers)]
        while True:
            while idle and (job := next(jobs, None)):
                pipe, process = idle.pop()
                pipe.send(job[1])
                busy[pipe] = job[0], process
            if not busy:
                return
            for pipe in multiprocessing.connection.wait(busy):
                number, process = busy.pop(pipe)
                try:
                    results[number] = pipe.recv()
                    idle.append((pipe, process))
                except EOFError:
                    process.join()
                    if process.exitcode != -signal.SIGPROF:
                        raise RuntimeError("a worker process failed") from None
                    results[number] = None
                    idle.append(start())
            while wanted in results:
                yield results.pop(wanted)
                wanted += 1
    finally:
        for _, process in [*idle, *busy.values()]:
            process.kill()


# Sets of examples: text files, in the form of the published ones: "1|sub Y' f <tab> F"

GENERATORS = {"bwd": backward, "fwd": forward, "ibp": by_parts}
ATTEMPTS = {"bwd": (20_000, 500), "fwd": (500, 1), "ibp": (100_000, 5_000)}  # a file, a job
KNOWN = 100_000  # backward examples: the known integrals that integration by parts begins with
EFFORT = 12  # about 0.15 s: what SymPy does not integrate in this time, it rarely does in ten times


def for_testing(problem):
    """Whether a problem, a text, is held out for testing, whatever set it comes from."""
    return zlib.crc32(problem.encode()) % HELD_OUT == 0


def too_long(f, F, max_words):
    """Whether a problem or its solution, texts, has more words than that."""
    return max(f.count(" "), F.count(" ")) >= max_words


def apart(function, item, seconds=10):
    """function(item), texts, in a process of its own, to which SymPy is as new as to any other.

    It is ended, and Undefined raised, when it has taken too much effort. This is counted in
    collections of garbage, one for every 700 objects that Python has made and not yet dropped:
    unlike seconds, it is the same at any load. Processor time is the limit of what makes none.
    """
    reader, writer = os.pipe()
    gc.freeze()  # the child has nothing old to look through
    child = os.fork()
    if not child:
        limit(EFFORT, seconds)
        try:
            result = function(item)
        except Undefined as error:
            result = str(error)
        except Exception as error:  # an error of ours, to be seen among what became of attempts
            result = repr(error)
        os.write(writer, json.dumps(result).encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    result = json.loads(text or '"timed out"')
    if isinstance(result, str):
        raise Undefined(result)
    return result


def limit(collections, seconds):
    """End this process after so many collections of garbage, or seconds of processor time."""
    def count(phase, _):
        nonlocal collections
        collections -= phase == "start"
        if collections < 0:
            os._exit(1)

    signal.setitimer(signal.ITIMER_PROF, seconds)
    gc.collect()
    gc.callbacks.append(count)
    gc.set_threshold(700)
    gc.enable()


class Attempts:
    """The examples that a range of attempts makes, each attempt drawn from a seed of its own."""

    def __init__(self, kind, part, max_ops, workers):
        self.kind, self.part, self.max_ops = kind, part, max_ops
        if kind == "ibp":
            self.known = known_integrals(make_set("bwd", "train", max_ops, KNOWN, workers))

    def __call__(self, attempts):
        """-> the lines of new examples, and what became of the attempts."""
        gc.disable()  # looking for garbage takes a third of the time; forget does so once in a while
        lines, outcomes, generate = {}, Counter(), partial(GENERATORS[self.kind], self.max_ops)
        if self.kind == "ibp":  # what it learns here does not pass on, whoever does what
            generate = partial(generate, known=KnownIntegrals(self.known.table.copy()))
        attempt = partial(self.attempt, generate)
        if self.kind == "fwd":
            attempt = partial(apart, attempt)
        for i in attempts:
            try:
                problem, solution = attempt(i)
                outcomes["drawn before" if problem in lines else "solved"] += 1
                lines[problem] = solution
            except Undefined as error:
                outcomes[str(error)] += 1
        forget()
        return lines, outcomes

    def attempt(self, generate, i):
        """The i-th example, a problem and its solution as texts, or Undefined."""
        rng = random.Random(f"{self.kind} {self.part} {self.max_ops} {i}")
        f, F = generate(rng)
        problem = prefix(f)
        if for_testing(problem) != (self.part == "test"):
            raise Undefined("for the other part")
        solution = prefix(F if F is not None else sympy_integral(f))
        if too_long(problem, solution, WORDS):
            raise Undefined("too long")
        return problem, solution


def make_set(kind, part, max_ops, size, workers, max_words=WORDS):
    """So many distinct examples [(f, F), ...] as texts: read from files, which are made if need be.

    The same whatever the number of workers. Files are written whole: after a kill, it goes on.
    """
    folder, pairs, attempts, start = DATA / f"{kind}-{part}-ops{max_ops}", {}, None, time.time()
    outcomes = Counter()
    for number in count():
        path, before = folder / f"{number:05}.txt", len(pairs)
        if not path.exists():
            attempts = attempts or Attempts(kind, part, max_ops, workers)
            outcomes += make_file(path, attempts, number, workers)
        pairs |= {f: F for f, F in read_lines(path)
                  if not too_long(f, F, max_words) and f not in pairs}
        if attempts:
            progress(f"{kind} {part} examples", len(pairs), size, time.time() - start)
        if len(pairs) >= size or len(pairs) == before:  # or there are no more
            if attempts:
                print(f"{sum(outcomes.values()):,} tried: "
                      + ", ".join(f"{n:,} {what}" for what, n in outcomes.most_common()))
            return list(islice(pairs.items(), size))


def progress(what, done, size, seconds):
    """A line that says how far it is; on a terminal it is written over by the next."""
    left = int(seconds * max(0, size - done) / max(1, done))
    text = f"{done:>12,} {what}  {done / seconds:,.1f}/s  {left // 60}m {left % 60:02}s left"
    if sys.stdout.isatty():
        print("\r\033[K" + text, end="\n" if done >= size else "", flush=True)
    else:
        print(text, flush=True)


def make_file(path, attempts, number, workers):
    """One file of a set: the examples of its attempts; -> what became of these."""
    size, item = ATTEMPTS[attempts.kind]
    items = [range(i, i + item) for i in range(number * size, (number + 1) * size, item)]
    lines, outcomes = {}, Counter()
    if attempts.kind == "fwd":
        warm_up()
    for made, became in parallel(attempts, items, workers):
        for f, F in made.items():
            lines.setdefault(f, F)
        outcomes += became
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    with open(temporary, "w") as file:
        file.write("# " + json.dumps(outcomes) + "\n")
        write_lines(file, lines.items())
    os.replace(temporary, path)
    return outcomes


def write_lines(file, pairs):
    """The lines that read_lines reads."""
    file.writelines(f"1|sub Y' {f}\t{F}\n" for f, F in pairs)


def read_lines(path):
    """Yield (f, F) for each line, which may begin with a count: "1|sub Y' f <tab> F"."""
    with open(path) as file:
        for line in file:
            if not line.startswith("#"):
                f, _, F = line.rstrip("\n").partition("\t")
                yield f[f.find("|") + 1 :].removeprefix("sub Y' "), F


def read_file(path, size, max_words):
    """The first examples of a file of anyone's: [(f, F), ...] Lines that are none are skipped."""
    pairs, skipped, longer = {}, 0, 0
    try:
        for f, F in read_lines(path):
            if read_prefix(f) is None or read_prefix(F) is None:
                skipped += 1
            elif too_long(f, F, max_words):
                longer += 1
            else:
                pairs.setdefault(f, F)
            if len(pairs) >= size or skipped >= 1000 > len(pairs):
                break
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a file of text") from None
    print(f"{path}: {len(pairs):,} examples, {skipped:,} malformed lines skipped, "
          f"{longer:,} too long", flush=True)
    return list(pairs.items())


def kinds_of(data):
    """"bwd+ibp" -> ["bwd", "ibp"]; a file's name -> [it]."""
    kinds = data.split("+")
    if set(kinds) <= GENERATORS.keys():
        return kinds
    if not Path(data).is_file():
        raise ValueError(f"{data}: neither fwd, bwd, ibp or several, as bwd+ibp, nor a file")
    return [data]


# Step III, judge: is F' = f?

POINTS = np.concatenate([np.linspace(-4.93, 4.91, 24), np.linspace(-0.97, 0.96, 8),
                         [7.3, 13.1, 51.7, -9.1]])
ABOVE = POINTS + 0.37 + 0.41j  # where f is nowhere real


def values(e, x):
    """An expression at points x (n,) -> (n,) complex; nan where it has no value."""
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(evaluate(e, x.astype(complex), np), complex), x.shape)


def real(a):
    """Which of the values are real numbers."""
    return np.isfinite(a) & (abs(a.imag) <= 1e-9 * abs(a))


def agree(f, g):
    """Whether f and g have the same values wherever f is real: at points, in two precisions."""
    x, a = POINTS, values(f, POINTS)
    with np.errstate(all="ignore"):
        use = real(a) & (abs(a) < 1e250)
        if use.sum() < 3:
            x, a = ABOVE, values(f, ABOVE)
            use = np.isfinite(a) & (abs(a) < 1e250)
        b = values(g, x)
        unsure = use & ~(abs(a - b) <= 1e-7 * abs(a))  # let 50 digits decide; if many, at once
    if use.sum() < 3 or (unsure.sum() > 3 and not agree_at(f, g, complex(x[unsure][0]))):
        return False
    unsure[use.nonzero()[0][::10]] = True  # doubles may agree by chance
    return all(agree_at(f, g, complex(z)) for z in x[unsure])


def agree_at(f, g, z):
    """The same at one point with 50 digits: what rounding hid, or made, is seen."""
    import mpmath
    with mpmath.workdps(50):
        z = mpmath.mpf(z.real) if z.imag == 0 else mpmath.mpc(z)
        try:
            a, b = evaluate(f, z, mpmath), evaluate(g, z, mpmath)
        except (ArithmeticError, ValueError):
            return False
        return abs(a - b) <= mpmath.mpf(10) ** -20 * (abs(a) + mpmath.mpf(10) ** -20)


def verdict(f, text):
    """On a hypothesis, for the problem f: "proved" (its derivative, in normal form, is f),
    "verified" (it has the same values), "wrong", or "malformed"."""
    tree = read_prefix(text)
    if tree is None:
        return "malformed"
    try:
        g = derivative(normal(tree))
    except (Undefined, RecursionError):
        return "wrong"
    return "proved" if g == f else "verified" if agree(f, g) else "wrong"


RIGHT = {"proved", "verified"}


def judge(item):
    """(problem, hypotheses), texts -> the verdicts on them, up to the first right one."""
    problem, hypotheses = item
    try:
        f, verdicts = read(problem), []
    except Undefined:  # a problem of someone's file: not real, or too large
        return []
    for text in hypotheses:
        verdicts.append(verdict(f, text))
        if verdicts[-1] in RIGHT:
            break
    forget()
    return verdicts


def sympy_proves(item):
    """Whether SymPy can show that (problem, hypothesis), texts, is right."""
    import sympy
    f, F = (to_sympy(read(text)) for text in item)
    return sympy.simplify(F.diff(sympy.Symbol("x")) - f) == 0


# The task


class Examples:
    """Problems and solutions as word numbers, the shortest first."""

    def __init__(self, pairs, vocabulary):
        rows = [[vocabulary.ids(text) for text in pair] for pair in pairs]
        random.Random(1).shuffle(rows)  # those of one length come in no order
        rows.sort(key=lambda row: (len(row[0]) + len(row[1])))
        self.sides = [self.flat([row[side] for row in rows]) for side in (0, 1)]
        self.size = len(rows)

    @staticmethod
    def flat(rows):
        """All words in one tensor, and where each row starts in it."""
        starts = torch.tensor([0, *accumulate(map(len, rows))])
        return torch.tensor([word for row in rows for word in row], dtype=torch.int16), starts

    def rows(self, first, last):
        """Problems and solutions of a range, padded: LongTensors (n, time)."""
        def padded(words, starts):
            starts, ends = starts[first:last, None], starts[first + 1 : last + 1, None]
            places = starts + torch.arange((ends - starts).max())
            return words[places.clamp(max=len(words) - 1)].long().masked_fill(places >= ends, PAD)
        return [padded(*side) for side in self.sides]


class Integration:
    """The task as train.py sees it: sizes, batches, evaluation, report, answers."""

    scales = {
        "laptop": dict(max_ops=5, max_words=50, examples=200_000, dim=64, heads=8, enc_layers=2,
                       dec_layers=2, batch_size=64, epochs=2, lr=2e-3, warmup=300, beam=[1, 10],
                       test_size=500),
        "talk": dict(max_ops=15, max_words=WORDS, examples=5_000_000, dim=256, heads=8,
                     enc_layers=6, dec_layers=6, batch_size=256, epochs=100, lr=3e-4, warmup=3000,
                     beam=[1, 10, 50], test_size=5000),
    }

    free = {"test_data", "workers"}

    @staticmethod
    def add_arguments(parser):
        add = parser.add_argument
        add("--train-data", default="bwd", metavar="DATA",
            help="fwd, bwd, ibp, several of them, as bwd+ibp, or a file (bwd)")
        add("--test-data", nargs="+", metavar="DATA", help="the same, for tests (as --train-data)")
        add("--max-ops", type=int, help="operators in a random function")
        add("--max-words", type=int, help="words in a problem, and in a solution, at most")
        add("--examples", type=int, help="training examples of each kind")
        add("--workers", type=int, default=os.cpu_count(),
            help="processes that make and judge (one for each core)")

    def __init__(self, train_data="bwd", test_data=None, max_ops=5, max_words=50, examples=200_000,
                 workers=1, test_size=500, device="cpu"):
        for name, value in [("max-ops", max_ops), ("examples", examples), ("workers", workers)]:
            if value < 1:
                raise ValueError(f"--{name} {value}: it can be 1 or more")
        if not 5 <= max_words <= WORDS:
            raise ValueError(f"--max-words {max_words}: it can be 5 to {WORDS}")
        self.train_data = kinds_of(train_data)
        self.test_data = {name: kinds_of(name) for name in test_data or self.train_data}
        self.max_ops, self.max_words, self.examples = max_ops, max_words, examples
        self.workers, self.test_size = workers, test_size
        self.device = "cpu"  # wherever the model may be: examples are read, not computed
        self.source = self.target = Expressions()
        self.src_words = self.tgt_words = len(self.source)
        self.src_len, self.tgt_len = max_words, max_words + 1  # and <eos>
        self.name = "-".join(["integrate", *(Path(data).stem for data in self.train_data)]
                             + [f"ops{max_ops}"] * (max_ops != 5))

    def load(self, data, part, size):
        """Examples of "bwd" or another kind, or of a file, that are not too long: [(f, F), ...]"""
        if data in GENERATORS:
            pairs = make_set(data, part, self.max_ops, size, self.workers, self.max_words)
        else:
            pairs = read_file(data, size, self.max_words)
        if not pairs:
            raise ValueError(f"{data} holds no examples of up to {self.max_words} words")
        return pairs

    @cached_property
    def tests(self):
        """{name: [(f, F), ...]}, made or read at their first use."""
        return {name: [pair for data in datas for pair in self.load(data, "test", self.test_size)]
                for name, datas in self.test_data.items()}

    @cached_property
    def training(self):
        """The training set, made or read at its first use, without the problems of the tests."""
        taken = {f for pairs in self.tests.values() for f, _ in pairs}
        pairs = {f: F for data in self.train_data
                 for f, F in self.load(data, "train", self.examples) if f not in taken}
        return Examples(list(pairs.items()), self.source)

    def prepare(self):
        """Make or read all that training needs."""
        self.training

    def batch(self, n, generator):
        """n problems and solutions as padded LongTensors: (n, <= src_len), (n, <= tgt_len + 1).
        They are of similar lengths: neighbours in the set."""
        n = min(n, self.training.size)
        first = torch.randint(self.training.size - n + 1, (), generator=generator).item()
        src, tgt = self.training.rows(first, first + n)
        return src, as_target(tgt)

    # Step III: judge

    def hypotheses(self, model, problems, beam, chunk=2048):
        """The beam's best solutions of each problem, texts, the likeliest first."""
        ids = [torch.tensor(self.source.ids(f)) for f in problems]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        found, rows = [None] * len(ids), max(1, chunk // beam)
        for group in (order[i : i + rows] for i in range(0, len(order), rows)):
            src = torch.nn.utils.rnn.pad_sequence([ids[i] for i in group], True, PAD)
            tokens, logp = model.generate(src, beam, chunk)
            for i, row, scores in zip(group, tokens.tolist(), logp.tolist()):
                found[i] = [self.target.text(words) for words, score in zip(row, scores)
                            if score > -math.inf]
        return found

    def evaluate(self, model, beams=(1,), final=False):
        """Accuracy on each test, for each beam size; "accuracy" is that on the first test.

        A problem is solved if one of the beam's hypotheses is right. Before the end, the first
        beam size alone.
        """
        accuracy, verdicts = {}, {}
        for name, pairs in self.tests.items():
            problems, accuracy[name], verdicts[name] = [f for f, _ in pairs], {}, {}
            for beam in beams if final else beams[:1]:
                found = self.hypotheses(model, problems, beam)
                judged = list(parallel(judge, zip(problems, found), self.workers, seconds=20))
                solved = {f: (texts[len(said) - 1], said[-1])
                          for f, texts, said in zip(problems, found, judged)
                          if said and said[-1] in RIGHT}
                accuracy[name][str(beam)] = len(solved) / len(problems)
                if final:
                    verdicts[name][str(beam)] = self.count(judged, solved)
        first = next(iter(self.tests))
        result = {"accuracy": accuracy[first][str(beams[0])], "accuracy_by_test": accuracy}
        return result | ({"verdicts": verdicts} if final else {})

    def count(self, judged, solved):
        """How many problems were solved, and how we know; what else was said."""
        unproved = [(f, F) for f, (F, said) in solved.items() if said == "verified"]
        by_sympy = sum(map(bool, parallel(sympy_proves, unproved, self.workers, seconds=10)))
        counts = Counter(said for verdicts in judged for said in verdicts or ["wrong"])
        return {"problems": len(judged), "proved": len(solved) - len(unproved) + by_sympy,
                "only verified": len(unproved) - by_sympy, "wrong hypotheses": counts["wrong"],
                "malformed": counts["malformed"]}

    def headline(self, result):
        """One evaluation in a few words, for the progress lines."""
        return ", ".join(f"{name} {accuracy:.1%} (beam {beam})"
                         for name, by in result["accuracy_by_test"].items()
                         for beam, accuracy in by.items())

    def report(self, evals):
        """What was learned, for a person: from all the evaluations of a run, the last one final."""
        last, kinds = evals[-1], "+".join(self.train_data)
        beams = list(next(iter(last["accuracy_by_test"].values())))
        lines = [f"Integrals of functions of up to {self.max_ops} operators:",
                 f"what a transformer learned from {last['examples']:,} examples ({kinds})", "",
                 "New problems solved: one of so many hypotheses (the beam) has the right",
                 "derivative.", "",
                 "    tested on " + "".join(f"{'beam ' + beam:>10}" for beam in beams)]
        for name, by in last["accuracy_by_test"].items():
            lines.append(f"    {name:<10}" + "".join(f"{by[beam]:>10.1%}" for beam in beams))
        lines += ["",
                  "How do we know? Of the problems solved, the derivative was proved to be the",
                  "problem, by normal form or by SymPy, or only seen to have the same values:",
                  "", f"    {'tested on':<10}{'beam':>6}{'problems':>10}{'proved':>8}"
                  f"{'same values':>13}{'wrong hypotheses':>18}{'malformed':>11}"]
        for name, by in last["verdicts"].items():
            for beam, c in by.items():
                lines.append(f"    {name:<10}{beam:>6}{c['problems']:>10}{c['proved']:>8}"
                             f"{c['only verified']:>13}{c['wrong hypotheses']:>18}"
                             f"{c['malformed']:>11}")
        return "\n".join(lines)

    def ask(self, text, model, beams=(1,)):
        """The model's answers to a problem like "x*cos(x)", best first, each checked; ValueError
        if it is none."""
        try:
            f = parse(text)
        except Undefined as error:
            raise ValueError(f"{text!r} has no real value: {error}") from None
        except ValueError as error:
            raise ValueError(f'{text!r}: {error}; ask as in --ask "x*cos(x)"') from None
        problem = prefix(f)
        if len(problem.split()) > self.max_words:
            raise ValueError(f"{text!r} is {len(problem.split())} words; "
                             f"this model takes {self.max_words}")
        src = torch.tensor([self.source.ids(problem)])
        tokens, logps = model.generate(src, max(beams))
        lines = [f"the integral of {infix(f)}; the model says, best first:"]
        for row, logp in zip(tokens[0].tolist(), logps[0].tolist()):
            if logp > -math.inf:
                answer = self.target.text(row)
                said = verdict(f, answer)
                if said != "malformed":
                    try:
                        answer = infix(read(answer))
                    except Undefined:
                        pass
                lines.append(f"  {'right' if said in RIGHT else 'wrong'}  {answer}"
                             f"  (probability {math.exp(logp):.1g})")
        return "\n".join(lines)


# Beside the talk


TALK = {  # percent solved: {trained on: {tested on: {beam: ...}}}
    "fwd": {"fwd": {"1": 93.6, "10": 95.6, "50": 96.2}, "bwd": {"1": 10.9, "10": 13.9, "50": 17.2},
            "ibp": {"1": 85.6, "10": 86.8, "50": 88.9}},
    "bwd": {"fwd": {"1": 18.9, "10": 24.6, "50": 27.5}, "bwd": {"1": 98.4, "10": 99.4, "50": 99.7},
            "ibp": {"1": 42.9, "10": 54.6, "50": 59.2}},
    "bwd+ibp": {"fwd": {"1": 41.6, "10": 54.9, "50": 56.1},
                "bwd": {"1": 98.2, "10": 99.4, "50": 99.7},
                "ibp": {"1": 96.8, "10": 99.2, "50": 99.5}},
}


def table(rows):
    """The talk's table of out-of-distribution results: rows {training data: accuracy_by_test}, in
    percent; the talk's numbers beside."""
    lines = []
    for test in ("fwd", "bwd", "ibp"):
        lines += ["", f"tested on {test}"
                  + "".join(f"{'beam ' + beam:>15}" for beam in ("1", "10", "50"))]
        for kind, talk in TALK.items():
            cells = [f"{100 * by[beam]:.1f}" if beam in (by := rows.get(kind, {}).get(test, {}))
                     else "-" for beam in ("1", "10", "50")]
            lines.append(f"  {kind:<12}" + "".join(f"{cell + f' ({talk[test][beam]})':>15}"
                                                   for cell, beam in zip(cells, talk[test])))
    return "\n".join(lines[1:])


def read_run(folder):
    """-> what a run was trained on, and its last accuracy on each test."""
    try:
        log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        last = [event for event in log if event["event"] == "eval"][-1]
        return log[0]["train_data"], last["accuracy_by_test"]
    except (ValueError, LookupError):
        raise ValueError(f"{folder} holds no evaluated run of integration") from None


def sympy_solves(problem):
    """Whether all of SymPy's integrate solves a problem, a text: the computer algebra row."""
    import mpmath
    import sympy
    x, f = sympy.Symbol("x"), read(problem)
    try:
        answer = sympy.integrate(to_sympy(f), x)
        if answer.has(sympy.Integral):
            return False
        g = sympy.lambdify(x, answer.diff(x), "mpmath")  # it may hold functions that are not ours
        points = POINTS[real(values(f, POINTS))].tolist()
        with mpmath.workdps(50):
            return bool(points) and all(
                mpmath.almosteq(evaluate(f, mpmath.mpf(z), mpmath), g(mpmath.mpf(z)), 1e-20)
                for z in points)
    except Exception:  # SymPy's own errors are of all classes
        return False


def find(problem):
    """SymPy's integral of a problem, both texts, or None."""
    try:
        return prefix(sympy_integral(read(problem)))
    except Undefined:
        return None


def draw(generate, n):
    """n pairs of texts from a generator, which may raise Undefined."""
    pairs = []
    while len(pairs) < n:
        try:
            f, F = generate()
            pairs.append((prefix(f), F and prefix(F)))
        except Undefined:
            pass
    return pairs


def ten_of(kind, max_ops, workers):
    """Ten short examples of a kind, [(f, F), ...] as people write them, as on the slides."""
    rng, found = random.Random(kind), {}
    if kind == "ibp":
        pairs = draw(partial(by_parts, max_ops, rng, known_integrals(
            draw(partial(backward, max_ops, rng), 5000))), 300)
    else:
        pairs = draw(partial(GENERATORS[kind], max_ops, rng), 100)
    if kind == "fwd":
        warm_up()
        problems = [f for f, _ in pairs]
        pairs = zip(problems, parallel(find, problems, workers, seconds=1))
    for f, F in pairs:
        f, F = (infix(read(text)) if text else "" for text in (f, F))
        if 8 < len(f) < 45 and 0 < len(F) < 50:
            found.setdefault(f, F)
    return list(found.items())[:10]


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One clear line, and exit status 2."""
        self.exit(2, f"integrate.py: {message}\n")


def main(argv=None):
    parser = Parser(description="Examples, data files, and tables.")
    commands = parser.add_subparsers(dest="command")
    show = commands.add_parser("show", help="ten examples of each kind (without a command, too)")
    make = commands.add_parser("make", help="make a file of examples")
    make.add_argument("kind", choices=GENERATORS)
    make.add_argument("out", type=Path, help="the file: a line for each example")
    make.add_argument("--examples", type=int, default=10_000, help="how many (10000)")
    row = commands.add_parser("sympy", help="SymPy's own share of the test problems")
    row.add_argument("kinds", nargs="+", choices=GENERATORS)
    row.add_argument("--test-size", type=int, default=100, help="problems of each kind (100)")
    row.add_argument("--max-words", type=int, default=50, help="words in a problem, at most (50)")
    row.add_argument("--seconds", type=int, default=30, help="processor time for each (30)")
    row.add_argument("--unsolved", type=Path, metavar="FILE",
                     help="a file for what it does not solve, to --ask a model")
    for command in (show, make, row):
        command.add_argument("--max-ops", type=int, default=5, help="operators in a function (5)")
        command.add_argument("--workers", type=int, default=os.cpu_count(),
                             help="processes (one for each core)")
    runs = commands.add_parser("table", help="several runs beside the talk's table")
    runs.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    args = parser.parse_args((sys.argv[1:] if argv is None else argv) or ["show"])
    for name in ("examples", "test_size", "seconds", "max_ops", "workers"):
        if getattr(args, name, 1) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: it can be 1 or more")
    try:
        COMMANDS[args.command](args)
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except ValueError as error:
        parser.error(str(error))


def show_examples(args):
    for kind, name in [("fwd", "Forward"), ("bwd", "Backward"), ("ibp", "By parts")]:
        print(f"{name} ({kind.upper()}): functions and their primitives\n")
        for f, F in ten_of(kind, args.max_ops, args.workers):
            print(f"    {f:<46}{F}")
        print()


def make_data(args):
    pairs = make_set(args.kind, "train", args.max_ops, args.examples, args.workers)
    with open(args.out, "w") as file:
        write_lines(file, pairs)


def sympy_row(args):
    warm_up()
    with open(args.unsolved or os.devnull, "w") as unsolved:
        for kind in args.kinds:
            pairs = make_set(kind, "test", args.max_ops, args.test_size, args.workers,
                             args.max_words)
            problems, done, start = [f for f, _ in pairs], [], time.time()
            for solved in parallel(sympy_solves, problems, args.workers, args.seconds):
                if not solved:
                    print(infix(read(problems[len(done)])), file=unsolved, flush=True)
                done.append(solved)
                if len(done) % 20 == 0:
                    progress(f"{kind} problems", len(done), len(problems), time.time() - start)
            print(f"{kind}: SymPy solves {sum(map(bool, done)) / len(done):.1%} of {len(done)} "
                  f"problems; {done.count(None) / len(done):.1%} took more than {args.seconds} s",
                  flush=True)


COMMANDS = {"show": show_examples, "make": make_data, "sympy": sympy_row,
            "table": lambda args: print(table(dict(map(read_run, args.runs))))}

if __name__ == "__main__":
    main()
