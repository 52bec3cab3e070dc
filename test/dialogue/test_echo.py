# SPDX-License-Identifier: Apache-2.0
"""The robot's own voice in its microphone: it does not interrupt itself, and others can."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flowact_ros.dialogue import echo_trial, vad_silero
from flowact_ros.dialogue.ear import Ear
from flowact_ros.dialogue.echo import (
    HOP,
    KEPT,
    MODES,
    MOST_WAIT,
    RATE,
    EchoError,
    EchoFilter,
    Played,
    load_suppressor,
)
from flowact_ros.dialogue.echo_canceller import missing
from flowact_ros.dialogue.echo_model import LAGS, SETTLE, EchoModel
from flowact_ros.dialogue.echo_threshold import Threshold
from flowact_ros.dialogue.echo_trial import Scene, caught, detector, make_scene, onsets
from flowact_ros.dialogue.hearing import Hearing
from flowact_ros.dialogue.vad import load_vad

S = 1_000_000_000
needs_pyaec = pytest.mark.skipif(bool(missing()), reason=f"the echo canceller is not installed: {missing()}")
needs_silero = pytest.mark.skipif(bool(vad_silero.missing()), reason=vad_silero.missing())
BOTH = ["threshold", pytest.param("cancel", marks=needs_pyaec)]


@pytest.fixture(scope="module")
def alone() -> Scene:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    return make_scene(60.0, 3)


@pytest.fixture(scope="module")
def spoken_over() -> Scene:
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    return make_scene(70.0, 4, levels_db=(10.0, 6.0))


# ------------------------------------------------------------ the target: no self-interruption, others are heard


@needs_silero
@pytest.mark.parametrize("mode", BOTH)
def test_a_minute_of_its_own_voice_is_nobodys(alone: Scene, mode: str) -> None:
    assert onsets(alone, mode, detector("silero")) == []


@needs_silero
def test_without_help_it_would_interrupt_itself(alone: Scene) -> None:
    assert len(onsets(alone, "none", detector("silero"))) > 5


@needs_silero
@pytest.mark.parametrize("mode", BOTH)
def test_who_speaks_over_it_is_heard_soon(spoken_over: Scene, mode: str) -> None:
    results = caught(spoken_over, onsets(spoken_over, mode, detector("silero")))
    assert len(results) >= 3
    for one, after_s in results:
        assert after_s is not None, one
        # `threshold` promises as much only for voices as loud as its own before the loudspeaker.
        assert after_s < 0.8 or (mode == "threshold" and one.level_db < 10.0), (one, after_s)


# ------------------------------------------------------------ what is kept while nobody plays anything


@pytest.mark.parametrize("mode", BOTH)
@pytest.mark.parametrize("block", [160, 640, 1000])
def test_without_an_avatar_the_microphone_is_untouched(mode: str, block: int) -> None:
    mic = np.random.default_rng(0).normal(0, 0.1, 2 * RATE).astype(np.float32)
    suppressor = load_suppressor(mode)
    assert suppressor is not None
    stream = EchoFilter(suppressor, Played())
    out = [stream.push(mic[at : at + block], at * S // RATE) for at in range(0, len(mic), block)]
    sound = np.concatenate(out)
    assert len(mic) - 2 * HOP <= len(sound) <= len(mic)
    np.testing.assert_allclose(sound, mic[: len(sound)], atol=1e-5)


def test_the_ear_tells_the_same_times_through_it() -> None:
    """Of a burst of noise: the detector's delay is in both."""
    rng = np.random.default_rng(0)
    mic = rng.normal(0, 1e-3, 3 * RATE).astype(np.float32)
    mic[RATE : 2 * RATE] += rng.normal(0, 0.1, RATE).astype(np.float32)
    times = []
    for echo in (None, lambda: EchoFilter(Threshold(), Played())):
        ear = Ear(RATE, load_vad("energy", RATE), Hearing(RATE), echo)
        found = [ear.hear(mic[at : at + 640], at * S // RATE)[0] for at in range(0, len(mic), 640)]
        times.append([event.time_s for events in found for event in events])
    assert len(times[0]) == 2 and times[0] == pytest.approx(times[1], abs=0.011)


# ------------------------------------------------------------ how loud the echo is


BANDS = 8


class Powers:
    """Band powers of a voice whose loudness goes up and down, and of its echo: 12 hops late, with a tail."""

    def __init__(self, seed: int, coupling_db: float = -10.0) -> None:
        self._rng = np.random.default_rng(seed)
        self.gain = 10 ** (coupling_db / 10)
        self._past = np.zeros((LAGS, BANDS))

    def voice(self) -> np.ndarray:
        return 10 ** self._rng.normal(-1.0, 0.5, BANDS)

    def step(self) -> tuple[np.ndarray, np.ndarray]:
        """What is played and what comes back, [BANDS] each."""
        played = self.voice()
        self._past = np.concatenate([played[None], self._past[:-1]])
        echo = self.gain * (0.6 * self._past[12] + 0.3 * self._past[14] + 0.1 * self._past[20])
        return played, echo * self._rng.gamma(4.0, 0.25, BANDS)


def settled_model(powers: Powers, hops: int = 2 * SETTLE) -> EchoModel:
    model = EchoModel(BANDS)
    for _ in range(hops):
        echo, other = model.judge(*powers.step())
        assert echo and not other
    return model


def test_the_echo_is_learned_and_its_strength_told() -> None:
    model = EchoModel(BANDS)
    assert model.describe() == "not known yet" and not model.settled
    model = settled_model(Powers(0), 4 * SETTLE)
    strength, lag = model.describe().split(" dB, ")
    assert abs(int(strength) + 10) <= 2 and lag == "120 ms late"


def test_another_voice_as_loud_as_the_echo_is_noticed_and_leaves_no_trace() -> None:
    powers = Powers(1)
    model = settled_model(powers)
    found = []
    for _ in range(100):
        played, echo = powers.step()
        found.append(model.judge(played, echo + 5 * powers.gain * powers.voice())[1])
    assert sum(found) > 20 and any(found[:30])
    later = [model.judge(*powers.step())[1] for _ in range(300)]
    assert not any(later[20:])


def test_a_loudspeaker_that_is_turned_up_is_believed_after_a_while() -> None:
    powers = Powers(2)
    model = settled_model(powers)
    powers.gain *= 10
    found = [model.judge(*powers.step())[1] for _ in range(1000)]
    assert any(found[:20]) and not any(found[-100:])


def test_while_nothing_is_played_whoever_is_heard_is_somebody_else() -> None:
    model = settled_model(Powers(3))
    quiet = np.zeros(BANDS)
    found = [model.judge(quiet, quiet + 1e-3) for _ in range(LAGS + 1)]
    assert found[0][0] and found[-1] == (False, True) and not model.explained.any()


# ------------------------------------------------------------ laying both on one axis


def test_what_was_played_is_found_by_its_time() -> None:
    played = Played()
    ramp = np.arange(1, 24_001, dtype=np.float32) / 24_000
    for at in range(0, 24_000, 960):
        played.push(ramp[at : at + 960], 24_000, 5 * S + at * S // 24_000)
    assert played.end is not None and played.end > 6 * RATE - 400  # the resampler keeps some
    middle = played.read(5 * RATE + 8_000, 100)
    np.testing.assert_allclose(
        middle, np.interp(np.arange(8_000, 8_100) * 1.5, np.arange(24_000), ramp), atol=1e-3
    )
    assert not played.read(4 * RATE, RATE - 10).any()  # before
    assert not played.read(7 * RATE, 100).any()  # after


def test_a_gap_in_what_was_played_is_silence() -> None:
    played = Played()
    ones = np.ones(RATE, np.float32)
    played.push(ones, RATE, 1 * S)
    played.push(ones, RATE, 3 * S)
    assert played.end == 4 * RATE
    assert played.read(RATE + 100, 100).all() and not played.read(2 * RATE + 100, 100).any()
    assert played.read(3 * RATE + 100, 100).all()


def test_a_clock_that_was_set_back_is_followed() -> None:
    played = Played()
    ones = np.ones(RATE, np.float32)
    played.push(ones, RATE, 100 * S)
    played.push(2 * ones, RATE, 10 * S)
    assert played.end == 11 * RATE
    assert (played.read(10 * RATE, RATE) == 2).all() and not played.read(100 * RATE, RATE).any()
    played.push(3 * ones, RATE, 10 * S + S // 2)
    assert played.read(10 * RATE + RATE // 2, 1)[0] == 3 and played.read(10 * RATE, 1)[0] == 2


def test_what_is_remembered_is_bounded() -> None:
    played = Played()
    for second in range(20):
        played.push(np.ones(RATE, np.float32), RATE, second * S)
    assert len(played._sound) == KEPT and played.end == 20 * RATE


class Recorder:
    """Keeps what it is asked."""

    delay = 0

    def __init__(self) -> None:
        self.played: list[np.ndarray] = []

    def describe(self) -> str:
        return ""

    def push(self, mic: np.ndarray, played: np.ndarray) -> np.ndarray:
        self.played.append(played)
        return mic


def test_the_microphone_waits_for_what_is_played_but_not_for_ever() -> None:
    played, recorder = Played(), Recorder()
    stream = EchoFilter(recorder, played)
    played.push(np.ones(RATE, np.float32), RATE, 0)
    mic = np.zeros(640, np.float32)
    heard = sum(len(stream.push(mic, at * S // RATE)) for at in range(0, 2 * RATE, 640))
    assert heard == 2 * RATE // HOP * HOP
    stream = EchoFilter(recorder, played)
    assert len(stream.push(mic, S - 20_000_000)) == 320  # half of it is known
    assert len(stream.push(mic, S + 20_000_000)) == 0
    played.push(np.ones(RATE, np.float32), RATE, S)
    assert len(stream.push(mic, S + 60_000_000)) == 3 * 640 - 320
    assert MOST_WAIT == RATE // 4


def test_stamps_that_come_late_now_and_then_do_not_shift_it() -> None:
    played, recorder = Played(), Recorder()
    stream = EchoFilter(recorder, played)
    rng = np.random.default_rng(1)
    noise = rng.normal(size=12 * RATE).astype(np.float32)
    played.push(noise, RATE, 0)
    starts = range(7 * RATE + 160, 11 * RATE, 640)
    for number, at in enumerate(starts):
        late = 0 if number % 5 == 0 else int(rng.integers(0, 80_000_000))
        stream.push(np.zeros(640, np.float32), at * S // RATE + late)
    got = np.concatenate(recorder.played)
    begin = 7 * RATE + 160
    np.testing.assert_array_equal(got, noise[begin : begin + len(got)])


def test_a_microphone_that_lost_sound_is_laid_anew() -> None:
    played, recorder = Played(), Recorder()
    stream = EchoFilter(recorder, played)
    noise = np.random.default_rng(1).normal(size=5 * RATE).astype(np.float32)
    played.push(noise, RATE, 0)
    stream.push(np.zeros(640, np.float32), 1 * S)
    stream.push(np.zeros(640, np.float32), 3 * S)
    np.testing.assert_array_equal(recorder.played[-1], noise[3 * RATE : 3 * RATE + 640])


# ------------------------------------------------------------ mistakes


def test_modes() -> None:
    assert load_suppressor("mute") is None and load_suppressor("none") is None and len(MODES) == 4
    with pytest.raises(EchoError, match="'loud'; available: mute, threshold, cancel, none"):
        load_suppressor("loud")


def test_a_missing_package_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EchoError, match="needs the package pyaec: pip install pyaec"):
        load_suppressor("cancel")


def test_a_library_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = type(sys)("pyaec")

    def fail(*_: object) -> None:
        raise OSError("wrong ELF class")

    broken.Aec = fail
    broken.__spec__ = type(sys.__spec__)("pyaec", None)
    monkeypatch.setitem(sys.modules, "pyaec", broken)
    with pytest.raises(EchoError, match="does not work on this machine .wrong ELF class."):
        load_suppressor("cancel")


def test_the_trial_refuses_nonsense(capsys: pytest.CaptureFixture[str]) -> None:
    assert echo_trial.main(["--minutes", "0"]) == 2
    assert "--minutes must be 0.5 … 600" in capsys.readouterr().err
