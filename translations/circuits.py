"""Simplify quantum circuits: H1 T2 T2 H1 => S2.

    python train.py --task circuits
    python train.py --task circuits --ask "H1 T2 T2 H1"

A circuit of two qubits is a row of gates, the first one first: H1 is H on qubit 1; CX12 flips qubit
2 where qubit 1 is 1. With H, S, T and CX (Clifford+T) one comes as near to any circuit as one
likes. The solution is a shortest circuit with the same matrix up to a phase. Problems are made
backward: in a shortest circuit, short pieces are replaced, again and again, by others with the same
matrix, most of them longer.

Paper: Charton, Krajenbrink, Meichanetzidis and Yeung, "Teaching small transformers to rewrite ZX
diagrams", MATH-AI workshop, NeurIPS 2023. Here are circuits, which are rows of words, and not the
paper's ZX diagrams, which are graphs and can be more than circuits.

>>> task = Circuits()
>>> source, target = task.batch(1, torch.Generator().manual_seed(1))
>>> task.source.text(source[0]), task.target.text(target[0])
('H2 H1 H1 CX21 T2 H2', '<bos> H2 T2 CX21 H2')
"""

from functools import cache

import torch

from task import Task
from tokenizers import PAD, Vocabulary, close_gaps

GATES = ["H1", "H2", "S1", "S2", "T1", "T2", "CX12", "CX21"]  # numbers 1 to 8; 0, PAD, is a gap
SHORT = 4  # gates of a solution, at most, and the places of a piece that is replaced
LONG, REPLACED = 12, 10  # gates of a problem, at most, and pieces that are replaced


@cache
def matrices():
    """Those of a gap, which does nothing, and of the gates: (9, 4, 4)."""
    h, s, t = torch.tensor([[[1, 1], [1, -1]], [[1, 0], [0, 1j]], [[1, 0], [0, 1j**0.5]]],
                           dtype=torch.complex128)
    i, four = torch.eye(2), torch.eye(4).to(h)
    ones = [torch.kron(*pair) for m in (h / 2**0.5, s, t) for pair in ((m, i), (i, m))]
    return torch.stack([four, *ones, four[[0, 1, 3, 2]], four[[0, 3, 2, 1]]])


def unitary(circuits):
    """Circuits (n, k) -> their matrices (n, 4, 4). Each gate multiplies from the left."""
    u = torch.eye(4, dtype=torch.complex128).expand(len(circuits), 4, 4)
    for gate in matrices()[circuits].unbind(1):
        u = gate @ u
    return u


def keys(circuits):
    """Circuits (n, k) -> integers (n, 32), the same for those with the same matrix up to a phase:
    its entries in thousandths, after the first one that is not 0 was made positive."""
    u = unitary(circuits).flatten(1)
    first = u.gather(1, (u.abs() > 1e-6).byte().argmax(dim=1, keepdim=True))
    return (1000 * torch.view_as_real(u * first.conj() / first.abs())).round().long().flatten(1)


@cache
def table():
    """All rows of SHORT gates and gaps, (9**SHORT, SHORT), those of one kind, with the same key,
    together, the shortest of them first; kind[a, b, c, d], the kind of the row a, b, c, d; and for
    each kind, where its rows start, how many they are, and the key."""
    rows = torch.cartesian_prod(*[torch.arange(len(GATES) + 1)] * SHORT)
    key, kind, count = keys(rows).unique(dim=0, return_inverse=True, return_counts=True)
    order = (kind * LONG + (rows != 0).sum(dim=1)).argsort(stable=True)
    return rows[order], kind.view([9] * SHORT), count.cumsum(dim=0) - count, count, key


class Gates(Vocabulary):
    """Gates as words."""

    def encode(self, circuits):
        return torch.where(circuits > 0, circuits + self.number[GATES[0]] - 1, PAD)


class Circuits(Task):
    """Circuits of two qubits, and the shortest that do the same."""

    scales = Task.scales | {"laptop": dict(
        dim=64, heads=4, enc_layers=2, dec_layers=1, batch_size=256, epochs=8, epoch_size=100_000,
        optimizer="muon", lr=2e-3, warmup=500, test_size=2000)}
    name, title = "circuits", "The shortest circuit of two qubits that does the same"
    source = target = Gates(GATES)
    src_len, tgt_len = LONG, SHORT + 1

    def sample(self, n, generator):
        """n circuits (n, LONG), their gaps at the end, and the shortest ones (n, SHORT)."""
        def random(*size):  # of 64 bits, so that all rows are as likely
            return torch.rand(*size, dtype=torch.float64, generator=generator, device=device)
        device = generator.device
        rows, kind, start, count, _ = (part.to(device) for part in table())
        solutions = close_gaps(rows[start[(random(n) * len(start)).long()]])
        # Spread the gates of each over its first places, of which there are LONG / 2 to LONG.
        places = LONG // 2 + (random(n, 1) * (LONG // 2 + 1)).long()
        outside = torch.arange(LONG, device=device) >= places
        spread = random(n, LONG).masked_fill(outside, -1).topk(SHORT).indices.sort().values
        circuits = solutions.new_zeros(n, LONG).scatter(1, spread, solutions)
        for _ in range(REPLACED):  # a piece becomes any row of its kind, most of them longer
            first = (random(n, 1) * (places - SHORT + 1)).long()
            piece = first + torch.arange(SHORT, device=device)
            k = kind[circuits.gather(1, piece).unbind(1)]
            circuits = circuits.scatter(1, piece, rows[start[k] + (random(n) * count[k]).long()])
        circuits[~circuits.any(dim=1), :2] = 1  # no gate at all: the model needs some, H1 H1
        return close_gaps(circuits), solutions

    def shortest(self, circuit):
        """The shortest circuit with the same matrix; None where it has more than SHORT gates."""
        rows, _, start, _, key = table()
        found = rows[start[(key == keys(torch.tensor([circuit]).long())).all(dim=1)]]
        return [gate for gate in found[0].tolist() if gate] if len(found) else None

    def read(self, text):
        """ "H1 T2 T2 H1" -> [1, 6, 6, 1]"""
        words = text.split()
        if not 0 < len(words) <= LONG or not {*words} <= {*GATES}:
            raise ValueError(f"{text!r}: up to {LONG} gates are a problem, of {' '.join(GATES)}")
        problem = [GATES.index(word) + 1 for word in words]
        if self.shortest(problem) is None:
            raise ValueError(f"{text!r} has no circuit of up to {SHORT} gates, as problems have")
        return problem

    def show(self, problem):
        return self.source.text(self.source.encode(torch.tensor(problem)).tolist())

    def judge(self, problem, words):
        """Right if the matrix is the problem's, up to a phase, and no circuit is shorter."""
        if not {*words.split()} <= {*GATES}:
            return None, False
        answer = [GATES.index(word) + 1 for word in words.split()]
        shortest = self.shortest(problem)
        right = self.shortest(answer) == shortest and len(answer) == len(shortest)
        return words or "no gate", right
