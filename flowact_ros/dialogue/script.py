# SPDX-License-Identifier: Apache-2.0
"""What a user says in a conversation that is played: a YAML file of turns, and their sound.

voice: hibari            # backend or backend:voice of the synthesizer that speaks the user's texts
pitch: 0.75              # so that the two can be told apart
turns:
  - say: When do you open?
  - wav: question.wav    # recorded, beside the script; say, if given, is what it says
    say: How much is a ticket?
  - say: ["Well,", 0.4, "I do not know."]   # a number is silence [s]
  - say: Thank you, that is enough.
    break_in: 0.8        # [s] after the answer before it began to sound
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flowact_ros.dialogue.speech import SynthesizerError
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.media.errors import MediaError
from flowact_ros.media.resample import resample
from flowact_ros.media.wav import read_audio
from flowact_ros.timebase import SAMPLE_RATE

MAX_BYTES = 256 << 10
MAX_TURNS = 1000
QUIET = 0.02  # of a turn's peak: what is quieter at its ends is not voice
FRAME = SAMPLE_RATE // 100
LONGEST_PAUSE_S = 5.0
_KEYS = ("say", "wav", "break_in")


class ScriptError(ValueError):
    """A script cannot be used: one line with the place and what would be right."""


@dataclass(frozen=True)
class ScriptTurn:
    """say: its words, "" if not known; wav: a recording of it; break_in_s: None waits for the answer's end; parts: its
    words with silences [s] between them, empty if there are none."""

    say: str = ""
    wav: Path | None = None
    break_in_s: float | None = None
    parts: tuple[str | float, ...] = ()


@dataclass(frozen=True)
class Script:
    turns: tuple[ScriptTurn, ...]
    voice: str = "hibari"
    pitch: float = 1.0
    rate: float = 1.0

    def first(self, count: int) -> Script:
        """With so many turns: from the start, and from there again if it has fewer."""
        turns = [self.turns[at % len(self.turns)] for at in range(count)]
        turns[0] = replace(turns[0], break_in_s=None)
        return replace(self, turns=tuple(turns))


def load_script(path: str | Path) -> Script:
    """Raises ScriptError, one line, for a file that cannot be read and for the first mistake in it."""
    path = Path(path).expanduser()
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise ScriptError(f"script {path} has {len(data)} bytes, at most {MAX_BYTES} are read")
        content = yaml.safe_load(data.decode("utf-8"))
    except OSError as error:
        raise ScriptError(f"script {path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ScriptError(f"script {path} is no YAML: {' '.join(str(error).split())}") from None
    try:
        return parse_script(content, path.parent)
    except ScriptError as error:
        raise ScriptError(f"script {path}: {error}") from None


def parse_script(content: Any, folder: Path) -> Script:
    """Of what a YAML file in `folder` holds. Raises ScriptError."""
    known = ("turns", "voice", "pitch", "rate")
    if not isinstance(content, dict) or not set(content) <= set(known):
        raise ScriptError(f"the keys are {', '.join(known)}")
    turns = content.get("turns")
    if not isinstance(turns, list) or not 1 <= len(turns) <= MAX_TURNS:
        raise ScriptError(f"turns must be a list of 1 to {MAX_TURNS} entries")
    script = Script(
        tuple(_turn(at, entry, folder) for at, entry in enumerate(turns)),
        _text("voice", content.get("voice", Script.voice)),
        _number("pitch", content.get("pitch", Script.pitch), 0.5, 2.0),
        _number("rate", content.get("rate", Script.rate), 0.5, 2.0),
    )
    if script.turns[0].break_in_s is not None:
        raise ScriptError("turns[0].break_in: there is no answer yet to break into")
    return script


def _turn(at: int, entry: Any, folder: Path) -> ScriptTurn:
    if isinstance(entry, str):
        entry = {"say": entry}
    if not isinstance(entry, dict) or not set(entry) <= set(_KEYS) or not {"say", "wav"} & set(entry):
        raise ScriptError(f"turns[{at}] must be a text, or have say or wav, and may have break_in")
    wav = folder / _text(f"turns[{at}].wav", entry["wav"]) if "wav" in entry else None
    said, key, parts = entry.get("say", ""), f"turns[{at}].say", ()
    if isinstance(said, list):
        parts = _parts(key, said)
        if wav is not None:
            raise ScriptError(f"{key} must be a text beside a wav: a recording has pauses of its own")
        said = " ".join(part for part in parts if isinstance(part, str))
    say = _text(key, said) if "say" in entry else ""
    after = entry.get("break_in")
    if after is not None:
        after = _number(f"turns[{at}].break_in", after, 0.0, 60.0)
    return ScriptTurn(say, wav, after, parts)


def _parts(key: str, value: list[Any]) -> tuple[str | float, ...]:
    """Texts with one silence between any two."""
    if len(value) % 2 == 0:
        raise ScriptError(
            f"{key} must be texts with a number of seconds between any two, not {value!r}"[:200]
        )
    return tuple(
        _number(f"{key}[{at}]", part, 0.0, LONGEST_PAUSE_S) if at % 2 else _text(f"{key}[{at}]", part)
        for at, part in enumerate(value)
    )


def _text(key: str, value: Any) -> str:
    text = " ".join(value.split()) if isinstance(value, str) else ""
    if not text:
        raise ScriptError(f"{key} must be a text, not {value!r}"[:200])
    return text


def _number(key: str, value: Any, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ScriptError(f"{key} must be {low:g} … {high:g}, not {value!r}"[:200])
    return float(value)


def sound_of(turn: ScriptTurn, script: Script) -> np.ndarray:
    """float32 [T] at SAMPLE_RATE: from the first sample of its voice to the last. Raises ScriptError."""
    try:
        if turn.wav is not None:
            pcm = resample(*read_audio(turn.wav), SAMPLE_RATE)
        else:
            voice = load_synthesizer(script.voice)
            form = {"rate": script.rate, "pitch": script.pitch}
            sounds = [
                np.zeros(round(part * SAMPLE_RATE), np.float32)
                if isinstance(part, float)
                else trimmed(voice.synthesize(part, **form).pcm)
                for part in turn.parts or (turn.say,)
            ]
            pcm = np.concatenate(sounds)
    except (MediaError, SynthesizerError) as error:
        raise ScriptError(str(error)) from error
    return trimmed(pcm)


def trimmed(pcm: np.ndarray) -> np.ndarray:
    """Without the silence before and behind the voice: an answer's time counts from where the voice ends."""
    frames = np.abs(pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)).max(axis=1, initial=0.0)
    loud = np.flatnonzero(frames > QUIET * frames.max(initial=0.0))
    if not len(loud):
        raise ScriptError("a turn is silent: it must have a voice to be heard")
    return np.ascontiguousarray(pcm[loud[0] * FRAME : (loud[-1] + 1) * FRAME])
