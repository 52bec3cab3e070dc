# SPDX-License-Identifier: Apache-2.0
"""What the robot decides about its page: the defaults of its settings, and what a person may do at it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from flowact_ros.kiosk.errors import KioskError

# Whose microphone a touch opens: nobody's; the robot's, which is always open; the robot's; that of the page's device.
NO_TALK, OPEN, PUSH, PAGE = "off", "open", "push", "page"
TALK_MODES = (NO_TALK, OPEN, PUSH, PAGE)

MAX_ATTRACT_S = 3600.0
MAX_ATTRACT_TEXT = 200  # characters
MAX_PICTURE = 20_000_000  # bytes
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_SIGNATURES = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"RIFF", "image/webp"))


@dataclass(frozen=True)
class Picture:
    """A file that browsers show."""

    data: bytes
    content_type: str


@dataclass(frozen=True)
class Display:
    """title: of the page, and on the counter of an upright screen; captions: shown unless switched off at the page;
    background: "" for the colours of the avatar's own picture, "#rrggbb", or the path of a JPEG, PNG or WebP file;
    attract_after_s: [s] without anybody until the page invites people, 0: never; attract_text: what it then says,
    several texts between "|" in turn; talk: one of TALK_MODES; stop: a touch stops what is being said;
    settings: a long press opens them.

    Raises KioskError for what cannot be shown.
    """

    title: str = ""
    captions: bool = True
    background: str = ""
    attract_after_s: float = 0.0
    attract_text: str = ""
    talk: str = NO_TALK
    stop: bool = False
    settings: bool = True
    picture: Picture | None = field(init=False, default=None)  # the file `background` names, read

    def __post_init__(self) -> None:
        if self.talk not in TALK_MODES:
            raise KioskError(f"talk is {self.talk!r}; expected one of {', '.join(TALK_MODES)}")
        if not 0.0 <= self.attract_after_s <= MAX_ATTRACT_S:
            raise KioskError(f"attract_after is {self.attract_after_s:g} s; expected 0 to {MAX_ATTRACT_S:g}")
        if len(self.attract_text) > MAX_ATTRACT_TEXT:
            raise KioskError(
                f"attract_text has {len(self.attract_text)} characters; expected {MAX_ATTRACT_TEXT} at most"
            )
        object.__setattr__(self, "picture", None if self.is_colour else self._read())

    @property
    def is_colour(self) -> bool:
        return not self.background or _COLOUR.fullmatch(self.background) is not None

    def _read(self) -> Picture:
        if self.background.startswith("#"):
            raise KioskError(f"background {self.background!r} is no colour; expected # and six of 0 to 9, a to f")
        path = Path(self.background).expanduser()
        try:
            size = path.stat().st_size
            if size > MAX_PICTURE:
                raise KioskError(f"background {path} has {size} bytes; expected {MAX_PICTURE} at most")
            data = path.read_bytes()
        except OSError as error:
            raise KioskError(f"background {path} cannot be read ({error.strerror})") from error
        for signature, content_type in _SIGNATURES:
            if data.startswith(signature) and (signature != b"RIFF" or data[8:12] == b"WEBP"):
                return Picture(data, content_type)
        raise KioskError(f"background {path} is no JPEG, PNG or WebP file")

    def as_json(self) -> dict[str, object]:
        """What a page is told: a picture comes from the path `background`."""
        return {
            "captions": self.captions,
            "background": "picture" if self.picture else self.background.lower(),
            "attract_after_s": self.attract_after_s,
            "attract_text": [text.strip() for text in self.attract_text.split("|") if text.strip()],
            "talk": self.talk,
            "stop": self.stop,
            "settings": self.settings,
        }
