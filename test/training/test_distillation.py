# SPDX-License-Identifier: Apache-2.0
"""The phases of distillation take real steps on tiny material, resume exactly, and know whose turn it is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from motions import performances
from torch import Tensor

from flowact_ros.diffusion.memory import MemoryBank
from flowact_ros.diffusion.sampler import denoise_chunk, implied_clean
from flowact_ros.diffusion.schedule import step_sigmas
from flowact_ros.models.config import ConfigError, SchedulerConfig, debug
from flowact_ros.models.dit import DiT
from flowact_ros.training.export import export_denoiser
from flowact_ros.training.main import main as train
from flowact_ros.training.motion_figures import SPREADS
from flowact_ros.training.stages.few_steps import StepDistillation, own_way, trajectory
from flowact_ros.training.stages.guidance import GuidanceDistillation
from flowact_ros.training.stages.matching import DistributionMatching
from flowact_ros.training.trainer import CHOSEN, Trainer, TrainerConfig

CONFIG = debug()
SHAPE = CONFIG.dit.latent_shape


def weights(seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = DiT(CONFIG)
    return {name: value + 0.05 * torch.randn_like(value) for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return performances(tmp_path_factory.mktemp("material") / "data")


def stage(kind: type, folder: Path, **options: Any) -> Any:
    shared = {
        "teacher": weights(), "student": weights(), "batch": 2, "own_memory": 0.5, "refresh": 2, "patience": 3,
        "clips": 2,
    }  # fmt: skip
    return kind(CONFIG, [folder], folder, **{**shared, **options})


def few(folder: Path, **options: Any) -> StepDistillation:
    return stage(
        StepDistillation, folder, **{"teacher_steps": 6, "segments": (3,), "total": 4, "scales": (1, 1), **options}
    )  # fmt: skip


def matching(folder: Path, **options: Any) -> DistributionMatching:
    return stage(
        DistributionMatching, folder, **{"steps": 3, "ratio": 2, "rate": 2.0, "guidance": 1.0, **options}
    )


def guidance(folder: Path, **options: Any) -> GuidanceDistillation:
    return stage(GuidanceDistillation, folder, **{"steps": 3, "scales": (1.0, 3.0), **options})


def config(run: Path, steps: int, **options: Any) -> TrainerConfig:
    return TrainerConfig(
        run=run, steps=steps, learning_rate=1e-3, warmup=0, floor=1.0, optimizer="adamw", bf16=False,
        **{"sheet_every": 10**6, "log_every": 3, **options},
    )  # fmt: skip


@pytest.mark.parametrize("kind", [guidance, few, matching])
def test_a_resumed_run_equals_an_unbroken_one(data: Path, tmp_path: Path, kind: Any) -> None:
    def run(folder: Path, stops: tuple[int, ...]) -> dict[str, Any]:
        for stop in stops:
            Trainer(kind(data), config(folder, stop, stage=kind.__name__)).run()
        return torch.load(folder / "state.pt", weights_only=True)

    whole, cut = run(tmp_path / "whole", (4,)), run(tmp_path / "cut", (2, 4))
    for key in ("module", "ema"):
        assert all(torch.equal(whole[key][name], cut[key][name]) for name in whole[key])
    for name, role in whole["roles"].items():
        assert all(torch.equal(value, cut["roles"][name][key]) for key, value in role.items())
    begun = weights()
    assert any(not torch.equal(value, begun[key]) for key, value in whole["module"].items())
    assert all(torch.equal(value, begun[key]) for key, value in whole["roles"]["teacher"].items())
    assert whole["best"] == cut["best"] and (tmp_path / "cut" / CHOSEN).exists() == (kind is not guidance)


def test_the_critics_ratio_counts_optimiser_steps(data: Path, tmp_path: Path) -> None:
    method = matching(data, ratio=2)
    trainer = Trainer(method, config(tmp_path / "run", 7, accumulate=2))  # batches do not count
    steps: list[str] = []
    for name, optimizer in (("student", trainer.optimizer), *trainer.optimizers.items()):
        optimizer.register_step_post_hook(lambda *_, name=name: steps.append(name))
    trainer.run()
    assert steps == ["critic", "critic", "student", "critic", "critic", "student", "critic"]
    assert trainer.optimizers["critic"].param_groups[0]["lr"] == pytest.approx(2e-3)
    header = (tmp_path / "run" / "log.csv").read_text().splitlines()[0].split(",")
    assert {"critic_loss", "loss"} <= set(header)


def test_a_turn_changes_one_network(data: Path) -> None:
    method = matching(data)
    with torch.no_grad():
        for parameter in method.critic.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    generator = torch.Generator()
    for iteration, (moves, stays) in enumerate(
        ((method.critic, method.module), (method.critic, method.module), (method.module, method.critic))
    ):
        online = method.batch(generator.manual_seed(iteration), iteration)
        method.step(online, iteration)["loss"].backward()
        assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in moves.parameters())
        assert all(p.grad is None for p in (*stays.parameters(), *method.teacher.parameters()))
        moves.zero_grad(set_to_none=True)


def test_matching_rests_where_critic_and_teacher_agree(data: Path) -> None:
    method = matching(data)  # the critic begins as the teacher
    method.step(method.batch(torch.Generator().manual_seed(1), 2), 2)["loss"].backward()
    assert all(float(p.grad.abs().max()) == 0 for p in method.module.parameters() if p.grad is not None)


def test_the_student_is_trained_on_what_it_makes_live(data: Path) -> None:
    method = matching(data, own_memory=0.0)
    online = next(
        o for o in (method.batch(torch.Generator().manual_seed(i), 0) for i in range(99)) if o.exit_at == 2
    )
    with torch.no_grad():
        made = method.made(online)
    batch, size = online.batch, online.batch.sizes[online.batch.history]
    first = sum(batch.sizes[: batch.history])
    assert torch.equal(made.motion[:, :first], batch.motion[:, :first])  # what is remembered
    assert bool((made.disturbance[:, first:] == 0).all())
    bank, stop = MemoryBank.start(method.module, batch.reference), 0
    for chunk in batch.sizes[: batch.history]:
        past = (batch.motion + batch.disturbance)[:, stop : stop + chunk]
        bank = bank.commit(method.module, past, batch.condition.slots(stop, stop + chunk))
        stop += chunk
    condition = batch.condition.slots(first, first + size)
    with torch.no_grad():
        live = denoise_chunk(bank.predictor(method.module, condition), online.starts[0], method.sigmas, "euler")
    torch.testing.assert_close(made.motion[:, first : first + size], live)


def test_an_early_exit_carries_a_gradient_in_bfloat16(data: Path) -> None:
    """Steps before it run without gradient; the casts of weights that they leave behind must not be used by it."""
    method = matching(data)
    for parameter in method.critic.parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    online = next(
        o for o in (method.batch(torch.Generator().manual_seed(i), 0) for i in range(99)) if o.exit_at == 1
    )
    with torch.autocast("cpu", torch.bfloat16):
        loss = method.step(online, 2)["loss"]
    loss.backward()
    lacking = [name for name, parameter in method.module.named_parameters() if parameter.grad is None]
    assert all(
        name.startswith("double_blocks.0.condition.") for name in lacking
    )  # whose result is not read on


def test_the_teachers_way_is_of_second_order_and_its_points_are_the_students_levels() -> None:
    sigmas = step_sigmas(SchedulerConfig(steps=24))
    noise = torch.randn(1, 1, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def teacher(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.tanh(2 * x) * (1 - sigma[..., None, None] / 2)

    path = trajectory(teacher, noise, sigmas)
    torch.testing.assert_close(path[-1], denoise_chunk(teacher, noise, sigmas, "adams_bashforth"))
    for segments in (12, 6, 3):
        levels = step_sigmas(SchedulerConfig(steps=segments))
        torch.testing.assert_close(torch.tensor(sigmas[:: 24 // segments]), torch.tensor(levels))


def test_each_step_of_a_student_makes_up_for_what_those_before_missed() -> None:
    sigmas = step_sigmas(SchedulerConfig(steps=3))
    path = [torch.randn(1, 2, *SHAPE, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    following, ends = dict(zip(sigmas, sigmas[1:])), dict(zip(sigmas, path[1:]))

    def misses_the_first(noisy: Tensor, level: Tensor) -> Tensor:
        at = min(sigmas[:3], key=lambda sigma: abs(sigma - float(level[0, 0])))
        return implied_clean(noisy, ends[at], at, following[at]) + 0.3 * (at == 1.0)

    steps = list(own_way(misses_the_first, path, sigmas))
    assert [sigma for _, _, sigma in steps] == list(sigmas[:3])
    missed = [float((clean - target).abs().max()) for clean, target, _ in steps]
    assert missed == pytest.approx([0.3, 0.0, 0.0], abs=1e-5)
    torch.testing.assert_close(steps[-1][1], path[-1])  # the last of Euler's steps gives the prediction itself


def test_segments_fall_and_must_divide_the_teachers_steps(data: Path) -> None:
    method = few(data, teacher_steps=12, segments=(12, 6, 3), total=9)
    assert [method.segments_at(i) for i in range(10)] == [12, 12, 12, 6, 6, 6, 3, 3, 3, 3]
    row = {f"std_{name}": 1.0 for name in SPREADS}
    row |= {"blinks": 9.0, "blinks_truth": 9.0, "speed": 1.0, "acceleration": 1.0}
    assert [method.judge(row, i) for i in (0, 1, 5, 6)] == [0.0, math.inf, math.inf, 0.0]
    with pytest.raises(ConfigError, match="5 segments do not divide the teacher's 6 steps"):
        few(data, segments=(5,))


def test_guidance_teaches_nothing_new_at_scale_one(data: Path) -> None:
    method = guidance(data, scales=(1.0, 1.0))
    out = method.step(method.batch(torch.Generator().manual_seed(0), 0), 0)
    assert float(out["loss"].detach()) == pytest.approx(0.0, abs=1e-8) and float(
        out["guidance"]
    ) == pytest.approx(0.0, abs=1e-8)
    guided = guidance(data, scales=(3.0, 3.0))
    assert float(guided.step(guided.batch(torch.Generator().manual_seed(0), 0), 0)["loss"].detach()) > 1e-4


def test_the_liveliest_weights_are_kept_and_none_better_ends_the_run(data: Path, tmp_path: Path) -> None:
    method = matching(data)
    figures = iter([0.5, 0.2, 0.3, 0.4, 0.9, 0.8])
    method.judge = lambda row, iteration: next(figures)  # type: ignore[method-assign]
    trainer = Trainer(method, config(tmp_path / "run", 20, sheet_every=1))
    trainer.run()
    assert trainer.iteration == 4 and trainer.best == 0.2  # patience 3
    assert torch.load(tmp_path / "run" / CHOSEN, weights_only=True)["iteration"] == 1


def test_phases_follow_one_another_and_the_card_tells_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(stage: str, *more: str) -> None:
        shared = [
            "--preset",
            "debug",
            "--data",
            str(data),
            "--heldout",
            str(data),
            "--steps",
            "2",
            "--batch",
            "2",
        ]
        assert train([stage, *shared, *more]) == 0

    motion, guided, steps, final = (str(tmp_path / name) for name in ("motion", "guided", "steps", "final"))
    run("motion", "--run", motion)
    run("distill", "--phase", "guidance", "--teacher", motion, "--run", guided)
    run("distill", "--phase", "steps", "--teacher", guided, "--run", steps, "--guidance", "1", "2")
    more = ["--guidance", "1.5", "--ratio", "1"]
    run("distill", "--phase", "matching", "--teacher", guided, "--student", steps, "--run", final, *more)
    capsys.readouterr()
    table = ["--evaluate", "2", "--clips", "2", "--guidance", "1", "2"]
    run("distill", "--phase", "guidance", "--run", guided, *table)
    rows = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["2 evaluations", "2 evaluations, guidance 2", "2, another clip's sound"]
    shared = ["--preset", "debug", "--data", str(data), "--heldout", str(data), "--steps", "2", "--batch", "2"]
    assert train(["distill", *shared, "--phase", "steps", "--teacher", steps, "--run", str(tmp_path / "again")]) == 1
    assert "was distilled for few evaluations, and a teacher makes more" in capsys.readouterr().err
    path = export_denoiser(CONFIG, Path(final), tmp_path / "out")
    card = json.loads(path.with_suffix(".json").read_text())
    assert [s["name"] for s in card["stages"]] == ["adaptation", "guidance", "steps", "matching"]
    assert all(set(s) == {"name", "steps", "commit", "core_hours"} for s in card["stages"])
    assert "--phase matching" in card["command"] and card["schedule"] == {"steps": 3, "solver": "euler"}


def test_bad_options_give_one_line(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    plain = ["distill", "--preset", "debug", "--data", str(data), "--heldout", str(data), "--run", str(run)]
    teacher = tmp_path / "teacher"
    state = {
        "ema": weights(),
        "module": weights(),
        "iteration": 5,
        "seconds": 9.0,
        "slices": [],
        "optimizer": None,
    }
    teacher.mkdir()
    torch.save(state, teacher / "state.pt")
    for more, status, says in (
        (["--phase", "steps", "--teacher", str(tmp_path)], 1, "is no run folder: it has no state.pt"),
        (["--phase", "steps", "--teacher", str(teacher), "--ratio", "0"], 2, "--ratio is 0; it must lie in 1 .. 100"),
        (["--phase", "matching", "--teacher", str(teacher), "--guidance", "2"], 1, "knows no scale of guidance but 1"),
        (["--phase", "steps", "--teacher", str(teacher), "--guidance", "2"], 1, "takes the two ends of a range"),
        (["--phase", "guidance", "--teacher", str(teacher), "--guidance", "3", "1"], 1, "takes the two ends"),
        (["--phase", "steps", "--teacher", str(teacher), "--segments", "0"], 1, "0 segments do not divide"),
    ):  # fmt: skip
        assert train([*plain, *more]) == status
        told = capsys.readouterr().err
        assert told.startswith("flowact train: ") and says in told and told.count("\n") == 1
    run.mkdir()
    torch.save(state, run / "state.pt")
    assert train([*plain, "--phase", "steps", "--teacher", str(teacher)]) == 1
    assert "holds a run of another stage, not of steps" in capsys.readouterr().err
