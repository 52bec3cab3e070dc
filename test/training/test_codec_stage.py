# SPDX-License-Identifier: Apache-2.0
"""The stages on footage: what they learn from, that they go on as if unbroken, and what they refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.data.characters import identity_from_seed, landmarks, neutral, render
from flowact_ros.data.footage_store import Shot, read_footage, write_shot
from flowact_ros.data.poses import random_movement
from flowact_ros.media.image import read_image
from flowact_ros.models.checkpoint import load_weights
from flowact_ros.models.codec.motion import CONTROLS, clamp, denormalise
from flowact_ros.models.codec.motion_encoder import KIND, Codec, MotionEncoder
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import preset
from flowact_ros.training import main as command
from flowact_ros.training.stages.adapt_data import read_motion
from flowact_ros.training.stages.codec import KNOWN, CodecStage, correlations
from flowact_ros.training.stages.codec_data import Pairs, Poses, trained_on
from flowact_ros.training.stages.renderer_data import Batch
from flowact_ros.training.trainer import read_state

SIZE, FRAMES = 128, 300
OPTIONS = ("--preset", "debug", "--warmup", "1", "--cooldown", "0", "--no-bf16")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Performances need a synthesiser and seconds each; wide random poses are enough here. One thread is left as it
    was."""

    def draw(self: Poses, rng: np.random.Generator, frames: int) -> torch.Tensor:
        return torch.cat([random_movement(rng, 1) for _ in range(frames)])

    monkeypatch.setattr(Poses, "draw", draw)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared footage: one shot of a drawn character that moves, with sound."""
    path = tmp_path_factory.mktemp("footage")
    rng, who = np.random.default_rng(0), identity_from_seed(3)
    some = torch.cat([neutral(1), *(random_movement(rng, 1) for _ in range(11))])
    pictures = render(who, some, SIZE).permute(0, 2, 3, 1).numpy()
    found = landmarks(who, some, SIZE)
    places = torch.stack([found[name] for name in ("mouth", "eye_left", "eye_right")], 1).numpy().astype(np.float32)
    which = np.arange(FRAMES) // 3 % len(some)
    arrays = {
        "pcm": rng.integers(-9000, 9000, FRAMES * 960).astype(np.int16),
        "sound": rng.normal(size=(FRAMES, 384)).astype(np.float16),
        "places": places[which],
    }
    about = {"source": "a.mp4", "start": "0.0", "heard_by": "embedded", "detector": "renderer"}
    write_shot(path / "a-000.safetensors", [pictures[k] for k in which], arrays, about)
    return path


@pytest.fixture(scope="module")
def shots(folder: Path) -> list[Shot]:
    return read_footage(folder)


def train(stage: str, run: Path, *options: object, steps: int = 2) -> int:
    argv = [stage, "--run", run, "--steps", steps, *OPTIONS, *options]
    return command.main([str(word) for word in argv])


def refused(capsys: pytest.CaptureFixture[str], stage: str, run: Path, *options: object) -> str:
    capsys.readouterr()
    assert train(stage, run, *options) == 1
    told = capsys.readouterr().err
    assert told.startswith("flowact train: ") and told.count("\n") == 1
    return told


def test_pairs_are_of_one_shot_and_spare_its_end(shots: list[Shot]) -> None:
    stage = CodecStage(Codec(preset("debug").renderer), shots, references=2)
    held = trained_on(shots[0])
    assert held == 240
    batches = [stage.batch(torch.Generator().manual_seed(k), k) for k in range(KNOWN)]
    assert [type(batch) for batch in batches] == [Batch, Pairs, Pairs]
    pairs = batches[1]
    assert pairs.picture.shape == (8, 3, SIZE, SIZE) and pairs.reference.shape == (2, 3, SIZE, SIZE)
    assert set(pairs.weight.unique().tolist()) == {1.0, 2.0, 5.0, 6.0}
    x, y = pairs.places[0, 0].round().int().tolist()
    assert pairs.weight[0, 0, y, x] == 6.0
    again = stage.batch(torch.Generator().manual_seed(1), 1)
    assert torch.equal(again.picture, pairs.picture) and torch.equal(again.noise, pairs.noise)


@pytest.mark.parametrize("index", [0, 1])
def test_what_a_step_trains(index: int, shots: list[Shot]) -> None:
    torch.manual_seed(0)
    stage = CodecStage(Codec(preset("debug").renderer), shots)
    for output in (stage.module.motion.mouth.out, stage.module.motion.body.out):
        torch.nn.init.normal_(output.weight, std=0.1)
    stage.step(stage.batch(torch.Generator().manual_seed(3), index), index)["loss"].backward()
    touched = {name.split(".")[0] for name, p in stage.module.named_parameters() if p.grad is not None}
    assert touched == ({"motion", "renderer"} if index else {"motion"})
    assert float(stage.module.motion.mouth.out.weight.grad.abs().sum()) > 0
    stage.module.zero_grad(set_to_none=True)
    stage.alone = 2  # then the renderer only hands gradients on
    stage.step(stage.batch(torch.Generator().manual_seed(3), index), index)["loss"].backward()
    touched = {name.split(".")[0] for name, p in stage.module.named_parameters() if p.grad is not None}
    assert touched == {"motion"} and all(p.requires_grad for p in stage.module.parameters())


def test_motion_is_learned_from_known_characters() -> None:
    """Two pictures of a character tell the encoder how its mouth moved, which the reading alone does not."""
    torch.manual_seed(0)
    stage = CodecStage(Codec(preset("debug").renderer), [], references=2)
    batch = stage.batch(torch.Generator().manual_seed(3), 0)
    optimizer = torch.optim.Adam(stage.module.motion.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = stage.step(batch, 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_footage_is_drawn_better_for_it(shots: list[Shot]) -> None:
    torch.manual_seed(0)
    stage = CodecStage(Codec(preset("debug").renderer), shots)
    batch = stage.batch(torch.Generator().manual_seed(3), 1)
    optimizer = torch.optim.Adam(stage.module.parameters(), 3e-3)
    drawn = []
    for _ in range(40):
        parts = stage.step(batch, 1)
        parts["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        drawn.append(float(parts["drawn"]))
    assert min(drawn[-5:]) < 0.94 * drawn[0]


def test_codec_resumed_is_codec_unbroken(folder: Path, tmp_path: Path) -> None:
    for run, slices in (("whole", (4,)), ("parts", (2, 4))):
        for steps in slices:
            assert train("codec", tmp_path / run, "--data", folder, "--alone", 2, steps=steps) == 0
    whole, parts = (read_state(tmp_path / run / "state.pt", {"ema"}) for run in ("whole", "parts"))
    for kind in ("module", "ema"):
        assert all(torch.equal(value, parts[kind][name]) for name, value in whole[kind].items())
    before = Codec(preset("debug").renderer).state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in whole["module"].items())
    rows = (tmp_path / "parts" / "eval.csv").read_text().splitlines()
    assert rows[0] == "step,psnr,psnr_eyes,psnr_mouth,edges"
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "2", "4"]


def test_the_renderer_learns_at_its_share_of_the_rate(shots: list[Shot]) -> None:
    stage = CodecStage(Codec(preset("debug").renderer), shots)
    from flowact_ros.training.muon import Muon

    optimizer = Muon(stage.groups(), 1e-3)
    assert {group["rate"] for group in optimizer.param_groups} == {1.0, 0.3}
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == sum(
        p.numel() for p in stage.module.parameters()
    )


def test_adapt_resumed_is_adapt_unbroken(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("codec", tmp_path / "codec", "--data", folder) == 0
    given = ("--data", folder, "--codec", tmp_path / "codec", "--batch", 2)
    for run, slices in (("whole", (4,)), ("parts", (2, 4))):
        for steps in slices:
            assert train("adapt", tmp_path / run, *given, steps=steps) == 0
    whole, parts = (read_state(tmp_path / run / "state.pt", {"ema"}) for run in ("whole", "parts"))
    assert all(torch.equal(value, parts["module"][name]) for name, value in whole["module"].items())
    assert whole["stage"] == "footage"
    assert read_image(tmp_path / "whole" / "reference.png").shape == (SIZE, SIZE, 3)
    with np.load(tmp_path / "whole" / "motion" / "0000000.npz") as file:
        assert file["controls"].shape[1:] == (100, CONTROLS) and file["sound"].shape[1:] == (100, 384)

    out = tmp_path / "out"
    for name, run in (("codec", "codec"), ("motion", "whole")):
        argv = [f"export-{name}", "--run", str(tmp_path / run), "--preset", "debug", "--out", str(out)]
        assert command.main(argv) == 0, capsys.readouterr().err
    config = preset("debug")
    load_weights(out / "renderer.safetensors", Renderer(config.renderer), kind="renderer", config=config.renderer)
    encoder = MotionEncoder(config.renderer)
    card = load_weights(out / "motion_encoder.safetensors", encoder, kind=KIND, config=config.renderer)
    assert [stage["name"] for stage in card["stages"]] == ["codec"]
    assert train("codec", tmp_path / "more", "--data", folder, "--init", out) == 0  # and they can be gone on from
    # motion that another codec read is another movement
    told = refused(capsys, "adapt", tmp_path / "whole", "--data", folder, "--codec", tmp_path / "more")
    assert "was read by codec" in told and "begin a new --run" in told
    # a run of one stage is no run of another
    assert "holds a run of codec, not of footage" in refused(
        capsys, "adapt", tmp_path / "codec", "--data", folder, "--codec", tmp_path / "codec"
    )
    assert "holds a run of footage, not of codec" in refused(
        capsys, "codec", tmp_path / "new", "--data", folder, "--init", tmp_path / "whole"
    )
    assert "holds weights of the stage codec, which is none of a denoiser" in refused(
        capsys, "adapt", tmp_path / "new", "--data", folder, "--codec", tmp_path / "codec", "--init", tmp_path / "codec"
    )
    other = ("--set", "renderer.parts=6")
    assert "was trained for other sizes than those of --preset debug" in refused(
        capsys, "codec", tmp_path / "new", "--data", folder, "--init", tmp_path / "codec", *other
    )


def test_what_codec_refuses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "holds no footage" in refused(capsys, "codec", tmp_path / "run", "--data", tmp_path)
    assert "holds no codec" in refused(capsys, "codec", tmp_path / "run", "--init", tmp_path / "nothing")
    assert "both must be of one preset" in refused(capsys, "codec", tmp_path / "run", "--init", "avatar_cpu")
    assert "has frames of 128 pixels; this preset draws 160" in refused(
        capsys, "codec", tmp_path / "run", "--data", folder, "--set", "renderer.size=160"
    )


def test_a_loss_that_is_no_number_stops_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("codec", tmp_path / "run", "--data", folder) == 0
    saved = read_state(tmp_path / "run" / "state.pt", {"module"})["module"]
    monkeypatch.setattr(CodecStage, "step", lambda *_: {"loss": torch.tensor(float("nan"), requires_grad=True)})
    capsys.readouterr()
    assert train("codec", tmp_path / "run", "--data", folder, steps=4) == 1
    assert "the loss of step 2 is nan" in capsys.readouterr().err
    now = read_state(tmp_path / "run" / "state.pt", {"module"})["module"]
    assert all(torch.equal(value, now[name]) for name, value in saved.items())
    batch = torch.load(tmp_path / "run" / "batch-2.pt", weights_only=True)  # what it met
    assert batch["picture"].shape == (4, 3, SIZE, SIZE)


def test_a_full_disk_leaves_the_checkpoint_as_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("codec", tmp_path / "run", "--data", folder) == 0
    before = (tmp_path / "run" / "state.pt").read_bytes()

    def full(content: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    capsys.readouterr()
    assert train("codec", tmp_path / "run", "--data", folder, steps=4) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_motion_of_footage_stays_inside_the_rig(shots: list[Shot]) -> None:
    torch.manual_seed(0)
    codec = Codec(preset("debug").renderer).eval()
    torch.nn.init.normal_(codec.motion.body.out.weight)
    motion = torch.from_numpy(read_motion(codec, shots[0]).astype(np.float32))
    assert motion.shape == (FRAMES, CONTROLS)
    assert torch.allclose(clamp(motion), motion, atol=2e-3)
    assert torch.equal(motion[0], motion[1])  # the same picture


def test_correlations_leave_out_what_does_not_move() -> None:
    truth = torch.zeros(20, CONTROLS)
    truth[:, 0] = torch.linspace(-1, 1, 20)
    read = denormalise(truth) * 0 + truth
    read[:, 5] = torch.randn(20)
    assert correlations(read, truth)["mean"] == pytest.approx(1.0, abs=1e-4)


def test_the_renderer_stays_as_it_is_unless_told_when_to_learn(folder: Path, tmp_path: Path) -> None:
    def weights(*options: object, steps: int) -> dict[str, torch.Tensor]:
        assert train("codec", tmp_path / f"run{len(options)}", "--data", folder, *options, steps=steps) == 0
        return read_state(tmp_path / f"run{len(options)}" / "state.pt", {"ema"})["module"]

    for options, learns in ((), False), (("--alone", 1), True):
        before, after = weights(*options, steps=1), weights(*options, steps=4)
        same = {name: torch.equal(before[name], after[name]) for name in before}
        assert all(same[name] for name in same if name.startswith("renderer.")) is not learns
        assert not all(same[name] for name in same if name.startswith("motion."))
