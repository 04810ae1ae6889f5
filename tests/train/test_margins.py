import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from openmofi.train.margins import apply_margin


def _slow(loss, cosine, margin):
    angle = math.acos(cosine)
    if loss == "cosface":
        return cosine - margin
    if loss == "plain":
        return cosine
    inside = angle + margin < math.pi
    return math.cos(angle + margin) if inside else cosine - margin * math.sin(margin)


@given(
    st.sampled_from(["cosface", "arcface", "plain"]),
    st.floats(-0.99, 0.99),
    st.floats(0, 1.5),
)
def test_margins_equal_their_formulas(loss, cosine, margin):
    given = torch.tensor([cosine], dtype=torch.float64)
    lowered, _ = apply_margin(given, loss=loss, margin=margin)
    assert lowered.item() == pytest.approx(_slow(loss, cosine, margin), abs=1e-9)


@given(st.sampled_from(["cosface", "arcface", "plain"]), st.floats(-0.9, 0.9))
def test_slopes_are_the_derivatives_of_the_margins(loss, cosine):
    leaf = torch.tensor([cosine], dtype=torch.float64, requires_grad=True)
    lowered, slope = apply_margin(leaf, loss=loss, margin=0.3)
    lowered.sum().backward()
    torch.testing.assert_close(slope, leaf.grad)


@given(st.sampled_from(["cosface", "arcface"]), st.floats(-1, 1), st.floats(0.01, 1))
def test_a_margin_never_raises_a_cosine(loss, cosine, margin):
    lowered, _ = apply_margin(torch.tensor([cosine]), loss=loss, margin=margin)
    assert lowered.item() <= cosine + 1e-3  # where the slope is kept finite, by a thousandth


def test_arcface_has_a_finite_slope_where_image_and_row_coincide():
    lowered, slope = apply_margin(torch.tensor([1.0, -1.0]), loss="arcface", margin=0.5)
    assert lowered.isfinite().all()
    assert slope.isfinite().all()
