# SPDX-License-Identifier: Apache-2.0
"""Expressions by their names, in wordings that the motion model was trained with."""

from __future__ import annotations

import pytest

from flowact_ros.data.wordings import WORDINGS
from flowact_ros.dialogue.expressions import EXPRESSIONS, expression_of
from flowact_ros.vocabulary import BEHAVIOURS


def test_every_wording_is_one_that_the_model_knows() -> None:
    known = {wording for wordings in WORDINGS.values() for wording in wordings}
    for expression in EXPRESSIONS.values():
        assert {expression.text, expression.spoken} <= known
        assert expression.behaviour in BEHAVIOURS


def test_by_name_and_by_place() -> None:
    assert expression_of(" Happy ", -1.0, -1.0) is EXPRESSIONS["happy"]
    assert expression_of("") is EXPRESSIONS["neutral"]
    assert expression_of("", 0.9, 0.1) is EXPRESSIONS["happy"]
    assert expression_of("", 0.0, 1.0) is EXPRESSIONS["surprised"]
    assert expression_of("", -0.5, -0.5) is EXPRESSIONS["sad"]
    assert expression_of("", -0.5, 0.8) is EXPRESSIONS["angry"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (("asleep",), "'asleep' cannot be shown: must be one of neutral, happy,"),
        (("x" * 10_000,), "must be one of neutral"),
        (("", float("nan"), 0.0), "valence is nan"),
        (("", 0.0, 1.5), "arousal is 1.5: each must be -1 … 1"),
    ],
)
def test_what_cannot_be_shown(asked: tuple, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        expression_of(*asked)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
