# SPDX-License-Identifier: Apache-2.0
"""Who a character is: proportions and colours, drawn from a seed or given by name."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import Colour, blend, shade
from .controls import CharacterError

STYLES = ("human", "robot")
HAIR_STYLES = ("short", "quiff", "bob", "long", "curly", "bun", "fringe", "bald")
BEARDS = ("none", "short", "full", "moustache")
GLASSES = ("none", "round", "square")
CLOTHES = ("crew", "vneck", "shirt", "hoodie", "blazer")
ROBOT_FACES = ("screen", "plate")
ROBOT_EYES = ("round", "pill", "lens")
ROBOT_TOPS = ("antenna", "twin", "fin", "none")


def rgb(code: str) -> Colour:
    """``"#rrggbb"`` as three numbers in 0..1."""
    return (int(code[1:3], 16) / 255.0, int(code[3:5], 16) / 255.0, int(code[5:7], 16) / 255.0)


@dataclass(frozen=True)
class Identity:
    """Proportions (1 is average unless said otherwise; lengths in 1/512 of the canvas) and colours (0..1)."""

    style: str = "human"
    name: str = ""
    # colours
    skin: Colour = rgb("#f0c5a3")
    lip: Colour = rgb("#d0736b")
    iris: Colour = rgb("#5a7f94")
    brow: Colour = rgb("#4a3326")
    hair_colour: Colour = rgb("#5b3c28")
    cloth: Colour = rgb("#3d7ea6")
    cloth_second: Colour = rgb("#f4f1ea")
    back_top: Colour = rgb("#cfe3ee")
    back_bottom: Colour = rgb("#9fc1d6")
    # head
    face_width: float = 1.0
    jaw_width: float = 0.80
    chin: float = 0.0
    ear_size: float = 1.0
    # eyes
    eye_size: float = 1.0
    eye_aspect: float = 0.82
    eye_spacing: float = 47.0
    eye_y: float = 2.0
    eye_tilt: float = 0.0
    iris_size: float = 1.0
    lashes: float = 0.3
    # brows
    brow_thick: float = 1.0
    brow_arch: float = 1.0
    brow_y: float = -41.0
    # nose
    nose_size: float = 1.0
    nose_y: float = 34.0
    # mouth
    mouth_width: float = 1.0
    mouth_y: float = 71.0
    lip_full: float = 1.0
    # hair, beard, glasses, clothes
    hair: str = "short"
    part: float = 0.4
    volume: float = 1.0
    beard: str = "none"
    glasses: str = "none"
    glasses_colour: Colour = rgb("#2c2f36")
    clothes: str = "crew"
    blush: float = 0.5
    # robots
    accent: Colour = rgb("#5fe3ff")
    shell: Colour = rgb("#eef2f6")
    panel: Colour = rgb("#172033")
    robot_face: str = "screen"
    robot_eyes: str = "round"
    robot_top: str = "antenna"
    corner: float = 1.0


def check_identity(identity: Identity) -> None:
    """Raises CharacterError when a field names a style that cannot be drawn."""
    for field, allowed in (
        ("style", STYLES), ("hair", HAIR_STYLES), ("beard", BEARDS), ("glasses", GLASSES), ("clothes", CLOTHES),
        ("robot_face", ROBOT_FACES), ("robot_eyes", ROBOT_EYES), ("robot_top", ROBOT_TOPS),
    ):  # fmt: skip
        value = getattr(identity, field)
        if value not in allowed:
            raise CharacterError(f"identity {field} is {value!r}; it must be one of {', '.join(allowed)}")


SKINS = ("#f8d9c0", "#f3c9a8", "#ecbb94", "#dda67c", "#cb8f63", "#b0744c", "#935c3a", "#754629", "#5b3522")
HAIRS = ("#2a211e", "#3a281f", "#55371f", "#7a4b28", "#a56a35", "#d2a056", "#e6c27f", "#b4532a", "#8d8f96", "#dadbe0",
         "#3c2a3f", "#7d3045")  # fmt: skip
IRISES = ("#4d3322", "#6b4526", "#8a6a34", "#5d7a46", "#4c8a86", "#4d7fb0", "#6f8796")
FABRICS = ("#2f6f9f", "#c8553d", "#3f8f6f", "#e0a030", "#6b5b95", "#d9dde3", "#34495e", "#b5838d", "#4f9da6", "#7a9e48",
           "#f0e6d8", "#8c2f39", "#26547c", "#ef767a")  # fmt: skip
SECONDS = ("#f6f3ec", "#ffffff", "#2f3440", "#f3d8a0", "#dfe8ef")
BACKS = (
    ("#dcebf4", "#a9c8dc"), ("#fbe6d4", "#f0bd9b"), ("#e3f1e4", "#a8d0b4"), ("#ece4f5", "#bfaad8"),
    ("#fdf1cf", "#f0cf86"), ("#3f5570", "#22324a"), ("#f6dfe4", "#e0a9b8"), ("#d9f0ef", "#88c2c4"),
    ("#e9e7e2", "#c2bdb3"), ("#54627f", "#34395a"),
)  # fmt: skip
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


def lip_for(skin: Colour, redness: float) -> Colour:
    """A natural lip colour for a skin tone; ``redness`` 0 (bare) .. 1 (made up)."""
    return blend(shade(skin, -0.12), blend(shade(skin, -0.25), rgb("#c2383f"), 0.65), 0.35 + 0.6 * redness)


def identity_from_seed(seed: int, style: str | None = None) -> Identity:
    """The character of a seed, always the same; ``style`` "human" or "robot" fixes the style, None draws it.

    Raises CharacterError for an unknown style or a seed that is not a whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise CharacterError(f"the seed is {seed!r}; a whole number is needed")
    if style is not None and style not in STYLES:
        raise CharacterError(f"style is {style!r}; it must be one of {', '.join(STYLES)} or None")
    if style is None:
        style = "robot" if _Draw(seed, "style").chance(0.35) else "human"
    d = _Draw(seed, style)
    return _draw_human(d) if style == "human" else _draw_robot(d)


def _draw_human(d: _Draw) -> Identity:
    feminine = d.chance(0.5)
    skin = d.tint(d.pick(SKINS), 0.02)
    dark = 1.0 - (skin[0] + skin[1] + skin[2]) / 3.0
    # Very fair hair is drawn less often on dark skin; grey and dyed hair go with every skin.
    shades = HAIRS if dark < 0.42 or d.chance(0.25) else HAIRS[:4]
    hair_colour = d.tint(d.pick(shades), 0.03)
    styles = (
        ("bob", "long", "curly", "bun", "fringe", "long")
        if feminine
        else ("short", "quiff", "curly", "bald", "short", "quiff")
    )
    top, bottom = d.pick(BACKS)
    beard = "none" if feminine or d.chance(0.5) else d.pick(BEARDS[1:])
    return Identity(
        style="human",
        skin=skin,
        lip=lip_for(skin, d.between(0.25, 0.85) if feminine else d.between(0.0, 0.3)),
        iris=d.tint(d.pick(IRISES if dark < 0.42 else IRISES[:3]), 0.03),
        brow=blend(shade(hair_colour, -0.25), rgb("#2a1d18"), 0.35),
        hair_colour=hair_colour,
        cloth=d.tint(d.pick(FABRICS), 0.04),
        cloth_second=rgb(d.pick(SECONDS)),
        back_top=d.tint(top, 0.03),
        back_bottom=d.tint(bottom, 0.03),
        face_width=d.between(0.94, 1.05),
        jaw_width=d.between(0.72, 0.82) if feminine else d.between(0.77, 0.90),
        chin=d.between(-4.0, 7.0),
        ear_size=d.between(0.9, 1.15),
        eye_size=d.between(0.98, 1.12) if feminine else d.between(0.90, 1.04),
        eye_aspect=d.between(0.76, 0.92),
        eye_spacing=d.between(45.0, 50.0),
        eye_y=d.between(-1.0, 6.0),
        eye_tilt=d.between(-0.10, 0.04),
        iris_size=d.between(0.94, 1.12),
        lashes=d.between(0.6, 1.0) if feminine else d.between(0.0, 0.3),
        brow_thick=d.between(0.70, 1.0) if feminine else d.between(1.0, 1.4),
        brow_arch=d.between(0.8, 1.4) if feminine else d.between(0.4, 1.0),
        brow_y=d.between(-44.0, -38.0),
        nose_size=d.between(0.82, 1.02) if feminine else d.between(0.95, 1.2),
        nose_y=d.between(31.0, 36.0),
        mouth_width=d.between(0.90, 1.08),
        mouth_y=d.between(68.0, 74.0),
        lip_full=d.between(0.95, 1.35) if feminine else d.between(0.70, 1.05),
        hair=d.pick(styles),
        part=d.between(0.2, 0.8) * (1.0 if d.chance(0.5) else -1.0),
        volume=d.between(0.7, 1.3),
        beard=beard,
        glasses=d.pick(("round", "square")) if d.chance(0.28) else "none",
        glasses_colour=rgb(d.pick(("#2c2f36", "#6b3f2a", "#8c2f39", "#3a5068", "#b08d57"))),
        clothes=d.pick(CLOTHES),
        blush=d.between(0.3, 0.9),
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
