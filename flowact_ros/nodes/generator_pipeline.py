# SPDX-License-Identifier: Apache-2.0
"""The avatar generator's networks, as its parameters ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowact_ros.engine.session_config import SessionConfig
from flowact_ros.nodes.engine_config import engine_config
from flowact_ros.nodes.generator_params import audio_weights
from flowact_ros.nodes.params import Params

if TYPE_CHECKING:
    from flowact_ros.engine.pipeline import AvatarPipeline


def build(params: Params) -> tuple[SessionConfig, AvatarPipeline]:
    """The stream's settings and networks. Raises ParameterError, ConfigError, CheckpointError, ValueError."""
    from flowact_ros.engine.pipeline import build_pipeline

    config, overrides = engine_config(params["engine_config"])
    schedule = {**overrides.get("schedule", {}), "order": params["schedule"]}
    drawn = {} if params["draw_every"] == 1 else {"draw_every": params["draw_every"]}  # a file may say it, too
    heard_by = audio_weights(params)
    arguments = {
        "overrides": {**overrides, **drawn, "schedule": schedule},
        "weights": params["weights_dir"] or None,
        "runtime": params["runtime"],
        "audio_backend": params["audio_backend"],
        "audio_path": str(heard_by) if heard_by else None,
        "text_backend": params["text_backend"],
        "text_path": params["text_path"] or None,
        "precision": params["precision"],
    }
    if params["devices"] or params["decoder_device"]:
        from flowact_ros.engine.parallel.build import build_across
        from flowact_ros.engine.parallel.ranks import Layout

        devices = tuple(filter(None, params["devices"].replace(" ", "").split(","))) or (params["device"],)
        layout = Layout(devices, params["decoder_device"] or None)
        return config, build_across(layout, params["preset"], **arguments).pipeline
    return config, build_pipeline(params["preset"], params["device"], **arguments)
