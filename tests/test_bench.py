"""bench.py promises: what it compares does the same work, and what it counts is all of it."""

import pytest
import torch

import bench
from model import Transformer


def small_model():
    torch.manual_seed(1)
    return Transformer(12, 12, 8, 7, 16, 2, 2, 2, pad=0, bos=1, eos=2)


def test_the_decoder_without_a_cache_says_the_same():
    model, src = small_model(), torch.randint(3, 12, (9, 8))
    for beam in (1, 4):
        words, logp = model.generate(src, beam)
        again, logp_again = bench.NoCache.of(model).generate(src, beam)
        assert words.equal(again) and torch.allclose(logp, logp_again, atol=1e-5)


def test_the_reference_has_our_parameters_and_no_others():
    model = small_model()
    reference = bench.Reference(model, 2)
    assert sum(p.numel() for p in reference.parameters()) == sum(
        p.numel() for p in model.parameters())
    src, tgt = torch.randint(3, 12, (9, 8)), torch.randint(3, 12, (9, 5))
    assert reference(src, tgt).shape == model(src, tgt).shape


def test_all_matrix_products_of_a_step_are_recorded():
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    with bench.MatrixProducts() as products:
        layers(torch.randn(4, 5)).sum().backward()
    sizes = sorted(tuple(sorted({*a.shape, *b.shape}))
                   for _, args in products.calls for a, b in [args[-2:]])
    # forward, and backward for the weights of both layers and for the input of the second
    assert sizes == [(3, 4, 7)] * 3 + [(4, 5, 7)] * 2
    products.replay()


@pytest.mark.parametrize("flags", bench.CASES.values())
def test_both_sides_of_a_row_have_one_optimizer(flags):
    """PyTorch's Adam, which the reference has."""
    assert bench.train.read_flags(flags.split())[0].optimizer == "adam"


def test_the_rows(monkeypatch, capsys):
    tiny = ("--task gcd --base 6 --max-int 200 --dim 16 --heads 2 --batch-size 16 --device cpu "
            "--optimizer adam")
    monkeypatch.setitem(bench.CASES, "gcd", tiny)
    monkeypatch.setattr(bench, "compare", lambda *f, budget=0: [bench.seconds(g, 2) for g in f])
    bench.main(["gcd"])
    out = capsys.readouterr().out
    assert out.count("times as fast") == 5 and out.count("MB") == 1
    with pytest.raises(SystemExit) as stop:
        bench.main(["chess"])
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
