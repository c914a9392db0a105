"""A few thousand hostile inputs of every kind; `make fuzz` tries a hundred thousand."""

from __future__ import annotations

import pytest
from fuzz.kinds import kinds
from fuzz.runner import check_message, run

pytestmark = pytest.mark.slow


INPUTS = 3000
KINDS = kinds()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_hostile_input_is_refused_with_a_message_or_harmless(kind):
    wanted = INPUTS * kind.share // sum(other.share for other in KINDS)
    tally = run(kind, wanted)
    assert tally.inputs >= wanted * 0.9
    assert tally.accepted  # the inputs are not all of a kind that is thrown out at the door
    assert tally.refused


@pytest.mark.parametrize(
    "text", ["", "error:\n" * 70, "x" * 2000, "error: \x1b[31m", "Traceback (most recent call last)"]
)
def test_messages_that_nobody_could_read(text):
    with pytest.raises(AssertionError):
        check_message(text)
