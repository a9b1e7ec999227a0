"""Training steps of the library's GPT-2, compiled. Layout and conventions: `loops`.

Tokens of a tile of samples lie position by position: token t is position t // n_lanes of sample t % n_lanes. So loops
over the samples of a tile are innermost in attention, too.
"""

import math

import numpy as np

from memorization.lab.compiled.loops import (
    add_outer,
    add_product,
    compiled,
    exp,
    gelu,
    gelu_back,
    linear,
    linear_back,
    norm,
    norm_back,
)
from memorization.lab.compiled.soap import soap

TILE = 48  # samples; more do not stay in the second cache
CHUNK_LOGITS = 2**15  # of the head at once: 128 kB
_LOWEST = np.float32(-3e38)  # fastmath knows no infinities


@compiled
def matrices(theta, vocab_size, seq_len, width, layers):
    """Views of the flat parameters, or of their gradients, in the order of the module's own."""
    v, s, d = vocab_size, seq_len, width
    token, position = theta[: v * d].reshape(v, d), theta[v * d : (v + s) * d].reshape(s, d)
    each = 12 * d * d + 13 * d
    blocks = theta[(v + s) * d : (v + s) * d + layers * each].reshape(layers, each)
    last = theta[(v + s) * d + layers * each :]
    return token, position, blocks, last[:d], last[d:]


@compiled
def part(block, begin, rows, columns):
    """A matrix within the parameters of a block."""
    return block[begin : begin + rows * columns].reshape(rows, columns)


@compiled
def repeat(x, first, q, lanes, out):
    """Rows of `out`: those of `x` from `first` on, at position q, once for each position up to q."""
    for c in range(len(out)):
        row, one = out[c], x[first + c, q * lanes : (q + 1) * lanes]
        for k in range(q + 1):
            there = row[k * lanes : (k + 1) * lanes]
            for g in range(lanes):
                there[g] = one[g]


@compiled
def add_dot(x, y, first, out):
    """`out += sum over the rows of x times those of y from `first` on`; four at once: `out` is touched less often."""
    n, channels, c = len(out), len(x), 0
    while c + 4 <= channels:
        x0, x1, x2, x3 = x[c], x[c + 1], x[c + 2], x[c + 3]
        y0, y1, y2, y3 = y[first + c], y[first + c + 1], y[first + c + 2], y[first + c + 3]
        for j in range(n):
            out[j] += x0[j] * y0[j] + x1[j] * y1[j] + x2[j] * y2[j] + x3[j] * y3[j]
        c += 4
    while c < channels:
        x0, y0 = x[c], y[first + c]
        for j in range(n):
            out[j] += x0[j] * y0[j]
        c += 1


@compiled
def add_times(w, x, y, first):
    """`y += w x` for the rows of y from `first` on."""
    for c in range(len(x)):
        x0, y0 = x[c], y[first + c]
        for j in range(len(w)):
            y0[j] += w[j] * x0[j]


@compiled
def add_gathered(w, x, first, y, first_y, channels, q, lanes):
    """`y += sum over positions up to q of w x`, at position q."""
    for c in range(channels):
        row, out = x[first + c], y[first_y + c, q * lanes : (q + 1) * lanes]
        for k in range(q + 1):
            v, u = w[k * lanes : (k + 1) * lanes], row[k * lanes : (k + 1) * lanes]
            for g in range(lanes):
                out[g] += v[g] * u[g]


@compiled
def attend(qkv, weights, out, seq_len, lanes):
    """Causal softmax attention of a tile.

    `weights` (head, q (q + 1) / 2 + k, sample) are kept for the way back: those of a query lie side by side, as its
    keys do.
    """
    width, heads = len(out), len(weights)
    channels = width // heads
    scale = np.float32(1 / math.sqrt(channels))
    largest, total = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    queries = np.empty((channels, seq_len * lanes), np.float32)
    for row in range(width):
        out[row, : seq_len * lanes] = 0
    for h in range(heads):
        mine = h * channels
        for q in range(seq_len):
            w = weights[h, q * (q + 1) // 2 * lanes : (q + 1) * (q + 2) // 2 * lanes]
            w[:] = 0
            repeat(qkv, mine, q, lanes, queries)
            add_dot(queries, qkv, width + mine, w)
            largest[:] = _LOWEST
            total[:] = 0
            for k in range(q + 1):
                some = w[k * lanes : (k + 1) * lanes]
                for g in range(lanes):
                    largest[g] = max(largest[g], some[g])
            for k in range(q + 1):
                some = w[k * lanes : (k + 1) * lanes]
                for g in range(lanes):
                    some[g] = exp(scale * (some[g] - largest[g]))
                    total[g] += some[g]
            for g in range(lanes):
                total[g] = np.float32(1) / total[g]
            for k in range(q + 1):
                some = w[k * lanes : (k + 1) * lanes]
                for g in range(lanes):
                    some[g] *= total[g]
            add_gathered(w, qkv, 2 * width + mine, out, mine, channels, q, lanes)


@compiled
def attend_back(qkv, weights, d_out, d_qkv, seq_len, lanes):
    """Gradients of queries, keys and values, written."""
    width, heads = len(d_out), len(weights)
    channels = width // heads
    scale = np.float32(1 / math.sqrt(channels))
    along, d_weights = np.empty(lanes, np.float32), np.empty(seq_len * lanes, np.float32)
    repeated = np.empty((channels, seq_len * lanes), np.float32)
    for row in range(3 * width):
        d_qkv[row, : seq_len * lanes] = 0
    for h in range(heads):
        mine = h * channels
        for q in range(seq_len):
            w = weights[h, q * (q + 1) // 2 * lanes : (q + 1) * (q + 2) // 2 * lanes]
            d_w = d_weights[: (q + 1) * lanes]
            d_w[:] = 0
            along[:] = 0
            repeat(d_out, mine, q, lanes, repeated)
            add_dot(repeated, qkv, 2 * width + mine, d_w)
            add_times(w, repeated, d_qkv, 2 * width + mine)
            for k in range(q + 1):
                some, d_some = w[k * lanes : (k + 1) * lanes], d_w[k * lanes : (k + 1) * lanes]
                for g in range(lanes):
                    along[g] += some[g] * d_some[g]
            for k in range(q + 1):
                some, d_some = w[k * lanes : (k + 1) * lanes], d_w[k * lanes : (k + 1) * lanes]
                for g in range(lanes):
                    d_some[g] = scale * some[g] * (d_some[g] - along[g])
            add_gathered(d_w, qkv, width + mine, d_qkv, mine, channels, q, lanes)
            repeat(qkv, mine, q, lanes, repeated)
            add_times(d_w, repeated, d_qkv, width + mine)


@compiled
def head(token, h, targets, share, logits, d_h, d_token, n):
    """Nats of the targets, summed, and the gradients of `share` times that sum, some tokens at a time."""
    vocab_size, width = token.shape
    chunk = logits.shape[1]
    some, d_some = np.empty((width, chunk), np.float32), np.empty((width, chunk), np.float32)
    largest, total = np.empty(chunk, np.float32), np.empty(chunk, np.float32)
    turned = token.T.copy()
    nats = 0.0
    for begin in range(0, n, chunk):
        m = min(chunk, n - begin)
        for i in range(width):
            some[i, :m] = h[i, begin : begin + m]
        logits[:, :m] = 0
        add_product(token, some, logits, m)
        largest[:] = _LOWEST
        total[:] = 0
        for v in range(vocab_size):
            row = logits[v]
            for t in range(m):
                largest[t] = max(largest[t], row[t])
        for t in range(m):
            nats += largest[t] - logits[targets[begin + t], t]
        for v in range(vocab_size):
            row = logits[v]
            for t in range(m):
                row[t] = exp(row[t] - largest[t])
                total[t] += row[t]
        for t in range(m):
            nats += math.log(total[t])
            total[t] = share / total[t]
        for v in range(vocab_size):
            row = logits[v]
            for t in range(m):
                row[t] *= total[t]
        for t in range(m):
            logits[targets[begin + t], t] -= share
        add_outer(logits, some, d_token, m)
        d_some[:, :m] = 0
        add_product(turned, logits, d_some, m)
        for i in range(width):
            d_h[i, begin : begin + m] = d_some[i, :m]
    return nats


@compiled
def nats_and_gradients(theta, d_theta, inputs, targets, vocab_size, width, layers, heads):
    """Mean nats a token of a batch; writes their gradient. `inputs`, `targets`: int64 (position, sample)."""
    seq_len, batch = inputs.shape
    token, position, blocks, last_scale, last_shift = matrices(theta, vocab_size, seq_len, width, layers)
    d_theta[:] = 0
    d_token, d_position, d_blocks, d_last_scale, d_last_shift = matrices(d_theta, vocab_size, seq_len, width, layers)
    n_tiles = (batch + TILE - 1) // TILE
    most = (batch + n_tiles - 1) // n_tiles
    d, n_most, f = width, most * seq_len, np.float32
    x, d_x, y = np.empty((d, n_most), f), np.empty((d, n_most), f), np.empty((d, n_most), f)
    hats, inverses = np.empty((2 * layers + 1, d, n_most), f), np.empty((2 * layers + 1, n_most), f)
    normed, gathered = np.empty((2 * layers + 1, d, n_most), f), np.empty((layers, d, n_most), f)
    qkv, up = np.empty((layers, 3 * d, n_most), f), np.empty((layers, 4 * d, n_most), f)
    active, d_wide = np.empty((layers, 4 * d, n_most), f), np.empty((4 * d, n_most), f)
    logits = np.empty((vocab_size, max(32, CHUNK_LOGITS // vocab_size)), f)
    share, nats = np.float32(1 / (batch * seq_len)), 0.0
    for begin in range(0, batch, most):
        lanes = min(most, batch - begin)
        n = lanes * seq_len
        weights = np.empty((layers, heads, seq_len * (seq_len + 1) // 2 * lanes), f)
        ids = inputs[:, begin : begin + lanes].copy().reshape(n)
        wanted = targets[:, begin : begin + lanes].copy().reshape(n)
        for i in range(d):
            row = x[i]
            for t in range(n):
                row[t] = token[ids[t], i] + position[t // lanes, i]
        for each in range(layers):
            forward(blocks[each], each, x, y, hats, normed, inverses, qkv, weights, gathered, up, active, seq_len, n)
        norm(x, last_scale, last_shift, hats[-1], normed[-1], inverses[-1], n)
        nats += head(token, normed[-1], wanted, share, logits, y, d_token, n)
        d_x[:, :n] = 0
        norm_back(y, last_scale, hats[-1], inverses[-1], d_x, d_last_scale, d_last_shift, n)
        for each in range(layers - 1, -1, -1):
            kept = (hats, normed, inverses, qkv, weights, gathered, up, active)
            backward(blocks[each], d_blocks[each], each, d_x, y, d_wide, kept, seq_len, n)
        for i in range(d):
            row = d_x[i]
            for t in range(n):
                d_token[ids[t], i] += row[t]
                d_position[t // lanes, i] += row[t]
    return nats / (batch * seq_len)


@compiled
def forward(block, each, x, y, hats, normed, inverses, qkv, weights, gathered, up, active, seq_len, n):
    """A block, which adds to `x`; the rest is kept for the way back."""
    d = len(x)
    a, b = 2 * each, 2 * each + 1
    qkv_at, out_at = 2 * d, 2 * d + 3 * d * d + 3 * d
    norm_at = out_at + d * d + d
    up_at = norm_at + 2 * d
    down_at = up_at + 4 * d * d + 4 * d
    norm(x, block[:d], block[d : 2 * d], hats[a], normed[a], inverses[a], n)
    linear(part(block, qkv_at, 3 * d, d), block[out_at - 3 * d : out_at], normed[a], qkv[each], n)
    attend(qkv[each], weights[each], gathered[each], seq_len, n // seq_len)
    linear(part(block, out_at, d, d), block[norm_at - d : norm_at], gathered[each], y, n)
    for i in range(d):
        row, more = x[i], y[i]
        for t in range(n):
            row[t] += more[t]
    norm(x, block[norm_at : norm_at + d], block[norm_at + d : up_at], hats[b], normed[b], inverses[b], n)
    linear(part(block, up_at, 4 * d, d), block[down_at - 4 * d : down_at], normed[b], up[each], n)
    gelu(up[each], active[each], n)
    linear(part(block, down_at, d, 4 * d), block[down_at + 4 * d * d :], active[each], y, n)
    for i in range(d):
        row, more = x[i], y[i]
        for t in range(n):
            row[t] += more[t]


@compiled
def backward(block, d_block, each, d_x, d_y, d_wide, kept, seq_len, n):
    """Gradients of a block; `d_x` is the stream's after it, then before it."""
    hats, normed, inverses, qkv, weights, gathered, up, active = kept
    d = len(d_x)
    a, b = 2 * each, 2 * each + 1
    qkv_at, out_at = 2 * d, 2 * d + 3 * d * d + 3 * d
    norm_at = out_at + d * d + d
    up_at = norm_at + 2 * d
    down_at = up_at + 4 * d * d + 4 * d
    end = down_at + 4 * d * d
    w, d_w = part(block, down_at, d, 4 * d), part(d_block, down_at, d, 4 * d)
    linear_back(w, active[each], d_x, d_wide, d_w, d_block[end:], n)
    gelu_back(up[each], d_wide, n)
    w, d_w = part(block, up_at, 4 * d, d), part(d_block, up_at, 4 * d, d)
    linear_back(w, normed[b], d_wide, d_y, d_w, d_block[down_at - 4 * d : down_at], n)
    scale, d_scale, d_shift = block[norm_at : norm_at + d], d_block[norm_at : norm_at + d], d_block[norm_at + d : up_at]
    norm_back(d_y, scale, hats[b], inverses[b], d_x, d_scale, d_shift, n)
    w, d_w = part(block, out_at, d, d), part(d_block, out_at, d, d)
    linear_back(w, gathered[each], d_x, d_y, d_w, d_block[norm_at - d : norm_at], n)
    attend_back(qkv[each], weights[each], d_y, d_wide, seq_len, n // seq_len)
    w, d_w = part(block, qkv_at, 3 * d, d), part(d_block, qkv_at, 3 * d, d)
    linear_back(w, normed[a], d_wide, d_y, d_w, d_block[out_at - 3 * d : out_at], n)
    norm_back(d_y, block[:d], hats[a], inverses[a], d_x, d_block[:d], d_block[d : 2 * d], n)


@compiled
def steps(theta, state, table, begin, inputs, targets, rates, decays, sizes):
    """Steps of SOAP for as many batches as there are, in place; returns the nats a token of each before its step.

    `state`: first and second moments, Gram matrices and bases; `table`: see `soap`. `inputs`, `targets`: int64 (step,
    position, sample). `rates`: of each step; `decays`: what weights lose of themselves in it. `begin`: steps made
    before. `sizes`: tokens, width, layers, heads.
    """
    first, second, grams, bases = state
    vocab_size, width, layers, heads = sizes
    nats = np.empty(len(inputs), np.float32)
    gradient = np.empty_like(theta)
    for step in range(len(inputs)):
        nats[step] = nats_and_gradients(theta, gradient, inputs[step], targets[step], vocab_size, width, layers, heads)
        keep = np.float32(1 - decays[step])
        soap(theta, gradient, first, second, grams, bases, table, begin + step + 1, rates[step], keep)
    return nats
