"""muon.py promises: singular values near 1, vectors kept, and the steps of torch's own Muon."""

import pytest
import torch

import muon


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4)])
def test_singular_values_come_near_1_and_vectors_stay(shape):
    x = torch.randn(20, *shape, generator=torch.Generator().manual_seed(1))
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    inside = u.mT @ muon.orthogonal(x) @ vt.mT  # diagonal, in the singular vectors of x
    values = inside.diagonal(dim1=1, dim2=2)
    assert (inside - values.diag_embed()).abs().max() < 1e-3
    large = s > 0.05 * s[:, :1]
    assert values[large].min() > 0.6 and values.max() < 1.25 and values.min() > 0


def test_its_steps_are_torchs():
    """torch.optim.Muon works in bfloat16, of which two or three digits are right."""
    generator = torch.Generator().manual_seed(1)
    shapes = [(16, 16), (32, 16), (16, 64), (16, 16)]
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    optimizers = (muon.Muon(ours, lr=0.1),
                  torch.optim.Muon(theirs, lr=0.1, weight_decay=0, adjust_lr_fn="match_rms_adamw"))
    for _ in range(6):
        for p, q in zip(ours, theirs):
            p.grad = q.grad = torch.randn(p.shape, generator=generator)
        for optimizer in optimizers:
            optimizer.step()
    for p, q, p0 in zip(ours, theirs, start):
        assert (p - q).norm() < 0.05 * (p - p0).norm()
        assert (p - p0).norm() > 0.1


def test_it_goes_on_from_its_state():
    generator = torch.Generator().manual_seed(1)
    gradients = [torch.randn(8, 8, generator=generator) for _ in range(4)]

    def steps(p, optimizer, gradients):
        for p.grad in gradients:
            optimizer.step()

    whole, parts = (torch.nn.Parameter(torch.ones(8, 8)) for _ in range(2))
    steps(whole, muon.Muon([whole]), gradients)
    first = muon.Muon([parts])
    steps(parts, first, gradients[:2])
    second = muon.Muon([parts])
    second.load_state_dict(first.state_dict())
    steps(parts, second, gradients[2:])
    assert torch.equal(whole, parts)
