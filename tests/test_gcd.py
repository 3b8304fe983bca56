"""gcd.py promises: pairs of the talk's distributions, tests that training never sees, honest reports.

The judges are math.gcd and the distributions in closed form. Statistical tests compare frequencies with
probabilities: 5 standard errors, so that a right generator fails once in a million.
"""

import json
import math
from collections import Counter

import pytest
import torch

import gcd
from gcd import GCD, random_coprimes, random_integers
from task import held_out

N = 200_000


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def assert_distribution(values, probability, ks):
    """The share of k among the values is probability(k), within 5 standard errors."""
    counts, n = Counter(values.tolist()), len(values)
    for k in ks:
        p = probability(k)
        assert abs(counts[k] / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-9, (k, counts[k] / n, p)


def draw(n=N, **flags):
    return GCD(**flags).draw(n, rng())


# Generating


def test_solutions_are_right_and_problems_in_range():
    for operands in ("uniform", "log-uniform"):
        for outcomes in ("natural", "log-uniform", "uniform"):
            pairs, gcds = draw(2000, operands=operands, outcomes=outcomes, max_int=5000)
            assert gcds.tolist() == [[math.gcd(a, b)] for a, b in pairs.tolist()]
            assert pairs.min() >= 1 and pairs.max() <= 5000


def test_a_batch_spells_the_pairs_out():
    task = GCD(base=31)
    pairs, gcds = task.draw(300, rng(1))
    src, tgt = task.batch(300, rng(1))
    assert src.size(1) <= task.src_len and tgt.size(1) <= task.tgt_len + 1
    for (a, b), (g,), x, y in zip(pairs.tolist(), gcds.tolist(), src, tgt):
        assert task.source.text(x) == f"{task.source.write(a)} {task.source.write(b)}"
        assert task.target.text(y) == "<bos> " + task.source.write(g)


def test_uniform_operands_give_gcds_in_one_over_k_squared():
    pairs, gcds = draw()
    assert_distribution((pairs - 1).flatten() // 100_000, lambda k: 0.1, range(10))
    assert_distribution(gcds[:, 0], lambda k: 6 / (math.pi * k) ** 2, range(1, 30))


def test_log_uniform_operands_are_one_over_k():
    pairs, gcds = draw(operands="log-uniform")
    share = lambda k: math.log(1 + 1 / k) / math.log(1e6 + 1)
    assert_distribution(torch.cat([pairs[:, 0], pairs[:, 1]]),
               # coprime pairs like (1, 1) are few: holding some out shifts small operands a little
               share, range(30, 60))
    raw = random_integers("log-uniform", torch.full((N,), 10**6), rng())
    assert_distribution(raw, share, range(1, 60))
    assert_distribution(raw.log10().long(), lambda d: 1 / 6, range(6))  # as many of one digit as of six


@pytest.mark.parametrize("outcomes, share", [("uniform", lambda k: 0.01),
                                           ("log-uniform", lambda k: 1 / k / 5.187377517639621)])
@pytest.mark.parametrize("operands", ["uniform", "log-uniform"])
def test_engineered_outcomes(operands, outcomes, share):
    """1/k or 1/100 for k in 1..100 (5.187... is the sum of 1/k up to 100)."""
    task = GCD(operands=operands, outcomes=outcomes)
    pairs, _ = task.sample(N, rng())
    assert_distribution(torch.gcd(*pairs.T), share, range(1, 101))


@pytest.mark.parametrize("distribution", ["uniform", "log-uniform"])
def test_cofactors_are_coprime_and_drawn_until_they_are(distribution):
    """All coprime pairs of 1..6, each as often as its distribution says: that is what drawing again does."""
    high, p = 6, {}
    one = lambda k: 1 / high if distribution == "uniform" else math.log(1 + 1 / k) / math.log(high + 1)
    for a in range(1, high + 1):
        for b in range(1, high + 1):
            if math.gcd(a, b) == 1:
                p[10 * a + b] = one(a) * one(b)
    pairs = random_coprimes(distribution, torch.full((N,), high), rng())
    total = sum(p.values())
    assert_distribution(pairs @ torch.tensor([10, 1]), lambda k: p[k] / total, p)
    assert set((pairs @ torch.tensor([10, 1])).tolist()) == set(p)


def test_the_same_seed_gives_the_same_batch_and_another_seed_another():
    task = GCD()
    first, again, other = (task.batch(50, rng(seed))[0] for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)


# Held-out tests


@pytest.mark.parametrize("max_int", [10, 30, 100, 1000, 1_000_000])
def test_no_test_pair_is_ever_trained_on_in_either_order(max_int):
    task = GCD(max_int=max_int, test_size=5000)
    tested = unordered(task.tests["natural"]) | unordered(task.stratified)
    trained = unordered(task.draw(100_000, rng())[0])
    assert len(tested) > 0 and not tested & trained
    if max_int <= 30:  # and all others are
        held = held_out(task.identity(all_pairs(max_int))).sum()
        assert len(trained) + held == max_int * (max_int + 1) // 2


def unordered(pairs):
    return {(min(p), max(p)) for p in pairs.tolist()}


def all_pairs(n):
    a, b = torch.meshgrid(torch.arange(1, n + 1), torch.arange(1, n + 1), indexing="ij")
    return torch.stack([a, b], dim=-1)[a <= b]


@pytest.mark.parametrize("outcomes", ["uniform", "log-uniform"])
def test_engineered_outcomes_are_held_out_too(outcomes):
    task = GCD(max_int=200, outcomes=outcomes, operands="log-uniform")
    assert not held_out(task.identity(task.draw(50_000, rng())[0])).any()


def test_a_tenth_is_held_out_whatever_the_gcd_or_the_last_digits():
    pairs = torch.randint(1, 10**6, (N, 2), generator=rng())
    out = held_out(pairs)
    for n in (2, 3, 5, 7, 30, 31):
        for residue in range(n):
            share = out[pairs[:, 0] % n == residue].float()
            assert abs(share.mean() - 0.1) < 5 * 0.3 / math.sqrt(len(share))
    out = held_out(all_pairs(300)).float()
    assert abs(out.mean() - 0.1) < 5 * 0.3 / math.sqrt(len(out))
    assert held_out(all_pairs(10)).any()  # the least --max-int has something to test on


def test_the_natural_test_is_uniform_and_the_stratified_one_even():
    task = GCD(test_size=20_000, operands="log-uniform", outcomes="log-uniform")
    natural, stratified = task.tests["natural"], task.stratified
    assert len(natural) == len(stratified) == 20_000
    assert_distribution((natural - 1).flatten() // 100_000, lambda k: 0.1, range(10))
    assert_distribution(torch.gcd(*natural.T), lambda k: 6 / (math.pi * k) ** 2, range(1, 10))
    truth = torch.gcd(*stratified.T)
    assert_distribution(truth, lambda k: 0.01, range(1, 101))
    assert truth.min() == 1 and truth.max() == 100


def test_the_tests_are_the_same_for_every_run():
    one, other = GCD(base=10, test_size=500), GCD(base=7, outcomes="uniform", test_size=500)
    assert one.tests["natural"].equal(other.tests["natural"])
    assert one.stratified.equal(other.stratified)


# Judging


class Oracle:
    """Stands in for a model of base 10: answers each pair (a, b) with f(gcd(a, b)), in words."""

    def __init__(self, task, f=lambda k: k):
        self.tokens, self.f, self.width = task.target, f, task.tgt_len

    def generate(self, src, beam=1):
        words = torch.zeros(len(src), beam, self.width, dtype=torch.int64)
        for i, row in enumerate(src):
            a, b = map(int, self.tokens.text(row.tolist()).replace(" ", "").split("+")[1:])
            answer = self.f(math.gcd(a, b))
            ids = self.tokens.ids(" ".join(f"{answer:+}") if answer else "- +") + [2]
            words[i, :, : len(ids)] = torch.tensor(ids)
        return words, torch.zeros(len(src), beam)


def test_a_perfect_model_is_judged_perfect():
    task = GCD(base=10, test_size=2000)
    result = task.evaluate(Oracle(task), final=True)
    assert result["accuracy"] == 1.0 and result["correct_gcds"] == list(range(1, 101))
    assert result["accuracy_by_test"] == {"natural": {"1": 1.0}}
    assert result["predictions"] == {k: [k, 1.0] for k in result["predictions"]}


def test_a_model_that_writes_garbage_is_judged_wrong():
    task = GCD(base=10, test_size=1000)
    result = task.evaluate(Oracle(task, lambda k: None), final=True)
    assert result["accuracy"] == 0.0 and result["correct_gcds"] == []
    assert result["predictions"][7] == [0, 1.0]


def three_rules(base):
    """f(k) of a model that follows the talk's rules to the letter: the part of k made of primes of
    the base."""
    def f(k):
        return max(d for d in range(1, k + 1) if k % d == 0 and base**20 % d == 0)
    return f


def test_the_rules_are_recognised_in_a_model_that_follows_them():
    task = GCD(base=10, test_size=3000)
    model = Oracle(task, three_rules(10))
    result = {"epoch": 1, "examples": 300_000} | task.evaluate(model, final=True)
    learned = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 80, 100]
    assert result["correct_gcds"] == learned
    assert abs(result["accuracy"] - 0.844) < 0.02  # 84.4%: see the report
    report = task.report([result])
    assert "R1  Predictions are deterministic: 100.0%" in report
    assert "are products of the primes of 10: 15 of 15 are." in report and "grokked" not in report
    assert "R3  f(k) is the largest correct prediction that divides k: for 100 of 100" in report
    assert "84.4% if it knows all products of 2, 5: the most that R2 allows" in report
    expected = sum(6 / (math.pi * k) ** 2 for k in learned)
    assert f"{expected:.1%} of pairs if it knows the 15 GCDs above and no other" in report


def test_grokking_is_judged_by_the_rules_with_grokking():
    """A model that grokked 3 in epoch 2, and confuses 7 with 4."""
    task = GCD(base=10, test_size=2000)
    before = three_rules(10)
    after = lambda k: 4 if k == 7 else three_rules(30)(k)
    evals = [{"epoch": epoch, "examples": 0} | task.evaluate(Oracle(task, f), final=epoch == 3)
             for epoch, f in enumerate([before, after, after], start=1)]
    report = task.report(evals)
    correct = sum(30**7 % k == 0 for k in range(1, 101))
    assert "R1" not in report and "R2 " not in report.replace("that R2 allows", "")
    assert ("G2 Correct predictions, f(k) = k, are products of the primes of 10 and of the small "
            f"prime 3: {correct} of {correct} are.") in " ".join(report.split())
    assert "each was learned: 3 (2)" in report
    assert "G3" in report and "for 99 of 100" in report and "f(7) = 4, not 1" in report


def test_a_prime_learned_out_of_order_is_an_exception_to_g2():
    predictions = {k: (three_rules(70)(k), 1.0) for k in range(1, 101)}  # 7, and not 3 before it
    text = " ".join(gcd.rules(predictions, 10, []))
    assert "G2" in text and "small prime" not in text and "Exceptions: 7, 14, 28" in text


def test_a_default_answer_is_not_grokked():
    """Uniform outcomes: a model of base 10 answers 97 to all that is no multiple of 2 or 5."""
    default = {1: 97, 2: 26, 5: 65}
    predictions = {k: (default.get(f := three_rules(10)(k), f), 1.0) for k in range(1, 101)}
    assert predictions[97] == (97, 1.0)
    text = " ".join(gcd.rules(predictions, 10, []))
    assert text.startswith("R1") and "rokked" not in text


def test_a_gcd_without_a_right_divisor_breaks_r3():
    """Where even 1 is predicted wrong, 5 has no right divisor."""
    predictions = {1: (3, 1.0), 5: (7, 1.0), 2: (2, 1.0), 6: (3, 1.0)}
    *_, r3, exceptions = gcd.rules(predictions, 10, [])
    assert "for 1 of 4" in r3
    assert " ".join(exceptions.split()).split(": ")[1] == (
        "f(1) = 3, not a divisor, f(5) = 7, not a divisor, f(6) = 3, not 2")


def test_r1_counts_the_pairs_that_disagree():
    """predictions[k] = (f(k), share): the mean share is R1."""
    predictions = {1: (1, 1.0), 2: (1, 0.5)}
    r1 = next(gcd.rules(predictions, 2, []))
    assert "75.0%" in r1


def test_95_percent_is_learned_and_less_is_not():
    task, truth = GCD(base=10), torch.arange(1, 101).repeat_interleave(20)
    task.stratified = torch.stack([truth, torch.zeros_like(truth)], dim=1)  # 20 pairs of each GCD
    task.translate = lambda model, pairs: None
    for wrong, count in [(1, 100), (2, 0)]:  # right for 19 and for 18 of 20
        answers = truth.where(torch.arange(2000) % 20 >= wrong, truth + 1)
        task.grade = lambda pairs, tokens: (answers == truth, answers)
        assert len(task.findings(None, {}, False)["correct_gcds"]) == count


def test_primes_of():
    assert [gcd.primes_of(n) for n in (2, 30, 31, 2023)] == [[2], [2, 3, 5], [31], [7, 17]]


def test_ask():
    task = GCD(base=10)
    answer = task.ask("10 32", Oracle(task))
    assert "gcd(10, 32) = 2" in answer and "right" in answer
    assert "wrong" in task.ask("9, 12", Oracle(task, lambda k: 1))
    for text in ["12 abc", "12", "1 2 3", "", "1.5 2", "0x10 3", "__import__('os') 1"]:
        with pytest.raises(ValueError, match="two integers"):
            task.ask(text, Oracle(task))
    for text in ["0 0", "-4 6", "12 1000001"]:
        with pytest.raises(ValueError, match="integers from 1 to 1000000"):
            task.ask(text, Oracle(task))


def test_bad_input_is_a_clear_error():
    with pytest.raises(ValueError, match="--max-int 0"):
        GCD(max_int=0)
    with pytest.raises(ValueError, match="base 1"):
        GCD(base=1)


# Commands


def test_examples_show_a_multiple_of_4_in_base_2(capsys):
    gcd.examples()
    lines = capsys.readouterr().out.splitlines()
    pairs = [line.split(" => ") for line in lines if "=>" in line]
    assert len(pairs) == 3 * 4
    for line, target in pairs[:4]:  # base 2
        a, b = map(int, line.partition("(")[2].partition(")")[0].split(","))
        numbers = [n.split() for n in line.partition(")")[2].split("+")[1:]]
        assert [int("".join(n), 2) for n in numbers] == [a, b]
        assert int("".join(target.split()[1:]), 2) == math.gcd(a, b)
        for n, digits in zip((a, b), numbers):
            assert (n % 4 == 0) == (digits[-2:] == ["0", "0"])


def test_the_table_of_several_runs(tmp_path, capsys):
    flags = {"task": "gcd", "base": 30, "max_int": 10**6, "operands": "uniform"}
    for name, more in [("a", {}), ("b", {"base": 9}), ("c", {"operands": "log-uniform"}),
                       ("d", {"max_int": 900})]:
        start = {"event": "start", "outcomes": "natural"} | flags | more
        result = {"event": "eval", "accuracy": 0.936, "correct_gcds": [1, 2, 3]}
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text(f"{json.dumps(start)}\n{json.dumps(result)}\n")
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "log.jsonl").write_text(
        '{"event": "start", "task": "eigen"}\n{"event": "eval", "accuracy": 0.99}')  # no GCDs
    text = "\n".join(gcd.table(sorted(tmp_path.iterdir())))
    uniform, log_uniform = text.split("Log-uniform operands")
    rows = [line.split() for line in uniform.splitlines() if "base" in line]
    assert rows == [["base", "9", "93.6", "(-)", "3", "(-)"],
                    ["base", "30", "93.6", "(94.7)", "3", "(27)"]]
    assert "93.6 (98.2)     3 (56)" in log_uniform
