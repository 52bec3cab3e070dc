# SPDX-License-Identifier: Apache-2.0
"""The shipped readout reads the rig of characters it has not seen, also from spoiled pictures, and knows its error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import STYLES, identity_from_seed, landmarks, mouth_opening, neutral, render
from flowact_ros.data.splits import CHARACTER_SEEDS
from flowact_ros.evaluation import rig_readout as ro
from flowact_ros.evaluation import rig_readout_errors
from flowact_ros.evaluation import train_rig_readout as trainer
from flowact_ros.evaluation.metrics import correlation
from flowact_ros.models.codec.motion import control_index


@pytest.fixture(scope="module")
def shipped():
    return ro.load_readout()


def sweep(
    number: int, size: int, **controls: list[float]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Frames of a held-out character with some controls swept, its reference picture, and how far the mouth opens."""
    identity = identity_from_seed(CHARACTER_SEEDS["heldout"][number], STYLES[number % len(STYLES)])
    motion = neutral(len(next(iter(controls.values()))))
    for name, values in controls.items():
        motion[:, control_index(name)] = torch.tensor(values)
    frames = render(identity, torch.cat([motion, neutral(1)]), size=size)
    return frames[:-1], frames[-1], mouth_opening(identity, motion)


def of(readout: ro.Readout, frames: torch.Tensor, reference: torch.Tensor, name: str) -> np.ndarray:
    return ro.read(readout, frames, reference)[:, ro.column(name)]


JAW = [0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 0.3, 0.0]
TURN = [-0.2, -0.1, 0.0, 0.1, 0.2, 0.1, 0.0, -0.1]


@pytest.mark.parametrize("number", [40, 41, 42, 43])
@pytest.mark.parametrize("size", [192, 480])
def test_openings_of_unseen_characters_are_read_at_any_size(shipped, number: int, size: int):
    frames, reference, true = sweep(number, size, jaw=JAW, head_yaw=TURN)
    read = of(shipped[0], frames, reference, "opening")
    assert correlation(read, true.numpy()) > 0.95
    assert np.abs(read - true.numpy()).mean() < 0.012


def test_places_are_corrected_from_near_to_exact(shipped):
    """Eyes found too near to each other make a mouth look wide: the finder alone is wrong by a twentieth of the line
    between the eyes, which is what a mouth usually widens by."""
    wrong = {"found": [], "corrected": []}
    for number in range(40, 46):
        identity = identity_from_seed(CHARACTER_SEEDS["heldout"][number], STYLES[number % len(STYLES)])
        motion = neutral(len(TURN))
        motion[:, control_index("head_yaw")], motion[:, control_index("jaw")] = torch.tensor(TURN), torch.tensor(JAW)
        places = landmarks(identity, motion, ro.LINES)
        true = torch.stack([places[name] for name in ro.LANDMARKS[:3]], 1) / ro.LINES - 0.5
        frames = ro.as_input(render(identity, motion, size=ro.LINES))
        with torch.inference_mode():
            found = shipped[0].find(frames).places
            corrected = shipped[0].corrected(frames, found)
        assert torch.equal(corrected[:, 3], found[:, 3])  # of the outline's middle nothing is said
        for name, at in (("found", found), ("corrected", corrected)):
            wrong[name].append((at[:, :3] - true).norm(dim=2))
    found, corrected = (torch.stack(wrong[name]).mean() for name in ("found", "corrected"))
    assert corrected < 0.6 * found and corrected < 0.01


def test_hands_are_found_where_they_are(shipped):
    frames, reference, _ = sweep(
        41, 192, hand_right_y=[1.2, 0.7, 0.7], hand_right_x=[0.75, 0.8, 0.7], hand_right_open=[0.0, 1.0, 0.5]
    )
    read = ro.read(shipped[0], frames, reference)
    seen = read[:, ro.column("hand_right_in")]
    assert seen[0] < 0.5 < min(seen[1:]) and read[:, ro.column("hand_left_in")].max() < 0.5
    assert np.abs(read[1:, ro.column("hand_right_y")] - 0.7).max() < 0.08
    assert read[0, ro.column("hand_right_y")] == pytest.approx(1.2, abs=0.01)  # at rest, where none is seen
    assert read[:, ro.column("hand_left_x")] == pytest.approx(0.25, abs=0.01)


def test_a_blurred_picture_is_read_alike(shipped):
    frames, reference, true = sweep(42, 256, jaw=JAW)
    blurred = torch.nn.functional.avg_pool2d(frames.float(), 3, 1, 1).to(torch.uint8)
    assert correlation(of(shipped[0], blurred, reference, "opening"), true.numpy()) > 0.9


def test_a_face_that_does_not_move_is_not_read_as_moving(shipped):
    frames, reference, _ = sweep(43, 192, jaw=[0.3])
    assert np.std(ro.read(shipped[0], frames.expand(8, -1, -1, -1), reference), axis=0).max() < 1e-4


def test_a_raised_brow_is_told_from_a_high_one_by_the_reference(shipped):
    """The same frame beside the reference of the character, and beside a reference whose brows are raised already."""
    frames, reference, _ = sweep(40, 192, brow_left=[0.0, 0.8], brow_right=[0.0, 0.8])
    raised = of(shipped[0], frames[1:], reference, "brow_left")[0]
    assert raised - of(shipped[0], frames[:1], reference, "brow_left")[0] > 0.4
    assert raised - of(shipped[0], frames[1:], frames[1], "brow_left")[0] > 0.4


def test_frames_one_by_one_are_read_as_together(shipped):
    frames, reference, _ = sweep(40, 192, jaw=JAW, head_yaw=TURN)
    single = np.concatenate([ro.read(shipped[0], frame[None], reference) for frame in frames])
    np.testing.assert_allclose(single, ro.read(shipped[0], frames, reference), atol=1e-4)


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
        rig_readout_errors.errors(true, true),
        rig_readout_errors.errors(rng.random(true.shape).astype(np.float32), true),
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


def test_a_run_of_places_leaves_everything_else_as_it_is(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "FIRST", 2)
    monkeypatch.setattr(trainer, "BATCH", 4)
    bank = neutral(10)
    bank[:, control_index("jaw")] = torch.linspace(0, 0.9, 10)
    torch.save(bank, tmp_path / "poses.pt")
    trainer.train(tmp_path, minutes=5, steps=2, places=True, tell=lambda line: None)
    weights = torch.load(tmp_path / "state.pt", weights_only=True)["average"]
    for name, value in shipped[0].state_dict().items():
        assert torch.equal(weights[name], value) is (name.split(".")[0] not in trainer.CORRECTION), name
    with pytest.raises(ValueError, match="was begun with --places; name another --run"):
        trainer.train(tmp_path, minutes=5, steps=3, tell=lambda line: None)
    monkeypatch.setattr(rig_readout_errors, "tested", lambda readout: {"performances": {}})
    card = rig_readout_errors.export(tmp_path, tmp_path / "readout.safetensors")
    assert card["steps"] == 2 and "--places" in card["command"] and card["began"]["steps"] == shipped[1]["steps"]
    assert ro.load_readout(tmp_path / "readout.safetensors")[1]["began"]["steps"] == shipped[1]["steps"]
