# SPDX-License-Identifier: Apache-2.0
"""Every stage takes real steps on tiny material: the loss falls, runs resume exactly, only what should change does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flowact_ros.data.behaviours import WORDINGS
from flowact_ros.data.characters import CONTROL_NAMES
from flowact_ros.data.store import write_clip
from flowact_ros.engine.sampler import code_for
from flowact_ros.models.checkpoint import CheckpointError, load_weights, save_weights
from flowact_ros.models.config import ConfigError, debug
from flowact_ros.models.mmdit import MMDiT
from flowact_ros.models.vae import VAE
from flowact_ros.training.export import export_denoiser
from flowact_ros.training.latents import cell_weights, load_prepared
from flowact_ros.training.losses import box_mask, distance, psnr, reconstruction
from flowact_ros.training.main import main as train
from flowact_ros.training.methods.diffusion_forcing import DiffusionForcing
from flowact_ros.training.methods.few_step import FewStep
from flowact_ros.training.methods.vae import VAEMethod, measure_latents
from flowact_ros.training.movement import KINDS, LARGEST, MOVEMENTS, decays, kind_of, movements, normal_scores
from flowact_ros.training.muon import Muon, orthogonalise
from flowact_ros.training.trainer import Trainer, TrainerConfig

CONFIG = debug()
CODED = replace(CONFIG, schedule=replace(CONFIG.schedule, code_decay=(0.5, 0.0)))


def snippets(folder: Path, count: int = 3) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        ramp = np.linspace(0, 255, 128)[None, None, None, :] * rng.random((1, 3, 1, 1))
        frames = np.broadcast_to(ramp, (8, 3, 128, 128)).astype(np.uint8)
        boxes = np.tile(np.array([[40, 60, 80, 90]], np.float32), (8, 4, 1))
        write_clip(folder / f"{i:03d}", {"frames": frames, "boxes": boxes}, {"frames": 8, "size": 128})
    return folder


def latents(folder: Path, clips: int = 3, length: int = 30) -> Path:
    """Clips whose latents are a linear function of their sound: learnable in a few steps."""
    folder.mkdir(parents=True)
    g = torch.Generator().manual_seed(0)
    c, (h, w) = CONFIG.vae.latent_channels, CONFIG.latent_size
    direction = torch.randn(c, h, w, generator=g)
    for i in range(clips):
        loudness = torch.randn(length, generator=g)
        reference = torch.randn(c, h, w, generator=g)
        torch.save(
            {
                "identity": "x",
                "latents": (reference + 0.5 * loudness[:, None, None, None] * direction).half(),
                "reference": reference.half(),
                "audio": loudness[:, None, None].expand(-1, 4, 384).contiguous().half(),
                "weight": torch.ones(length, h, w).half(),
                "text": torch.zeros(length, dtype=torch.long),
                "words": torch.full((1, 1, 384), float(i)).half(),
                "opening": torch.zeros(4 * length),
            },
            folder / f"{i:03d}.pt",
        )
    return folder


def config(run: Path, steps: int, **changes: object) -> TrainerConfig:
    options = {"learning_rate": 2e-2, "warmup": 2, "log_every": 5, "sheet_every": 10_000, "bf16": False, **changes}
    return TrainerConfig(run=run, steps=steps, **options)  # type: ignore[arg-type]


def losses(run: Path) -> list[float]:
    lines = (run / "log.csv").read_text().splitlines()
    column = lines[0].split(",").index("loss")
    return [float(line.split(",")[column]) for line in lines[1:]]


def test_vae_learns_and_latents_are_normalised(tmp_path: Path) -> None:
    data = snippets(tmp_path / "data")
    torch.manual_seed(0)
    method = VAEMethod(CONFIG, [data], data, crop=64, batch=2)
    Trainer(method, config(tmp_path / "run", 30)).run()
    curve = losses(tmp_path / "run")
    assert curve[-1] < 0.7 * curve[0]
    measure_latents(method.module, method.clips)
    video = torch.from_numpy(np.array(method.clips[0].array("frames"))).float()[None] / 127.5 - 1
    with torch.no_grad():
        z = torch.cat([method.module.encode(video)[0]])
    assert float(z.abs().max()) < 20 and torch.isfinite(z).all()
    figures = method.sheet(method.module, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 100 and figures["psnr"] > 5


def test_an_anchored_vae_stays_near_its_latents(tmp_path: Path) -> None:
    data, path = snippets(tmp_path / "data"), tmp_path / "vae.safetensors"
    save_weights(path, VAE(CONFIG.vae), kind="vae", config=CONFIG.vae, card={})
    moved = []
    for anchor in (0.01, 100.0):
        torch.manual_seed(0)
        method = VAEMethod(CONFIG, [data], data, crop=64, batch=2, anchor=anchor)
        method.continue_from(path)
        Trainer(method, config(tmp_path / str(anchor), 20)).run()
        moved.append(float(method.step(method.batch(torch.Generator().manual_seed(5)), 0)["moved"]))
    assert moved[1] < 0.2 * moved[0]


def test_a_vae_grows_without_a_jump(tmp_path: Path) -> None:
    path, data = tmp_path / "vae.safetensors", snippets(tmp_path / "data")
    plain = replace(CONFIG.vae, corrector_widths=())
    small = VAE(plain)
    save_weights(path, small, kind="vae", config=plain, card={"steps": 7})
    grown = {"encoder_depths": (1, 2, 2, 1), "decoder_depths": (1, 1, 1, 3), "corrector_widths": (8, 8, 8, 8)}
    deeper = replace(CONFIG, vae=replace(CONFIG.vae, **grown))
    method = VAEMethod(deeper, [data], data, decoder_only=True)
    assert method.continue_from(path)["steps"] == 7
    video = torch.rand(1, 4, 3, 128, 128) * 2 - 1
    load_weights(path, small, kind="vae", config=plain)
    with torch.no_grad():
        z = small.encode(video)[0]
        assert torch.equal(method.module.encode(video)[0], z)
        assert torch.equal(method.module.decode(z)[0], small.decode(z)[0])
    wider = replace(CONFIG, vae=replace(CONFIG.vae, encoder_widths=(8, 8, 16, 32)))
    for other in (wider, replace(CONFIG, vae=replace(CONFIG.vae, encoder_depths=(1, 1, 1, 0)))):
        with pytest.raises(CheckpointError, match="vae.safetensors"):
            VAEMethod(other, [data], data, decoder_only=True).continue_from(path)


def test_every_clip_keeps_its_own_words(tmp_path: Path) -> None:
    clips, words = load_prepared(latents(tmp_path / "data", clips=3))
    assert [float(words[clip["text"][0], 0, 0]) for clip in clips] == [0.0, 1.0, 2.0]


def test_memory_is_pulled_towards_the_reference(tmp_path: Path) -> None:
    method = DiffusionForcing(CONFIG, [latents(tmp_path / "data")], tmp_path / "data", batch=64)
    retained = method.batch(torch.Generator().manual_seed(0))["retained"]
    assert 0.3 < float((retained < 1).float().mean()) < 0.7 and 0.4 <= float(retained.min()) < 0.6


def test_diffusion_forcing_learns_to_hear(tmp_path: Path) -> None:
    data = latents(tmp_path / "data")
    torch.manual_seed(0)
    method = DiffusionForcing(CONFIG, [data], data, batch=4, drop=0.0)
    Trainer(method, config(tmp_path / "run", 60)).run()
    generator = torch.Generator().manual_seed(99)
    true, shuffled = 0.0, 0.0
    with torch.no_grad():
        for i in range(10):
            batch = method.batch(generator)
            batch["sigma"] = torch.ones_like(batch["sigma"])  # from pure noise only the sound can tell
            torch.manual_seed(i)
            true += float(method.step(batch, 0)["error"])
            entries = batch["entries"]
            batch["audio"] = torch.cat([batch["audio"][:, :entries], batch["audio"][:, entries:].roll(1, 0)], 1)
            torch.manual_seed(i)
            shuffled += float(method.step(batch, 0)["error"])
    assert true < 0.6 * shuffled


def test_distance_counts_cells_by_weight() -> None:
    far = torch.zeros(1, 2, 4, 2, 2)
    assert float(distance(far, torch.ones(1, 2, 2, 2))) == 0
    far[0, 0, :, 0, 0] = 3.0
    weight = torch.full((1, 2, 2, 2), 0.5)
    weight[0, :, 0, 0] = 2.5
    # 1 of 8 cells: 3 x 2.5 / 8, and the root of 9 x 2.5 / 8
    assert float(distance(far, weight)) == pytest.approx(3 * 2.5 / 8 + (9 * 2.5 / 8) ** 0.5, abs=0.03)


def drawn(method: FewStep) -> Iterator[dict]:
    generator = torch.Generator().manual_seed(0)
    while True:
        yield method.batch(generator)


def coded(folder: Path) -> Path:
    """Clips as `latents` makes them that follow a number which neither sound nor text tells, only `movement`."""
    for path in sorted(latents(folder, clips=6).glob("*.pt")):
        clip = torch.load(path, weights_only=True)
        clip["movement"] = clip["audio"][:, 0, :1].float() * torch.tensor([[1.0, 0.0]])
        clip["kind"] = torch.zeros(len(clip["audio"]), dtype=torch.long)
        torch.save({**clip, "audio": torch.zeros_like(clip["audio"])}, path)
    return folder


def test_noise_tells_the_movement(tmp_path: Path) -> None:
    """From true codes the chunk comes out right, from others it does not: what live noise draws, the picture shows."""
    data = coded(tmp_path / "data")
    torch.manual_seed(0)
    method = FewStep(CODED, [data], data, batch=6)
    Trainer(method, config(tmp_path / "run", 150)).run()
    true, other = 0.0, 0.0
    batches = drawn(method)
    with torch.no_grad():
        for _ in range(10):
            batch = next(batches)
            true += float(method.step(batch, 0)["error"])
            batch["noise"] = batch["noise"].roll(1, 0)
            other += float(method.step(batch, 0)["error"])
    assert true < 0.4 * other


def test_the_first_chunk_is_memory_and_gets_no_gradient(tmp_path: Path) -> None:
    method = FewStep(CODED, [coded(tmp_path / "data")], tmp_path / "data", batch=2)
    torch.manual_seed(0)
    for parameter in method.module.parameters():  # the last layer starts at zero
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    batch = next(b for b in drawn(method) if b["entries"] == 4 and b["first"] == 3)
    batch["exit"] = 0
    batch["noise"] = batch["noise"].clone().requires_grad_()
    method.step(batch, 0)["loss"].backward()
    reached = batch["noise"].grad.abs().amax((0, 2, 3, 4)) > 0
    assert not reached[:3].any() and reached[3:].all()
    with torch.no_grad():
        before = method.step(batch, 0)["distance"]
        batch["noise"][:, :3] += 5.0
        assert method.step(batch, 0)["distance"] != before


def test_export_may_keep_a_share_of_the_weights_before(tmp_path: Path) -> None:
    before, after = MMDiT(CONFIG), MMDiT(CONFIG)
    for module, value in ((before, 1.0), (after, 3.0)):
        for parameter in module.parameters():
            parameter.data.fill_(value)
    contract = CONFIG.denoiser_contract()
    save_weights(tmp_path / "mmdit.safetensors", before, kind="mmdit", config=contract, card={"steps": 7})
    torch.save({"ema": after.state_dict(), "iteration": 5, "seconds": 1.0}, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="share is 1.5"):
        export_denoiser(CONFIG, tmp_path, "fewstep", tmp_path, share=1.5)
    export_denoiser(CONFIG, tmp_path, "fewstep", tmp_path, share=0.25)
    module = MMDiT(CONFIG)
    card = load_weights(tmp_path / "mmdit.safetensors", module, kind="mmdit", config=contract)
    assert all(bool((p == 1.5).all()) for p in module.parameters())
    assert card["share"] == 0.25 and card["continues"]["steps"] == 7 and card["steps"] == 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["export-fewstep", "--run", "nowhere"], "nowhere"),
        (["export-vae", "--run", "r", "--data", "nothing"], "nothing holds no clips; make them with `flowact data`"),
        (["vae", "--run", "r", "--data", "nothing", "--heldout", "h"], "nothing holds no clips"),
        (["latents", "--data", "nothing", "--out", "o"], "nothing holds no clips"),
        (["stage1", "--run", "r", "--data", "nothing", "--heldout", "h"], "nothing holds no prepared clips"),
        (["fewstep", "--run", "r", "--data", "d", "--heldout", "h", "--preset", "big"], "preset 'big' does not exist"),
    ],
)
def test_bad_input_gives_one_line(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(options) == 1
    told = capsys.readouterr().err
    assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1


def test_material_of_another_kind_gives_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = snippets(tmp_path / "data"), str(tmp_path / "out")
    for options, says in (
        (["latents", "--data", str(data), "--out", out], "000 has no sound; latents are made of `flowact data clips`"),
        (["vae", "--run", out, "--data", str(data), "--heldout", "nothing"], "nothing holds no clips"),
        (["vae", "--run", out, "--data", str(data), "nothing", "--heldout", str(data)], "nothing holds no clips"),
        (["stage1", "--run", out, "--data", str(data), "--heldout", str(data)], "data holds no prepared clips"),
    ):
        assert train(options) == 1
        told = capsys.readouterr().err
        assert says in told and told.count("\n") == 1
    write_clip(tmp_path / "small" / "0", {}, {"frames": 8, "size": 128, "identity": "mia"})
    assert train(["latents", "--data", str(tmp_path / "small"), "--out", out]) == 1
    assert "128 pixels a side; avatar_cpu needs 512" in capsys.readouterr().err
    assert not Path(out).exists()


def test_weights_that_do_not_fit_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ema = {f"layer.{k}.weight": torch.zeros(1) for k in range(300)}
    torch.save({"iteration": 1, "seconds": 1.0, "ema": ema}, tmp_path / "state.pt")
    data = snippets(tmp_path / "data")
    out = tmp_path / "out"
    options = ["export-vae", "--preset", "debug", "--run", str(tmp_path), "--data", str(data), "--out", str(out)]
    assert train(options) == 1
    told = capsys.readouterr().err
    assert "state_dict for VAE" in told and told.count("\n") == 1 and len(told) < 400


def test_exported_weights_go_where_out_says(tmp_path: Path) -> None:
    data, out = snippets(tmp_path / "data"), tmp_path / "out"
    torch.save({"iteration": 1, "seconds": 1.0, "ema": VAE(CONFIG.vae).state_dict()}, tmp_path / "state.pt")
    options = ["--preset", "debug", "--run", str(tmp_path), "--data", str(data), "--out", str(out)]
    assert train(["export-vae", *options]) == 0
    load_weights(out / "vae.safetensors", VAE(CONFIG.vae), kind="vae", config=CONFIG.vae)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["stage1", "--data", "d", "--heldout", "h"], "stage1 needs --run"),
        (["vae", "--threads", "0"], "--threads is 0; it must lie in 1 .. 64"),
        (["vae", "--batch", "0"], "--batch is 0; it must lie in 1 .. 4096"),
        (["vae", "--steps", "-5"], "--steps is -5"),
        (["vae", "--warmup", "-1"], "--warmup is -1"),
        (["vae", "--lr", "nan"], "--lr is nan"),
        (["vae", "--lr", "0"], "--lr is 0.0"),
        (["vae", "--minutes", "-1"], "--minutes is -1.0; it must lie in 0.0 .. inf"),
        (["vae", "--seed", "-1"], "--seed is -1"),
        (["fewstep", "--nearby", "1.5"], "--nearby is 1.5; it must lie in 0.0 .. 1.0"),
        (["export-fewstep", "--share", "2"], "--share is 2.0; it must lie in 1e-06 .. 1.0"),
        (["latents", "--shard", "0", "0"], "--shard is 0 0; I must lie in 0 .. N - 1"),
        (["latents", "--encoding-steps", "-1"], "--encoding-steps is -1; it must lie in 0 .. 1000"),
        (["latents", "--shard", "5", "2"], "--shard is 5 2"),
    ],
)
def test_a_bad_command_line_gives_one_line(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "needs" not in says:
        options = [*options, "--run", "r", "--data", "d", "--heldout", "h", "--out", "o"]
    assert train(options) == 2
    told = capsys.readouterr().err
    assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1


def test_without_a_code_noise_is_white_as_live(tmp_path: Path) -> None:
    calm = replace(CONFIG, schedule=replace(CONFIG.schedule, temperature=0.3))
    method = FewStep(calm, [coded(tmp_path / "data")], tmp_path / "data", batch=8, nearby=1.0)
    noise = next(drawn(method))["noise"]
    assert float(noise.std()) == pytest.approx(0.3, abs=0.02) and bool((noise != noise[..., :1, :1]).any())


def test_a_code_of_other_length_is_refused_with_the_right_one(tmp_path: Path) -> None:
    shorter = replace(CONFIG, schedule=replace(CONFIG.schedule, code_decay=(0.5,)))
    with pytest.raises(ConfigError, match=r"has 1 numbers; these clips tell 2, for which it should be \("):
        FewStep(shorter, [coded(tmp_path / "data")], tmp_path / "data")


def test_normal_scores_are_normal_within_each_behaviour() -> None:
    torch.manual_seed(0)
    values, kinds = torch.rand(600, 2), torch.arange(600) % 2
    values[kinds == 1] += 10.0
    values[:, 1] = 0.0
    parts = normal_scores(values.split([100, 500]), kinds.split([100, 500]))
    codes = torch.cat(parts)
    assert [len(part) for part in parts] == [100, 500]
    for kind in (0, 1):
        rows = codes[kinds == kind]
        assert float(rows.mean()) == pytest.approx(0, abs=0.02) and float(rows.std()) == pytest.approx(1, abs=0.03)
        order = values[kinds == kind, 0].argsort()
        assert float(rows[order[1:], 0].sub(rows[order[:-1], 0]).min()) > -0.1 and rows[order[0], 0] < -2
    assert float(codes.abs().max()) == pytest.approx(LARGEST)


def test_decays_are_those_of_the_noise_that_is_drawn() -> None:
    wanted = (0.0, 0.5, 0.8)
    codes = [code_for(seed, 0, 400, wanted) for seed in range(6)]
    assert decays(codes) == pytest.approx(wanted, abs=0.06)


def test_movements_are_means_over_a_latent() -> None:
    controls = np.zeros((9, len(CONTROL_NAMES)), np.float32)
    controls[4:8, CONTROL_NAMES.index("blink_left")] = 0.5
    means = movements(controls)
    assert means.shape == (2, len(MOVEMENTS))
    assert means[1, list(MOVEMENTS).index("lids")] == 0.25 and float(means.abs().sum()) == 0.25
    assert KINDS[kind_of(WORDINGS["laugh"][0])] == "laugh"
    with pytest.raises(ValueError, match="no behaviour is worded 'sing'"):
        kind_of("sing")


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    data = latents(tmp_path / "data")

    def train(run: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        for stop in stops:
            torch.manual_seed(0)
            method = DiffusionForcing(CONFIG, [data], data, batch=2)
            trainer = Trainer(method, config(run, 6, save_every=1000))
            while trainer.iteration < stop:
                torch.manual_seed(trainer.iteration)
                remaining = trainer.iteration + 1
                trainer.config = config(run, 6)
                single = trainer.method.batch(torch.Generator().manual_seed(trainer.iteration))
                trainer.method.step(single, remaining)["loss"].backward()
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()
                trainer._update_ema()
                trainer.iteration += 1
            trainer.save()
        return torch.load(run / "state.pt", weights_only=True)["module"]

    whole, cut = train(tmp_path / "whole", (4,)), train(tmp_path / "cut", (2, 4))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is damaged (empty)"), (b"no weights", "is damaged ("), (None, "is no state of a training run")],
)
def test_a_damaged_state_gives_one_line(
    content: bytes | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = latents(tmp_path / "data"), tmp_path / "run"
    run.mkdir()
    if content is None:
        torch.save({"iteration": 3}, run / "state.pt")
    else:
        (run / "state.pt").write_bytes(content)
    options = ["--preset", "debug", "--data", str(data), "--heldout", str(data), "--run", str(run)]
    assert train(["stage1", *options]) == 1
    told = capsys.readouterr().err
    assert f"state.pt {says}" in told and told.count("\n") == 1


def test_memory_older_than_short_term_gets_no_gradient(tmp_path: Path) -> None:
    method = DiffusionForcing(CONFIG, [latents(tmp_path / "data")], tmp_path / "data", batch=2)
    for parameter in method.module.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    batch = None
    generator = torch.Generator().manual_seed(0)
    while batch is None or batch["entries"] < 3:
        batch = method.batch(generator)
    memory = batch["latents"][:, : batch["entries"]].clone().requires_grad_()
    noisy = torch.randn_like(batch["latents"][:, batch["entries"] :])
    method.predict(batch, noisy, memory).square().sum().backward()
    reached = memory.grad.abs().amax((0, 2, 3, 4)) > 0
    assert reached.tolist() == [False] * (batch["entries"] - 1) + [True]


def test_orthogonalise_flattens_the_spectrum() -> None:
    torch.manual_seed(0)
    for shape in ((24, 60), (60, 24)):
        matrix = torch.randn(shape) @ torch.diag(torch.logspace(0, -2, shape[1]))
        values = torch.linalg.svdvals(orthogonalise(matrix).float())
        # the smallest directions of a 100 : 1 spectrum are lifted most of the way
        assert float(values.max()) < 1.4 and float(values[: min(shape) // 2].min()) > 0.6


def test_muon_sorts_matrices_from_the_rest() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(8, 16, 3), torch.nn.Linear(16, 4))
    groups = Muon(module.parameters(), 1e-3).param_groups
    assert [tuple(p.shape) for p in groups[0]["params"]] == [(16, 8, 3, 3)]
    assert len(groups[1]["params"]) == 3 and groups[1]["weight_decay"] == 0


def test_pure_losses() -> None:
    a = torch.zeros(1, 1, 3, 8, 8)
    assert float(reconstruction(a, a, torch.ones(1, 1, 1, 8, 8), 1.0)) == 0
    assert psnr(a + 0.2, a) == pytest.approx(20.0, abs=1e-3)  # 4 / 0.04 = 100
    masks = box_mask(torch.tensor([[1.0, 2.0, 3.0, 6.0]]), 8, 8)
    assert masks.sum() == 2 * 4 and masks[0, 2, 1] and not masks[0, 1, 1]


def test_cell_weights_mark_the_mouth() -> None:
    boxes = np.zeros((8, 4, 4), np.float32)
    boxes[:, 0] = (32, 64, 64, 96)
    weight = cell_weights(boxes, 128, 32)
    assert weight.shape == (2, 4, 4)
    assert torch.allclose(weight.mean((1, 2)), torch.ones(2)) and int(weight[0].argmax()) == 2 * 4 + 1
