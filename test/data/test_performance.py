# SPDX-License-Identifier: Apache-2.0
"""Behaviours, performances, clips, splits and sentences, spoken by a fake voice (no backend needed)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fake_speech import only_fake

from flowact_ros.data.augment import Channel, Voice
from flowact_ros.data.behaviours import CODES, EYE_TURN, KINDS, NEUTRAL, WORDINGS, Span, body, column, limit
from flowact_ros.data.characters import NAMED, feature_boxes
from flowact_ros.data.characters.controls import CONTROL_LIMITS, CONTROL_NAMES, check_controls
from flowact_ros.data.clips import make_performance
from flowact_ros.data.performance import Segment, perform, seconds_said
from flowact_ros.data.sentences import FIXED, sentence
from flowact_ros.data.splits import (
    CHARACTER_SEEDS,
    HELDOUT_CHARACTER_SEEDS,
    HELDOUT_SENTENCES,
    HELDOUT_TEXTS,
    HELDOUT_VOICES,
    TRAIN_VOICES,
    normalized,
)
from flowact_ros.dialogue import planner


@pytest.fixture(autouse=True)
def _fake_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    only_fake(monkeypatch)


def act(kind: str, seed: int = 0, seconds: float = 4.0, text: str = "") -> dict[str, np.ndarray]:
    values = perform([Segment(kind, seconds, text)], np.random.default_rng(seed)).controls
    return {name: values[:, i] for i, name in enumerate(CONTROL_NAMES)}


def mean_over_seeds(kind: str, name: str, text: str = "", count: int = 6) -> float:
    return float(np.mean([act(kind, seed, text=text)[name].mean() for seed in range(count)]))


def test_every_behaviour_has_many_wordings_of_its_own() -> None:
    assert {"idle", "listening", "thinking", "speaking", "smile", "surprise", "laugh", "greeting"} <= set(
        WORDINGS
    )
    everything = [text for texts in WORDINGS.values() for text in texts]
    assert all(len(set(texts)) >= 6 for texts in WORDINGS.values())
    assert len(set(everything)) == len(everything)


def test_the_planner_says_what_training_has_heard() -> None:
    everything = {text for texts in WORDINGS.values() for text in texts}
    for texts in (*planner.WORDINGS.values(), *planner.REACTIONS.values(), *planner.MANNERS.values()):
        assert set(texts) <= everything


def test_numbers_are_those_of_the_messages() -> None:
    order = ("idle", "listening", "thinking", "speaking")
    assert [CODES[kind] for kind in order] == [0, 1, 2, 3]
    assert CODES["thinking_chin"] == 2 and CODES["speaking_serious"] == 3
    assert CODES["smile"] == CODES["laugh"] == CODES["surprise"] == CODES["greeting"] == 4


def test_each_behaviour_can_be_seen() -> None:
    said = "amber paper boat"
    assert mean_over_seeds("thinking", "gaze_y") > mean_over_seeds("idle", "gaze_y") + 0.3
    assert mean_over_seeds("smile", "smile") > mean_over_seeds("idle", "smile") + 0.4
    assert mean_over_seeds("surprise", "brow_left") > mean_over_seeds("idle", "brow_left") + 0.3
    assert mean_over_seeds("surprise", "eye_wide") > 0.3
    assert mean_over_seeds("laugh", "jaw") > 0.1 and mean_over_seeds("laugh", "eye_wide") < -0.2
    assert (
        mean_over_seeds("speaking_cheerful", "smile", said)
        > mean_over_seeds("speaking_serious", "smile", said) + 0.4
    )
    assert mean_over_seeds("listening", "head_z") > 0.2 > -0.1 > mean_over_seeds("surprise", "head_z")
    assert min(mean_over_seeds(kind, "squint") for kind in ("thinking", "laugh")) > 0.2 + mean_over_seeds(
        "idle", "squint"
    )
    assert max(act("speaking_gestures", seed, text=said)["hand_left_point"].max() for seed in range(12)) > 0.8
    for seed in range(4):
        assert np.abs(act("thinking", seed)["smirk"]).mean() > 0.2
        nods = act("listening", seed, 6.0)["head_pitch"]
        assert nods.min() < np.median(nods) - 0.05  # the head dips below where it rests
        chin, wave = act("thinking_chin", seed), act("greeting", seed)
        assert min(chin["hand_left_y"][-1], chin["hand_right_y"][-1]) < 0.9
        assert min(wave["hand_left_y"].min(), wave["hand_right_y"].min()) < 0.75
        assert max(np.ptp(wave["hand_left_angle"]), np.ptp(wave["hand_right_angle"])) > 0.5
        gestures = act("speaking_gestures", seed, text=said)
        assert min(gestures["hand_left_y"].min(), gestures["hand_right_y"].min()) < 1.0
        idle = act("idle", seed)
        assert idle["hand_left_y"].min() == idle["hand_right_y"].min() == pytest.approx(1.2)
        assert idle["jaw"].max() == 0.0 and idle["lip_press"].max() == 0.0


def test_the_thinking_hand_is_at_the_chin_and_leaves_the_mouth_free() -> None:
    for seed, who in enumerate(NAMED.values()):
        controls = perform([Segment("thinking_chin", 3.0)], np.random.default_rng(seed)).controls[-1:]
        boxes = feature_boxes(who, torch.from_numpy(controls), 480)
        mouth, face = boxes["mouth"][0], boxes["face"][0]
        hands = [boxes[name][0] for name in ("hand_left", "hand_right") if float(boxes[name].max()) > 0]
        assert len(hands) == 1, who.name
        x0, y0, x1, y1 = (float(v) for v in hands[0])
        assert y0 < float(face[3]) < y1 and x0 < float(mouth[0] + mouth[2]) / 2 < x1, who.name
        lips = float(mouth[1] + mouth[3]) / 2
        assert (
            y0 > lips and controls[0, column("hand_left_open")] + controls[0, column("hand_right_open")] < 0.2
        )


def test_lids_close_together_and_the_idle_look_about_and_come_back() -> None:
    for kind in KINDS:
        track = act(kind, 2, 8.0)
        assert np.array_equal(track["blink_left"], track["blink_right"]), kind
    aside = viewer = turned = 0
    for seed in range(12):
        idle = act("idle", seed, 10.0)
        # Where the eyes look in space: the eyes' turn and the head's together.
        look = idle["gaze_x"] + idle["head_yaw"] / EYE_TURN
        aside += int((np.abs(look) > 0.35).sum())
        viewer += int((np.abs(look) < 0.1).sum())
        turned += int((idle["head_yaw"] * look > 0)[np.abs(look) > 0.35].sum())
        assert np.ptp(idle["shoulder_x"]) > 0.1
    assert 0.08 < aside / 3000 < 0.6 and viewer / 3000 > 0.3
    assert turned > 0.6 * aside  # the head goes with the eyes


def test_life_goes_on_in_every_behaviour() -> None:
    for kind in KINDS:
        track = act(kind, 1, 8.0)
        assert np.ptp(track["head_yaw"]) > 0.01 and np.ptp(track["breath"]) > 0.5
        closed = track["blink_left"] > 0.5
        blinks = int((closed[1:] & ~closed[:-1]).sum())
        assert 1 <= blinks <= 8, kind
        assert closed.sum() / (blinks + int(closed[0])) <= 5  # 200 ms


def test_movement_is_smooth_and_transitions_take_their_time() -> None:
    spans = [
        Span("idle", 0, 50),
        Span("smile", 50, 100),
        Span("thinking_chin", 100, 150),
        Span("idle", 150, 225),
    ]
    for seed in range(5):
        track = limit(body(spans, 225, np.random.default_rng(seed)))
        for name in (
            "head_yaw",
            "head_pitch",
            "head_roll",
            "shoulder_x",
            "smile",
            "hand_left_y",
            "hand_right_y",
        ):
            low, high = CONTROL_LIMITS[name]
            acceleration = np.abs(np.diff(track[:, column(name)], 2)).max()
            assert acceleration < 0.06 * (high - low), name
        smile = track[:, column("smile")]
        assert abs(smile[50] - smile[49]) < 0.1 and smile[70] > smile[45] + 0.4
        assert abs(track[:, column("hand_right_y")][-1] - 1.2) < 1e-3  # hands go back down


def test_a_performance_fits_together() -> None:
    timeline = [
        Segment("listening", 2.0),
        Segment("speaking", text="amber boat map", wording="speaking"),
        Segment("smile", 1.0),
        Segment("greeting", text="hello"),
    ]
    p = perform(timeline, np.random.default_rng(3))
    assert p.controls.shape == (p.frames, len(CONTROL_NAMES)) and p.controls.dtype == np.float32
    assert p.pcm.shape == (p.frames * 960,) and p.pcm.dtype == np.float32 and p.behaviour.shape == (p.frames,)
    check = torch.from_numpy(p.controls)
    assert check_controls(check).shape == check.shape
    starts = [frame for frame, _ in p.instruction]
    assert (
        starts[0] == 0
        and starts == sorted(starts)
        and [kind for _, kind in p.kinds] == [s.kind for s in timeline]
    )
    assert p.instruction[1][1] == "speaking" and p.instruction[0][1] in WORDINGS["listening"]
    assert [p.behaviour[frame] for frame in starts] == [1, 3, 4, 3]  # a greeting that speaks is SPEAKING
    # Sound, phonemes and lips are in the speaking stretches only.
    sound = np.abs(p.pcm.reshape(p.frames, 960)).max(axis=1) > 0
    assert (
        not sound[: starts[1]].any()
        and sound[starts[1] : starts[2]].any()
        and not sound[starts[2] : starts[3]].any()
    )
    for q in p.phonemes:
        middle = int((q.start_s + q.end_s) / 2 * 25)
        assert sound[middle]
        if q.symbol in "PBM":
            assert p.controls[max(0, middle - 1) : middle + 2, column("lip_press")].max() > 0.98
    assert p.controls[: starts[1] - 3, column("jaw")].max() < 0.01


def test_a_clip_has_the_asked_length_even_when_the_timeline_has_not() -> None:
    for seconds in (0.4, 1.0, 2.04, 7.5):
        p = perform([Segment("speaking", text="amber boat map")], np.random.default_rng(0), seconds=seconds)
        assert (
            p.frames == round(seconds * 25) and len(p.pcm) == p.frames * 960 and len(p.behaviour) == p.frames
        )
        assert all(frame < p.frames for frame, _ in p.instruction)


def test_bad_timelines_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        perform([], np.random.default_rng(0))
    with pytest.raises(ValueError, match="dancing"):
        perform([Segment("dancing", 1.0)], np.random.default_rng(0))


def test_clips_are_deterministic_and_different() -> None:
    first, again, other = (make_performance(seed, "train", 6.0) for seed in (4, 4, 5))
    assert np.array_equal(first.performance.controls, again.performance.controls)
    assert np.array_equal(first.performance.pcm, again.performance.pcm)
    assert first.performance.instruction == again.performance.instruction and first.identity == again.identity
    assert not np.array_equal(first.performance.controls, other.performance.controls)
    held = make_performance(4, "heldout", 6.0)
    assert not np.array_equal(first.performance.controls, held.performance.controls)


def test_clips_keep_the_splits_and_the_shares() -> None:
    train = [make_performance(seed, "train", 8.0) for seed in range(40)]
    named = sum(not clip.character.startswith("seed:") for clip in train)
    assert 10 <= named <= 30
    said = [seconds_said(clip.performance) / 8.0 for clip in train]
    assert 0.45 < np.mean(said) < 0.8
    for clip in train:
        assert not {normalized(text) for text in clip.sentences} & HELDOUT_TEXTS
        assert clip.performance.frames == 200 and np.abs(clip.performance.pcm).max() <= 1.0
    for seed in range(10):
        clip = make_performance(seed, "heldout", 4.0)
        assert clip.character.startswith("seed:") and int(clip.character[5:]) in HELDOUT_CHARACTER_SEEDS
        assert set(clip.sentences) <= set(HELDOUT_SENTENCES)
    quiet = make_performance(0, "train", 6.0, speaking=0.0)
    assert not quiet.performance.phonemes and not quiet.sentences
    with pytest.raises(ValueError, match="train, heldout"):
        make_performance(0, "test", 4.0)
    with pytest.raises(ValueError, match="at least"):
        make_performance(0, "train", 0.1)


def test_splits_are_disjoint() -> None:
    every = [seed for seeds in CHARACTER_SEEDS.values() for seed in (seeds[0], seeds[-1])]
    assert len(CHARACTER_SEEDS) == 3 and len(set(every)) == 6
    for backend, (low, high), _ in HELDOUT_VOICES:
        for other, (a, b), _ in TRAIN_VOICES:
            assert backend != other or high < a or b < low
    assert not {normalized(text) for text in FIXED} & HELDOUT_TEXTS
    assert len(HELDOUT_TEXTS) == len(HELDOUT_SENTENCES)


def test_sentences_are_many_and_speakable() -> None:
    rng = np.random.default_rng(0)
    drawn = [sentence(rng, "train") for _ in range(3000)]
    assert len(set(drawn)) > 1500
    assert all("{" not in text and 3 <= len(text) <= 140 and text[0].isupper() for text in drawn)
    assert not {normalized(text) for text in drawn} & HELDOUT_TEXTS
    assert sum(text.lower().count(letter) for text in drawn for letter in "bpm") / len("".join(drawn)) > 0.05


def test_voice_and_channel_reach_the_performance() -> None:
    timeline = [Segment("speaking", text="amber boat map")]
    plain = perform(timeline, np.random.default_rng(0), voice=Voice())
    noisy = perform(timeline, np.random.default_rng(0), voice=Voice(), channel=Channel(noise_db=-20.0))
    assert np.array_equal(plain.controls, noisy.controls) and not np.array_equal(plain.pcm, noisy.pcm)
    fast = perform(timeline, np.random.default_rng(0), voice=Voice(rate=1.4))
    assert fast.frames < plain.frames
    assert np.allclose(NEUTRAL[[column("hand_left_y"), column("jaw")]], [1.2, 0.0])
