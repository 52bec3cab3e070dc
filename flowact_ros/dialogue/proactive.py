# SPDX-License-Identifier: Apache-2.0
"""When the character speaks without having been asked: it greets who came and says nothing, and invites once more."""

from __future__ import annotations

from dataclasses import dataclass

GREETING, INVITATION = "greeting", "invitation"


@dataclass(frozen=True)
class ProactiveConfig:
    """Times in seconds."""

    alone_s: float = 30.0  # of silence after which the next voice is a new visitor
    patience_s: float = 3.0  # from a visitor's first voice until it is greeted, if nothing was understood
    invitation_s: float = 15.0  # of silence after an answer, until the visitor is invited to go on


class Proactive:
    """Pure: events with times in; `due` says what is to be said, each at most once a visitor."""

    def __init__(self, config: ProactiveConfig | None = None) -> None:
        self.config = config or ProactiveConfig()
        self._voiced = False
        self._active_s = float("-inf")  # something was said, by whomever
        self._came_s: float | None = None  # a visitor's first voice, not answered yet
        self._invite = False

    def voice(self, now_s: float, voiced: bool) -> None:
        """The user began or stopped speaking."""
        if voiced and not self._voiced and now_s - self._active_s >= self.config.alone_s:
            self._came_s = now_s
        self._voiced = voiced
        self._active_s = now_s

    def answered(self, now_s: float) -> None:
        """The user was understood and answered."""
        self._came_s, self._invite, self._active_s = None, True, now_s

    def speaking(self, now_s: float) -> None:
        """The character speaks, or is about to."""
        self._active_s = now_s

    def due(self, now_s: float) -> str:
        """GREETING, INVITATION or ""."""
        if self._voiced:
            return ""
        if self._came_s is not None and now_s - self._came_s >= self.config.patience_s:
            self._came_s, self._active_s = None, now_s
            return GREETING
        if self._invite and now_s - self._active_s >= self.config.invitation_s:
            self._invite, self._active_s = False, now_s
            return INVITATION
        return ""
