# SPDX-License-Identifier: Apache-2.0
"""Which picture a `set_reference` request means."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

from flowact_msgs.srv import SetReference
from flowact_ros.data.characters import identity_from_seed, neutral_picture
from flowact_ros.engine.characters import load_character
from flowact_ros.engine.interfaces import ReferenceError_
from flowact_ros.nodes.reference_request import Chosen, Refused, change_character, picture_of

Request, CODES = SetReference.Request, SetReference.Response


class FakeSession:
    """Knows no picture but squares."""

    def set_reference(self, rgb: np.ndarray, name: str) -> str:
        if rgb.shape[0] != rgb.shape[1]:
            raise ReferenceError_("not a square")
        return name or "picture-0"


def test_a_seed_is_a_character_at_rest() -> None:
    chosen = picture_of(Request(source=Request.SOURCE_SEED, seed=42))
    assert (chosen.rgb.dtype, chosen.rgb.shape, chosen.name) == (np.uint8, (512, 512, 3), "")
    np.testing.assert_array_equal(chosen.rgb, neutral_picture(identity_from_seed(42), 512))
    np.testing.assert_array_equal(chosen.rgb, picture_of(Request(source=Request.SOURCE_SEED, seed=42)).rgb)
    other = picture_of(Request(source=Request.SOURCE_SEED, seed=999_999))
    assert np.abs(chosen.rgb.astype(int) - other.rgb).mean() > 5
    assert not any("drawing" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("seed", [-1, 1_000_000, 7_000_000, 2**63 - 1, -(2**63)])
def test_other_seeds_are_refused(seed: int) -> None:
    with pytest.raises(Refused, match=rf"the seed is {seed}: characters have seeds 0 … 999999") as refusal:
        picture_of(Request(source=Request.SOURCE_SEED, seed=seed))
    assert refusal.value.code == CODES.UNKNOWN_CHARACTER


def test_a_name_is_a_shipped_character() -> None:
    chosen = picture_of(Request(source=Request.SOURCE_NAME, name="mia"))
    assert chosen.name == "mia"
    np.testing.assert_array_equal(chosen.rgb, load_character("mia"))


def test_the_session_has_the_last_word() -> None:
    seed = Request(source=Request.SOURCE_SEED, seed=7)
    chosen = change_character(FakeSession(), seed)
    assert isinstance(chosen, Chosen) and chosen.name == "picture-0"
    with pytest.raises(Refused) as refusal:
        change_character(None, seed)
    assert refusal.value.code == CODES.NOT_ACTIVE


def test_the_renderer_is_imported_when_it_is_needed() -> None:
    """A robot that only speaks does not load it."""
    program = "import sys, flowact_ros.nodes.avatar_generator; print('flowact_ros.data' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.strip() == "False"
