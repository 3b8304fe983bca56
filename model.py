"""The model: an encoder-decoder transformer and its beam search, written from scratch.

It translates a sequence of integers (the problem) into another (the solution). It knows no maths:
it imports torch and nothing else, and it never learns what its integers stand for.

    source  + 1 0 + 3 2              + 2 <eos>   target, one word at a time
                 |                       ^
            embeddings                   |
                 |                     words
        [encoder layer] x N              |
                 |        memory  [decoder layer] x M
                 +--------------->       |
                                     embeddings
                                         |
                                    <bos> + 2    target so far

Slide: "Training models". References: Vaswani et al. 2017 (the transformer, arXiv 1706.03762); Xiong
et al. 2020 (the norm comes first, 2002.04745); Press & Wolf 2017 (output embedding, 1608.05859).

>>> model = Transformer(src_words=15, tgt_words=15, src_len=16, tgt_len=9, dim=64, heads=4,
...                     enc_layers=1, dec_layers=1, pad=0, bos=1, eos=2)
>>> sum(p.numel() for p in model.parameters())
120512
"""

import torch
from torch import nn


class Attention(nn.Module):
    """Multi-head attention: softmax(q k / sqrt(d)) v in each head (Vaswani et al., section 3.2)."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def split(self, x):
        """(batch, time, dim) -> (batch, heads, time, dim / heads)"""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def keys_values(self, x):
        """What the words of x offer to those who attend to them."""
        return self.split(self.key(x)), self.split(self.value(x))

    def weights(self, x, keys, mask):
        """How much each word of x attends to each key: (batch, heads, keys, queries).

                    queries
                  +--------      The weights of a query are a column, and add up to 1. Most books
            keys  |   |   |      have them in a row. On a CPU a softmax down columns is faster,
                  |   v   v      where rows have a dozen words: it saves 10% of a training step.

        mask broadcasts to this; it is 0 where x may look and -inf where not.
        """
        queries = self.split(self.query(x)) * keys.size(-1) ** -0.5
        return (keys @ queries.transpose(-2, -1) + mask).softmax(dim=-2)

    def forward(self, x, keys, values, mask):
        """The mean of the values, by these weights: (batch, queries, dim)."""
        y = self.weights(x, keys, mask).transpose(-2, -1) @ values
        return self.out(y.transpose(1, 2).flatten(2))


def feed_forward(dim):
    """Two layers at each position by itself (Vaswani et al., section 3.3)."""
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))


class EncoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): with the norm before each block,
    gradients have a direct path to every layer, and the model learns faster."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.feed_forward = nn.LayerNorm(dim), feed_forward(dim)

    def forward(self, x, mask):
        h = self.norm1(x)
        x = x + self.attention(h, *self.attention.keys_values(h), mask)
        return x + self.feed_forward(self.norm2(x))


class DecoderLayer(nn.Module):
    """As the encoder layer, with a look at the problem (cross-attention) in between."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.cross_attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm3, self.feed_forward = nn.LayerNorm(dim), feed_forward(dim)

    def forward(self, x, past, causal_mask, memory, memory_mask):
        """past: keys and values of the words before x, or None. memory: those of the problem. ->
        the new x, and the keys and values up to its end, the past of the next call."""
        h = self.norm1(x)
        present = self.attention.keys_values(h)
        if past is not None:
            present = [torch.cat(pair, dim=2) for pair in zip(past, present)]
        x = x + self.attention(h, *present, causal_mask)
        # In beam search k translations share a problem: for the memory they are k words of one row.
        h = self.norm2(x).view(len(memory_mask), -1, x.size(-1))
        x = x + self.cross_attention(h, *memory, memory_mask).view(x.shape)
        return x + self.feed_forward(self.norm3(x)), present


class Transformer(nn.Module):
    """Translates sequences of src_words words into sequences of tgt_words words.

    src_len, tgt_len: the most words of a source, and of a target with its end word. pad, bos, eos:
    the words, of both vocabularies, that fill up, begin and end a sequence. word_std: the deviation
    of words' embeddings at the start; None is 1 / sqrt(dim). Rare words keep much of this noise.
    """

    def __init__(self, src_words, tgt_words, src_len, tgt_len, dim, heads, enc_layers, dec_layers,
                 pad, bos, eos, word_std=None):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide dimension {dim}")
        self.pad, self.bos, self.eos, self.src_len, self.tgt_len = pad, bos, eos, src_len, tgt_len
        self.src_embedding = nn.Embedding(src_words, dim)
        self.tgt_embedding = nn.Embedding(tgt_words, dim)  # also the output layer
        self.src_position = nn.Embedding(src_len, dim)
        self.tgt_position = nn.Embedding(tgt_len, dim)
        self.encoder = nn.ModuleList(EncoderLayer(dim, heads) for _ in range(enc_layers))
        self.decoder = nn.ModuleList(DecoderLayer(dim, heads) for _ in range(dec_layers))
        self.encoder_norm, self.decoder_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        for embedding, std in [(self.src_embedding, word_std), (self.tgt_embedding, word_std),
                               (self.src_position, None), (self.tgt_position, None)]:
            nn.init.normal_(embedding.weight, std=std or dim**-0.5)

    def encode(self, src):
        """src (batch, time) -> its keys and values for each decoder layer, and its padding mask."""
        if src.size(1) > self.src_len:
            raise ValueError(f"a source of {src.size(1)} words; the model takes {self.src_len}")
        mask = torch.where(src == self.pad, -torch.inf, 0.0)[:, None, :, None]  # heads, queries
        x = self.src_embedding(src) + self.src_position.weight[: src.size(1)]
        for layer in self.encoder:
            x = layer(x, mask)
        x = self.encoder_norm(x)
        return [layer.cross_attention.keys_values(x) for layer in self.decoder], mask

    def decode(self, tgt, memory, memory_mask, cache=None):
        """tgt (batch, time) -> logits (batch, time, tgt_words) of each next word, and the cache:
        per layer, the keys and values of the words so far. tgt may have k rows for each row of the
        memory: k translations of one problem."""
        cache = cache or [None] * len(self.decoder)
        start = 0 if cache[0] is None else cache[0][0].size(2)
        stop = start + tgt.size(1)
        if stop > self.tgt_len:
            raise ValueError(f"a target of {stop} words; the model takes {self.tgt_len}")
        x = self.tgt_embedding(tgt) + self.tgt_position.weight[start:stop]
        causal_mask = x.new_full((stop, stop - start), -torch.inf).tril(-1 - start)
        new_cache = []
        for layer, past, keys_values in zip(self.decoder, cache, memory):
            x, present = layer(x, past, causal_mask, keys_values, memory_mask)
            new_cache.append(present)
        return self.decoder_norm(x) @ self.tgt_embedding.weight.T, new_cache

    def forward(self, src, tgt):
        """Logits (batch, time, tgt_words) of the word after each word of tgt, all at once."""
        with torch.autocast("cuda", torch.bfloat16, enabled=src.is_cuda):  # for matrix products
            return self.decode(tgt, *self.encode(src))[0]

    @torch.no_grad()
    def generate(self, src, beam=1, chunk=2048):
        """The `beam` best translations of each row of src, best first: words and log-probability.

        src (n, time) -> LongTensor (n, beam, tgt_len), without <bos>, padded after <eos>, and
        FloatTensor (n, beam), -inf where there are fewer translations. chunk: how many are searched
        for at a time; problems of similar lengths go together.
        """
        src = src.to(self.src_embedding.weight.device)
        order = (src != self.pad).sum(dim=1).argsort(stable=True)
        with torch.autocast("cuda", torch.bfloat16, enabled=src.is_cuda):
            parts = [self.beam_search(src[i], beam) for i in order.split(max(1, chunk // beam))]
        return tuple(torch.cat(part)[order.argsort()] for part in zip(*parts))

    def beam_search(self, src, beam):
        """Keep the `beam` likeliest beginnings, grow each by a word; beam 1 is greedy decoding.

        Translations compare by log-probability / length. A problem's search stops when no live one
        can still beat a finished one: its log-probability can only fall, its length is bounded.
        """
        (memory, mask), cache = self.encode(src[:, (src != self.pad).any(dim=0)]), None
        rows = torch.arange(len(src), device=src.device)  # problems whose search goes on
        tokens = src.new_full((len(src), beam, self.tgt_len), self.pad)
        live = torch.full(tokens.shape[:2], -torch.inf, device=src.device)
        done, done_logp, done_score = tokens.clone(), live.clone(), live.clone()
        live[:, 0] = 0.0  # one empty beginning; the others would be its copies
        last = src.new_full((len(src) * beam, 1), self.bos)
        for length in range(1, self.tgt_len + 1):
            logits, cache = self.decode(last, memory, mask, cache)
            logp = logits[:, -1].float().log_softmax(dim=-1).unflatten(0, (-1, beam))
            live, best = (live[:, :, None] + logp).flatten(1).topk(beam)
            parent, word = best // logp.size(-1), best % logp.size(-1)
            tokens = tokens.take_along_dim(parent[:, :, None], dim=1)
            tokens[:, :, length - 1] = word

            ended = (word == self.eos) | (length == self.tgt_len)
            logp, live = live.masked_fill(~ended, -torch.inf), live.masked_fill(ended, -torch.inf)
            done_score[rows], keep = torch.cat([done_score[rows], logp / length], dim=1).topk(beam)
            done_logp[rows] = torch.cat([done_logp[rows], logp], dim=1).gather(1, keep)
            done[rows] = torch.cat([done[rows], tokens], 1).take_along_dim(keep[:, :, None], 1)
            on = (live.amax(1) / self.tgt_len > done_score[rows].amin(1)).nonzero().flatten()
            if not len(on):
                break
            past = (parent[on] + beam * on[:, None]).flatten()
            cache = [[x[past] for x in layer] for layer in cache]
            memory = [[x[on] for x in layer] for layer in memory]
            rows, live, tokens, mask = (x[on] for x in (rows, live, tokens, mask))
            last = word[on].view(-1, 1)
        return done, done_logp
