# SPDX-License-Identifier: Apache-2.0
"""The denoiser on footage: `flowact train adapt --init avatar_cpu --codec runs/codec --data FOOTAGE --run runs/adapt`.

The codec reads the footage's motion once; then the denoiser learns it as it learned that of drawn characters
(`stages.adaptation`): same loss, same memory, a lower learning rate. `--replay` mixes performances of the synthetic
world in, half and half, for behaviours that the footage does not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flowact_ros.data.footage_store import Shot
from flowact_ros.data.performances import check_encoder
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.config import PRESETS, ModelConfig
from flowact_ros.models.dit import KIND, DiT
from flowact_ros.training.lineage import DISTILLED, FIRST, FOOTAGE, GUIDED, card_stages, run_stages, run_state
from flowact_ros.training.stages.adapt_data import HELD, TRAINED, write_motion
from flowact_ros.training.stages.adaptation import Adaptation
from flowact_ros.training.stages.codec_weights import codec_id, load_codec

BEFORE = (FIRST, GUIDED, *DISTILLED, FOOTAGE)  # stages whose weights it can begin with


def adaptation(
    config: ModelConfig, run: Path, codec: str, shots: Sequence[Shot], replay: Sequence[Path], *, batch: int
) -> Adaptation:
    """The method, on the motion of `shots` as the codec (as of `load_codec`) reads it.

    Raises ValueError, CheckpointError for material that does not fit together.
    """
    for folder in replay:
        check_encoder(folder, shots[0].heard_by)
    network, _ = load_codec(codec, config, "--codec")
    network.eval()
    write_motion(run, network, codec_id(network), shots, replay)
    return Adaptation(config, [run / TRAINED], run / HELD, batch=batch)


def load_denoiser(source: str, config: ModelConfig) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Weights of the package's preset, of an exported folder or of a run, and their stages.

    Those that were distilled for few evaluations unlearn it within a hundred steps, and are sampled as undistilled ones
    afterwards. Raises ValueError, CheckpointError, one line, for what is none, and for another network's or preset's.
    """
    if source in PRESETS and source != config.name:
        raise ValueError(f"--init is {source}, and --preset {config.name}; both must be of one preset")
    folder = weights_dir() / source if source in PRESETS else Path(source)
    module = DiT(config)
    if (folder / "state.pt").is_file():
        state = run_state(folder)
        weights, stages = state["ema"], run_stages(state, FIRST)
        try:
            if stages[-1]["name"] in BEFORE:
                module.load_state_dict(weights)
        except RuntimeError:
            raise ValueError(f"{folder} was trained for other sizes than those of --preset {config.name}") from None
    else:
        path = folder / "denoiser.safetensors"
        stages = card_stages(load_weights(path, module, kind=KIND, config=config.denoiser_contract()))
        weights = module.state_dict()
    if stages[-1]["name"] not in BEFORE:
        raise ValueError(
            f"--init {source} holds weights of the stage {stages[-1]['name']}, which is none of a denoiser; those are "
            f"{', '.join(BEFORE)}"
        )
    return weights, stages
