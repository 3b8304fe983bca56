"""bench.py promises: what it compares does the same work, and what it counts is all of it."""

import re

import pytest
import torch

import bench
import integrate
import train

TINY = ("--task gcd --base 6 --max-int 200 --dim 16 --heads 2 --enc-layers 2 --dec-layers 3 "
        "--batch-size 16 --epochs 2 --epoch-size 64 --warmup 1 --test-size 50 --device cpu")
ADAM = TINY + " --optimizer adam"


def test_the_reference_has_our_parameters_and_no_others():
    (_, _, ours, _), (_, _, theirs, _) = bench.make_training(ADAM), bench.make_training(ADAM, True)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (ours, theirs)]
    assert sizes[0] == sizes[1]
    layers = theirs.transformer
    assert len(layers.encoder.layers) == 2 and len(layers.decoder.layers) == 3
    assert len(theirs.encoder) == len(theirs.decoder) == 0  # none of ours


def test_the_reference_is_torchs_transformer():
    """Between the embeddings, what torch.nn.Transformer makes of them as a whole."""
    *_, theirs, _ = bench.make_training(ADAM, reference=True)
    src, tgt = torch.randint(3, 9, (9, 7)), torch.randint(3, 9, (9, 4))
    src[:4, 5:] = bench.PAD
    y = theirs.transformer(
        theirs.src_embedding(src) + theirs.src_position.weight[:7],
        theirs.tgt_embedding(tgt) + theirs.tgt_position.weight[:4],
        tgt_mask=torch.ones(4, 4).triu(diagonal=1).bool(),
        src_key_padding_mask=src == bench.PAD, memory_key_padding_mask=src == bench.PAD)
    torch.testing.assert_close(theirs(src, tgt), y @ theirs.tgt_embedding.weight.T)


def test_the_reference_is_given_the_same_batches(monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train_step", lambda model, optimizers, *batch: seen.append(batch)
                        or torch.zeros(()))
    for reference in (False, True):
        train.train_epoch(*bench.make_training(ADAM, reference), 1, 4)
    for (src, tgt, lr), other in zip(seen[:4], seen[4:], strict=True):
        assert src.equal(other[0]) and tgt.equal(other[1]) and lr == other[2]


def test_the_reference_translates_word_by_word():
    """Its greedy search finds what it says is likeliest, and nothing that it could not see."""
    *_, theirs, _ = bench.make_training(ADAM, reference=True)
    src = torch.randint(3, 9, (9, 7))
    words = theirs.generate(src)[0][:, 0]
    padded = torch.nn.functional.pad(src, (0, 1), value=bench.PAD)
    assert theirs.generate(padded)[0][:, 0].equal(words)
    logits = theirs(src, torch.cat([torch.full((9, 1), bench.BOS), words[:, :-1]], dim=1))
    written = words != bench.PAD
    assert written.any() and logits.argmax(dim=-1)[written].equal(words[written])


@pytest.mark.parametrize("flags", bench.SPEEDS)
def test_both_models_have_one_optimizer(flags):
    (ours,), (theirs,) = (bench.make_training(f"{flags} --dim 16 --optimizer adam", reference)[-1]
                          for reference in (False, True))
    assert type(ours) is type(theirs) is torch.optim.Adam
    assert ours.defaults == theirs.defaults and ours.defaults["fused"]
    assert sum(p.numel() for p in ours.param_groups[0]["params"]) == sum(
        p.numel() for p in theirs.param_groups[0]["params"])


@pytest.mark.parametrize("targets, budget, flags", bench.RESULTS)
def test_results_are_those_of_the_defaults(targets, budget, flags):
    """But for shorter epochs, with as many examples in all, and for the tests."""
    args, _, _ = train.read_flags(flags.split())
    defaults, _, _ = train.read_flags(flags.partition(" --epochs")[0].split())
    changed = {name for name, value in train.config_of(args).items()
               if value != train.config_of(defaults)[name]}
    assert changed <= {"epochs", "epoch_size", "test_size", "test_dists"}
    assert args.epochs * args.epoch_size == defaults.epochs * defaults.epoch_size
    assert targets == sorted(targets) and args.optimizer == "muon"


def test_all_matrix_products_of_a_step_are_recorded():
    layers = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3))
    with bench.MatrixProducts() as products:
        layers(torch.randn(4, 5)).sum().backward()
    sizes = sorted(tuple(sorted({*a.shape, *b.shape}))
                   for _, args in products.calls for a, b in [args[-2:]])
    # forward, and backward for the weights of both layers and for the input of the second
    assert sizes == [(3, 4, 7)] * 3 + [(4, 5, 7)] * 2
    products.replay()


def test_learning_stops_at_the_last_target_or_when_time_is_over(monkeypatch, capsys):
    monkeypatch.setattr(bench, "timeit", lambda run, number: run() and 10.0)  # an epoch's seconds
    training = bench.make_training(TINY.replace("--epochs 2", "--epochs 50"))
    accuracies = iter([0.1, 0.6, 0.5, 0.7, 0.8, 0.9])
    monkeypatch.setattr(training[1], "evaluate", lambda model: {
        "accuracy_by_test": {"easy": {"1": 1.0}, "hard": {"1": next(accuracies)}}})
    assert bench.learn("ours", [0.5, 0.55, 0.7], 1000, *training) == 40
    assert bench.learn("theirs", [0.1, 0.99], 15, *training) == float("inf")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [" ".join(row) for row in rows] == [
        "ours 50% in 20.0 s, 128 examples", "ours 55% in 20.0 s, 128 examples",
        "ours 70% in 40.0 s, 256 examples",
        "theirs 10% in 10.0 s, 64 examples", "theirs 99% not in 20.0 s, 128 examples"]


def test_the_rows(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bench, "RESULTS", [([0.0, 1.1], 100, TINY)])
    monkeypatch.setattr(bench, "SPEEDS", [TINY])
    monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(bench, "TURNS", 3)
    bench.main([])
    out = capsys.readouterr().out
    assert len(re.findall(r"ours +0% +in +0.0 s, +0 examples", out)) == 1
    assert len(re.findall(r"nn.Transformer, [\de-]+ +110% +not in +[\d.]+ s, +128 exa", out)) == 3
    assert len(re.findall(r"ours [\d,]+ examples/s, nn.Transformer [\d,]+: [\d.]+ times", out)) == 1
    assert len(re.findall(r"\d+ matrix products alone take \d+% of our time", out)) == 1

    monkeypatch.setattr(integrate, "DATA", tmp_path)
    monkeypatch.setattr(integrate, "ATTEMPTS", {"bwd": (500, 500)})
    bench.main(["sympy", "--test-size", "5", "--max-ops", "2", "--workers", "1"])
    share, *unsolved = capsys.readouterr().out.partition("# bwd: ")[2].splitlines()
    assert share == f"SymPy solves {1 - len(unsolved) / 5:.1%} of 5"

    bench.main("beam --test-data bwd --test-size 20 --beam 1 5 --workers 1".split())
    one, five = re.findall(r"^bwd, beam [15]: (.*)% of 20, search [\d.]+ s, judging [\d.]+ s$",
                           capsys.readouterr().out, re.M)
    assert 60 < float(one) <= float(five)  # the model that comes with the code: 92% and more

    bench.main(["speed", "--batch-size", "8"])
    out = capsys.readouterr().out
    assert "--batch-size 8" in out and "times as fast" in out and " in " not in out
    for argv in (["chess"], ["speed", "--batch-size", "0"]):
        with pytest.raises(SystemExit) as stop:
            bench.main(argv)
        assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
