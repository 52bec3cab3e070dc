# SPDX-License-Identifier: Apache-2.0
"""Training clips: a seed -> a character, a voice, a timeline, and all that happens on it.

    spec = make_performance(7, "train", 12.0)
    frames = render(spec.identity, torch.from_numpy(spec.performance.controls))

Half of the training clips show a named character, the others a character from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flowact_ros.data.augment import Channel, Voice, available, draw_channel, draw_voice
from flowact_ros.data.characters import NAMED, Identity, identity_from_seed
from flowact_ros.data.performance import Performance, Segment, perform
from flowact_ros.data.sentences import sentence
from flowact_ros.data.splits import CHARACTER_SEEDS, KOKORO_TRACT, SPLITS, check_split
from flowact_ros.dialogue.synthesizer import load_synthesizer

SPEAKING_KINDS = (
    ("speaking", 0.5),
    ("speaking_cheerful", 0.2),
    ("speaking_gestures", 0.15),
    ("speaking_serious", 0.15),
)
QUIET_KINDS = (
    ("idle", 0.28), ("listening", 0.28), ("thinking", 0.12), ("thinking_chin", 0.06),
    ("smile", 0.1), ("surprise", 0.05), ("laugh", 0.04), ("greeting", 0.07),
)  # fmt: skip
SILENT_CLIPS = 0.05  # share of clips without a word
NAMED_CLIPS = 0.5  # share of training clips with one of the named characters
TAKES = 3  # clips that tell one timeline of Kokoro's, which is dear: each with its throat, channel, body and wording


@dataclass(frozen=True)
class ClipSpec:
    """One clip: who, what, how it sounds. ``character`` is the identity's name or ``seed:N``."""

    identity: Identity
    performance: Performance
    voice: Voice
    channel: Channel
    sentences: list[str]
    character: str


def make_performance(
    seed: int, split: str, seconds: float, speaking: float = 0.7, *, of_kokoro: bool = False
) -> ClipSpec:
    """The clip number ``seed`` of a split, of exactly ``round(seconds * 25)`` frames.

    ``speaking``: share of the time with speech. ``of_kokoro``: spoken by Kokoro's voices of the split, ``TAKES`` clips
    in a row with the same sentences. The same arguments give the same clip wherever the same speech backends are
    installed. Raises ValueError for an unknown split or a length below 0.4 s, SynthesizerError where Kokoro is asked
    for and not there.
    """
    check_split(split)
    if seconds < 0.4:
        raise ValueError(f"a clip of {seconds} s was asked for; at least 0.4 s are needed")
    if not 0.0 <= speaking <= 1.0:
        raise ValueError(f"speaking is {speaking}; it must lie in 0 .. 1")
    rng = np.random.default_rng([seed, SPLITS.index(split), 0xF10])
    told = np.random.default_rng([seed // TAKES, SPLITS.index(split), 0xF11]) if of_kokoro else rng
    identity, character = _character(rng, split)
    voice, channel = draw_voice(told, split, of_kokoro=of_kokoro), draw_channel(rng)
    timeline = _timeline(told, split, seconds, speaking if told.random() >= SILENT_CLIPS else 0.0, voice.rate)
    if of_kokoro:
        load_synthesizer(voice.backend)  # nobody stands in for it
        voice = with_throat(voice, rng)
    else:
        voice = available(voice)
    performance = perform(timeline, rng, voice=voice, channel=channel, seconds=seconds)
    said = [s.text for s, _ in zip(timeline, performance.instruction, strict=False) if s.text]
    return ClipSpec(identity, performance, voice, channel, said, character)


def with_throat(voice: Voice, rng: np.random.Generator) -> Voice:
    """A voice of Kokoro's with a throat of random length; what its network is asked for stays the same."""
    tract = float(rng.uniform(*KOKORO_TRACT))
    return replace(voice, rate=voice.rate * tract, pitch=1.0, tract=tract)


def _character(rng: np.random.Generator, split: str) -> tuple[Identity, str]:
    if split == "train" and rng.random() < NAMED_CLIPS:
        name = str(rng.choice(sorted(NAMED)))
        return NAMED[name], name
    seeds = CHARACTER_SEEDS[split]
    seed = int(rng.integers(seeds.start, seeds.stop))
    return identity_from_seed(seed), f"seed:{seed}"


def _choose(rng: np.random.Generator, table: tuple[tuple[str, float], ...]) -> str:
    shares = np.array([share for _, share in table])
    return table[int(rng.choice(len(table), p=shares / shares.sum()))][0]


def _timeline(
    rng: np.random.Generator, split: str, seconds: float, speaking: float, rate: float
) -> list[Segment]:
    """Speech and quiet in turn, with the wanted share; starts with either."""
    out: list[Segment] = []
    total = said = 0.0
    while total < seconds + 0.5:
        talk = speaking > 0 and (said + rng.uniform(-1.0, 1.0) <= speaking * (total + 1.0))
        if talk:
            greet = rng.random() < 0.06
            kind = "greeting" if greet else _choose(rng, SPEAKING_KINDS)
            text = sentence(rng, split)
            heard = 0.052 * len(text) / rate  # an estimate; the real length comes with the sound
            length = heard + 0.55
            out.append(Segment(kind, text=text))
            said += heard
        else:
            kind = _choose(rng, QUIET_KINDS)
            short = kind in ("smile", "surprise", "laugh", "greeting")
            length = float(rng.uniform(1.4, 2.8) if short else rng.uniform(1.0, 4.0))
            out.append(Segment(kind, seconds=length))
        total += length
    # Estimates may fall short of the clip; one more quiet stretch fills what is left.
    return [*out, Segment("idle", seconds=4.0)]
