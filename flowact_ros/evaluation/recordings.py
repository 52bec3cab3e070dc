# SPDX-License-Identifier: Apache-2.0
"""Recorded speech with its words, for measuring recognisers; and the word error rate.

The words of NAME.wav (or flac, ogg, mp3) are in NAME.txt beside it, or in a LibriSpeech `*.trans.txt` there, whose
lines are a name and the words. Those of a few public recordings are in `hearing_transcripts.json`: prompts of Debian's
asterisk-core-sounds-en (CC BY-SA 3.0), and openai/whisper's jfk.flac.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_KNOWN = Path(__file__).with_name("hearing_transcripts.json")


@dataclass(frozen=True)
class Recording:
    """A sound file and what is said in it."""

    path: Path
    text: str


def find_recordings(folder: Path) -> list[Recording]:
    """All sound files of the folder and those below it that have words. Raises ValueError if there are none."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder} with recorded speech: give one with --wavs")
    known: dict[str, str] = json.loads(_KNOWN.read_text())
    for file in folder.rglob("*.trans.txt"):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, _, said = line.partition(" ")
            known[name] = said
    found, silent = [], []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        beside = path.with_suffix(".txt")
        text = beside.read_text(encoding="utf-8") if beside.is_file() else known.get(path.stem, "")
        if words(text):
            found.append(Recording(path, " ".join(text.split())))
        else:
            silent.append(path.name)
    if not found:
        names = f" ({', '.join(silent[:3])} …)" if silent else ""
        raise ValueError(
            f"{folder} holds no sound with its words{names}: NAME.wav needs NAME.txt beside it, or a LibriSpeech "
            "*.trans.txt with lines of a name and the words"
        )
    return found


def words(text: str) -> list[str]:
    """The words as they are compared: lower case, small numbers spelled out, no punctuation but inner apostrophes."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    found = re.findall(r"\w+(?:'\w+)*", text.replace("-", " "))
    return [
        _NUMBERS[int(word)] if word.isascii() and word.isdigit() and int(word) <= 12 else word
        for word in found
    ]


def word_errors(reference: str, found: str) -> tuple[int, int]:
    """(words put in, left out or taken for others; words of the reference)."""
    true, heard = words(reference), words(found)
    row = np.arange(len(heard) + 1)  # errors against the first i words of what was heard
    for count, word in enumerate(true, 1):
        before, row = row, row.copy()
        row[0] = count
        for i, other in enumerate(heard, 1):
            row[i] = min(before[i - 1] + (word != other), before[i] + 1, row[i - 1] + 1)
    return int(row[-1]), len(true)
