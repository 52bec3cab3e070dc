# SPDX-License-Identifier: Apache-2.0
"""Scripts of conversations: what a file may hold, one clear line for what it may not, and the sound of a turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowact_ros.dialogue.script import Script, ScriptError, ScriptTurn, load_script, sound_of, trimmed
from flowact_ros.launcher.resources import config_file
from flowact_ros.media.wav import write_wav
from flowact_ros.timebase import SAMPLE_RATE


def load(tmp_path: Path, text: str) -> Script:
    path = tmp_path / "script.yaml"
    path.write_text(text, encoding="utf-8")
    return load_script(path)


def test_a_script_is_read(tmp_path: Path) -> None:
    script = load(
        tmp_path,
        "voice: flite:rms\npitch: 0.8\nturns:\n  - Hello  there\n  - {wav: a.wav, say: 'What?'}\n"
        "  - {say: Stop, break_in: 1}\n",
    )
    assert (script.voice, script.pitch, script.rate) == ("flite:rms", 0.8, 1.0)
    assert script.turns == (
        ScriptTurn("Hello there"),
        ScriptTurn("What?", tmp_path / "a.wav"),
        ScriptTurn("Stop", None, 1.0),
    )


def test_a_script_is_repeated_and_its_first_turn_breaks_into_nothing() -> None:
    script = Script((ScriptTurn("a"), ScriptTurn("b", break_in_s=1.0)))
    assert [turn.say for turn in script.first(5).turns] == ["a", "b", "a", "b", "a"]
    assert script.first(1).turns == (ScriptTurn("a"),)


@pytest.mark.parametrize("name", ["dialogue.yaml", "dialogue_bench.yaml"])
def test_the_shipped_scripts_are_right(name: str) -> None:
    assert len(load_script(config_file(name)).turns) >= 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the keys are turns, voice, pitch, rate"),
        ("- hello", "the keys are turns"),
        ("turns: [a]\nvoices: b", "the keys are turns"),
        ("turns: []", "turns must be a list of 1 to 1000 entries"),
        ("turns: hello", "turns must be a list"),
        ("turns: [{say: [a, 0.3]}]", "turns[0].say must be texts with a number of seconds between any two"),
        ("turns: [{say: [a, b, c]}]", "turns[0].say[1] must be 0 … 5, not 'b'"),
        ("turns: [{say: [a, 1, ' ']}]", "turns[0].say[2] must be a text"),
        ("turns: [{say: [a, 1, b], wav: c.wav}]", "turns[0].say must be a text beside a wav"),
        ("turns: [3]", "turns[0] must be a text, or have say or wav"),
        ("turns: [{break_in: 1}]", "turns[0] must be a text, or have say or wav"),
        ("turns: ['  ']", "turns[0].say must be a text"),
        ("turns: [{say: a, loud: true}]", "turns[0] must be a text, or have say or wav"),
        ("turns: [a, {say: b, break_in: soon}]", "turns[1].break_in must be 0 … 60, not 'soon'"),
        ("turns: [{say: b, break_in: 1}]", "no answer yet to break into"),
        ("turns: [a]\npitch: 5", "pitch must be 0.5 … 2, not 5"),
        ("turns: [a]\nrate: true", "rate must be 0.5 … 2, not True"),
        ("turns: [a", "is no YAML"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ScriptError) as error:
        load(tmp_path, text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ScriptError, match="cannot be read: No such file"):
        load_script(tmp_path / "none.yaml")
    (tmp_path / "long.yaml").write_text("#" * (300 << 10))
    with pytest.raises(ScriptError, match="at most 262144 are read"):
        load_script(tmp_path / "long.yaml")
    with pytest.raises(ScriptError, match=r"none\.wav does not exist"):
        sound_of(ScriptTurn(wav=tmp_path / "none.wav"), Script(()))
    with pytest.raises(ScriptError, match="unknown speech backend 'nobody'"):
        sound_of(ScriptTurn("hello"), Script((), voice="nobody"))


def test_a_recording_is_heard_from_the_first_sample_of_its_voice_to_the_last(tmp_path: Path) -> None:
    voice = 0.5 * np.sin(np.arange(16000) / 3).astype(np.float32)
    quiet = np.full(4800, 1e-4, np.float32)
    write_wav(tmp_path / "a.wav", np.concatenate([quiet, voice, quiet]), 16000)
    pcm = sound_of(ScriptTurn(wav=tmp_path / "a.wav"), Script(()))
    assert pcm.dtype == np.float32 and len(pcm) == pytest.approx(SAMPLE_RATE, abs=500)
    with pytest.raises(ScriptError, match="silent"):
        trimmed(np.zeros(5000, np.float32))
    with pytest.raises(ScriptError, match="silent"):
        trimmed(np.zeros(0, np.float32))


def test_a_text_is_spoken_lower_than_the_avatar() -> None:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    script = Script((ScriptTurn("When do you open?"),), pitch=0.7)
    pcm = sound_of(script.turns[0], script)
    assert 0.5 < len(pcm) / SAMPLE_RATE < 3.0
    assert not np.array_equal(pcm[:5000], sound_of(script.turns[0], Script(script.turns))[:5000])


def test_a_turn_may_have_pauses(tmp_path: Path) -> None:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    script = load(tmp_path, "turns:\n  - {say: [Well, 0.4, I do not know.]}\n")
    assert script.turns == (ScriptTurn("Well I do not know.", parts=("Well", 0.4, "I do not know.")),)
    pcm = sound_of(script.turns[0], script)
    silent = np.flatnonzero(np.convolve(pcm != 0, np.ones(9000), "valid") == 0)
    assert len(silent) and silent[-1] - silent[0] < 1200  # 0.4 s at one place
