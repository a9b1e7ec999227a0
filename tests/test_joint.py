"""Joint code lengths of two models, from the code lengths under each."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal

from memorization.coding.joint import joint_bits

pytestmark = pytest.mark.kernels

bit_counts = st.floats(0, 1e5)
pairs = arrays(np.float64, st.tuples(st.just(2), st.integers(1, 20)), elements=bit_counts)


def mixture_by_definition(target: float, oracle: float) -> float:
    """-log2((2^-target + 2^-oracle) / 2), with digits enough for 1e5 bits."""
    with localcontext() as context:
        context.prec = 60
        two = Decimal(2)
        p = (two ** -Decimal(target) + two ** -Decimal(oracle)) / 2
        return float(-p.ln() / two.ln())


def test_max_takes_the_shorter_code_of_each_sample():
    target, oracle = np.array([10.0, 300.0, 7.0]), np.array([20.0, 200.0, 7.0])
    assert_array_equal(joint_bits(target, oracle, "max"), [10.0, 200.0, 7.0])


def test_mixture_of_known_probabilities():
    # p = 1/2 and 1/8: their mean is 5/16. p = 1 and 2^-1000: half of 1.
    bits = joint_bits(np.array([1.0, 0.0, 3.0]), np.array([3.0, 1000.0, 3.0]), "mixture")
    assert_allclose(bits, [math.log2(16 / 5), 1.0, 3.0], rtol=1e-15)


@given(bit_counts, bit_counts)
def test_mixture_equals_its_definition(target, oracle):
    bits = joint_bits(np.array([target]), np.array([oracle]), "mixture")[0]
    assert_allclose(bits, mixture_by_definition(target, oracle), rtol=1e-14, atol=1e-14)


@given(pairs)
def test_mixture_lies_between_the_maximum_and_one_bit_more(bits):
    best, mixture = joint_bits(*bits, "max"), joint_bits(*bits, "mixture")
    rounding = 1e-15 * (1 + best)
    assert (mixture >= best - rounding).all()
    assert (mixture <= best + 1 + rounding).all()


@given(pairs, st.sampled_from(["max", "mixture"]))
def test_neither_code_prefers_a_model(bits, code):
    target, oracle = bits
    assert_array_equal(joint_bits(target, oracle, code), joint_bits(oracle, target, code))


@pytest.mark.parametrize("code", ["max", "mixture"])
def test_a_hundred_thousand_bits_do_not_overflow(code):
    target, oracle = np.array([1e5, 1e5, 1.0]), np.array([1e5, 2e5, 1e5])
    bits = joint_bits(target, oracle, code)
    extra = 1.0 if code == "mixture" else 0.0
    assert_allclose(bits, [1e5, 1e5 + extra, 1.0 + extra], rtol=1e-15)
    assert len(joint_bits(np.zeros(0), np.zeros(0), code)) == 0
