# SPDX-License-Identifier: Apache-2.0
"""Who a character is: proportions, colours and the style that it is drawn in."""

from __future__ import annotations

from dataclasses import dataclass

from .canvas import Colour, blend, shade
from .controls import CharacterError

PERSON_STYLES = ("soft", "flat", "outlined")
STYLES = (*PERSON_STYLES, "robot")
HAIR_STYLES = (
    "short", "quiff", "undercut", "crown", "curly", "afro", "bob", "fringe", "long", "wavy", "bun", "ponytail",
    "braids", "headscarf", "bald",
)  # fmt: skip
#: Hair that hangs over the ears.
COVERED_EARS = ("bob", "fringe", "long", "wavy", "afro", "headscarf")
BEARDS = ("none", "short", "full", "goatee", "moustache")
GLASSES = ("none", "round", "square", "cat")
CLOTHES = ("crew", "vneck", "shirt", "hoodie", "blazer", "turtleneck", "apron", "dungarees")
ROBOT_FACES = ("screen", "plate")
ROBOT_EYES = ("round", "pill", "lens")
ROBOT_TOPS = ("antenna", "twin", "fin", "none")


def rgb(code: str) -> Colour:
    """``"#rrggbb"`` as three numbers in 0..1."""
    return (int(code[1:3], 16) / 255.0, int(code[3:5], 16) / 255.0, int(code[5:7], 16) / 255.0)


@dataclass(frozen=True)
class Identity:
    """Proportions (1 is average unless said otherwise; lengths in 1/512 of the canvas) and colours (0..1)."""

    style: str = "soft"
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
    # head and shoulders (``build``: how broad neck and shoulders are)
    build: float = 1.0
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
    # hair, beard, glasses, clothes (``scarf``: a headscarf's colour and that of bands in the hair)
    hair: str = "short"
    part: float = 0.4
    volume: float = 1.0
    beard: str = "none"
    glasses: str = "none"
    glasses_colour: Colour = rgb("#2c2f36")
    clothes: str = "crew"
    blush: float = 0.5
    freckles: float = 0.0
    lines: float = 0.0  # wrinkles
    scarf: Colour = rgb("#3f7f8c")
    earrings: bool = False
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


def lip_for(skin: Colour, redness: float) -> Colour:
    """A natural lip colour for a skin tone; ``redness`` 0 (bare) .. 1 (made up)."""
    return blend(shade(skin, -0.12), blend(shade(skin, -0.25), rgb("#c2383f"), 0.65), 0.35 + 0.6 * redness)
