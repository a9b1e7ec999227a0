"""Loops over tokens, compiled: products, layer norm and gelu, forward and backward.

Arrays are float32 and lie feature by feature: `x[i, t]` is feature i of token t, so that every innermost loop runs
over the `n` tokens in use, which lie side by side. Gradients are added to what is there. Functions here have no
annotations: numba reads none, and compiles for the types that come.
"""

import inspect
import math

import numpy as np
from numba import njit


def compiled(function):
    """numba's `njit` with sums in the order that is fastest, without Python's lock, and kept where there is a place.

    numba's cache knows of a function's own file only: whoever changes this one removes the caches of its users
    (`make clean`).
    """
    bare = inspect.unwrap(function)  # of what checks types while tests run
    try:
        return njit(fastmath=True, nogil=True, error_model="numpy", cache=True)(bare)
    except RuntimeError:  # neither this folder nor the user's own can be written
        return njit(fastmath=True, nogil=True, error_model="numpy")(bare)


_EPSILON = np.float32(1e-5)  # of torch's layer norm
_CUBIC, _GELU = np.float32(0.044715), np.float32(2 * math.sqrt(2 / math.pi))
_LOWEST, _LOG2_E, _HALF, _ONE = np.float32(-87.0), np.float32(1 / math.log(2)), np.float32(0.5), np.float32(1)
_LN2_HIGH, _LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)


@compiled
def exp(x):
    """e^x to 1.2e-7, for x from -87 to 87, and beyond these ends the same as there.

    Cephes' expf without a branch, so that loops over it run on vectors: the C library's takes one number at a time.
    """
    x = min(max(_LOWEST, x), -_LOWEST)
    k = np.floor(x * _LOG2_E + _HALF)
    r = x - k * _LN2_HIGH - k * _LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    return p * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)


@compiled
def add_product(weight, x, y, n):
    """`y[o, t] += sum of weight[o, i] x[i, t]`: eight inputs at once, each output loaded and stored once for them."""
    n_out, n_in = weight.shape
    for o in range(n_out):
        out, w = y[o], weight[o]
        i = 0
        while i + 8 <= n_in:
            x0, x1, x2, x3, x4, x5, x6, x7 = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]
            w0, w1, w2, w3, w4, w5, w6, w7 = w[i], w[i + 1], w[i + 2], w[i + 3], w[i + 4], w[i + 5], w[i + 6], w[i + 7]
            for t in range(n):
                first = w0 * x0[t] + w1 * x1[t] + w2 * x2[t] + w3 * x3[t]
                out[t] += first + w4 * x4[t] + w5 * x5[t] + w6 * x6[t] + w7 * x7[t]
            i += 8
        while i < n_in:
            x0, w0 = x[i], w[i]
            for t in range(n):
                out[t] += w0 * x0[t]
            i += 1


@compiled
def add_outer(d_y, x, d_weight, n):
    """`d_weight[o, i] += sum over tokens of d_y[o, t] x[i, t]`."""
    n_out, n_in = d_weight.shape
    for o in range(n_out):
        d, out = d_y[o], d_weight[o]
        i = 0
        while i + 8 <= n_in:
            x0, x1, x2, x3, x4, x5, x6, x7 = x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5], x[i + 6], x[i + 7]
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
            for t in range(n):
                v = d[t]
                s0 += v * x0[t]
                s1 += v * x1[t]
                s2 += v * x2[t]
                s3 += v * x3[t]
                s4 += v * x4[t]
                s5 += v * x5[t]
                s6 += v * x6[t]
                s7 += v * x7[t]
            out[i] += s0
            out[i + 1] += s1
            out[i + 2] += s2
            out[i + 3] += s3
            out[i + 4] += s4
            out[i + 5] += s5
            out[i + 6] += s6
            out[i + 7] += s7
            i += 8
        while i < n_in:
            x0, s0 = x[i], np.float32(0)
            for t in range(n):
                s0 += d[t] * x0[t]
            out[i] += s0
            i += 1


@compiled
def linear(weight, bias, x, y, n):
    """`y = weight x + bias`."""
    for o in range(len(bias)):
        out, b = y[o], bias[o]
        for t in range(n):
            out[t] = b
    add_product(weight, x, y, n)


@compiled
def linear_back(weight, x, d_y, d_x, d_weight, d_bias, n):
    """Gradients of `linear`; that of its input is written, not added."""
    add_outer(d_y, x, d_weight, n)
    for o in range(len(d_bias)):
        d, s = d_y[o], np.float32(0)
        for t in range(n):
            s += d[t]
        d_bias[o] += s
    for i in range(weight.shape[1]):
        row = d_x[i]
        for t in range(n):
            row[t] = 0
    add_product(weight.T.copy(), d_y, d_x, n)


@compiled
def norm(x, scale, shift, x_hat, y, inverse, n):
    """Layer norm; `x_hat` and `inverse`, 1 / standard deviation of each token, are kept for the way back."""
    width = len(scale)
    mean = np.zeros(n, np.float32)
    inverse[:n] = 0
    for i in range(width):
        row = x[i]
        for t in range(n):
            mean[t] += row[t]
    mean /= np.float32(width)
    for i in range(width):
        row, hat = x[i], x_hat[i]
        for t in range(n):
            hat[t] = row[t] - mean[t]
            inverse[t] += hat[t] * hat[t]
    for t in range(n):
        inverse[t] = _ONE / np.sqrt(inverse[t] / np.float32(width) + _EPSILON)
    for i in range(width):
        hat, out, g, b = x_hat[i], y[i], scale[i], shift[i]
        for t in range(n):
            hat[t] *= inverse[t]
            out[t] = g * hat[t] + b


@compiled
def norm_back(d_y, scale, x_hat, inverse, d_x, d_scale, d_shift, n):
    """Gradients of `norm`; `d_y` is used up."""
    width = len(scale)
    mean, along = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for i in range(width):
        d, hat, g = d_y[i], x_hat[i], scale[i]
        s0 = s1 = np.float32(0)
        for t in range(n):
            s0 += d[t] * hat[t]
            s1 += d[t]
            d[t] *= g
            mean[t] += d[t]
            along[t] += d[t] * hat[t]
        d_scale[i] += s0
        d_shift[i] += s1
    mean /= np.float32(width)
    along /= np.float32(width)
    for i in range(width):
        d, hat, out = d_y[i], x_hat[i], d_x[i]
        for t in range(n):
            out[t] += inverse[t] * (d[t] - mean[t] - hat[t] * along[t])


@compiled
def gelu(x, y, n):
    """The tanh form of gelu, which is x times the sigmoid of twice the tanh's argument."""
    for i in range(len(x)):
        row, out = x[i], y[i]
        for t in range(n):
            v = row[t]
            out[t] = v / (_ONE + exp(-_GELU * (v + _CUBIC * v * v * v)))


@compiled
def gelu_back(x, d, n):
    """The gradient of the output becomes that of the input, in place."""
    for i in range(len(x)):
        row, out = x[i], d[i]
        for t in range(n):
            v = row[t]
            s = _ONE / (_ONE + exp(-_GELU * (v + _CUBIC * v * v * v)))
            out[t] *= s + v * s * (_ONE - s) * _GELU * (_ONE + np.float32(3) * _CUBIC * v * v)
