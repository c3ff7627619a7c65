"""Whether a library that computes something else is found out."""

from dataclasses import replace

import numpy as np
import pytest

from birdsonnx.onednn import library, primitives, self_check
from birdsonnx.onednn.descriptors import BF16, F32
from birdsonnx.onednn.library import OnednnError
from birdsonnx.onednn.operations.activation import SWISH
from tests.onednn.trunks import needs_bfloat16

pytestmark = needs_bfloat16
CASES = {case.what: case for case in self_check.cases()}
WRONG = r"^oneDNN 3\.\d+\.\d+ computes this wrongly here: {}$"


@pytest.mark.parametrize("kind", [F32, BF16])
def test_this_library_is_right(kind):
    self_check.require_right(library.load(), kind)


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize(("kind", "far"), [(F32, 1e-5), (BF16, 2**-8)])
def test_each_case_is_as_exact_as_its_type(what, kind, far):
    """A rounding error of bfloat16 is 2^-9 at the most, and a third of that in the root mean square; a gate
    of one number per channel is the sum of rounded products."""
    found, wanted = self_check.computed(library.load(), CASES[what], kind, seed=3)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert np.linalg.norm(found[name] - value) <= far * np.linalg.norm(value), name


@pytest.mark.parametrize("what", CASES)
def test_every_result_of_every_case_counts(monkeypatch, what):
    """One that is 3 % too large is refused, and so is one number that is none."""
    computed = self_check._by_library
    case = CASES[what]
    monkeypatch.setattr(self_check, "cases", lambda: [case])
    names = ["y", *case.weights, *case.operation.sources]
    for name in names:
        for spoil in (
            lambda value: value * 1.03,
            lambda value: np.where(value == value.max(), np.nan, value),
        ):

            def spoiled(*given, name=name, spoil=spoil):
                found = dict(computed(*given))
                return {**found, name: spoil(found[name])}

            monkeypatch.setattr(self_check, "_by_library", spoiled)
            with pytest.raises(OnednnError, match=WRONG.format(what)):
                self_check.require_right(library.load(), BF16)


def without_bias(convolution):
    def made(own, source, weights, bias, *rest):
        return convolution(own, source, weights, None, *rest)

    return made


def of_another_window(pooling):
    def made(own, algorithm, *rest):
        wrong = {primitives.MAX: primitives.MAX, primitives.AVERAGE_OF_REAL: primitives.AVERAGE_OF_ALL}
        return pooling(own, wrong[algorithm], *rest)

    return made


def of_another_swish(elementwise):
    def made(own, function, data):
        wrong = replace(SWISH, alpha=1.2) if function == SWISH else function
        return elementwise(own, wrong, data)

    return made


def of_products(binary):
    def made(own, _, *rest):
        return binary(own, primitives.MULTIPLY, *rest)

    return made


@pytest.mark.parametrize(
    ("name", "spoil", "what"),
    [
        ("convolution", without_bias, "3 x 3 convolution with a sum and a Relu"),
        ("pooling", of_another_window, "means of windows"),
        ("elementwise", of_another_swish, "swish"),
        ("elementwise_backward", of_another_swish, "swish"),
        ("binary", of_products, "3 x 3 convolution with a sum and a Relu|sum"),
    ],
)
def test_a_wrong_kernel_is_found(monkeypatch, name, spoil, what):
    monkeypatch.setattr(primitives, name, spoil(getattr(primitives, name)))
    with pytest.raises(OnednnError, match=WRONG.format(f"({what})")):
        self_check.require_right(library.load(), BF16)


def test_a_slow_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(primitives.Primitive, "implementation", "ref:any")
    with pytest.raises(OnednnError, match=r"^layer 'y': oneDNN 3\.\S+ has no fast convolution_forward here$"):
        self_check.require_right(library.load(), BF16)
