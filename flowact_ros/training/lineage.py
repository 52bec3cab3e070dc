# SPDX-License-Identifier: Apache-2.0
"""Where weights come from: the stages they went through, and the weights that a further stage begins with."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from torch import Tensor

from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import UNDISTILLED, ModelConfig
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.training.trainer import CHOSEN, read_state

SHIPPED = "shipped"  # the weights in the package, where a run folder could stand
FIRST = "adaptation"  # the denoiser's first stage; runs and cards that tell no stage are of it
GUIDED = "guidance"  # taught to guide itself, in as many evaluations as before
DISTILLED = ("steps", "matching")  # stages whose weights need few evaluations
FOOTAGE = "footage"  # the denoiser on somebody's own footage: `flowact train adapt`


def commit_id() -> str:
    """The commit of the sources, or "unknown" outside a git checkout."""
    here = Path(__file__).resolve().parent
    result = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def run_stages(state: dict[str, Any], default: str) -> list[dict[str, Any]]:
    """The stages of a run's weights, its own last: `{name, steps, commit, core_hours}` each.

    default: the stage's name in runs that tell none
    """
    commits = [s["commit"] for s in state["slices"] if "commit" in s]
    own = {
        "name": state.get("stage") or default,
        "steps": state["iteration"],
        "commit": commits[-1] if commits else commit_id(),
        "core_hours": round(state.get("core_seconds", state["seconds"]) / 3600, 3),
    }
    return [*state.get("stages", []), own]


def card_stages(card: dict[str, Any]) -> list[dict[str, Any]]:
    """The stages of exported weights; older cards tell of one stage that ran on one core."""
    hours = round(card["train_seconds"] / 3600, 3)
    first = {"name": FIRST, "steps": card["steps"], "commit": card["commit"], "core_hours": hours}
    return card.get("stages", [first])


def run_state(run: Path) -> dict[str, Any]:
    """The state of a run, with the running mean that was chosen by its figures where the stage chooses one.

    Raises ValueError for a folder without a state, and for a damaged one.
    """
    if not (run / "state.pt").is_file():
        raise ValueError(f"{run} is no run folder: it has no state.pt")
    state = read_state(run / "state.pt", {"ema", "iteration", "seconds", "slices"})
    if (run / CHOSEN).exists():
        state |= read_state(run / CHOSEN, {"ema", "iteration"})
    return state


def sampled(stage: str, last: dict[str, Any]) -> dict[str, Any]:
    """The schedule (of `models.config.SchedulerConfig`) that weights are made for; last: slice of a run of `stage`."""
    return {"steps": last["evaluations"], "solver": "euler"} if stage in DISTILLED else UNDISTILLED


def run_schedule(state: dict[str, Any]) -> dict[str, Any]:
    """`sampled` of a run of the denoiser."""
    return sampled(state.get("stage") or FIRST, state["slices"][-1] if state["slices"] else {})


def denoiser_weights(source: str, config: ModelConfig) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Weights to begin with and their stages; source: "shipped", a run folder, or one of exported weights.

    Raises ValueError, CheckpointError.
    """
    path = (weights_dir() / config.name if source == SHIPPED else Path(source)) / "denoiser.safetensors"
    if source == SHIPPED or path.is_file():
        module = DiT(config)
        card = load_weights(path, module, kind=KIND, config=config.denoiser_contract())
        return module.state_dict(), card_stages(card)
    state = run_state(Path(source))
    return state["ema"], run_stages(state, FIRST)
