# SPDX-License-Identifier: Apache-2.0
"""The phoneme table and the clean-up of times, without any speech backend."""

from __future__ import annotations

import numpy as np
import pytest

from flowact_ros.dialogue.speech import Phoneme, SynthesizerError, check_request
from flowact_ros.dialogue.synthesizer import load_synthesizer
from flowact_ros.dialogue.synthesizer_hibari import SOUND_LEAD, HibariSynthesizer, _spans, with_output
from flowact_ros.dialogue.synthesizer_phonemes import (
    FROM_ESPEAK,
    FROM_FLITE,
    FROM_HIBARI,
    INVENTORY,
    SILENCE,
    loudness_db,
    tile,
)

RATE = 24_000


def tone(*spans: tuple[float, float], seconds: float) -> np.ndarray:
    """A 200 Hz tone inside the spans, digital silence elsewhere."""
    t = np.arange(round(seconds * RATE)) / RATE
    heard = np.zeros_like(t)
    for start, end in spans:
        heard[(t >= start) & (t < end)] = 1.0
    return (0.3 * heard * np.sin(2 * np.pi * 200 * t)).astype(np.float32)


def test_every_backend_can_say_every_phoneme() -> None:
    for table in (FROM_HIBARI, FROM_FLITE, FROM_ESPEAK):
        assert set(table.values()) <= set(INVENTORY)
        assert set(INVENTORY) - set(table.values()) <= {SILENCE}
    assert (FROM_HIBARI["ʤ"], FROM_FLITE["jh"], FROM_ESPEAK["dZ"]) == ("JH", "JH", "JH")
    assert FROM_HIBARI["T"] == "D"  # misaki writes the flap of "water" so, and it is no T for the tongue


def test_tiles_without_gaps_and_gives_the_pause_back() -> None:
    pcm = tone((0.3, 0.7), seconds=2.0)
    out = tile([Phoneme("AA", 0.3, 0.5, True), Phoneme("D", 0.5, 1.6)], pcm)
    assert [p.symbol for p in out] == [SILENCE, "AA", "D", SILENCE]
    assert out[0].start_s == 0.0 and out[-1].end_s == pytest.approx(len(pcm) / RATE)
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in zip(out, out[1:], strict=False))
    assert out[2].end_s == pytest.approx(
        0.74, abs=0.03
    )  # the D is not held for the second of silence behind it
    assert out[1].stressed and not out[2].stressed


def test_no_phoneme_is_lost_even_in_silence() -> None:
    phonemes = [Phoneme("P", 0.1, 0.2), Phoneme("AA", 0.2, 0.4), Phoneme("S", 0.4, 0.5)]
    out = tile(phonemes, np.zeros(RATE, np.float32))
    assert [p.symbol for p in out if p.symbol != SILENCE] == ["P", "AA", "S"]
    assert all(p.duration_s > 0 for p in out)


def test_loudness_is_relative_to_the_loudest() -> None:
    pcm = tone((0.2, 0.6), seconds=1.0)
    quiet, loud = loudness_db(0.1 * pcm), loudness_db(pcm)
    assert np.allclose(quiet[loud > -60], loud[loud > -60], atol=0.5)
    assert quiet.max() == 0.0 and quiet[0] < -80.0
    assert np.all(loudness_db(np.zeros(RATE, np.float32)) == -120.0)


def test_stress_marks_and_spaces_of_hibari_belong_to_their_neighbours() -> None:
    symbols = [(c, "0:ba" if i < 3 else "1:da" if i > 3 else "") for i, c in enumerate("bˈɑ də")]
    phonemes, words = _spans(symbols, np.array([0.3, 0.35, 0.4, 0.5, 0.6, 0.65, 0.7]))
    assert [(p.symbol, p.stressed) for p in phonemes] == [
        ("B", False),
        ("AA", True),
        ("D", False),
        ("AX", False),
    ]
    assert (phonemes[1].start_s, phonemes[1].end_s) == pytest.approx((0.35, 0.55))
    assert [w.text for w in words] == ["ba", "da"] and words[1].start_s == pytest.approx(0.55)
    comma, _ = _spans(
        [("ɑ", "0:a"), (",", "1:,"), (" ", ""), ("ɑ", "2:a")], np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    )
    assert [p.symbol for p in comma] == ["AA", SILENCE, SILENCE, "AA"]


def test_the_extra_output_is_a_well_formed_protobuf_tail() -> None:
    tensor = HibariSynthesizer.durations
    tail = with_output(b"model", tensor)[len(b"model") :]
    assert tail[0] == 0x3A and tail[1] == len(tail) - 2  # ModelProto.graph
    assert tail[2] == 0x62 and tail[3] == len(tail) - 4  # GraphProto.output
    assert tail[4] == 0x0A and tail[6:] == tensor.encode() and tail[5] == len(tail) - 6
    assert 0.03 < SOUND_LEAD < 0.08


@pytest.mark.parametrize("text", ["", "   ", "?!.", "\n"])
def test_nothing_to_say_is_an_error(text: str) -> None:
    with pytest.raises(SynthesizerError, match="no letter"):
        check_request(text, 1.0, 1.0)


@pytest.mark.parametrize(("rate", "pitch"), [(0.4, 1.0), (2.1, 1.0), (1.0, 0.1), (float("nan"), 1.0)])
def test_rate_and_pitch_have_limits(rate: float, pitch: float) -> None:
    with pytest.raises(SynthesizerError, match=r"0\.5 \.\. 2\.0"):
        check_request("hello", rate, pitch)


def test_unknown_backend_and_voice_name_what_there_is() -> None:
    with pytest.raises(SynthesizerError, match="hibari, flite, espeak"):
        load_synthesizer("festival")
    with pytest.raises(SynthesizerError, match="heart"):
        load_synthesizer("hibari:nobody")
    with pytest.raises(SynthesizerError, match="slt"):
        load_synthesizer("flite:nobody")
