# SPDX-License-Identifier: Apache-2.0
"""Words in a picture: where they are, that they stay in it, and that the rest of it is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.media.subtitles import burn, wrapped

GREY = np.full((480, 480, 3), 128, np.uint8)


def test_words_are_at_the_lower_edge_and_the_face_is_left_alone() -> None:
    seen = burn(GREY, "We are open from ten to six.", "avatar")
    assert np.array_equal(seen[:380], GREY[:380]) and not np.array_equal(seen, GREY)
    assert np.array_equal(GREY, np.full_like(GREY, 128))  # the picture that was given is not written on
    assert seen.max() > 240 and seen[400:].min() < 80  # white words in a dark box
    assert burn(GREY, "", "avatar") is GREY


def test_the_two_sides_differ_in_colour() -> None:
    avatar, user = (burn(GREY, "Hello", side).astype(int) for side in ("avatar", "user"))
    assert (avatar[..., 2] - user[..., 2]).max() > 50


@pytest.mark.parametrize("shape", [(128, 128, 3), (480, 832, 3), (64, 48, 3)])
@pytest.mark.parametrize("text", ["word " * 200, "w" * 500, "%s {0} <b>\u4f60\u597d\x07"])
def test_any_text_fits_any_picture(shape: tuple[int, int, int], text: str) -> None:
    seen = burn(np.zeros(shape, np.uint8), text, "user")
    assert seen.shape == shape and not seen[: shape[0] // 3].any()


def test_lines_break_between_words() -> None:
    assert wrapped("one two three", lambda line: len(line) <= 7) == ["one two", "three"]
    assert wrapped("enormous", lambda line: len(line) <= 3) == ["enormous"]
    assert wrapped("", lambda line: True) == []
