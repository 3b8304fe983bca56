"""model.py promises: it is the transformer of torch.nn, and its search finds the best words."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import model as model_file
from model import Transformer

PAD, BOS, EOS = range(3)
ROOT = Path(model_file.__file__).parent


def make(src_words=11, tgt_words=7, src_len=9, tgt_len=6, dim=16, heads=4, enc=2, dec=2, seed=0):
    torch.manual_seed(seed)
    model = Transformer(src_words, tgt_words, src_len, tgt_len, dim, heads, enc, dec, PAD, BOS, EOS)
    for parameter in model.parameters():  # away from the initial zeros and ones, and opinionated
        nn.init.normal_(parameter, std=0.5)
    return model


def sources(n=8, words=11, length=9):
    """Random sources of different lengths, padded."""
    src = torch.randint(3, words, (n, length))
    return src.masked_fill(torch.arange(length) >= torch.randint(1, length + 1, (n, 1)), PAD)


def copy_attention(ours, theirs):
    parts = ours.query, ours.key, ours.value
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts]).data
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts]).data
    theirs.out_proj.load_state_dict(ours.out.state_dict())


def copy_layer(ours, theirs):
    copy_attention(ours.attention, theirs.self_attn)
    if hasattr(ours, "cross_attention"):
        copy_attention(ours.cross_attention, theirs.multihead_attn)
        theirs.norm3.load_state_dict(ours.norm3.state_dict())
    theirs.norm1.load_state_dict(ours.norm1.state_dict())
    theirs.norm2.load_state_dict(ours.norm2.state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward[2].state_dict())


def test_same_outputs_as_torch_transformer_with_the_same_weights():
    model = make(enc=3, dec=2)
    reference = nn.Transformer(16, 4, 3, 2, 64, dropout=0.0, norm_first=True, batch_first=True)
    for ours, theirs in zip([*model.encoder, *model.decoder],
                            [*reference.encoder.layers, *reference.decoder.layers]):
        copy_layer(ours, theirs)
    reference.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
    reference.decoder.norm.load_state_dict(model.decoder_norm.state_dict())

    src, tgt = sources(), torch.randint(0, 7, (8, 5))
    padding = src == PAD
    out = reference(
        model.src_embedding(src) + model.src_position.weight,
        model.tgt_embedding(tgt) + model.tgt_position.weight[:5],
        tgt_mask=torch.ones(5, 5).triu(diagonal=1).bool(),
        src_key_padding_mask=padding, memory_key_padding_mask=padding)
    expected = out @ model.tgt_embedding.weight.T  # the output layer is the target embedding
    torch.testing.assert_close(model(src, tgt), expected, rtol=1e-4, atol=1e-4)


def test_padding_changes_nothing():
    model, src, tgt = make(), sources(1, length=5), torch.randint(0, 7, (1, 4))
    padded = nn.functional.pad(src, (0, 4), value=PAD)
    torch.testing.assert_close(model(padded, tgt), model(src, tgt), rtol=1e-4, atol=1e-5)


def test_the_cache_changes_nothing():
    """Word by word with the cache, or all at once: the same logits."""
    model, src, tgt = make(), sources(), torch.randint(0, 7, (8, 6))
    memory, cache, logits = model.encode(src), None, []
    for t in range(6):
        step, cache = model.decode(tgt[:, t:t + 1], *memory, cache)
        logits.append(step)
    torch.testing.assert_close(torch.cat(logits, dim=1), model(src, tgt), rtol=1e-4, atol=1e-4)


def log_probability(model, src, words):
    """Of one translation (a list of words) of one source, word by word."""
    tgt = torch.tensor([[BOS, *words]])
    logp = model(src[None], tgt[:, :-1])[0].log_softmax(-1)
    return sum(logp[t, word].item() for t, word in enumerate(words))


def greedy(model, src):
    """The likeliest next word, again and again, without cache: the plainest decoder there is."""
    words = []
    while len(words) < model.tgt_len and EOS not in words:
        logits = model(src[None], torch.tensor([[BOS, *words]]))
        words.append(logits[0, -1].argmax().item())
    return words


def strip(words):
    """A row of generate -> the words up to <eos>."""
    words = words.tolist()
    return words[: words.index(EOS) + 1] if EOS in words else words


@pytest.mark.parametrize("seed", range(5))
def test_beam_1_is_greedy_decoding(seed):
    model = make(seed=seed)
    src = sources(16)
    words, logp = model.generate(src, beam=1)
    for i in range(16):
        assert strip(words[i, 0]) == greedy(model, src[i])
        expected = log_probability(model, src[i], strip(words[i, 0]))
        assert logp[i, 0].item() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_what_brute_force_finds(seed):
    """All translations of up to 3 words of 5: the beam returns them all, in the right order."""
    model, src = make(tgt_words=5, tgt_len=3, seed=seed), sources(3)
    every = [list(words) for n in (1, 2, 3) for words in itertools.product(range(5), repeat=n)
             if EOS not in words[:-1] and (words[-1] == EOS or n == 3)]
    words, logp = model.generate(src, beam=125)
    for i in range(3):
        score = {tuple(w): log_probability(model, src[i], w) / len(w) for w in every}
        best = sorted(score, key=score.get, reverse=True)
        found = [tuple(strip(w)) for w, p in zip(words[i], logp[i]) if p > -torch.inf]
        assert found[:1] == best[:1]
        assert len(found) == len(set(found)) == len(every)
        scores = [score[w] for w in found]
        assert scores == pytest.approx(sorted(scores, reverse=True), abs=1e-5)


@pytest.mark.parametrize("beam", [1, 3, 10])
def test_batched_search_is_one_at_a_time_search(beam):
    model, src = make(seed=3), sources(12)
    words, logp = model.generate(src, beam)
    assert words.shape == (12, beam, 6) and logp.shape == (12, beam)
    for i in range(12):
        alone = src[i:i + 1, : (src[i] != PAD).sum()]  # without the batch's padding
        words_alone, logp_alone = model.generate(alone, beam)
        assert words_alone[0].tolist() == words[i].tolist()
        torch.testing.assert_close(logp_alone[0], logp[i], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(model.generate(src, beam, chunk=2 * beam)[1], logp)


def search_and_count(model, src, beam):
    """generate, and for how many problems it asked the decoder for each word."""
    asked, decode = [], model.decode
    model.decode = lambda last, *args: asked.append(len(last) // beam) or decode(last, *args)
    found = model.generate(src, beam)
    model.decode = decode
    return found, asked


@pytest.mark.parametrize("seed", range(5))
def test_the_search_stops_when_no_live_hypothesis_can_win_and_not_before(seed, monkeypatch):
    """It asks for fewer words than fit, of each problem as many as that one needs, and finds what a
    search that never stops early finds."""
    model, src = make(tgt_len=40, seed=seed), sources(4)
    model.tgt_embedding.weight.data[EOS] += 4 * model.decoder_norm.bias.data  # it likes to end
    (tokens, logp), asked = search_and_count(model, src, beam=3)
    needed = [len(search_and_count(model, one, beam=3)[1]) for one in src.split(1)]
    assert asked == [sum(n >= length for n in needed) for length in range(1, max(needed) + 1)]
    assert len(asked) < 40
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "nonzero", lambda self: torch.arange(len(self))[:, None])
        (all_tokens, all_logp), asked = search_and_count(model, src, beam=3)
    assert asked == 40 * [4]
    assert tokens.tolist() == all_tokens.tolist() and torch.equal(logp, all_logp)


def test_translations_come_best_first_and_none_twice():
    words, logp = make(tgt_len=4, seed=2).generate(sources(6), beam=20)
    for row, p in zip(words, logp):
        found = [tuple(strip(w)) for w in row]
        assert len(set(found)) == 20
        scores = [q.item() / len(w) for w, q in zip(found, p)]
        assert scores == sorted(scores, reverse=True)


def test_gradients_reach_every_parameter():
    model = make()
    model(sources(), torch.randint(0, 7, (8, 6))).logsumexp(-1).sum().backward()
    for name, p in model.named_parameters():  # but a shift of all keys moves no attention
        assert name.endswith("key.bias") or p.grad.abs().sum() > 0, name


def test_bad_sizes_are_a_clear_error():
    with pytest.raises(ValueError, match="3 heads do not divide dimension 64"):
        make(dim=64, heads=3)
    with pytest.raises(ValueError, match="source of 10 words; the model takes 9"):
        make()(sources(length=10), torch.ones(8, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="target of 7 words; the model takes 6"):
        make()(sources(), torch.ones(8, 7, dtype=torch.int64))


def test_the_model_knows_no_maths():
    """It imports torch, and no file of this repo."""
    code = ("import sys, torch; before = {*sys.modules}; import model\n"
            "print(*sorted(sys.modules.keys() - before))")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout.split() == ["model"], result.stderr
