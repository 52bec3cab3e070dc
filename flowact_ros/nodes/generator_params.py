# SPDX-License-Identifier: Apache-2.0
"""The parameters of the avatar generator."""

from __future__ import annotations

from pathlib import Path

from flowact_ros.engine.looking import FOLLOW, POLICIES
from flowact_ros.nodes.params import Param, ParameterError, Params
from flowact_ros.vocabulary import AUDIO_ENCODERS, AUDIO_ENCODINGS, DRAW_EVERY, EMBEDDED, S16LE
from flowact_ros.weights_store import AVATARS, WeightsError, find_audio_weights

PRESETS = ("avatar_cpu", "debug", "avatar_spatial_debug", "avatar_1b", "avatar_14b")
ON_CPU = ("avatar_cpu", "debug")  # presets that a CPU computes in real time

PARAMETERS = (
    Param("preset", "avatar_cpu", "Which model; debug has random weights", choices=PRESETS),
    Param("device", "cpu", "Where the model runs: cpu, cuda, cuda:1"),
    Param("devices", "", "Devices that share the denoiser, a process each: cuda:0,cuda:1; empty: device alone"),
    Param("decoder_device", "", "A device of its own for the decoder, in one more process; empty: that of device"),
    Param(
        "weights_dir",
        "",
        "Folder of weights; empty: the ones that were installed; random: untrained ones, for speed runs and tests",
    ),
    Param("character", "", "Name of a shipped character; empty: the first one"),
    Param("reference_image", "", "Path of a portrait to animate instead of a shipped character"),
    Param(
        "seed",
        0,
        "Of the stream's noise: the same seed and inputs give the same frames",
        range=(0, 2**31 - 1),
    ),
    Param(
        "schedule",
        "sequential",
        "How evaluations are spent: diagonal needs a third of the passes, and 0.96 s more of speech ahead",
        choices=("sequential", "diagonal"),
    ),
    Param(
        "runtime",
        "auto",
        "What computes the networks; auto: CUDA graphs on a GPU, else OpenVINO (the renderer) where it is installed",
        choices=("auto", "eager", "openvino", "graphs", "tensorrt"),
    ),
    Param(
        "precision",
        "auto",
        "What the denoiser is computed in; fp8 needs a GPU of compute capability 8.9, int8 a processor with AVX2",
        choices=("auto", "float32", "bfloat16", "int8", "fp8"),
    ),
    Param(
        "draw_every",
        1,
        "1, 2 or 4: of so many frames one is drawn and shown for all, for a processor that cannot draw 25 a second; "
        "sound, motion and stamps stay as they are",
        range=(DRAW_EVERY[0], DRAW_EVERY[-1]),
    ),
    Param("threads", 0, "CPU threads of the networks; 0: what is best here", range=(0, 64)),
    Param("audio_backend", EMBEDDED, "What hears the speech", choices=AUDIO_ENCODERS),
    Param(
        "audio_path",
        "",
        f"Weights of the audio backend; empty: the ones that were installed, of whisper those of `flowact weights get "
        f"{AVATARS}`",
    ),
    Param("text_backend", "embedded", "What reads instructions", choices=("embedded", "minilm", "t5")),
    Param("text_path", "", "Weights of the text backend (minilm, t5: a folder); empty: the ones that were installed"),
    Param("engine_config", "", "YAML file with settings of the stream and the model; empty: defaults"),
    Param("audio_encoding", S16LE, "Of the published sound", choices=AUDIO_ENCODINGS),
    Param("jpeg_quality", 85, "Of image_raw/compressed", range=(1, 100)),
    Param(
        "gaze",
        FOLLOW,
        "Where it looks: at the points of look_at (follow), also about by itself while it is silent (wander), or only "
        "as the model has it, mostly at the viewer (viewer)",
        choices=POLICIES,
        live=True,
    ),
    Param("look_at_timeout", 3.0, "[s] a point of look_at counts", range=(0.2, 3600.0), live=True),
    Param(
        "recover",
        True,
        "Refine memory when motion drifts, and start it anew when the face has frozen; without it both are only told",
        live=True,
    ),
    Param("screen_width", 0.52, "[m] of the screen, for points of look_at", range=(0.02, 20.0)),
    Param("screen_height", 0.29, "[m] of the screen, for points of look_at", range=(0.02, 20.0)),
    Param(
        "eye_depth",
        0.5,
        "[m] behind the screen from where the character seems to look; less turns it farther to the side",
        range=(0.05, 10.0),
    ),
)


def audio_weights(params: Params) -> Path | None:
    """Of the audio backend; None for the installed ones. Raises ParameterError with how to get those that lack."""
    try:
        return find_audio_weights(str(params["audio_backend"]), params["audio_path"])
    except WeightsError as error:
        raise ParameterError(
            f"parameter audio_backend: {error}, or give the path of converted weights as audio_path"
        ) from None


def cpu_values(params: Params) -> dict[str, object]:
    """Parameters by which a generator that lost its GPU goes on: on the CPU, with a preset that it computes in time.
    What belongs to another preset is left behind.
    """
    values: dict[str, object] = {"device": "cpu", "devices": "", "decoder_device": "", "runtime": "auto"}
    values["precision"] = "auto"
    if params["preset"] not in ON_CPU:
        values |= {"preset": ON_CPU[0], "weights_dir": "", "engine_config": "", "audio_backend": EMBEDDED}
        values |= {"audio_path": "", "text_backend": "embedded", "text_path": ""}
    return values
