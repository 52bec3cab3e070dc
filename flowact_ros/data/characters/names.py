# SPDX-License-Identifier: Apache-2.0
"""The named characters that the first weights are trained on and the demonstrations show."""

from __future__ import annotations

from .identity import Identity, lip_for, rgb


def _person(
    name: str,
    style: str,
    skin: str,
    hair: str,
    hair_colour: str,
    iris: str,
    cloth: str,
    back: tuple[str, str],
    redness: float,
    **more,
) -> Identity:
    brow = more.pop("brow", hair_colour)
    r, g, b = rgb(brow)
    return Identity(
        style=style, name=name, skin=rgb(skin), lip=lip_for(rgb(skin), redness), iris=rgb(iris), hair=hair,
        hair_colour=rgb(hair_colour), brow=(r * 0.7, g * 0.66, b * 0.64), cloth=rgb(cloth),
        back_top=rgb(back[0]), back_bottom=rgb(back[1]), **more,
    )  # fmt: skip


def _robot(name: str, shell: str, accent: str, body: str, back: tuple[str, str], **more) -> Identity:
    return Identity(
        style="robot", name=name, shell=rgb(shell), accent=rgb(accent), cloth=rgb(body),
        cloth_second=rgb("#39435a"), back_top=rgb(back[0]), back_bottom=rgb(back[1]), **{"mouth_y": 64.0, **more},
    )  # fmt: skip


# fmt: off
_SKY, _PEACH, _MINT = ("#dcebf4", "#a9c8dc"), ("#fbe6d4", "#f0bd9b"), ("#e3f1e4", "#a8d0b4")
_LILAC, _SUN, _NIGHT = ("#ece4f5", "#bfaad8"), ("#fdf1cf", "#f0cf86"), ("#3f5570", "#22324a")
_ROSE, _LAKE, _SAND = ("#f6dfe4", "#e0a9b8"), ("#d9f0ef", "#88c2c4"), ("#efece4", "#cfc6b5")
_CORAL, _MOSS = ("#fff0ea", "#f4b6a4"), ("#eef2dc", "#bccb8f")

_ALL = (
    # soft
    _person("mia", "soft", "#f3c9a8", "bob", "#5a3921", "#5d7a46", "#3f8f6f", _MINT, 0.45,
            eye_size=1.08, lashes=0.8, brow_thick=0.8, jaw_width=0.74, lip_full=1.15, part=0.5, clothes="crew",
            blush=0.7, build=0.94),
    _person("amara", "soft", "#7a4a2c", "afro", "#2a211e", "#4d3322", "#e0a030", _SUN, 0.5,
            eye_size=1.08, lashes=0.9, brow_thick=0.85, jaw_width=0.74, lip_full=1.3, volume=0.8, clothes="vneck",
            earrings=True, build=0.94),
    _person("ines", "soft", "#d9a27a", "headscarf", "#3a281f", "#6b4526", "#5b5f97", _LAKE, 0.5,
            eye_size=1.06, lashes=0.9, brow_thick=0.9, jaw_width=0.75, lip_full=1.2, clothes="crew",
            scarf=rgb("#2f7f86"), blush=0.6, build=0.95),
    _person("walter", "soft", "#f3c9a8", "crown", "#dfe0e4", "#6f8796", "#8c2f39", _SKY, 0.1,
            beard="moustache", glasses="round", brow="#f4f4f6", jaw_width=0.86, nose_size=1.12, brow_thick=1.3,
            clothes="shirt", lip_full=0.8, blush=0.9, lines=0.8),
    _person("omar", "soft", "#cb8f63", "bald", "#2a211e", "#6b4526", "#26547c", _SAND, 0.1,
            beard="full", jaw_width=0.84, brow_thick=1.35, brow_arch=0.5, clothes="blazer", lip_full=0.95),
    # flat
    _person("sofia", "flat", "#e0ab82", "wavy", "#4a2c1f", "#6b4526", "#c8553d", _PEACH, 0.6,
            eye_size=1.08, lashes=1.0, brow_thick=0.85, jaw_width=0.73, lip_full=1.2, part=-0.35, clothes="vneck",
            blush=0.6, build=0.94),
    _person("leo", "flat", "#ecbb94", "quiff", "#3a281f", "#4d7fb0", "#2f6f9f", _SKY, 0.1,
            jaw_width=0.84, brow_thick=1.2, lip_full=0.85, brow_arch=0.6, clothes="shirt", part=0.4),
    _person("elias", "flat", "#96603d", "undercut", "#2a211e", "#4d3322", "#3f8f6f", _MOSS, 0.1,
            beard="short", jaw_width=0.86, brow_thick=1.2, brow_arch=0.6, clothes="hoodie", lip_full=1.05, part=-0.4),
    _person("greta", "flat", "#f8d9c0", "bun", "#dcdce2", "#4d7fb0", "#6b5b95", _LILAC, 0.42,
            glasses="cat", eye_size=1.04, lashes=0.7, brow="#a9a9b2", brow_thick=0.8, jaw_width=0.76, lip_full=1.0,
            clothes="turtleneck", glasses_colour=rgb("#8c2f39"), blush=0.8, lines=0.7, earrings=True, build=0.94),
    # outlined
    _person("kenji", "outlined", "#f0c9a0", "short", "#2a211e", "#4d3322", "#34495e", _SAND, 0.1,
            eye_aspect=0.78, glasses="square", jaw_width=0.82, brow_thick=1.1, brow_arch=0.5, clothes="blazer",
            lip_full=0.9, part=-0.5),
    _person("yuna", "outlined", "#f8d8bd", "fringe", "#332427", "#5d4030", "#ef767a", _ROSE, 0.5,
            eye_size=1.1, eye_aspect=0.82, lashes=0.8, brow_thick=0.75, jaw_width=0.74, lip_full=1.05,
            clothes="apron", cloth_second=rgb("#fff4ea"), blush=0.9, build=0.92),
    _person("finn", "outlined", "#fadcc4", "curly", "#c4602f", "#4c8a56", "#f2c14e", _LAKE, 0.15,
            face_width=1.03, jaw_width=0.88, chin=-8.0, eye_size=1.16, eye_y=10.0, eye_spacing=50.0, eye_aspect=0.9,
            brow_y=-37.0, brow_thick=0.9, brow_arch=0.8, nose_size=0.7, nose_y=40.0, mouth_y=72.0, mouth_width=0.88,
            lip_full=0.85, volume=0.8, clothes="dungarees", cloth_second=rgb("#3f6fa3"), blush=0.9, freckles=0.8,
            ear_size=1.1, build=0.76),
    # robots
    _robot("pixel", "#f3f6f9", "#5fe3ff", "#f3f6f9", _SKY, robot_eyes="round", robot_top="antenna",
           robot_face="screen"),
    _robot("bolt", "#f6c453", "#fff1a8", "#f6c453", _NIGHT, robot_eyes="pill", robot_top="twin",
           robot_face="screen", corner=0.85),
    _robot("coral", "#ef8354", "#7dffb0", "#e7ebf0", _LAKE, robot_eyes="round", robot_top="none",
           robot_face="plate", ear_size=1.2),
    _robot("nova", "#a4a9d6", "#ff7ab8", "#a4a9d6", _LILAC, robot_eyes="lens", robot_top="fin",
           robot_face="screen"),
    _robot("mint", "#8fc9a4", "#fff1a8", "#e7ebf0", _MINT, robot_eyes="pill", robot_top="antenna",
           robot_face="plate", corner=0.95),
    _robot("atlas", "#5c6f8c", "#ffb84d", "#5c6f8c", _SAND, robot_eyes="lens", robot_top="none",
           robot_face="screen", jaw_width=1.0, corner=0.8),
    _robot("rosie", "#f2b8c6", "#ff7ab8", "#f3f6f9", _ROSE, robot_eyes="round", robot_top="twin",
           robot_face="screen", blush=0.8),
)
# fmt: on

#: Characters by name: twelve people in three styles and seven robots.
NAMED: dict[str, Identity] = {identity.name: identity for identity in _ALL}
