"""One step of SOAP, compiled: what `memorization.lab.soap` does with torch, for one model with flat parameters."""

import math

import numpy as np

from memorization.lab.compiled.loops import add_product, compiled

_B1, _B2, _TINY, _ONE = np.float32(0.95), np.float32(0.98), np.float32(1e-8), np.float32(1)


@compiled
def turned(left, right, sides, matrix, scratch):
    """`left matrix right`, in place; `sides` say which of the two there are."""
    n_columns = matrix.shape[1]
    if sides[0]:
        scratch[:] = 0
        add_product(left, matrix, scratch, n_columns)
        matrix[:] = scratch
    if sides[1]:
        scratch[:] = 0
        add_product(matrix, right, scratch, n_columns)
        matrix[:] = scratch


@compiled
def averaged(gram, matrix):
    """The moving average of `matrix matrix^T`."""
    for i in range(len(gram)):
        for j in range(i + 1):
            s = np.float32(0)
            for k in range(matrix.shape[1]):
                s += matrix[i, k] * matrix[j, k]
            gram[i, j] += (s - gram[i, j]) * (_ONE - _B2)
            gram[j, i] = gram[i, j]


@compiled
def soap(theta, gradient, first, second, grams, bases, table, made, rate, keep):
    """Adam in the bases of the matrices, in place; the gradient is used up.

    `table`, a row a matrix: where it begins, rows, columns, and where Gram matrix and basis of its rows and of its
    columns begin; -1: that side is not turned.
    """
    for row in table:
        begin, n_rows, n_columns, of_rows, of_columns = row[0], row[1], row[2], row[3], row[4]
        g = gradient[begin : begin + n_rows * n_columns].reshape(n_rows, n_columns)
        nothing = np.empty((1, 1), np.float32)
        left, right = nothing, nothing
        if of_rows >= 0:
            averaged(grams[of_rows : of_rows + n_rows * n_rows].reshape(n_rows, n_rows), g)
            left = bases[of_rows : of_rows + n_rows * n_rows].reshape(n_rows, n_rows).T.copy()
        if of_columns >= 0:
            end = of_columns + n_columns * n_columns
            averaged(grams[of_columns:end].reshape(n_columns, n_columns), g.T.copy())
            right = bases[of_columns:end].reshape(n_columns, n_columns)
        turned(left, right, (of_rows >= 0, of_columns >= 0), g, np.empty_like(g))
    unbiased = np.float32(1 / math.sqrt(1 - 0.98**made))
    for i in range(len(theta)):
        g = gradient[i]
        first[i] += (g - first[i]) * (_ONE - _B1)
        second[i] += (g * g - second[i]) * (_ONE - _B2)
        gradient[i] = first[i] / (np.sqrt(second[i]) * unbiased + _TINY)
    for row in table:
        begin, n_rows, n_columns, of_rows, of_columns = row[0], row[1], row[2], row[3], row[4]
        g = gradient[begin : begin + n_rows * n_columns].reshape(n_rows, n_columns)
        nothing = np.empty((1, 1), np.float32)
        left, right = nothing, nothing
        if of_rows >= 0:
            left = bases[of_rows : of_rows + n_rows * n_rows].reshape(n_rows, n_rows)
        if of_columns >= 0:
            right = bases[of_columns : of_columns + n_columns * n_columns].reshape(n_columns, n_columns).T.copy()
        turned(left, right, (of_rows >= 0, of_columns >= 0), g, np.empty_like(g))
    scale = np.float32(rate / (1 - 0.95**made))
    for i in range(len(theta)):
        theta[i] = keep * theta[i] - scale * gradient[i]
