# SPDX-License-Identifier: Apache-2.0
"""How often the robot interrupts itself, and how often it notices a real interruption: a trial with a made-up room.

python -m flowact_ros.dialogue.echo_trial --minutes 10 --echo cancel

The robot's own voice goes through a small loudspeaker and a room (-10 dB, 120 ms late, filtered, a little noise) into
the microphone, which first hears nothing else, and then other voices over it. Their level is told against that of the
echo: at 10 dB somebody speaks as loudly at the microphone as the robot's voice is before the loudspeaker.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowact_ros.dialogue.echo import (
    CANCEL,
    MODES,
    MUTE,
    RATE,
    EchoError,
    EchoFilter,
    Played,
    load_suppressor,
    strict,
)
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.dialogue.vad import BACKENDS, VoiceActivityDetector, load_vad
from flowact_ros.dialogue.vad_silero import SileroVadConfig
from flowact_ros.media.resample import resample
from flowact_ros.timebase import SAMPLE_RATE

LEVELS_DB = (10.0, 5.0, 0.0)  # of the other voices, above the echo
BEFORE_S = 15.0  # without an interruption: what has to be learned is learned
EVERY_S = 8.0  # between two interruptions
BLOCK_S = 0.04  # as it comes on topics
OWN = (
    "Hello, and welcome to the museum. My name is Nova, and I can show you the way.",
    "The shop is on the ground floor, right behind the stairs, and it is open until six o'clock.",
    "Tickets are eight euros for adults; children under twelve are free.",
    "I am sorry, I did not understand that. Could you say it once more, please?",
    "The dinosaur hall is on the second floor. Take the lift on your left, then turn right at the window.",
    "Yes!",
    "Our oldest piece is a clay tablet from Mesopotamia, about four thousand years old.",
    "Would you like to hear a short story about it?",
    "Photography is allowed everywhere, but please do not use a flash.",
    "The next guided tour starts at half past three, and it lasts about forty minutes.",
)
OTHERS = (
    "Wait, stop.",
    "No, I meant the other one.",
    "Excuse me, where is the toilet?",
    "Hold on a second, please.",
    "What did you say about the shop?",
    "Sorry, can I ask something else?",
)
PITCHES = (0.6, 0.75, 1.35)  # of the other voices


@dataclass(frozen=True)
class Interruption:
    start_s: float
    end_s: float
    level_db: float


@dataclass(frozen=True, eq=False)
class Scene:
    """played [T], mic [T] at RATE."""

    played: np.ndarray
    mic: np.ndarray
    interruptions: Sequence[Interruption]


def own_speech(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Sentences with pauses, float32 at SAMPLE_RATE."""
    voice = load_synthesizer("hibari")
    known: dict[tuple[str, float], np.ndarray] = {}
    parts: list[np.ndarray] = []
    while sum(map(len, parts)) < seconds * SAMPLE_RATE:
        key = OWN[rng.integers(len(OWN))], float(rng.choice([0.9, 1.0, 1.1]))
        if key not in known:
            known[key] = voice.synthesize(key[0], rate=key[1]).pcm
        parts += [known[key], np.zeros(int(rng.uniform(0.2, 1.5) * SAMPLE_RATE), np.float32)]
    return np.concatenate(parts)[: int(seconds * SAMPLE_RATE)]


def room(rng: np.random.Generator) -> np.ndarray:
    """The answer of a small loudspeaker (250 … 5500 Hz) in a room whose echo falls by 60 dB in 0.3 s."""
    count = RATE // 4
    answer = rng.normal(size=count) * 10 ** (-3.0 * np.arange(count) / (0.3 * RATE))
    answer[0] = 3.0
    spectrum = np.fft.rfft(answer, 2 * count)
    frequencies = np.fft.rfftfreq(2 * count, 1 / RATE)
    spectrum /= np.sqrt((1 + (250 / np.maximum(frequencies, 1.0)) ** 4) * (1 + (frequencies / 5500) ** 4))
    return np.fft.irfft(spectrum)[:count]


def through(played: np.ndarray, answer: np.ndarray, level_db: float, delay_s: float) -> np.ndarray:
    """What of it comes into the microphone: `level_db` below what was played, `delay_s` later."""
    size = 1 << (len(played) + len(answer)).bit_length()
    echo = np.fft.irfft(np.fft.rfft(played, size) * np.fft.rfft(answer, size), size)[: len(played)]
    late = np.concatenate([np.zeros(round(delay_s * RATE)), echo])[: len(played)]
    power = float(np.mean(np.square(late)))
    return late * np.sqrt(np.mean(np.square(played)) / power) * 10 ** (level_db / 20)


def level(pcm: np.ndarray) -> float:
    """Of a voice, without its pauses."""
    powers = np.square(pcm[: len(pcm) // 160 * 160].reshape(-1, 160)).mean(axis=1)
    return float(np.sqrt(powers[powers > 1e-3 * powers.max()].mean()))


def make_scene(
    seconds: float,
    seed: int = 0,
    *,
    levels_db: Sequence[float] = (),
    echo_db: float = -10.0,
    delay_s: float = 0.12,
    noise: float = 1e-3,
) -> Scene:
    """levels_db: of the interruptions, in turn; none: nobody else speaks."""
    rng = np.random.default_rng(seed)
    played = resample(own_speech(seconds, rng), SAMPLE_RATE, RATE)
    mic = through(played, room(rng), echo_db, delay_s)
    loudness = level(mic)
    mic += rng.normal(0, noise, len(mic))
    found: list[Interruption] = []
    at = round(BEFORE_S * RATE)
    half = RATE // 2
    while levels_db and at + 3 * RATE < len(mic):
        speaking = all(np.mean(np.square(played[a : a + half])) > 1e-4 for a in (at - half, at))
        if not speaking:
            at += RATE // 10
            continue
        number = len(found)
        pcm = load_synthesizer("hibari").synthesize(
            OTHERS[number % len(OTHERS)], pitch=PITCHES[number % len(PITCHES)]
        )
        loud = np.flatnonzero(np.abs(pcm.pcm) > 0.02)
        voice = resample(pcm.pcm[loud[0] : loud[-1]], SAMPLE_RATE, RATE)
        above = levels_db[number % len(levels_db)]
        mic[at : at + len(voice)] += voice * loudness * 10 ** (above / 20) / level(voice)
        found.append(Interruption(at / RATE, (at + len(voice)) / RATE, above))
        at += round((EVERY_S + rng.uniform(0, 1)) * RATE)
    return Scene(played, mic.astype(np.float32), found)


def detector(name: str = "auto") -> VoiceActivityDetector:
    """As the node that hears has it."""
    return load_vad(name, RATE, silero=strict(SileroVadConfig()))


def onsets(scene: Scene, mode: str, vad: VoiceActivityDetector) -> list[tuple[float, float]]:
    """(when a voice began, when that was known) [s] of what is heard while the robot speaks."""
    suppressor = load_suppressor(mode)
    played = Played()
    ear = None if suppressor is None else EchoFilter(suppressor, played)
    block = round(BLOCK_S * RATE)
    found = []
    for at in range(0, len(scene.mic), block):
        mic, now_ns = scene.mic[at : at + block], at * 1_000_000_000 // RATE
        played.push(scene.played[at : at + block], RATE, now_ns)
        sound = mic if ear is None else ear.push(mic, now_ns)
        found += [(e.time_s, (at + block) / RATE) for e in vad.push(sound) if e.voiced]
    return found


def caught(scene: Scene, heard: Sequence[tuple[float, float]]) -> list[tuple[Interruption, float | None]]:
    """After how many seconds each interruption was noticed, while it lasted; None: it was not."""
    found: list[tuple[Interruption, float | None]] = []
    for one in scene.interruptions:
        known = [known for began, known in heard if one.start_s - 0.3 <= began and known <= one.end_s + 0.3]
        later = [time_s - one.start_s for time_s in known if time_s > one.start_s]
        found.append((one, min(later, default=None)))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    program = "python -m flowact_ros.dialogue.echo_trial"
    parser = argparse.ArgumentParser(
        prog=program, description="Self-interruptions and real ones, in a made-up room."
    )
    modes = [mode for mode in MODES if mode != MUTE]
    parser.add_argument("--echo", default=CANCEL, choices=modes, help="mode (default: %(default)s)")
    parser.add_argument("--vad", default="auto", choices=BACKENDS, help="detector (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of own speech (default: %(default)s)")
    parser.add_argument(
        "--echo-db", type=float, default=-10.0, help="against what is played (default: %(default)s)"
    )
    parser.add_argument("--delay", type=float, default=0.12, help="[s] of the echo (default: %(default)s)")
    parser.add_argument(
        "--levels",
        type=float,
        nargs="+",
        default=LEVELS_DB,
        help="[dB] above the echo (default: 10 5 0)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of sentences, room and noise (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    if not 0.5 <= args.minutes <= 600.0:
        print(f"error: --minutes must be 0.5 … 600, not {args.minutes:g}", file=sys.stderr)
        return 2
    form = {"echo_db": args.echo_db, "delay_s": args.delay}
    try:
        alone = make_scene(60 * args.minutes, args.seed, **form)
        selves = onsets(alone, args.echo, detector(args.vad))
        spoken = make_scene(60 * args.minutes, args.seed + 1, levels_db=args.levels, **form)
        results = caught(spoken, onsets(spoken, args.echo, detector(args.vad)))
    except (EchoError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{args.echo}: {len(selves)} self-interruptions in {args.minutes:g} min of own speech", end="")
    print(f" (at {', '.join(f'{began:.1f} s' for began, _ in selves[:8])})" if selves else "")
    for above in args.levels:
        times = [time_s for one, time_s in results if one.level_db == above]
        found = sorted(time_s for time_s in times if time_s is not None)
        p50, p95 = np.percentile(found, [50, 95]) if found else (np.nan, np.nan)
        figures = f"{len(found)} of {len(times)} caught, after {p50:.2f} / {p95:.2f} s (p50 / p95)"
        print(f"  {above:+5.1f} dB above the echo: {figures}")
    share = sum(time_s is not None for _, time_s in results) / max(1, len(results))
    print(f"  all: {100 * share:.1f} % of {len(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
