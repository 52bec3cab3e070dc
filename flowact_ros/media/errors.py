# SPDX-License-Identifier: Apache-2.0
"""The one exception of this room: a file or a buffer that is not the media it should be."""

from __future__ import annotations


class MediaError(ValueError):
    """Sound, picture or video that cannot be used; the message is one line: what was wrong and what would be right."""
