# SPDX-License-Identifier: Apache-2.0
"""The one exception of this room."""

from __future__ import annotations


class KioskError(RuntimeError):
    """The page cannot be served, or was given something it cannot show; the text is one line."""


class PortTaken(KioskError):
    """Somebody else serves on the page's port; it may become free."""
