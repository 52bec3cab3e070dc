# SPDX-License-Identifier: Apache-2.0
"""The shipped readout reads the rig of characters it has not seen, also from spoiled pictures, and knows its error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import STYLES, identity_from_seed, mouth_opening, neutral, render
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.evaluation import rig_readout as ro
from flowact_ros.evaluation import train_rig_readout as trainer
from flowact_ros.evaluation.metrics import correlation
from flowact_ros.models.codec.motion import control_index


@pytest.fixture(scope="module")
def shipped():
    return ro.load_readout()


def sweep(number: int, size: int, **controls: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames of a held-out character with some controls swept, and the motion."""
    identity = identity_from_seed(CHARACTER_SEEDS["heldout"][number], STYLES[number % len(STYLES)])
    motion = neutral(len(next(iter(controls.values()))))
    for name, values in controls.items():
        motion[:, control_index(name)] = torch.tensor(values)
    return render(identity, motion, size=size), mouth_opening(identity, motion)


def of(readout: ro.Readout, frames: torch.Tensor, name: str) -> np.ndarray:
    return ro.read(readout, frames)[:, ro.column(name)]


JAW = [0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.3, 0.0]
TURN = [-0.2, -0.1, 0.0, 0.1, 0.2, 0.1, 0.0, -0.1]


@pytest.mark.parametrize("number", [40, 41, 42, 43])
@pytest.mark.parametrize("size", [192, 480])
def test_openings_of_unseen_characters_are_read_at_any_size(shipped, number: int, size: int):
    frames, true = sweep(number, size, jaw=JAW, head_yaw=TURN)
    read = of(shipped[0], frames, "opening")
    assert correlation(read, true.numpy()) > 0.95
    assert np.abs(read - true.numpy()).mean() < 0.012


def test_hands_are_found_where_they_are(shipped):
    frames, _ = sweep(
        41, 192, hand_right_y=[1.2, 0.7, 0.7], hand_right_x=[0.75, 0.8, 0.7], hand_right_open=[0.0, 1.0, 0.5]
    )
    read = ro.read(shipped[0], frames)
    seen = read[:, ro.column("hand_right_in")]
    assert seen[0] < 0.5 < min(seen[1:]) and read[:, ro.column("hand_left_in")].max() < 0.5
    assert np.abs(read[1:, ro.column("hand_right_y")] - 0.7).max() < 0.08


def test_a_blurred_picture_is_read_alike(shipped):
    frames, true = sweep(42, 256, jaw=JAW)
    blurred = torch.nn.functional.avg_pool2d(frames.float(), 3, 1, 1).to(torch.uint8)
    assert correlation(of(shipped[0], blurred, "opening"), true.numpy()) > 0.9


def test_a_face_that_does_not_move_is_not_read_as_moving(shipped):
    frames, _ = sweep(43, 192, jaw=[0.3])
    assert np.std(ro.read(shipped[0], frames.expand(8, -1, -1, -1)), axis=0).max() < 1e-4


def test_frames_one_by_one_are_read_as_together(shipped):
    frames, _ = sweep(40, 192, jaw=JAW, head_yaw=TURN)
    single = np.concatenate([ro.read(shipped[0], frame[None]) for frame in frames])
    np.testing.assert_allclose(single, ro.read(shipped[0], frames), atol=1e-4)


def test_the_card_states_its_own_error(shipped):
    errors = shipped[1]["errors"]
    assert set(errors) == {"performances", "disturbed", "wide"}
    for group in errors.values():
        assert set(group) == set(ro.READ)
    least = {"opening": 0.9, "lid_left": 0.8, "lid_right": 0.8, "round": 0.75, "gaze_x": 0.7}
    for name, value in least.items():
        assert errors["performances"][name]["correlation"] > value, name
    assert errors["performances"]["hand_right_in"]["right"] > 0.95
    assert ro.default_path().stat().st_size < 3_000_000


def test_what_is_read_in_a_mirror():
    read = torch.zeros(1, len(ro.READ))
    for name, value in (
        ("lid_left", 0.9),
        ("gaze_x", 0.3),
        ("yaw", 0.1),
        ("hand_left_in", 1.0),
        ("hand_left_x", 0.2),
    ):
        read[0, ro.column(name)] = value
    mirrored = trainer.flipped(read)[0]
    for name, value in (("lid_right", 0.9), ("lid_left", 0.0), ("gaze_x", -0.3), ("yaw", -0.1), ("hand_right_in", 1.0),
                        ("hand_right_x", 0.8)):  # fmt: skip
        assert float(mirrored[ro.column(name)]) == pytest.approx(value), name
    torch.testing.assert_close(trainer.flipped(trainer.flipped(read)), read)


def test_errors_of_a_perfect_and_of_a_blind_readout():
    rng = np.random.default_rng(0)
    true = rng.random((50, len(ro.READ))).astype(np.float32)
    perfect, blind = (
        trainer.errors(true, true),
        trainer.errors(rng.random(true.shape).astype(np.float32), true),
    )
    assert (
        perfect["yaw"] == {"correlation": 1.0, "r2": 1.0, "mae": 0.0}
        and perfect["hand_left_in"]["right"] == 1.0
    )
    assert (
        abs(blind["yaw"]["correlation"]) < 0.5
        and blind["yaw"]["r2"] < 0
        and blind["hand_left_in"]["right"] < 0.8
    )


def test_training_goes_on_where_it_stopped_and_is_repeatable(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST", 2)
    monkeypatch.setattr(trainer, "BATCH", 4)
    bank = neutral(10)
    bank[:, control_index("jaw")] = torch.linspace(0, 0.9, 10)
    lines: list[str] = []
    for name, slices in (("a", (2,)), ("b", (1, 2)), ("c", (2,))):
        run = tmp_path / name
        run.mkdir()
        torch.save(bank, run / "poses.pt")
        for steps in slices:
            trainer.train(run, minutes=5, steps=steps, seed=0, tell=lines.append)
    a, b, c = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in "abc")
    assert a["step"] == b["step"] == 2
    for key, value in a["net"].items():
        assert torch.equal(value, c["net"][key]), key
    assert any(not torch.equal(a["net"][k], a["average"][k]) for k in a["net"])
