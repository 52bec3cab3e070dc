# SPDX-License-Identifier: Apache-2.0
"""Kokoro's voices, with a network of a few nodes in place of the real one: every symbol lasts 100 ms and hums."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flowact_ros import weights_store
from flowact_ros.data.augment import draw_voice, kokoro_voices
from flowact_ros.data.splits import HELDOUT_KOKORO
from flowact_ros.dialogue import synthesizer, synthesizer_kokoro
from flowact_ros.dialogue.speech import SynthesizerError
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.dialogue.synthesizer_kokoro import KokoroSynthesizer
from flowact_ros.weights_table import KOKORO_MODEL, KOKORO_VOICES

LONG = 4  # units of 25 ms


def network(path: Path) -> None:
    """input_ids [1, n], style [1, 256], speed [1] -> waveform [1, 2400 n], as loud as the style's first number says."""
    hum = 0.5 * np.sin(2 * np.pi * 200 * np.arange(LONG * 600) / 24_000)
    constants = {
        "hum": hum.astype(np.float32)[None, None], "row": np.array([1, -1]), "flat": np.array([-1]),
        "no": np.zeros(1, np.float32), "long": np.full(1, LONG, np.float32), "last": np.array([2]),
        "one": np.array([0]), "two": np.array([1]), "axis": np.array([1]),
    }  # fmt: skip
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "no"], ["zeros"]),
        helper.make_node("Add", ["zeros", "long"], ["each"]),
        helper.make_node("Div", ["each", "speed"], ["spoken"]),
        helper.make_node("Reshape", ["spoken", "flat"], [KokoroSynthesizer.durations]),
        helper.make_node("Slice", ["style", "one", "two", "axis"], ["level"]),
        helper.make_node("Add", ["zeros", "level"], ["levels"]),
        helper.make_node("Unsqueeze", ["levels", "last"], ["column"]),
        helper.make_node("Mul", ["column", "hum"], ["hums"]),
        helper.make_node("Reshape", ["hums", "row"], ["waveform"]),
    ]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, "samples"])]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "kokoro", inputs, outputs, stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The models that `flowact weights get kokoro` would have brought."""
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    monkeypatch.setattr(synthesizer, "_loaded", {})
    folder = weights_store.folder_of("kokoro")
    folder.mkdir(parents=True)
    network(folder / KOKORO_MODEL)
    for i, name in enumerate(KOKORO_VOICES):
        np.full((510, 1, 256), 0.2 + 0.02 * i, np.float32).tofile(folder / f"{name}.bin")
    (folder / weights_store.SUMS).write_text("")


@pytest.mark.usefixtures("brought")
def test_its_sound_and_times_go_together() -> None:
    voice = load_synthesizer("kokoro:bm_lewis")
    speech = voice.synthesize("Papa paid.")  # by a British man
    said = [p.symbol for p in speech.phonemes if p.symbol != "SIL"]
    assert said[:4] == ["P", "AX", "P", "AA"] and [w.text for w in speech.words][:2] == ["Papa", "paid"]
    assert sum(p.duration_s for p in speech.phonemes) == pytest.approx(speech.seconds, abs=1e-6)
    higher = voice.synthesize("Papa paid.", pitch=1.25)  # played faster: the stand-in's speed changes its times alone
    assert higher.seconds == pytest.approx(speech.seconds / 1.25, rel=0.01)
    loud = np.abs(load_synthesizer("kokoro:bm_lewis").synthesize("Papa paid.").pcm).max()
    assert loud > np.abs(load_synthesizer("kokoro").synthesize("Papa paid.").pcm).max()  # another voice's style


def test_what_is_missing_is_one_line_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    monkeypatch.setattr(synthesizer, "_loaded", {})
    with pytest.raises(SynthesizerError, match="flowact weights get kokoro"):
        load_synthesizer("kokoro")
    with pytest.raises(SynthesizerError, match="unknown kokoro voice 'bob'; available: af_alloy"):
        load_synthesizer("kokoro:bob")


@pytest.mark.usefixtures("brought")
def test_a_damaged_model_is_one_line() -> None:
    (weights_store.folder_of("kokoro") / KOKORO_MODEL).write_bytes(b"not a model")
    with pytest.raises(SynthesizerError, match=KOKORO_MODEL):
        synthesizer_kokoro.KokoroSynthesizer("af_bella")
    (weights_store.folder_of("kokoro") / "af_sky.bin").write_bytes(bytes(1000))
    with pytest.raises(SynthesizerError, match="af_sky.bin is damaged"):
        synthesizer_kokoro.KokoroSynthesizer("af_sky")


def test_its_held_out_voices_teach_nothing() -> None:
    names = {split: {name for name, _, _ in kokoro_voices(split)} for split in ("train", "heldout")}
    assert len(names["train"]) == 24 and names["heldout"] == {f"kokoro:{name}" for name in HELDOUT_KOKORO}
    assert not names["train"] & names["heldout"]
    drawn = {draw_voice(np.random.default_rng(k), "train", of_kokoro=True).backend for k in range(200)}
    assert len(drawn) > 20 and drawn <= names["train"]
