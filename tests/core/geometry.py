"""Windows of any geometry, for Hypothesis."""

from __future__ import annotations

from hypothesis import assume
from hypothesis import strategies as st

from cnnbp_cli.core.types import Context, ShapeError
from cnnbp_cli.core.windows import Windows

CTX = Context()

pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def placed(draw, kernels=pairs, strides=pairs) -> Windows:
    amounts = st.tuples(st.integers(0, 2), st.integers(0, 2))
    try:
        return Windows.over(
            (1, draw(st.integers(1, 8)), draw(st.integers(1, 8))),
            draw(kernels),
            draw(strides),
            draw(st.sampled_from(["valid", "same"]) | amounts),
            draw(pairs),
        )
    except ShapeError:
        assume(False)
        raise
