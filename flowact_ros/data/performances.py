# SPDX-License-Identifier: Apache-2.0
"""Performances without pictures: what the denoiser of motion learns from, a hundred to a file.

    flowact data motion --count 3000 --seconds 12 --out runs/data/motion
    flowact data motion --count 64 --seconds 12 --split heldout --out runs/data/motion_heldout
    flowact data motion --count 1200 --seconds 12 --seed 6000 --audio-encoder whisper --out runs/data/motion_whisper
    flowact data motion --count 900 --seconds 12 --kokoro --out runs/data/motion_kokoro

`NNNNNNN.npz` (the number of its first performance) holds `controls` float16 [n, T, K] (raw, in the order of the rig),
`sound` float16 [n, T, 384] (features of the audio encoder that `heard_by` names; older files lack the name and were
heard by the embedded one), `text` int16 [n, T] (an index into `texts`), `texts` [m] and `vectors` float16 [m, 384]
(their sentence vectors), and `spoken_by` (`kokoro`, or nothing: the other voices). A file appears only when it is
complete. All files of a folder are heard by one encoder, and all or none of them are spoken by Kokoro.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowact_ros.data.clips import TAKES, make_performance
from flowact_ros.data.performance import Performance
from flowact_ros.vocabulary import EMBEDDED, KOKORO

PER_FILE = 100
# Share of the time with speech, a performance each: a dialogue has long turns of both sides.
SPEAKING = (0.3, 0.5, 0.7, 0.85)


@dataclass(frozen=True)
class Performances:
    """Performances in memory; shapes as in the module docstring, with one table of texts for all."""

    controls: np.ndarray
    sound: np.ndarray
    text: np.ndarray
    vectors: np.ndarray
    texts: list[str]

    def __len__(self) -> int:
        return len(self.controls)

    @property
    def frames(self) -> int:
        """Frames of each performance."""
        return self.controls.shape[1]


Encode = Callable[[np.ndarray], np.ndarray]  # sound float32 [T * 960] -> features [T, 384]
Embed = Callable[[str], np.ndarray]  # text -> vector [384]


def write_performances(
    out: Path, first: int, count: int, split: str, seconds: float, encode: Encode, embed: Embed,
    heard_by: str = EMBEDDED, of_kokoro: bool = False,
) -> None:  # fmt: skip
    """Makes the performances `first` … of a split, file by file; those that are there are not made again.

    heard_by: the name of the encoder that `encode` asks. Raises ValueError for a folder that another one heard, or
    that has other voices; SynthesizerError where Kokoro is to speak and is not there.
    """
    check_encoder(out, heard_by)
    check_voices(out, of_kokoro)
    for start in range(first, first + count, PER_FILE):
        path = out / f"{start:07d}.npz"
        if path.exists():
            continue
        stop = min(start + PER_FILE, first + count)
        made = [
            make_performance(number, split, seconds, share(number, of_kokoro), of_kokoro=of_kokoro).performance
            for number in range(start, stop)
        ]
        texts = sorted({words for performance in made for _, words in performance.instruction})
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(
                file,
                controls=np.stack([p.controls for p in made]).astype(np.float16),
                sound=np.stack([encode(p.pcm) for p in made]).astype(np.float16),
                text=np.stack([_text_indices(p, texts) for p in made]),
                vectors=np.stack([embed(words) for words in texts]).astype(np.float16),
                texts=np.array(texts),
                heard_by=np.array(heard_by),
                spoken_by=np.array(KOKORO if of_kokoro else ""),
            )
        partial.replace(path)
        print(f"{stop - first}/{count} {path}", flush=True)


def share(number: int, of_kokoro: bool = False) -> float:
    """Share of the time with speech of a performance; those with the same sentences have the same."""
    return SPEAKING[(number // TAKES if of_kokoro else number) % len(SPEAKING)]


def encoder_of(folder: Path) -> str | None:
    """Which audio encoder heard the performances of a folder; None while there are none."""
    path = next(iter(sorted(folder.glob("[0-9]*.npz"))), None)
    if path is None:
        return None
    with np.load(path) as file:
        return str(file["heard_by"]) if "heard_by" in file else EMBEDDED


def check_encoder(folder: Path, heard_by: str) -> None:
    """Raises ValueError for a folder whose performances another encoder heard."""
    found = encoder_of(folder)
    if found not in (None, heard_by):
        raise ValueError(
            f"{folder} holds performances heard by the {found} encoder; with --audio-encoder {heard_by} give another "
            "folder as --out"
        )


def spoken_by_kokoro(folder: Path) -> bool | None:
    """Whether Kokoro's voices speak in the performances of a folder; None while there are none."""
    path = next(iter(sorted(folder.glob("[0-9]*.npz"))), None)
    if path is None:
        return None
    with np.load(path) as file:
        return "spoken_by" in file and str(file["spoken_by"]) == KOKORO


def check_voices(folder: Path, of_kokoro: bool) -> None:
    """Raises ValueError for a folder whose performances have other voices."""
    if (found := spoken_by_kokoro(folder)) not in (None, of_kokoro):
        those, asked = ("", "without") if found else ("no ", "with")
        raise ValueError(
            f"{folder} holds performances with {those}voices of Kokoro; {asked} --kokoro give another folder as --out"
        )


def _text_indices(performance: Performance, texts: list[str]) -> np.ndarray:
    out = np.zeros(performance.frames, np.int16)
    for frame, words in performance.instruction:
        out[frame:] = texts.index(words)
    return out


def read_performances(*folders: Path) -> Performances:
    """All complete files below the folders. Raises ValueError if there is none, or if they differ in length."""
    paths = [path for folder in folders for path in sorted(folder.glob("[0-9]*.npz"))]
    if not paths:
        raise ValueError(
            f"{', '.join(map(str, folders))}: no performances; make them with `flowact data motion`"
        )
    controls, sound, text = [], [], []
    vectors: dict[str, np.ndarray] = {}
    for path in paths:
        with np.load(path) as file:
            if "controls" not in file:
                raise ValueError(f"{path} holds latents, which a spatial preset learns; make `flowact data motion`")
            words = [str(w) for w in file["texts"]]
            vectors |= dict(zip(words, file["vectors"]))
            order = {w: i for i, w in enumerate(vectors)}
            controls.append(file["controls"])
            sound.append(file["sound"])
            text.append(np.array([order[w] for w in words])[file["text"]])
        if controls[-1].shape[1:] != controls[0].shape[1:]:
            raise ValueError(
                f"{path} has performances of {list(controls[-1].shape[1:])}, not {list(controls[0].shape[1:])}"
            )
    table = np.stack(list(vectors.values()))
    return Performances(
        np.concatenate(controls), np.concatenate(sound), np.concatenate(text), table, list(vectors)
    )


def describe(folder: Path) -> str:
    """What a folder holds, for a card: its name, how many performances, the number of the first, and who heard them."""
    first = min(int(path.stem) for path in folder.glob("[0-9]*.npz"))
    count = len(read_performances(folder))
    voices = ", spoken by Kokoro" if spoken_by_kokoro(folder) else ""
    return f"{folder.name}: {count} from number {first}, heard by {encoder_of(folder)}{voices}"
