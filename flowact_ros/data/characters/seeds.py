# SPDX-License-Identifier: Apache-2.0
"""Characters drawn from seeds: people of every age and look in three styles, and robots."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .canvas import Colour, blend, shade
from .controls import CharacterError
from .identity import CLOTHES, PERSON_STYLES, ROBOT_EYES, ROBOT_TOPS, STYLES, Identity, lip_for, rgb

SKINS = ("#f8d9c0", "#f3c9a8", "#ecbb94", "#dda67c", "#cb8f63", "#b0744c", "#935c3a", "#754629", "#5b3522")
HAIRS = (
    "#2a211e",
    "#3a281f",
    "#55371f",
    "#6a4024",
    "#7a4b28",
    "#a56a35",
    "#d2a056",
    "#e6c27f",
    "#b4532a",
    "#8c4a2a",
)
DYED = ("#5a3f6b", "#7d3045", "#3d6b7d", "#d98aa0")
IRISES = ("#4d3322", "#6b4526", "#8a6a34", "#5d7a46", "#4c8a86", "#4d7fb0", "#6f8796")
FABRICS = ("#2f6f9f", "#c8553d", "#3f8f6f", "#e0a030", "#6b5b95", "#d9dde3", "#34495e", "#b5838d", "#4f9da6", "#7a9e48",
           "#f0e6d8", "#8c2f39", "#26547c", "#ef767a")  # fmt: skip
SECONDS = ("#f6f3ec", "#ffffff", "#2f3440", "#f3d8a0", "#dfe8ef")
BACKS = (
    ("#dcebf4", "#a9c8dc"), ("#fbe6d4", "#f0bd9b"), ("#e3f1e4", "#a8d0b4"), ("#ece4f5", "#bfaad8"),
    ("#fdf1cf", "#f0cf86"), ("#3f5570", "#22324a"), ("#f6dfe4", "#e0a9b8"), ("#d9f0ef", "#88c2c4"),
    ("#fff0ea", "#f4b6a4"), ("#e9e7e2", "#c2bdb3"), ("#e6ecd2", "#bccb8f"), ("#54627f", "#34395a"),
)  # fmt: skip
SCARVES = ("#3f7f8c", "#b5536b", "#e3b26a", "#5b5f97", "#7a9e7e", "#efe3d3", "#34495e")
GREYS = ("#8d8f96", "#b6b8be", "#dadbe0", "#eeeef0", "#6f6a69")
AGES = ("adult", "adult", "adult", "adult", "child", "elder")
_HAIR_OF = {
    ("adult", True): (
        "bob",
        "long",
        "wavy",
        "curly",
        "afro",
        "bun",
        "fringe",
        "ponytail",
        "headscarf",
        "wavy",
        "long",
    ),
    ("adult", False): (
        "short",
        "quiff",
        "undercut",
        "curly",
        "bald",
        "short",
        "quiff",
        "undercut",
        "afro",
        "crown",
    ),
    ("child", True): ("braids", "ponytail", "bob", "fringe", "curly", "afro", "braids"),
    ("child", False): ("short", "curly", "fringe", "quiff", "afro", "short"),
    ("elder", True): ("bun", "bob", "curly", "wavy", "headscarf", "bun"),
    ("elder", False): ("short", "crown", "bald", "quiff", "crown"),
}
ROBOTS = 0.25  #: Share of seeds that are robots.
ACCENTS = ("#5fe3ff", "#7dffb0", "#ffb84d", "#ff7ab8", "#a99bff", "#fff1a8", "#6fa8ff")
SHELLS = (
    "#f3f6f9",
    "#e7ebf0",
    "#b9d7e8",
    "#f6c453",
    "#ef8354",
    "#8fc9a4",
    "#a4a9d6",
    "#d7596b",
    "#5c6f8c",
    "#f2b8c6",
)


class _Draw:
    """Random draws that depend only on ``random()``, whose stream Python keeps the same across versions."""

    def __init__(self, seed: int, stream: str) -> None:
        self._random = random.Random(f"{stream}:{seed}")

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random.random()

    def chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence):
        return options[int(self._random.random() * len(options))]

    def tint(self, code: str, amount: float = 0.05) -> Colour:
        r, g, b = rgb(code)
        values = [min(1.0, max(0.0, x + self.between(-amount, amount))) for x in (r, g, b)]
        return (values[0], values[1], values[2])


def identity_from_seed(seed: int, style: str | None = None) -> Identity:
    """The character of a seed, always the same. ``style``: one of ``STYLES``; "human" draws one of the styles of
    people; None draws among all.

    Raises CharacterError for an unknown style or a seed that is not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise CharacterError(f"the seed is {seed!r}; a whole number is needed")
    if style is not None and style not in (*STYLES, "human"):
        raise CharacterError(f"style is {style!r}; it must be one of {', '.join(STYLES)}, human or None")
    d = _Draw(seed, "style")
    if style is None and d.chance(ROBOTS):
        style = "robot"
    if style is None or style == "human":
        style = d.pick(("soft", *PERSON_STYLES))
    d = _Draw(seed, style)
    return _draw_robot(d) if style == "robot" else _draw_person(d, style)


def _draw_person(d: _Draw, style: str) -> Identity:
    age = d.pick(AGES)
    feminine = d.chance(0.5)
    child, elder = age == "child", age == "elder"
    skin = d.tint(d.pick(SKINS), 0.02)
    dark = 1.0 - (skin[0] + skin[1] + skin[2]) / 3.0
    # Fair hair is drawn less often on dark skin; dyed hair goes with every skin, and leaves the beard as it was.
    shades = HAIRS if dark < 0.42 or d.chance(0.12) else HAIRS[:4]
    natural = d.tint(d.pick(GREYS if elder and d.chance(0.85) else shades), 0.02)
    if abs(sum(natural) - sum(skin)) < 0.45:  # hair as light as the skin would not be seen
        natural = rgb("#2a211e") if dark < 0.75 else rgb("#6a4024")
    hair_colour = d.tint(d.pick(DYED), 0.02) if not child and d.chance(0.08) else natural
    hair = d.pick(_HAIR_OF[(age, feminine)])
    bearded = not feminine and not child and d.chance(0.5)
    top, bottom = d.pick(BACKS)
    grown = {
        "face_width": d.between(0.95, 1.05),
        "jaw_width": d.between(0.70, 0.82) if feminine else d.between(0.77, 0.92),
        "chin": d.between(-4.0, 7.0),
        "eye_size": d.between(0.98, 1.12) if feminine else d.between(0.90, 1.04),
        "eye_y": d.between(-1.0, 6.0),
        "brow_y": d.between(-44.0, -38.0),
        "nose_size": d.between(0.82, 1.02) if feminine else d.between(0.95, 1.2),
        "nose_y": d.between(31.0, 36.0),
        "mouth_y": d.between(68.0, 74.0),
        "mouth_width": d.between(0.90, 1.08),
        "build": d.between(0.88, 0.98) if feminine else d.between(0.96, 1.08),
    }
    # Children: larger and lower eyes in a rounder, shorter face, a small nose, narrow shoulders.
    small = {
        "face_width": d.between(1.0, 1.06),
        "jaw_width": d.between(0.84, 0.96),
        "chin": d.between(-12.0, -5.0),
        "eye_size": d.between(1.12, 1.22),
        "eye_y": d.between(8.0, 14.0),
        "brow_y": d.between(-40.0, -35.0),
        "nose_size": d.between(0.62, 0.76),
        "nose_y": d.between(38.0, 42.0),
        "mouth_y": d.between(70.0, 74.0),
        "mouth_width": d.between(0.78, 0.92),
        "build": d.between(0.70, 0.80),
    }
    return Identity(
        style=style,
        skin=skin,
        lip=lip_for(skin, d.between(0.25, 0.85) if feminine and not child else d.between(0.05, 0.3)),
        iris=d.tint(d.pick(IRISES if dark < 0.42 else IRISES[:3]), 0.03),
        brow=blend(shade(natural, -0.25), rgb("#2a1d18"), 0.15 if elder else 0.35),
        hair_colour=hair_colour,
        cloth=d.tint(d.pick(FABRICS), 0.04),
        cloth_second=rgb(d.pick(SECONDS)),
        back_top=d.tint(top, 0.03),
        back_bottom=d.tint(bottom, 0.03),
        **(small if child else grown),
        ear_size=d.between(0.9, 1.15),
        eye_aspect=d.between(0.82, 0.94) if child else d.between(0.76, 0.92),
        eye_spacing=d.between(45.0, 50.0) + (3.0 if child else 0.0),
        eye_tilt=d.between(-0.10, 0.04),
        iris_size=d.between(1.0, 1.12) if child else d.between(0.94, 1.10),
        lashes=d.between(0.6, 1.0) if feminine else d.between(0.0, 0.3),
        brow_thick=d.between(0.70, 1.0) if feminine or child else d.between(1.0, 1.4),
        brow_arch=d.between(0.8, 1.4) if feminine else d.between(0.4, 1.0),
        lip_full=d.between(0.95, 1.35) if feminine and not child else d.between(0.70, 1.05),
        hair=hair,
        part=d.between(0.2, 0.8) * (1.0 if d.chance(0.5) else -1.0),
        volume=d.between(0.7, 1.3),
        beard=d.pick(("short", "full", "goatee", "moustache")) if bearded else "none",
        glasses=d.pick(("round", "square", "cat")) if d.chance(0.5 if elder else 0.25) else "none",
        glasses_colour=rgb(d.pick(("#2c2f36", "#6b3f2a", "#8c2f39", "#3a5068", "#b08d57"))),
        clothes=d.pick(("crew", "hoodie", "dungarees", "crew")) if child else d.pick(CLOTHES),
        blush=d.between(0.5, 1.0) if child else d.between(0.3, 0.9),
        freckles=d.between(0.4, 0.9) if dark < 0.32 and d.chance(0.35 if child else 0.12) else 0.0,
        lines=d.between(0.6, 1.0) if elder else 0.0,
        scarf=d.tint(d.pick(SCARVES), 0.03),
        earrings=feminine and not child and d.chance(0.4),
    )


def _draw_robot(d: _Draw) -> Identity:
    top, bottom = d.pick(BACKS)
    shell = d.tint(d.pick(SHELLS), 0.03)
    accent = d.tint(d.pick(ACCENTS), 0.03)
    return Identity(
        style="robot",
        accent=accent,
        shell=shell,
        panel=d.tint(d.pick(("#172033", "#1c1a2e", "#12262b", "#262a33")), 0.015),
        robot_face=d.pick(("screen", "screen", "plate")),
        robot_eyes=d.pick(ROBOT_EYES),
        robot_top=d.pick(ROBOT_TOPS),
        corner=d.between(0.75, 1.0),
        cloth=d.tint(d.pick(SHELLS), 0.03) if d.chance(0.4) else shell,
        cloth_second=d.tint(d.pick(("#39435a", "#2c3140", "#59647a")), 0.02),
        back_top=d.tint(top, 0.03),
        back_bottom=d.tint(bottom, 0.03),
        face_width=d.between(0.96, 1.08),
        jaw_width=d.between(0.80, 1.0),
        chin=d.between(-2.0, 4.0),
        ear_size=d.between(0.85, 1.2),
        eye_size=d.between(0.94, 1.08),
        eye_aspect=d.between(0.85, 1.05),
        eye_spacing=d.between(45.0, 50.0),
        eye_y=d.between(-4.0, 6.0),
        iris_size=d.between(0.95, 1.1),
        brow_thick=d.between(0.8, 1.2),
        brow_arch=d.between(0.3, 1.0),
        brow_y=d.between(-46.0, -42.0),
        mouth_width=d.between(0.90, 1.08),
        mouth_y=d.between(61.0, 66.0),
        lip_full=d.between(0.6, 0.9),
        blush=d.between(0.0, 0.8),
    )
