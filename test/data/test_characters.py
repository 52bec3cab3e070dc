# SPDX-License-Identifier: Apache-2.0
"""The character renderer: every control does what it says, in the right place, and the truth matches the pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import (
    CONTROL_LIMITS,
    CONTROL_NAMES,
    NAMED,
    STYLES,
    CharacterError,
    View,
    clamp_controls,
    control_index,
    feature_boxes,
    identity_from_seed,
    landmarks,
    mouth_opening,
    neutral,
    render,
)
from flowact_ros.data.characters.styles import STYLES as STYLES_OF
from flowact_ros.data.poses import random_movement

PERSON, ROBOT = NAMED["mia"], NAMED["coral"]
#: One character of every style.
EACH_STYLE = pytest.mark.parametrize("name", ["mia", "leo", "yuna", "coral"])
BOTH = pytest.mark.parametrize("who", [PERSON, ROBOT], ids=["person", "robot"])


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pose(frames: int = 1, **values) -> torch.Tensor:
    """Neutral controls with some columns set to a number or to one number a frame."""
    controls = neutral(frames)
    for name, value in values.items():
        controls[:, control_index(name)] = torch.as_tensor(value, dtype=torch.float32)
    return controls


def crop(frame: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    x0, y0, x1, y1 = (int(round(float(v))) for v in box)
    return frame[:, y0:y1, x0:x1]


def change(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Summed absolute difference of every pixel, [H, W]."""
    return (a.int() - b.int()).abs().sum(0)


def green(frame: torch.Tensor) -> torch.Tensor:
    """Where the picture is clearly green, [H, W]."""
    r, g, b = frame.int()
    return (g > r + 50) & (g > b + 50)


def with_green_lips(who):
    """The same character with lips that no other part can be taken for."""
    paint = {"lip": (0.0, 1.0, 0.0)} if who.style != "robot" else {"panel": (0.0, 1.0, 0.0)}
    return dataclasses.replace(who, **paint)


def drawn_opening(who, controls: torch.Tensor, size: int) -> list[int]:
    """Rows between the lips in the mouth's middle column, read from the pixels of every frame."""
    who = with_green_lips(who)
    gaps = []
    for frame, box in zip(render(who, controls, size), feature_boxes(who, controls, size)["mouth"]):
        x = int((box[0] + box[2]) / 2)
        lips = green(frame[:, int(box[1]) : int(box[3]) + 1, x : x + 1])[:, 0].nonzero().flatten()
        gaps.append(int(lips.max() - lips.min() + 1 - len(lips)))
    return gaps


def test_neutral_pictures():
    frames = render(PERSON, neutral(3), size=128)
    assert frames.shape == (3, 3, 128, 128) and frames.dtype == torch.uint8
    assert torch.equal(frames[0], frames[2])
    assert frames.float().std() > 20
    assert not frames.is_inference()  # may go straight into training


def test_controls_have_the_agreed_order():
    assert len(CONTROL_NAMES) == len(set(CONTROL_NAMES)) == 40
    assert CONTROL_NAMES[:6] == ("head_yaw", "head_pitch", "head_roll", "head_x", "head_y", "head_z")
    assert CONTROL_NAMES.index("jaw") == 15 and CONTROL_NAMES[-1] == "hand_right_point"
    rest = neutral(1)[0]
    hands = {"hand_left_x": 0.25, "hand_left_y": 1.2, "hand_right_x": 0.75, "hand_right_y": 1.2}
    for name, value in zip(CONTROL_NAMES, rest.tolist()):
        assert value == pytest.approx(hands.get(name, 0.0))


def test_names_cover_all_styles():
    assert len(NAMED) >= 19
    styles = [who.style for who in NAMED.values()]
    assert len(STYLES) >= 4 and all(styles.count(style) >= 3 for style in STYLES)
    assert all(name == who.name for name, who in NAMED.items())
    pictures = torch.cat([render(who, neutral(1), size=64) for who in NAMED.values()]).float().flatten(1)
    apart = torch.cdist(pictures, pictures) + 1e9 * torch.eye(len(pictures))
    assert apart.min() > 500  # no two look the same


def test_seeds_are_reproducible_and_differ():
    assert identity_from_seed(11) == identity_from_seed(11)
    people = {identity_from_seed(seed, "human") for seed in range(50)}
    assert len(people) == 50
    assert {who.style for who in (identity_from_seed(seed) for seed in range(40))} == set(STYLES)
    assert {who.style for who in people} == set(STYLES) - {"robot"}
    assert {who.hair for who in people} >= {
        "afro",
        "braids",
        "ponytail",
        "undercut",
        "wavy",
        "headscarf",
        "crown",
    }
    assert any(who.lines for who in people) and any(who.freckles for who in people)
    assert {identity_from_seed(seed, "flat").style for seed in range(5)} == {"flat"}
    # The stream of draws is part of the data set: a change here changes every clip and split.
    who = identity_from_seed(0, "human")
    assert (who.hair, who.clothes, round(who.face_width, 4)) == ("long", "blazer", 1.0238)


def everyone() -> list:
    return [*NAMED.values(), *(identity_from_seed(seed) for seed in range(150))]


def test_eyes_lie_where_a_portrait_has_them():
    for who in everyone():
        spots = landmarks(who, neutral(1), 480)
        for side in ("eye_left", "eye_right"):
            assert 0.40 * 480 <= float(spots[side][0, 1]) <= 0.48 * 480, who


def test_heads_fill_the_picture():
    """From the chin to the top of the hair or the shell: at least 45 % of the height, and all of it in the picture."""
    for who in everyone()[:80]:
        picture = render(who, neutral(1), 128)[0]
        behind = (STYLES_OF[who.style].background(who, 128, torch.device("cpu")) * 255).round()
        drawn = (picture.float() - behind).abs().amax(0) > 12
        wide = drawn[:, 32:96].sum(1) >= 14  # wider than an antenna
        top = int(wide.nonzero()[0])
        chin = float(feature_boxes(who, neutral(1), 128)["face"][0, 3]) - 2
        assert chin - top >= 0.45 * 128, who
        assert top >= 3, who


def test_render_is_deterministic_and_frames_do_not_affect_each_other():
    torch.manual_seed(3)
    low = torch.tensor([CONTROL_LIMITS[n][0] for n in CONTROL_NAMES])
    high = torch.tensor([CONTROL_LIMITS[n][1] for n in CONTROL_NAMES])
    controls = low + (high - low) * torch.rand(5, len(CONTROL_NAMES))
    for who in (PERSON, ROBOT, NAMED["sofia"], NAMED["amara"], NAMED["omar"]):
        together = render(who, controls, size=192)
        assert torch.equal(together, render(who, controls, size=192))
        alone = torch.cat([render(who, row[None], size=192) for row in controls])
        # Vectorised square roots differ in their last bit from those of the odd pixels at a row's end.
        assert int((together.int() - alone.int()).abs().max()) <= 1


def test_a_view_shows_what_the_whole_picture_has_there():
    controls = random_movement(np.random.default_rng(2), 3)
    view = View(40, 70, 96, 72)
    for who in (PERSON, ROBOT, *NAMED.values()):
        whole = render(who, controls, size=192)[..., 70:142, 40:136]
        # Boxes that are cut begin at other places, and vectorised square roots differ in their last bit.
        assert int((whole.int() - render(who, controls, 192, view).int()).abs().max()) <= 1, who
    with pytest.raises(CharacterError, match="not inside"):
        render(PERSON, controls, 192, View(100, 0, 96, 72))


# Where each control must act: at least this share of the change falls into the boxes named.
PLACES = {
    "gaze_x": ("eye_left", "eye_right"),
    "gaze_y": ("eye_left", "eye_right"),
    "blink_left": ("eye_left",),
    "blink_right": ("eye_right",),
    "eye_wide": ("eye_left", "eye_right"),
    "squint": ("eye_left", "eye_right"),
    "jaw": ("mouth",),
    "mouth_width": ("mouth",),
    "smirk": ("mouth",),
    "lip_upper": ("mouth",),
    "lip_lower": ("mouth",),
    "brow_left": ("face",),
    "brow_right": ("face",),
    "brow_inner": ("face",),
    "smile": ("face",),
    "cheek": ("face",),
}
#: Teeth and tongue show, and rounding and pressing act, in an open mouth only.
BASE = {name: {"jaw": 0.5} for name in ("mouth_round", "lip_press", "teeth", "tongue")}
for _hand in ("left", "right"):
    for _what in ("x", "angle", "open", "point"):
        BASE[f"hand_{_hand}_{_what}"] = {f"hand_{_hand}_y": 0.75}


@EACH_STYLE
@pytest.mark.parametrize("control", CONTROL_NAMES)
def test_every_control_changes_the_picture_where_it_should(name, control):
    who, name = NAMED[name], control
    base = pose(**BASE.get(name, {}))
    low, high = CONTROL_LIMITS[name]
    rest = float(base[0, control_index(name)])
    target = (
        0.75 if name.endswith("_y") and name.startswith("hand") else (0.6 * high if rest == 0 else rest - 0.1)
    )
    moved = base.clone()
    moved[:, control_index(name)] = target
    first, second = render(who, base, 256)[0], render(who, moved, 256)[0]
    difference = change(first, second)
    assert int((difference > 24).sum()) >= 12, f"{name} changes almost nothing"
    places = PLACES.get(name)
    if places is None:
        return
    inside = torch.zeros_like(difference, dtype=torch.bool)
    for controls in (base, moved):
        boxes = feature_boxes(who, controls, 256)
        for place in places:
            x0, y0, x1, y1 = (int(v) for v in boxes[place][0])
            inside[y0 : y1 + 1, x0 : x1 + 1] = True
    share = float(difference[inside].sum() / difference.sum())
    assert share > (0.6 if name == "jaw" else 0.85), (
        f"{name}: only {share:.2f} of the change lies in {places}"
    )


@BOTH
def test_sides_are_those_of_the_picture(who):
    rest = render(who, neutral(1), 256)[0]
    for name in ("blink_left", "brow_left", "hand_left_y"):
        value = 0.75 if name.startswith("hand") else 1.0
        difference = change(rest, render(who, pose(**{name: value}), 256)[0])
        assert difference[:, :128].sum() > 20 * difference[:, 128:].sum().clamp_min(1)
    boxes = feature_boxes(who, neutral(1), 256)
    assert boxes["eye_left"][0, 2] < boxes["eye_right"][0, 0]


@BOTH
def test_turning_moves_the_face_the_way_the_signs_say(who):
    def middle(box):
        return (box[0, :2] + box[0, 2:]) / 2

    rest = feature_boxes(who, neutral(1))
    right = feature_boxes(who, pose(head_yaw=0.4))
    up = feature_boxes(who, pose(head_pitch=0.3))
    clockwise = feature_boxes(who, pose(head_roll=0.25))
    # Parallax: the mouth in front moves much more than the outline of the head.
    assert middle(right["mouth"])[0] - middle(rest["mouth"])[0] > 20
    assert abs(middle(right["face"])[0] - middle(rest["face"])[0]) < 3
    assert middle(up["mouth"])[1] < middle(rest["mouth"])[1] - 10
    assert clockwise["eye_left"][0, 1] < rest["eye_left"][0, 1] + 5
    assert middle(clockwise["eye_right"])[1] > middle(clockwise["eye_left"])[1] + 15
    # The far eye is foreshortened.
    width = right["eye_right"][0, 2] - right["eye_right"][0, 0]
    assert width < 0.9 * (right["eye_left"][0, 2] - right["eye_left"][0, 0])


@BOTH
def test_leaning_scales_the_head_about_the_neck(who):
    """6 % either way, and what the boxes and landmarks say is scaled as well."""
    spots = landmarks(who, pose(3, head_z=[-1.0, 0.0, 1.0]), 480)
    apart = (spots["eye_right"] - spots["eye_left"])[:, 0]
    assert torch.allclose(apart / apart[1], torch.tensor([0.94, 1.0, 1.06]), atol=1e-3)
    height = spots["mouth"][:, 1] - spots["eye_left"][:, 1]
    assert torch.allclose(height / height[1], torch.tensor([0.94, 1.0, 1.06]), atol=1e-3)
    assert spots["eye_left"][0, 1] > spots["eye_left"][2, 1]  # the eyes are above the neck: they rise


@EACH_STYLE
def test_a_smirk_lifts_one_corner_and_a_jaw_goes_to_the_side(name):
    who = with_green_lips(NAMED[name])
    controls = pose(5, smirk=[-1.0, 0.0, 1.0, 0.0, 0.0], jaw_x=[0.0, 0.0, 0.0, -1.0, 1.0], jaw=0.3)
    rows = torch.arange(256, dtype=torch.float32)
    slant, below = [], []
    for frame, box in zip(render(who, controls, 256), feature_boxes(who, controls, 256)["mouth"]):
        lips = green(frame)
        lips[: int(box[1])] = False
        lips[int(box[3]) + 1 :] = False
        middle = int(lips.nonzero()[:, 1].float().mean())
        height = [
            float((half.sum(1) * rows).sum() / half.sum()) for half in (lips[:, :middle], lips[:, middle:])
        ]
        slant.append(height[0] - height[1])
        last = lips.nonzero()[:, 0].max()
        below.append(float(lips[last - 2 : last + 1].nonzero()[:, 1].float().mean()))
    assert slant[0] < slant[1] - 0.8 < slant[1] + 0.8 < slant[2]
    assert below[3] < below[1] - 2 < below[1] + 2 < below[4]


@BOTH
def test_landmarks_are_in_the_boxes_and_not_clipped(who):
    controls = pose(3, head_yaw=[0.0, 0.3, -0.3], head_roll=[0.0, 0.2, -0.1], jaw=0.6)
    boxes, spots = feature_boxes(who, controls, 480), landmarks(who, controls, 480)
    assert set(spots) == {"mouth", "eye_left", "eye_right"}
    for name, spot in spots.items():
        assert spot.shape == (3, 2)
        assert (spot > boxes[name][:, :2]).all() and (spot < boxes[name][:, 2:]).all()
    half = landmarks(who, controls, 240)
    assert all(torch.allclose(2 * half[name], spots[name], atol=1e-3) for name in spots)


@BOTH
def test_opening_grows_with_the_jaw(who):
    truth = mouth_opening(who, pose(21, jaw=torch.linspace(0, 1, 21))) * 512
    assert truth[0] == 0
    assert (truth.diff() > 0).all()
    assert 55 < float(truth[-1]) < 72 and float(truth[6]) > 15


@EACH_STYLE
def test_opening_is_what_the_pixels_show(name):
    who = NAMED[name]
    controls = torch.cat(
        [
            pose(7, jaw=[0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0], teeth=0.3),
            pose(2, jaw=[0.4, 0.8], mouth_round=1.0, tongue=0.5),
            pose(2, jaw=[0.3, 0.6], lip_upper=1.0, lip_lower=1.0, smile=0.6, teeth=1.0),
            pose(2, jaw=0.6, head_pitch=[-0.3, 0.3]),
            pose(1, jaw=0.8, lip_press=0.5),
        ]
    )
    truth = mouth_opening(who, controls) * 768
    for frame, (drawn, true) in enumerate(zip(drawn_opening(who, controls, 768), truth.tolist())):
        assert abs(drawn - true) <= 3.5, f"frame {frame}: {drawn} rows are drawn open, {true:.1f} should be"


@BOTH
def test_the_open_mouth_is_dark_inside(who):
    controls = pose(jaw=1.0)
    frame, box = render(who, controls)[0], feature_boxes(who, controls)["mouth"][0]
    dark = crop(frame, box).int().sum(0) < 150
    assert int(dark.sum()) > 900
    closed = render(who, pose(), 512)[0]
    assert int((crop(closed, feature_boxes(who, pose())["mouth"][0]).int().sum(0) < 80).sum()) == 0


@BOTH
def test_pressed_lips_close_the_mouth(who):
    controls = pose(3, jaw=[0.0, 0.5, 1.0], lip_press=1.0, teeth=1.0, lip_upper=1.0, lip_lower=1.0)
    assert (mouth_opening(who, controls) == 0).all()
    # What is left is the line where the lips meet.
    assert max(drawn_opening(who, controls, 512)) <= 6
    half = pose(3, jaw=0.8, lip_press=[0.0, 0.5, 1.0])
    assert (mouth_opening(who, half).diff() < 0).all()


@BOTH
def test_rounding_narrows_and_smiling_widens(who):
    def width(**values):
        box = feature_boxes(who, pose(**values))["mouth"][0]
        return float(box[2] - box[0])

    assert width(mouth_round=1.0) < 0.7 * width()
    assert width(smile=1.0) > 1.08 * width()
    assert width(mouth_width=1.0) > 1.1 * width() > 1.2 * width(mouth_width=-1.0)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_boxes_hold_the_features(name):
    """Closing an eye or opening the mouth changes nothing outside its box, whatever way the head is turned."""
    who = NAMED[name]
    for turn in ({}, {"head_yaw": 0.3, "head_roll": -0.2}, {"head_yaw": -0.4, "head_pitch": 0.2}):
        open_, shut = pose(**turn), pose(**turn, blink_left=1.0, blink_right=1.0)
        difference = change(render(who, open_, 256)[0], render(who, shut, 256)[0]) > 60
        boxes = feature_boxes(who, open_, 256)
        for side in ("eye_left", "eye_right"):
            x0, y0, x1, y1 = (int(v) for v in boxes[side][0])
            difference[y0 : y1 + 2, x0 : x1 + 2] = False
        assert int(difference.sum()) == 0
        face = boxes["face"][0]
        for part in ("mouth", "eye_left", "eye_right"):
            inner = boxes[part][0]
            centre = (inner[:2] + inner[2:]) / 2
            assert (centre > face[:2]).all() and (centre < face[2:]).all()


def test_closed_eyes_hide_the_iris():
    frames = render(PERSON, pose(2, blink_left=[0.0, 1.0], blink_right=[0.0, 1.0]))
    box = feature_boxes(PERSON, neutral(1))["eye_left"][0]
    white = [int((crop(frame, box).amin(0) > 215).sum()) for frame in frames]
    assert white[0] > 200 and white[1] == 0


def test_gaze_moves_the_pupil():
    frames = render(PERSON, pose(3, gaze_x=[-1.0, 0.0, 1.0]))
    box = feature_boxes(PERSON, neutral(1))["eye_left"][0]
    centres = []
    for frame in frames:
        dark = (crop(frame, box).sum(0) < 90).float()
        centres.append(float((dark.sum(0) * torch.arange(dark.shape[1])).sum() / dark.sum()))
    assert centres[0] + 5 < centres[1] < centres[2] - 5


@BOTH
def test_hands_come_in_where_asked(who):
    rest = render(who, neutral(1), 256)[0]
    assert torch.equal(rest, render(who, pose(hand_left_y=1.19, hand_left_x=0.4), 256)[0])
    for x, y in ((0.2, 0.7), (0.7, 0.8)):
        difference = change(rest, render(who, pose(hand_right_x=x, hand_right_y=y), 256)[0]) > 30
        cx, cy = int(x * 256), int(y * 256)
        assert difference[cy - 8 : cy + 8, cx - 8 : cx + 8].float().mean() > 0.8
        assert not difference[: cy - 60].any()


@BOTH
def test_hand_boxes_hold_the_hand(who):
    controls = pose(
        3, hand_left_y=[1.2, 0.75, 0.7], hand_left_angle=[0.0, 0.5, -0.5], hand_left_open=[0.0, 1.0, 0.5]
    )
    boxes = feature_boxes(who, controls, 256)
    assert (boxes["hand_right"] == 0).all() and (boxes["hand_left"][0] == 0).all()
    frames = render(who, controls, 256)
    for frame, box in zip(frames[1:], boxes["hand_left"][1:]):
        x0, y0, x1, y1 = (int(v) for v in box)
        drawn = change(frames[0], frame) > 40
        drawn[y1:] = False  # the arm
        share = float(drawn[y0:y1, x0:x1].sum() / drawn.sum())
        assert share > 0.97 and drawn[y0:y1, x0:x1].float().mean() > 0.3


@pytest.mark.parametrize("opened", [0.0, 1.0])
@BOTH
def test_a_pointing_hand_shows_one_finger(who, opened):
    place = {"hand_left_y": 0.75, "hand_left_open": opened}
    rest = render(who, neutral(1), 256)[0]
    point = render(who, pose(**place, hand_left_point=1.0), 256)[0]
    row = (change(rest, point) > 40)[int(0.75 * 256) - 34, :128].nonzero().flatten()
    assert 6 <= len(row) <= 14 and int(row.max() - row.min()) < 15  # as wide as a finger, and in one piece
    assert float(row.float().mean()) > 0.25 * 256 + 4  # the first finger is beside the thumb


@BOTH
def test_sizes_agree(who):
    controls = pose(head_yaw=0.2, jaw=0.4, hand_left_y=0.8)
    large = render(who, controls, 512).float()
    small = render(who, controls, 256).float()
    error = (torch.nn.functional.avg_pool2d(large, 2) - small).square().mean()
    assert 10 * torch.log10(255.0**2 / error) > 33


def test_many_seeds_under_random_controls():
    generator = torch.Generator().manual_seed(5)
    low = torch.tensor([CONTROL_LIMITS[n][0] for n in CONTROL_NAMES])
    high = torch.tensor([CONTROL_LIMITS[n][1] for n in CONTROL_NAMES])
    for seed in range(200):
        who = identity_from_seed(seed)
        controls = low + (high - low) * torch.rand(1, len(CONTROL_NAMES), generator=generator)
        frame = render(who, controls, 64)
        assert frame.float().std() > 15, f"seed {seed} is almost one colour"
        assert torch.isfinite(mouth_opening(who, controls)).all()
        for part, box in feature_boxes(who, controls, 64).items():
            assert torch.isfinite(box).all() and (box >= 0).all() and (box <= 64).all()
            if not part.startswith("hand"):
                assert (box[:, 2] > box[:, 0]).all() and (box[:, 3] > box[:, 1]).all()


@pytest.mark.parametrize(
    "name", ["head_yaw", "head_roll", "jaw", "blink_left", "smile", "mouth_round", "gaze_x"]
)
def test_motion_is_smooth(name):
    """A small step of a control never makes the picture jump."""
    values = torch.linspace(*CONTROL_LIMITS[name], 33)
    frames = render(PERSON, pose(33, **{name: values}), 96).float()
    steps = frames.diff(dim=0).square().mean((1, 2, 3)).sqrt()
    assert steps.max() < 5 * steps.median().clamp_min(0.3)


@pytest.mark.parametrize(
    ("controls", "words"),
    [
        (pose(2, jaw=[0.0, 1.5]), "jaw is 1.5 in frame 1; it must lie in [0, 1]"),
        (pose(head_yaw=-0.7), "head_yaw is -0.7"),
        (torch.zeros(4, 7), "[4, 7]"),
        (torch.zeros(40), "[40]"),
        (torch.zeros(0, 40), "[0, 40]"),
        (pose(smile=float("nan")), "NaN"),
        ([[0.0] * 40], "list"),
    ],
)
def test_wrong_controls_are_refused(controls, words):
    for call in (render, feature_boxes, mouth_opening):
        with pytest.raises(CharacterError) as caught:
            call(PERSON, controls)
        assert words in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_identities_names_and_sizes_are_refused():
    with pytest.raises(CharacterError, match="must be one of soft, flat, outlined, robot"):
        identity_from_seed(1, "cat")
    with pytest.raises(CharacterError, match="whole number"):
        identity_from_seed(1.5)
    with pytest.raises(CharacterError, match="hair is 'mohawk'"):
        render(dataclasses.replace(PERSON, hair="mohawk"), neutral(1))
    for size in (0, -4, 8192, 100.0, True):
        with pytest.raises(CharacterError, match="whole number of pixels"):
            render(PERSON, neutral(1), size)
    with pytest.raises(CharacterError, match="no control is called 'jow'"):
        control_index("jow")
    with pytest.raises(CharacterError, match="at least 1"):
        neutral(0)


def test_clamp_brings_controls_inside():
    wild = 10.0 * torch.randn(6, len(CONTROL_NAMES), generator=torch.Generator().manual_seed(1))
    tame = clamp_controls(wild)
    assert render(PERSON, tame, 32).shape[0] == 6
    assert torch.equal(clamp_controls(tame), tame)


@BOTH
def test_identity_is_frozen_and_hashable(who):
    with pytest.raises(dataclasses.FrozenInstanceError):
        who.skin = (0.0, 0.0, 0.0)
    assert hash(who) == hash(dataclasses.replace(who))
