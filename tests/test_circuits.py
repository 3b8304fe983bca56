"""Circuits: their matrices are SymPy's, solutions are as short as a breadth-first search finds, and
answers are judged by matrix and length."""

import random
from functools import reduce

import numpy as np
import pytest
import torch
from sympy.physics.quantum.gate import HadamardGate, PhaseGate, TGate

from task import held_out
from translations import circuits
from translations.circuits import GATES, LONG, SHORT, Circuits


def sympy_matrix(gate):
    """The 4x4 matrix of a gate as NumPy's, qubit 1 the left factor."""
    if gate.startswith("CX"):
        flipped = {"CX12": [0, 1, 3, 2], "CX21": [0, 3, 2, 1]}[gate]  # 00, 01, 10, 11 become this
        return np.array([[flipped[j] == i for j in range(4)] for i in range(4)], complex)
    one = {"H": HadamardGate, "S": PhaseGate, "T": TGate}[gate[0]](0).get_target_matrix()
    one = np.array(one.evalf(20).tolist(), complex)
    return np.kron(one, np.eye(2)) if gate[1] == "1" else np.kron(np.eye(2), one)


TRUE = {gate: sympy_matrix(gate) for gate in GATES}


def matrix(words):
    return reduce(lambda u, gate: TRUE[gate] @ u, words.split(), np.eye(4, dtype=complex))


def same(u, v):
    """u = phase * v, with the phase read off the largest entry of v."""
    place = np.unravel_index(np.abs(v).argmax(), v.shape)
    phase = u[place] / v[place]
    return np.isclose(abs(phase), 1) and np.allclose(u, phase * v)


def fingerprint(u):
    """Equal for matrices that are equal up to a phase: u_ij times the conjugate of all u_kl."""
    return np.outer(u, u.conj()).round(6).tobytes().replace(np.float64(-0.0).tobytes(), bytes(8))


@pytest.fixture(scope="module")
def lengths():
    """Breadth first: the least number of gates for each matrix, up to three gates."""
    found, layer = {fingerprint(np.eye(4, dtype=complex)): 0}, [np.eye(4, dtype=complex)]
    for length in (1, 2, 3):
        following = []
        for u in layer:
            for gate in TRUE.values():
                if (name := fingerprint(gate @ u)) not in found:
                    found[name] = length
                    following.append(gate @ u)
        layer = following
    return found


def drawn(n=300, seed=0):
    task = Circuits()
    problems, solutions = task.draw(n, torch.Generator().manual_seed(seed))
    return task, problems, [task.target.text(row) for row in task.target.encode(solutions).tolist()]


def test_matrices_are_those_of_sympy():
    for gate, u in zip(GATES, circuits.matrices()[1:]):
        assert np.allclose(u.numpy(), TRUE[gate])
    rows = torch.randint(9, (50, 7))
    for row, u in zip(rows.tolist(), circuits.unitary(rows)):
        assert np.allclose(u.numpy(), matrix(" ".join(GATES[gate - 1] for gate in row if gate)))


def test_solutions_have_the_matrix_of_their_problem_and_are_judged_right():
    task, problems, solutions = drawn()
    for problem, words in zip(problems.tolist(), solutions):
        assert same(matrix(task.show(problem)), matrix(words))
        assert task.judge(problem, words) == (words or "no gate", True)


def test_the_answer_to_another_problem_is_wrong():
    task, problems, solutions = drawn()
    wrong = 0
    for problem, words in zip(problems[1:].tolist(), solutions):
        right = same(matrix(task.show(problem)), matrix(words))
        assert task.judge(problem, words)[1] == right
        wrong += not right
    assert wrong > 280


def test_short_solutions_are_the_shortest(lengths):
    """Also of the matrices that need more than three gates none has fewer in the search."""
    task, rng = Circuits(), random.Random(0)
    for _ in range(400):
        words = " ".join(rng.choices(GATES, k=rng.randrange(1, 9)))
        best = task.shortest([GATES.index(gate) + 1 for gate in words.split()])
        expected = lengths.get(fingerprint(matrix(words)))
        if expected is None:
            assert best is None or len(best) == 4
        else:
            assert len(best) == expected
        assert best is None or same(matrix(task.show(best)), matrix(words))


def test_the_table_has_one_matrix_for_each_that_the_search_finds(lengths):
    rows, _, start, count, _ = circuits.table()
    unitaries = circuits.unitary(rows[start])
    sizes = (rows[start] != 0).sum(dim=1)
    assert len(rows) == 9**SHORT == count.sum()
    for length in range(4):
        assert (sizes == length).sum() == [*lengths.values()].count(length)
    overlap = (unitaries[::4].flatten(1).conj() @ unitaries.flatten(1).T).abs()
    assert ((overlap > 4 - 1e-3).sum(dim=1) == 1).all()  # no two are near each other


def test_rounding_of_keys_is_safe():
    """No entry times 1000 lies near a half, where two roundings of one number might differ."""
    rows, _, start, *_ = circuits.table()
    u = circuits.unitary(rows[start])
    first = u.flatten(1).gather(1, (u.flatten(1).abs() > 1e-6).byte().argmax(1, keepdim=True))
    entries = 1000 * torch.view_as_real(u.flatten(1) * first.conj() / first.abs())
    assert ((entries - entries.floor() - 0.5).abs() > 1e-6).all()


@pytest.mark.parametrize("problem, answer, right", [
    ("H1 T2 T2 H1", "S2", True), ("H1 T2 T2 H1", "T2 T2", False), ("H1 T2 T2 H1", "S1", False),
    ("S1 S1 H1 S1 S1 H1 S1 S1 H1 S1 S1 H1", "", True),  # Z X Z X = -1: a phase
    ("H1 H1", "", True), ("H1 H1", "H1 H1", False), ("S1 S1 S1 S1", "", True),
    ("T1 T2", "T2 T1", True), ("H1 H2 CX12 H1 H2", "CX21", True),
    ("CX12 CX21 CX12", "CX21 CX12 CX21", True), ("CX12 CX21", "CX21 CX12", False),
    ("H1", "", False), ("H1", "H1 <bos>", False), ("H1", "H1 <pad> H1 H1", False)])
def test_identities(problem, answer, right):
    task = Circuits()
    assert task.judge(task.read(problem), answer)[1] is right


def test_problems_are_longer_than_solutions_and_fit_the_model():
    task, problems, solutions = drawn(3000)
    sizes = (problems != 0).sum(dim=1)
    assert problems.shape == (3000, LONG) and sizes.min() > 0 and sizes.max() == LONG
    assert (problems != 0).diff(dim=1).sum() == (sizes < LONG).sum()  # gaps at the end alone
    shorter = torch.tensor([len(words.split()) for words in solutions])
    assert (sizes >= shorter).all() and shorter.max() == SHORT
    assert (sizes > shorter).double().mean() > 0.8
    source, target = task.batch(3000, torch.Generator().manual_seed(0))
    assert source.size(1) == task.src_len and target.size(1) == task.tgt_len + 1
    assert (source[:, 0] != 0).all()


def test_no_test_problem_is_trained_on():
    task = Circuits(test_size=300)
    assert held_out(task.tests["new problems"]).all()
    assert not held_out(drawn(1000)[1]).any()


def test_what_is_asked():
    task = Circuits()
    assert task.read(" H1  T2 T2 H1") == [1, 6, 6, 1]
    for problem in drawn(50)[1].tolist():
        assert task.read(task.show(problem)) == [gate for gate in problem if gate]


@pytest.mark.parametrize("text", ["", "X1", "H1 H3", "h1", "0", "<pad>", " ".join(17 * ["H1"]),
                                  "T1 H1 T1 H1 T1 H1 T1 H1"])
def test_what_is_no_problem_is_a_clear_error(text):
    with pytest.raises(ValueError, match="gates are a problem|no circuit of up to"):
        Circuits().read(text)
