# SPDX-License-Identifier: Apache-2.0
"""The denoiser's first stage takes real steps on tiny material: it learns to hear, and its batches are as live."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from motions import performances
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.models.checkpoint import load_weights
from flowact_ros.models.codec.motion import control_index, neutral, normalise
from flowact_ros.models.config import debug
from flowact_ros.models.dit import KIND, Condition, DiT
from flowact_ros.training.export import export_denoiser
from flowact_ros.training.free_running import free_running
from flowact_ros.training.main import main as train
from flowact_ros.training.motion_figures import blinks_a_minute, correlation, figures, jump
from flowact_ros.training.stages.adaptation import Adaptation
from flowact_ros.training.stages.windows import groups, tasks, window
from flowact_ros.training.trainer import Trainer, TrainerConfig, moved

CONFIG = debug()


def stage(folder: Path, **options: int) -> Adaptation:
    torch.manual_seed(0)
    return Adaptation(CONFIG, [folder], folder, **{"batch": 4, "windows": 2, **options})


def config(run: Path, steps: int, **changes: object) -> TrainerConfig:
    options = {
        "learning_rate": 5e-3,
        "warmup": 2,
        "log_every": 10,
        "sheet_every": 10_000,
        "bf16": False,
        **changes,
    }
    return TrainerConfig(run=run, steps=steps, **options)  # type: ignore[arg-type]


def batch_of(method: Adaptation, kind) -> object:  # type: ignore[no-untyped-def]
    """The first batch that is of the wanted kind."""
    return next(b for b in (method.batch(torch.Generator().manual_seed(i), 0) for i in range(200)) if kind(b))


def test_it_learns_to_hear(tmp_path: Path) -> None:
    data = performances(tmp_path / "data")
    method = stage(data)
    trainer = Trainer(method, config(tmp_path / "run", 80))
    trainer.run()
    lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    curve = [float(line.split(",")[column]) for line in lines[1:]]
    assert curve[-1] < 0.8 * curve[0]
    method.module.load_state_dict(trainer.ema)
    jaw = control_index("jaw")
    made, truth = free_running(method.module.eval(), method.heldout, 4, 3)
    other, _ = free_running(method.module, method.heldout, 4, 3, shuffled=True)
    assert (
        correlation(made[..., jaw], truth[..., jaw])
        > 0.5
        > abs(correlation(other[..., jaw], truth[..., jaw])) + 0.2
    )


def test_training_sees_what_the_live_stream_sees(tmp_path: Path) -> None:
    """One window of a batch, made by the bank that the live stream keeps, gives the prediction that training made."""
    method = stage(performances(tmp_path / "data"))
    with torch.no_grad():
        for parameter in method.module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    for kind in (
        lambda b: b.history == 0,
        lambda b: b.history and len(set(b.sizes)) > 1,
        lambda b: b.history,
    ):
        batch = batch_of(method, kind)
        ends = np.cumsum(batch.sizes)
        seen, every = 0, zip(groups(batch, CONFIG.memory.long_term), tasks(batch, method.module), strict=True)
        for layouts, (task,) in every:
            rows = len(task.clean) // len(layouts)
            for place, layout in enumerate(layouts):
                clean = window(batch, layout)[2]
                assert torch.equal(clean, task.clean[place * rows : (place + 1) * rows])
                bank = MemoryBank.start(method.module, batch.reference)
                for chunk in range(layout.chunk):
                    slots = slice(int(ends[chunk]) - batch.sizes[chunk], int(ends[chunk]))
                    latents = (batch.motion + batch.disturbance)[:, slots]
                    bank = bank.commit(method.module, latents, batch.condition.slots(slots.start, slots.stop))
                assert layout.ages == tuple(bank.latents - entry.index for entry in bank.entries)
                live = [bank.reference, *(entry.cache for entry in bank.entries)]
                for layer, pair in enumerate(task.past):
                    for wanted, found in enumerate(pair):
                        whole = torch.cat([cache[layer][wanted] for cache in live], 2)[:rows]
                        own = found[place * rows : (place + 1) * rows]
                        torch.testing.assert_close(own, whole, rtol=1e-4, atol=1e-5)
                seen += 1
        assert seen == len(batch.sizes) - batch.history + 1  # one of each chunk, and one of several


def test_batches_hold_both_orders_and_starts(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"), batch=8, windows=3)
    batches = [method.batch(torch.Generator().manual_seed(i), 0) for i in range(60)]
    assert all(len(b.levels) == len(b.sizes) - b.history + 1 for b in batches)
    assert all(b.levels[-1].shape == (2, 3) and bool((b.levels[-1].diff(dim=1) >= 0).all()) for b in batches)
    starts = [b for b in batches if b.history == 0]
    assert 4 < len(starts) < 25
    assert 2 < sum(len(set(b.sizes)) > 1 for b in batches if b.history) < 25
    sound = torch.cat([b.condition.audio.abs().amax((1, 2, 3)) for b in batches])
    assert 0.04 < float((sound == 0).float().mean()) < 0.2  # dropped


def test_a_start_continues_its_picture(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"))
    batch = batch_of(method, lambda b: b.history == 0)
    every = normalise(torch.from_numpy(method.data.data.controls.astype(np.float32)))
    for row in range(len(batch.motion)):
        match = (every[:, 1:] == batch.motion[row, 0, 0]).all(-1).nonzero()[0]
        assert torch.equal(every[match[0], match[1]], batch.reference[row, 0])  # the frame before the first


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    data = performances(tmp_path / "data")

    def run(folder: Path, stops: tuple[int, ...]) -> dict[str, Tensor]:
        for stop in stops:
            trainer = Trainer(stage(data), config(folder, 6, optimizer="adamw"))
            trainer.config = config(folder, stop, optimizer="adamw", warmup=0, floor=1.0)
            trainer.run()
        return torch.load(folder / "state.pt", weights_only=True)

    whole, cut = run(tmp_path / "whole", (6,)), run(tmp_path / "cut", (3, 6))
    assert all(torch.equal(whole["module"][name], cut["module"][name]) for name in whole["module"])
    assert [(s["first_step"], s["steps"]) for s in cut["slices"]] == [(0, 3), (3, 3)]


def test_a_step_keeps_to_its_device(tmp_path: Path) -> None:
    meta = torch.device("meta")  # shapes without numbers: like a GPU, it refuses tensors of the CPU
    method = stage(performances(tmp_path / "data"))
    method.module.to(meta)
    for seed in range(5):
        batch = method.batch(torch.Generator().manual_seed(seed), 0)
        loss = method.step(moved(batch, meta), 0)["loss"]
        assert loss.device == meta
    with pytest.raises(RuntimeError):
        method.step(batch, 0)  # the check can fail: a batch that stayed behind


def test_exported_weights_are_float16_and_say_how_they_were_made(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"))
    trainer = Trainer(method, config(tmp_path / "run", 2, about={"data": ["motion"], "batch": 4}))
    trainer.run()
    path = export_denoiser(CONFIG, tmp_path / "run", tmp_path / "out")
    model = DiT(CONFIG)
    card = load_weights(path, model, kind=KIND, config=CONFIG.denoiser_contract())
    assert card["steps"] == 2 and card["slices"][0]["data"] == ["motion"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, trainer.ema[name].half().float())


def test_figures_tell_life_from_stillness() -> None:
    torch.manual_seed(0)
    truth = normalise(neutral(240)).repeat(3, 1, 1) + torch.randn(3, 240, 40).cumsum(1) * 0.1
    same = figures(truth, truth, 12)
    assert all(
        same[name] == pytest.approx(1.0, abs=1e-3)
        for name in same
        if name.startswith(("r_", "std_", "speed"))
    )
    half = figures(0.5 * truth, truth, 12)
    assert half["std_yaw"] == pytest.approx(0.5, abs=1e-3) and half["acceleration"] == pytest.approx(
        0.5, abs=1e-3
    )
    raw = neutral(250)[None]
    raw[0, 10:13, control_index("blink_left")] = raw[0, 100:104, control_index("blink_left")] = 1.0
    assert blinks_a_minute(raw) == pytest.approx(12.0)  # two in ten seconds
    steps = torch.zeros(1, 48, 1)
    steps[:, 24:] = 1.0
    assert jump(steps, 12) > 10


def test_bad_material_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(performances(tmp_path / "data"))
    options = ["motion", "--preset", "debug", "--run", str(tmp_path / "run"), "--heldout", data]
    for more, says in (
        (
            ["--data", str(tmp_path / "nothing")],
            "nothing: no performances; make them with `flowact data motion`",
        ),
        (["--data", data, "--device", "abacus"], "device 'abacus' cannot be used"),
    ):
        assert train([*options, *more]) == 1
        told = capsys.readouterr().err
        assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1
    assert train([*options, "--data", data, "--batch", "0"]) == 2
    assert "--batch is 0; it must lie in 1 .. 4096" in capsys.readouterr().err
    for content, says in ((b"", "is damaged (empty)"), (b"no weights", "is damaged (")):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "state.pt").write_bytes(content)
        assert train([*options, "--data", data]) == 1
        assert f"state.pt {says}" in capsys.readouterr().err


def test_slow_controls_are_held_to_their_own_pace(tmp_path: Path) -> None:
    method = stage(performances(tmp_path / "data"))
    jaw, gaze = control_index("jaw"), control_index("gaze_x")
    assert float(method.data.pace[jaw]) == pytest.approx(1.4, abs=0.1)  # white noise of deviation 1
    assert float(method.data.pace[gaze]) == pytest.approx(0.14, abs=0.01)
    assert method.data.change_weight[gaze] > 50 * method.data.change_weight[jaw]
    batch = method.batch(torch.Generator().manual_seed(3), 0)
    noise = batch.disturbance.std((0, 1, 2))
    assert noise[gaze] < 0.6 * noise[jaw]


def test_conditions_are_cut_and_joined() -> None:
    whole = Condition(torch.randn(1, 5, 4, 384), torch.randn(1, 5, 1, 384))
    again = Condition.cat([whole.slots(0, 2), whole.slots(2, 5)])
    assert torch.equal(again.audio, whole.audio) and torch.equal(again.text, whole.text)
