"""A small computer algebra system: functions of x in a normal form, and their derivatives.

Slide: "Deep learning for symbolic mathematics". In the normal form one function is always the same
words: like terms are collected, constants folded, arguments ordered.

    expression   a sum       {product: coefficient}            3 x sin(x) - 1/2
    product      a frozenset {(factor, exponent)}              x sin(x)
    factor       a variable, pi, a function of an expression, a sum in brackets, a prime in a root

Each factor is one Factor object, made at its first use. So factors compare by address, and what is
known of them is kept: it differentiates thousands of functions a second, SymPy a hundred.

>>> F = parse("x * sin(x^2)")
>>> prefix(F), infix(derivative(F))
('mul x sin pow x INT+ 2', '2*x**2*cos(x**2) + sin(x**2)')
"""

import ast
import math
import re
from fractions import Fraction
from functools import cache, partial

from tokenizers import ARITY, read_prefix

ONE = frozenset()  # the product of no factors
HALF = Fraction(1, 2)
LARGEST = 10**12  # a product's coefficient is no larger, nor is its denominator
LARGEST_POWER = 1000  # for SymPy
LARGEST_ARGUMENT = 10_000  # for mpmath, in bits: the sine of a longer number can take it hours
FACTORS = {}  # all factors made so far


class Undefined(ValueError):
    """No expression of use: not real, not finite, too large, or not what is wanted."""


class Factor:
    """A variable, pi, a function ("sin") of an expression, a "sum", a "prime" under a root."""

    def __init__(self, name, arg=None):
        self.name, self.arg = name, arg
        self.constant = name in ("pi", "prime") or arg is not None and is_constant(arg)
        # A sum like 4 - x is a factor only under a root: (4 - x)^2 is written (x - 4)^2.
        self.rooted = name == "sum" and (len(arg) == 1 or arg[max(arg, key=order)] < 0)


def factor(name, arg=None):
    """The one factor of this name and argument: an expression, a prime, or None for a variable."""
    key = name, (frozenset(arg.items()) if isinstance(arg, dict) else arg)
    if key not in FACTORS:
        FACTORS[key] = Factor(name, arg)
    return FACTORS[key]


def forget(limit=300_000):
    """Drop all factors, if more than limit: no expression from before may meet one from after."""
    if len(FACTORS) > limit:
        FACTORS.clear()
        for function_of_factors in slope, write_power, write_product:
            function_of_factors.cache_clear()


def number(value):
    """A rational number as an expression."""
    return {ONE: value} if value else {}


def is_constant(products):
    """Whether x is in none of the products; of an expression, in none of its own."""
    return all(k.constant for product in products for k, _ in product)


X = {frozenset([(Factor("x"), 1)]): 1}
PI = {frozenset([(Factor("pi"), 1)]): 1}


# Values at numbers


def evaluate(e, x, functions):
    """The value of an expression at x, perhaps infinite; nan if it has none or takes too long.
    functions: math or mpmath, which has the same functions, and of complex numbers too."""
    try:
        return value_of(e, x, functions, {})
    except (ValueError, TypeError, ArithmeticError):  # TypeError: math takes no complex number
        return math.nan


def value_of(e, x, functions, known):
    """The same, but what is wrong is raised. known: the values of factors, as far as known."""
    total, rational = 0, float if functions is math else functions.mpmathify
    for product, c in e.items():
        term = rational(c)
        for k, p in product:
            if k not in known:
                known[k] = value_of_factor(k, x, functions, known)
            term = term * known[k] ** rational(p)
        total = total + term
    return total


def value_of_factor(k, x, functions, known):
    if k.name in ("x", "pi"):
        return x if k.name == "x" else +functions.pi  # +: a number, in mpmath too
    if k.name == "prime":
        return k.arg
    u = value_of(k.arg, x, functions, known)
    if k.name == "sum":
        return u
    if functions is not math and functions.mag(u) > LARGEST_ARGUMENT:
        raise OverflowError
    return getattr(functions, "log" if k.name == "ln" else k.name)(u)


def is_real(e, x):
    """Whether the value at a real number x is real and finite."""
    value = evaluate(e, x, math)
    return not isinstance(value, complex) and math.isfinite(value)


# Arithmetic: each function takes expressions in normal form, and returns one


def add(*expressions):
    """Their sum, like terms together."""
    total = {}
    for e in expressions:
        for product, c in e.items():
            c += total.pop(product, 0)
            if c:
                total[product] = c
    return total


def scale(e, c):
    """c e, for a number c."""
    return {product: c * coefficient for product, coefficient in e.items()} if c != 1 else e


def multiply(*expressions):
    """Their product, a single term: sums become factors, and are not multiplied out."""
    c, exponents = 1, {}
    for e in expressions:
        if not e:
            return e
        if len(e) > 1:
            content, e = content_and_rest(e)
            e, c = {frozenset([(factor("sum", e), 1)]): 1}, c * content
        (product, coefficient), = e.items()
        c *= coefficient
        for k, p in product:
            exponents[k] = exponents.get(k, 0) + p
    return collect(c, exponents)


def collect(c, exponents):
    """c times the product of factor ** exponent; exponents {factor: exponent}, of a single term."""
    exps = {k: p for k, p in exponents.items() if k.name == "exp"}
    if exps and [*exps.values()] != [1]:  # exp(u)^2 exp(v) = exp(2u + v)
        together = function("exp", add(*(scale(k.arg, p) for k, p in exps.items())))
        rest = {k: p for k, p in exponents.items() if k not in exps}
        return multiply(collect(c, rest), together)
    powers, given = {}, c
    for k, p in exponents.items():
        if k.name == "prime":  # whole powers go to the coefficient: 2^(3/2) = 2 2^(1/2)
            c *= number_power(k.arg, math.floor(p))[ONE]
            p -= math.floor(p)
        elif k.rooted and p.denominator == 1:  # sqrt(-x)^2 = -x
            rest = {other: q for other, q in exponents.items() if other is not k}
            return multiply(collect(given, rest), power(k.arg, p))
        if p:
            powers[k] = p
    if abs(c.numerator) > LARGEST or c.denominator > LARGEST:
        raise Undefined("too large a number")
    match [*powers.items()]:
        case [(k, 1)] if k.name == "sum":
            return scale(k.arg, c)
    return {frozenset(powers.items()): c}


def content_and_rest(e):
    """-> c, r: e = c r, where the coefficients of r are coprime integers, the leading one
    positive: -4 x + 6 = -2 (2 x - 3). The number c is called the content of e."""
    n = math.gcd(*[a.numerator for a in e.values()])
    d = math.lcm(*[a.denominator for a in e.values()])
    if e[max(e, key=order)] < 0:
        n = -n
    return (Fraction(n, d) if d > 1 else n), {
        product: a.numerator * d // (a.denominator * n) for product, a in e.items()}


def power(e, p):
    """e ** p, p rational: 0 < e where p is not an integer."""
    if p == 1 or not e and p > 0:
        return e
    if p == 0:
        return number(1)
    if not e:
        raise Undefined("division by zero")
    integer = p.denominator == 1
    if len(e) == 1:
        (product, c), = e.items()
        if integer:
            return multiply(number_power(c, p), collect(1, {k: q * p for k, q in product}))
        return multiply(number_power(abs(c), p), root(product, 1 if c > 0 else -1, p))
    content, inner = content_and_rest(e)
    if content < 0 and not integer:
        content, inner = -content, scale(inner, -1)
    return multiply(number_power(content, p), {frozenset([(factor("sum", inner), p)]): 1})


def root(product, sign, p):
    """(sign product) ** p for p not an integer. sqrt(x^3) is x^(3/2), but sqrt(x^2) is not x, and
    sqrt(x y) not sqrt(x) sqrt(y): where both are negative, only the former is real."""
    roots = {k: q for k, q in product if k.name == "prime" or q.denominator % 2 == 0}
    rest = {k: q for k, q in product if k not in roots}
    if sign > 0 and len(rest) == 1 and all(q.denominator == 1 and q % 2 for q in rest.values()):
        roots, rest = roots | rest, {}
    if not rest and sign < 0:
        raise Undefined("the root of a negative number")
    powers = {k: q * p for k, q in roots.items()}
    if rest:
        powers[factor("sum", collect(sign, rest))] = p
    return collect(1, powers)


def number_power(c, p):
    """c ** p for rational numbers, 0 < c where p is no integer: a product of roots of primes."""
    if c == 1:
        return number(1)
    if abs(p) * max(abs(c.numerator), c.denominator).bit_length() > 80:
        raise Undefined("too large a number")
    if p.denominator == 1:
        result = Fraction(c) ** int(p)
        return number(result.numerator if result.denominator == 1 else result)
    return collect(1, {factor("prime", q): p * times for q, times in primes(c)})


def primes(c):
    """A positive rational number -> its primes and their exponents: 4/3 -> (2, 2), (3, -1)."""
    import sympy  # takes half a second: only where it is needed
    if max(c.numerator, c.denominator) > 10**9:
        raise Undefined("too large a number")
    return sympy.factorrat(sympy.Rational(c)).items()


INVERSE = {"sin": "asin", "cos": "acos", "tan": "atan", "sinh": "asinh", "cosh": "acosh",
           "tanh": "atanh", "exp": "ln", "ln": "exp"}
ODD = {"sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh"}
EVEN = {"cos", "cosh"}
AT_ZERO = dict.fromkeys(ODD, {}) | {"cos": {ONE: 1}, "cosh": {ONE: 1}, "exp": {ONE: 1}}
AT_ZERO["acos"] = scale(PI, HALF)
AT_ONE = {"asin": scale(PI, HALF), "atan": scale(PI, HALF**2), "acos": {}, "acosh": {}}


def function(name, u):
    """name(u), as sin(u)."""
    if not u and name in AT_ZERO:
        return AT_ZERO[name]
    if name in AT_ONE and u == {ONE: 1}:
        return AT_ONE[name]
    if (name in ODD or name in EVEN) and u and u[max(u, key=order)] < 0:
        return scale(function(name, scale(u, -1)), -1 if name in ODD else 1)
    match [(c, *product) for product, c in u.items()]:
        case [(1, (k, 1))] if k.name == INVERSE.get(name):  # sin(asin(v)) = v
            return k.arg
    if name == "exp":
        for product, c in u.items():
            match [*product]:
                case [(k, 1)] if k.name == "ln":  # exp(c ln(v) + w) = v^c exp(w)
                    rest = {other: a for other, a in u.items() if other != product}
                    return multiply(power(k.arg, c), function("exp", rest))
    if name == "ln" and u.keys() == {ONE} and u[ONE] > 0:  # of a number: logarithms of primes
        return {frozenset([(factor("ln", number(q)), 1)]): times for q, times in primes(u[ONE])}
    k = factor(name, u)
    result = {frozenset([(k, 1)]): 1}
    if k.constant and not is_real(result, 0.0):  # asin(2)
        raise Undefined("not a real number")
    return result


def raised(a, b):
    """a ** b, where only 0 < a makes sense if b is not a rational number."""
    if b.keys() <= {ONE}:
        return power(a, b.get(ONE, 0))
    return function("exp", multiply(b, function("ln", a)))


# From trees, the form in which expressions are drawn and read: "x", 3, ("add", "x", 3)


OPERATIONS = {
    "add": add, "sub": lambda a, b: add(a, scale(b, -1)), "mul": multiply,
    "div": lambda a, b: multiply(a, power(b, -1)), "pow": raised,
    "sqrt": partial(power, p=HALF), "inv": partial(power, p=-1),
    **{f"pow{n}": partial(power, p=n) for n in (2, 3, 4, 5)},
}


def normal(tree, x=X):
    """A tree -> its expression in normal form; Undefined where it has no real value. x: what stands
    in the place of x. Another name is a variable."""
    if isinstance(tree, tuple):
        name, *branches = tree
        args = [normal(branch, x) for branch in branches]
        return OPERATIONS[name](*args) if name in OPERATIONS else function(name, *args)
    if tree == "E":
        return function("exp", number(1))
    if isinstance(tree, int):
        return number(tree)
    names = {"x": x, "pi": PI}
    return names[tree] if tree in names else collect(1, {factor(tree): 1})


def from_prefix(text, arity=ARITY):
    """Words -> the expression they are, or Undefined. arity: of all words, see tokenizers.py."""
    if (tree := read_prefix(text, arity)) is None:
        raise Undefined("malformed")
    return normal(tree)


# Derivatives


SLOPES = {name: read_prefix(words) for name, words in {  # of the functions: cos x is that of sin x
    "sin": "cos x", "cos": "mul INT- 1 sin x", "tan": "add pow2 tan x INT+ 1",
    "asin": "inv sqrt sub INT+ 1 pow2 x", "acos": "mul INT- 1 inv sqrt sub INT+ 1 pow2 x",
    "atan": "inv add pow2 x INT+ 1",
    "sinh": "cosh x", "cosh": "sinh x", "tanh": "sub INT+ 1 pow2 tanh x",
    "asinh": "inv sqrt add pow2 x INT+ 1", "acosh": "inv mul sqrt sub x INT+ 1 sqrt add x INT+ 1",
    "atanh": "inv sub INT+ 1 pow2 x", "exp": "exp x", "ln": "inv x",
}.items()}


@cache
def slope(k):
    """The derivative of a factor, which is not a constant."""
    inner = derivative(k.arg) if k.arg else number(1)
    return multiply(normal(SLOPES[k.name], k.arg), inner) if k.name in SLOPES else inner


def derivative(e):
    """(k1^p1 k2^p2)' = p1 k1^(p1-1) k1' k2^p2 + k1^p1 p2 k2^(p2-1) k2'."""
    return add(*(multiply(collect(c * p, dict(product) | {k: p - 1}), slope(k))
                 for product, c in e.items() for k, p in product if not k.constant))


def without_constants(e):
    """An integral without its additive constants."""
    return {product: c for product, c in e.items() if not is_constant([product])}


# Prefix notation, in the words of the published data sets


def by_length(text):
    return len(text), text


def order(product):
    """Terms are written from the longest to the shortest: x^2 + x + 1."""
    return by_length(write_product(product))


def write_number(c):
    if c.denominator != 1:
        return f"div {write_number(c.numerator)} {write_number(c.denominator)}"
    return ("INT- " if c < 0 else "INT+ ") + " ".join(str(abs(c.numerator)))


@cache
def write_power(k, p):
    """A factor to a power, p not 0, as words: sqrt sin x."""
    if p == HALF:
        return f"sqrt {write_power(k, 1)}"
    if p != 1:
        return f"pow {write_power(k, 1)} {write_number(p)}"
    if k.arg is None:
        return k.name
    if k.name == "prime":
        return write_number(k.arg)
    return prefix(k.arg) if k.name == "sum" else f"{k.name} {prefix(k.arg)}"


@cache
def write_product(product):
    """A product as words; none for the empty one."""
    return chain("mul", sorted((write_power(k, p) for k, p in product), key=by_length))


def write_term(product, c):
    if not product:
        return write_number(c)
    return write_product(product) if c == 1 else f"mul {write_number(c)} {write_product(product)}"


def chain(operation, parts):
    """Words a, b, c, in a list -> add a add b c"""
    return " ".join([f"{operation} {part}" for part in parts[:-1]] + parts[-1:])


def prefix(e):
    """An expression as words: x - 1 is add x INT- 1."""
    products = sorted(e, key=order, reverse=True) if len(e) > 1 else e
    return chain("add", [write_term(product, e[product]) for product in products]) or "INT+ 0"


# Infix notation, as people and SymPy write it


def infix(e):
    """An expression as Python, and SymPy, would have it: x - 1."""
    terms = [infix_term(product, e[product]) for product in sorted(e, key=order, reverse=True)]
    return " + ".join(terms).replace("+ -", "- ") or "0"


def infix_term(product, c):
    """A product times a number: -2*x/3."""
    factors = sorted(product, key=lambda power: by_length(write_power(*power)))
    n, d = abs(c.numerator), c.denominator
    above = [str(n)] * (n != 1) + [infix_power(k, p) for k, p in factors if p > 0]
    below = [str(d)] * (d != 1) + [infix_power(k, -p) for k, p in factors if p < 0]
    divisor = f"({'*'.join(below)})" if len(below) > 1 else "".join(below)
    return "-" * (c < 0) + "*".join(above or ["1"]) + ("/" + divisor if divisor else "")


def infix_power(k, p):
    """A factor to a positive power: sin(x)**2."""
    if k.arg is None or k.name == "prime":
        text = str(k.arg or k.name)
    else:
        text = {"sum": "", "ln": "log"}.get(k.name, k.name) + f"({infix(k.arg)})"
    if p == HALF:
        return f"sqrt{text}" if k.name == "sum" else f"sqrt({text})"
    return text + ("" if p == 1 else f"**{p}" if p.denominator == 1 else f"**({p})")


SIGNS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow",
         ast.UAdd: 1, ast.USub: -1}
RECIPROCALS = {"sec": "cos", "csc": "sin", "cot": "tan", "sech": "cosh", "csch": "sinh",
               "coth": "tanh"}


def parse(text, arity=ARITY):
    """What a person types, as "x^2 * log(3*x)" -> the expression. The text is read and never run:
    a name that is not in arity, or anything but arithmetic, is a ValueError."""
    def read(node):
        match node:
            case ast.BinOp(left, op, right) if type(op) in SIGNS:
                return SIGNS[type(op)], read(left), read(right)
            case ast.UnaryOp(op, operand) if type(op) in SIGNS:
                return "mul", SIGNS[type(op)], read(operand)
            case ast.Constant(value) if type(value) in (int, float):
                return "div", *Fraction(str(value)).as_integer_ratio()
            case ast.Name(name) if arity.get(name) == 0:
                return name
            case ast.Call(ast.Name(name), [u], []) if name in RECIPROCALS:
                return "inv", (RECIPROCALS[name], read(u))
            case ast.Call(ast.Name(name), [u], []) if arity.get(name.replace("log", "ln")) == 1:
                return name.replace("log", "ln"), read(u)
        raise ValueError(f"{ast.unparse(node)!r} is not a function of x")

    try:
        if len(text) > 2000:
            raise ValueError("too long")
        return normal(read(ast.parse(text.strip().replace("^", "**"), mode="eval").body))
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("that is not an expression") from None


def to_sympy(e):
    """An expression -> SymPy's (and parse(str(s)) is the way back); Undefined where a power would
    keep SymPy, which multiplies out what it can, busy for hours."""
    import sympy  # takes half a second: only where it is needed
    text = infix(e)
    if any(int(p) > LARGEST_POWER for p in re.findall(r"\*\*\(?(\d+)", text)):
        raise Undefined("too large a power")
    return sympy.sympify(text)
