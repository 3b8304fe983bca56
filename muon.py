"""Muon: an optimizer for the matrices inside the layers.

Adam scales each weight's step by itself. Muon takes the whole matrix: it averages its gradients, as
momentum does, and makes all singular values of the average about 1. So a weak direction of the
gradient counts as much as a strong one, and what rarely matters is learned sooner.

References: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Liu et
al. 2025, arXiv 2502.16982 (section 2.2: a step is scaled so that it is as large as Adam's).

>>> x = orthogonal(torch.tensor([[[3.0, 0.0], [0.0, 0.1]]]))[0]
>>> round(x[0, 0].item(), 1), round(x[1, 1].item(), 1)
(0.7, 1.1)
"""

import torch

MOMENTUM = 0.95


def orthogonal(x):
    """Matrices (n, rows, columns) -> the same, their singular values brought near 1: 0.7 to 1.2.

    Newton and Schulz's iteration: p(s) = a s + b s^3 + c s^5, of all singular values at once, by
    matrix products alone. Jordan's a, b and c bring small values up fastest.
    """
    if x.size(-2) > x.size(-1):
        return orthogonal(x.mT).mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # no singular value is above 1
    for _ in range(5):
        y = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(y, y, y, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


class Muon(torch.optim.Optimizer):
    """Muon for these matrices; those of one shape are stepped together."""

    def __init__(self, matrices, lr=1e-3):
        shapes = {}
        for p in matrices:
            shapes.setdefault(p.shape, []).append(p)
        super().__init__([{"params": same} for same in shapes.values()], {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            same, first = group["params"], group["params"][0]
            gradients = torch.stack([p.grad for p in same])
            average = self.state[first].setdefault("average", torch.zeros_like(gradients))
            average.lerp_(gradients, 1 - MOMENTUM)
            updates = orthogonal(gradients.lerp(average, MOMENTUM))  # Nesterov's: a look ahead
            size = 0.2 * max(first.shape) ** 0.5 * group["lr"]  # an entry's, as in Adam: 0.2 lr
            for p, update in zip(same, updates):
                p.sub_(update, alpha=size)
