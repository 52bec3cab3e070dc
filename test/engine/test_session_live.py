# SPDX-License-Identifier: Apache-2.0
"""The live stream on a simulated clock: alignment, onset, underrun, interruption, lateness, cuts."""

from __future__ import annotations

import numpy as np
import pytest
import simulation
from fakes import crc, face, read_picture
from simulation import Simulation, ramp

from flowact_ros.engine.session_config import SessionConfig


def push(sim: Simulation, pcm: np.ndarray, name: str = "a", **more: object):
    return lambda: sim.session.push_audio(pcm, 24000, utterance_id=name, **{"last": True, **more})


def test_silence_gives_moving_pictures_for_ever():
    sim = Simulation().run(20)
    sim.check()
    assert len(sim.frames) == pytest.approx(500, abs=5)
    assert not any(f.repeated or f.speaking or f.audio.any() for f in sim.frames)
    assert len({f.rgb.tobytes() for f in sim.frames}) == len(sim.frames)
    assert {f.behaviour for f in sim.frames} == {"idle"}
    m = sim.session.metrics()
    assert m.repeated == m.dropped == m.skipped == m.rewinds == m.underruns == 0
    assert m.ring_fill <= sim.session.config.idle_frames
    assert m.real_time_factor_median == pytest.approx((0.02 + 0.09 + 0.06) / 0.48)
    assert m.load_median == pytest.approx((0.02 + 0.09 + 0.06 + 0.01) / 0.48)


@pytest.mark.parametrize("phase", [i * 0.037 for i in range(14)])
def test_speech_starts_soon_whatever_the_phase(phase):
    sim = Simulation()
    speech = ramp(1.3)
    sim.at(3 + phase, push(sim, speech))
    sim.run(7)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    m = sim.session.metrics()
    sim.check_history()
    assert m.repeated == 0 and m.underruns == 0 and m.inserted_s == 0
    (ttff,) = m.ttff_s
    onset = next(f for f in sim.frames if f.speaking)
    assert ttff == pytest.approx(sim.left[onset.index] - (sim.began + 3 + phase), abs=0.003)
    # a step under way (0.17 s), the lead, and one latent to the next boundary
    assert ttff <= 0.11 + sim.stream.lead + 0.16 + 0.04
    speaking = [f for f in sim.frames if f.speaking]
    assert [f.index for f in speaking] == list(range(onset.index, onset.index + len(speaking)))
    assert {f.utterance_id for f in speaking} == {"a"} and {f.behaviour for f in speaking} == {"speaking"}
    assert len(speaking) == -(-len(speech) // 960)


def test_speech_in_real_time_is_heard_whole():
    sim = Simulation()
    speech = ramp(4.01)
    sim.speak_live(2.013, speech, "live")
    sim.run(9)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    m = sim.session.metrics()
    assert m.underruns == 0 and m.repeated == 0
    # 240 ms must be buffered first; then as above
    assert m.ttff_s[0] <= 0.24 + 0.11 + sim.stream.lead + 0.16 + 0.06


def test_speech_that_was_accepted_is_known_until_it_has_left():
    sim = Simulation()
    seen = []
    sim.at(2, push(sim, ramp(1.0), last=True))
    for time in (1.9, 2.01, 2.2, 5.0):
        sim.at(time, lambda: seen.append(sim.session.waiting))
    sim.run(6)
    assert seen == [None, "a", "a", None]


def test_underrun_inserts_silence_and_loses_nothing():
    sim = Simulation()
    speech = ramp(2.0)
    sim.at(2, push(sim, speech[:20000], last=False))
    sim.at(3.6, push(sim, speech[20000:], last=True))
    sim.run(7)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    m = sim.session.metrics()
    assert m.underruns == 1
    speaking = np.array([f.speaking for f in sim.frames])
    first, last = np.flatnonzero(speaking)[[0, -1]]
    silent = int((~speaking[first:last]).sum())
    assert m.inserted_s * 25 == pytest.approx(silent, abs=2) and silent > 5


def test_an_utterance_without_an_end_is_closed_after_a_while_and_the_next_one_starts():
    sim = Simulation()
    sim.at(2, push(sim, ramp(0.1), "short", last=False))
    sim.run(3.5)
    assert sim.session.metrics().unterminated == 1
    assert len(sim.said()) == 2400
    sim.at(4, push(sim, ramp(0.5, 9000), "next"))
    sim.run(2)
    sim.check()
    np.testing.assert_array_equal(sim.said(), np.concatenate([ramp(0.1), ramp(0.5, 9000)]))
    assert sim.session.metrics().underruns == 0


def test_utterances_follow_one_another_without_a_gap():
    sim = Simulation()
    sim.at(2, push(sim, ramp(0.7), "a"))
    sim.at(2.1, push(sim, ramp(0.7, 16801), "b"))
    sim.run(5)
    sim.check()
    np.testing.assert_array_equal(sim.said(), ramp(1.4))
    sound = np.concatenate([f.audio for f in sim.frames])
    voiced = np.flatnonzero(sound)
    assert voiced[-1] - voiced[0] + 1 == len(voiced)
    assert len(sim.session.metrics().ttff_s) == 1  # the second one waited for its turn, not for the engine


@pytest.mark.parametrize("phase", [i * 0.041 for i in range(8)])
def test_interrupt_fades_out_and_falls_silent(phase):
    sim = Simulation()
    speech = np.full(24000 * 4, 0.5, np.float32)
    answers = []
    sim.at(2, push(sim, speech))
    sim.at(3.5 + phase, lambda: answers.append(sim.session.interrupt()))
    sim.run(6)
    sim.check()
    assert answers == [True]
    sound = np.concatenate([f.audio for f in sim.frames])
    voiced = np.flatnonzero(sound)
    assert len(voiced) < 24000 * 2.2
    assert np.abs(np.diff(sound[voiced[0] + 1 :])).max() < 0.5 / 400  # no click anywhere after the onset
    tail = np.flatnonzero(sound == 0.5)[-1]
    assert (tail + 1) % 3840 in (0, 1) and voiced[-1] - tail <= 480  # at a latent's boundary, 20 ms at most
    m = sim.session.metrics()
    assert len(m.barge_in_s) == 1
    assert m.barge_in_s[0] <= 0.11 + sim.stream.lead + 0.16 + 0.04
    assert not any(f.speaking for f in sim.frames[-40:])
    assert m.repeated == 0


def test_speech_that_follows_keeps_the_end_of_the_one_before():
    sim = Simulation()
    sim.at(2, push(sim, ramp(0.7), "a"))
    sim.at(2.45, push(sim, ramp(0.7, 20000), "b"))  # "a" is made to its end, and hardly shown
    sim.run(5)
    sim.check()
    sim.check_history()
    last_a = max(f.index for f in sim.frames if f.utterance_id == "a")
    first_b = min(f.index for f in sim.frames if f.utterance_id == "b")
    onset = next(r for r in sim.records if r.utterance_id == "b")
    assert last_a < first_b == onset.first_frame <= last_a + 4


def test_the_lead_follows_the_machine():
    for slow in (0.0, 0.1, 0.2):
        sim = Simulation(
            costs={"denoise": (0.02 + slow, 0.02), "render": (0.0, 0.02), "advance": (0.01, 0.0)}
        )
        for i in range(12):
            sim.at(2 + 0.91 * i, push(sim, ramp(0.3), str(i)))
        sim.run(14)
        sim.check()
        assert not any(f.repeated for f in sim.frames[100:]), slow  # the first onset taught it
        assert sim.session.metrics().rewinds >= 8 or slow == 0.2  # there nothing may be thrown away
        assert sim.stream.lead >= sim.stream.cost(1)


def test_interrupt_of_one_utterance_leaves_the_others():
    sim = Simulation()
    first, second, third = ramp(0.5), ramp(0.5, 20000), ramp(0.5, 40000)
    for name, pcm in (("a", first), ("b", second), ("c", third)):
        sim.at(2, push(sim, pcm, name))
    sim.at(2.3, lambda: sim.session.interrupt("b"))
    sim.run(5)
    sim.check()
    np.testing.assert_array_equal(sim.said(), np.concatenate([first, third]))
    assert sim.session.interrupt("nobody") is False


def test_chunks_of_an_interrupted_utterance_are_ignored_but_new_speech_is_not():
    sim = Simulation()
    sim.at(2, push(sim, ramp(1.0), "a", last=False))
    sim.at(2.6, lambda: sim.session.interrupt("a"))
    sim.at(2.7, push(sim, ramp(1.0, 50000), "a", last=True))
    sim.at(3.5, push(sim, ramp(0.2, 90000), "b"))
    sim.run(5)
    sim.check()
    said = sim.said()
    np.testing.assert_array_equal(said[-4800:], ramp(0.2, 90000))
    assert not np.isin(ramp(1.0, 50000), said).any()


@pytest.mark.parametrize("rate", [24_000, 16_000])
def test_what_an_interruption_discards_is_counted(rate):
    """In the queue and of what was laid already: heard is what sounded, but for the resampler's edges."""
    sim = Simulation()
    sim.at(2, lambda: sim.session.push_audio(ramp(4.0)[: 4 * rate], rate, utterance_id="a", last=True))
    sim.at(2.1, lambda: sim.session.push_audio(ramp(1.0)[:rate], rate, utterance_id="b", last=True))
    sim.at(3.5, lambda: sim.session.interrupt())
    sim.run(6)
    sim.check()
    figures = sim.session.metrics()
    sounded = np.count_nonzero(sim.said()) * rate / 24_000
    assert figures.received_samples == figures.heard_samples + figures.dropped_samples["interrupted"] == 5 * rate
    assert figures.heard_samples == pytest.approx(sounded, abs=8) and figures.queued_s == 0


def test_speech_right_after_an_interruption_sounds():
    sim = Simulation()
    sim.at(2, push(sim, ramp(3.0), ""))

    def replace_speech():
        sim.session.interrupt()
        sim.session.push_audio(ramp(0.5, 90000), 24000, last=True)

    sim.at(3, replace_speech)
    sim.run(4)
    sim.check()
    np.testing.assert_array_equal(sim.said()[-12000:], ramp(0.5, 90000))


def test_an_urgent_instruction_is_seen_soon_and_speech_goes_on_unbroken():
    sim = Simulation()
    speech = ramp(3.0)
    sim.at(2, push(sim, speech))
    sim.at(3.2, lambda: sim.session.set_instruction("laughs", behaviour="reacting", priority=200))
    sim.run(6)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    assert sim.session.metrics().rewinds >= 2
    reaction = next(f for f in sim.frames if f.behaviour == "reacting")
    assert read_picture(reaction.rgb).text == crc("laughs")
    assert sim.left[reaction.index] - (sim.began + 3.2) <= 0.11 + sim.stream.lead + 0.16 + 0.04


def test_a_calm_instruction_waits_for_its_turn_and_keeps_what_is_made():
    sim = Simulation().run(2)
    before = sim.session.metrics().rewinds
    sim.session.set_instruction("listens", behaviour="listening")
    sim.run(2)
    assert sim.session.metrics().rewinds == before
    assert sim.frames[-1].behaviour == "listening"
    sim.check()


def test_an_instruction_for_queued_speech_waits_for_it():
    sim = Simulation()
    sim.at(2, push(sim, ramp(0.96), "a"))
    sim.at(2, push(sim, ramp(0.96, 50000), "b"))
    sim.at(2.05, lambda: sim.session.set_instruction("beams", behaviour="reacting", utterance_id="b"))
    sim.run(6)
    sim.check()
    by_id = {name: {f.behaviour for f in sim.frames if f.utterance_id == name} for name in "ab"}
    assert "reacting" in by_id["b"] and by_id["a"] <= {"speaking", "reacting"}
    first = next(f.index for f in sim.frames if f.utterance_id == "a")
    assert sim.frames[first].behaviour == "speaking"


def test_a_new_character_is_one_clean_cut():
    sim = Simulation()
    sim.at(2, lambda: sim.session.set_reference(face(7), "second"))
    sim.run(4)
    sim.check()
    shown = [read_picture(f.rgb).reference for f in sim.frames]
    change = next(i for i, reference in enumerate(shown) if reference != shown[0])
    assert len(set(shown)) == 2 and len(set(shown[change:])) == 1
    assert sim.left[change] - (sim.began + 2) <= 0.11 + sim.stream.lead + 0.16 + 0.04
    assert sim.session.reference_id == "second" and sim.records[-1].reference_id == "second"
    assert read_picture(sim.frames[change].rgb).appearance == crc(face(7))


def test_reset_memory_starts_from_the_reference():
    sim = Simulation().run(2)
    sim.session.reset_memory()
    sim.run(1)
    sim.check()
    reset = next(r for r in sim.records if r.resets == 1)
    frame = next(f for f in sim.frames if f.index == reset.first_frame)
    start = sim.pipeline.start(sim.stream.reference, 0)
    assert read_picture(frame.rgb).memory == crc(start.memory, crc(0, reset.first_frame // 4))


def test_a_late_engine_repeats_pictures_while_sound_goes_on():
    sim = Simulation()
    speech = ramp(4.0)
    sim.at(2, push(sim, speech))
    usual = sim.costs
    sim.at(3, lambda: setattr(sim, "costs", {"denoise": (1.5, 0.0)}))  # something else takes the machine
    sim.at(4, lambda: setattr(sim, "costs", usual))
    sim.run(10)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    m = sim.session.metrics()
    assert m.repeated == sum(f.repeated for f in sim.frames) > 0
    assert m.dropped + m.skipped > 0 and 1 <= m.stalls <= 2  # drawn too late, or not drawn at all
    repeated_with_sound = [f for f in sim.frames if f.repeated and f.audio.any()]
    assert repeated_with_sound  # what was committed went out on time
    assert not any(f.repeated for f in sim.frames[-50:])


def test_an_engine_slower_than_content_keeps_the_clock():
    sim = Simulation(costs={"denoise": (0.1, 0.2), "render": (0.0, 0.05)})
    speech = ramp(1.0)
    sim.at(2, push(sim, speech))
    sim.run(12)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    m = sim.session.metrics()
    assert m.skipped > 0 and m.repeated > 0
    assert m.frames == pytest.approx((12 - m.first_frame_s) * 25, abs=12)
    fresh = [f.index for f in sim.frames if not f.repeated]
    assert max(np.diff([k for k in fresh if k > 100])) < 45  # it goes on showing new pictures


@pytest.mark.parametrize("slower", [1.2, 2.0, 3.5])
@pytest.mark.parametrize("live", [True, False])
def test_an_engine_that_cannot_keep_up_shows_all_it_makes_and_speech_stays_whole(slower, live):
    """`slower` times as long as the content lasts: that share of the pictures is new, and words are not torn."""
    fixed, each = 0.12 * slower, 0.12 * slower  # a step of three latents takes slower * 0.48 s
    sim = Simulation(costs={"denoise": (fixed, 0.02 * slower), "render": (0.0, each - 0.02 * slower)})
    speech = ramp(8.0)
    sim.run(6)  # until it knows what its steps cost
    wasted, seen = sim.session.metrics().dropped, len(sim.frames)
    if live:
        sim.speak_live(6, speech, "a")
    else:
        sim.at(6, push(sim, speech))
    sim.run(34)
    sim.check()
    np.testing.assert_array_equal(sim.said(), speech)
    sounding = np.flatnonzero([f.speaking for f in sim.frames])
    assert sounding[-1] - sounding[0] < 8 * 25 + 2  # not one pause
    new = np.mean([not f.repeated for f in sim.frames[seen:]])
    assert new > 0.9 / slower
    m = sim.session.metrics()
    assert m.dropped <= wasted and m.stalls == m.underruns == 0


def test_nobody_looking_for_a_while_moves_the_clock_once():
    sim = Simulation().run(2)
    sim.watching = False
    sim.run(30)
    made = sim.session.metrics().latents
    sim.watching = True
    sim.run(2)
    m = sim.session.metrics()
    assert m.reanchors == 1 and m.repeated == 0
    assert m.latents - made < 2 * 25 / 4 + 8  # and it was not made up for
    stamps = np.array([f.pts for f in sim.frames])
    assert (np.diff(stamps) > 0.0399).all()


def test_step_sizes_large_when_calm_and_small_when_it_matters():
    sim = Simulation()
    sim.at(5, push(sim, ramp(3.0)))
    sim.run(9)
    sizes = [r.latents for r in sim.records]
    assert sizes[0] == 1
    onset = next(i for i, r in enumerate(sim.records) if r.utterance_id == "a")
    assert sizes[onset] == 1
    assert set(sizes[4 : onset - 1]) == {3}
    assert max(sizes[onset:]) == 3
    for record in sim.records:
        assert len(record.pcm) == record.latents * 3840 + 1920 + (
            record.first_frame * 960 - record.first_sample
        )


def test_memory_stays_bounded():
    sim = Simulation(SessionConfig(queue_s=2.0))
    for second in range(0, 60, 2):
        sim.at(1 + second, push(sim, ramp(1.0), str(second)))
    sim.run(62)
    timeline = sim.stream.timeline
    assert len(timeline._track) <= 40 * 3840 and len(timeline._laid) < 10 and not timeline.queue
    assert len(sim.stream.ring) <= 7
    sim.check()


def test_a_step_that_becomes_useless_is_not_denoised_to_its_end():
    sim, evaluated = Simulation(costs={"denoise": (0.0, 0.09), "render": (0.0, 0.03)}), []
    spend = sim.pipeline.hook
    sim.pipeline.hook = lambda stage, count: (evaluated.append(stage), spend(stage, count))
    for k in range(12):
        sim.at(3 + 1.07 * k, push(sim, ramp(4.0), f"{k}"))
        sim.at(3.6 + 1.07 * k, lambda: sim.session.interrupt())
    sim.run(18)
    sim.check()
    assert 0.8 * 3 * len(sim.records) < evaluated.count("denoise") < 3 * len(sim.records)


def test_every_latent_is_rendered_once_and_none_that_will_be_made_again():
    """Without trouble all that is rendered is shown; a rewind costs what was in the ring, and nothing beyond."""
    sim = Simulation().run(8)
    rendered = sim.pipeline.rendered
    assert rendered == list(range(len(rendered)))
    sim.costs = {"denoise": (0.02, 0.03), "render": (0.0, 0.1)}
    for second in range(12):
        sim.at(8 + 0.83 * second, lambda: sim.session.set_instruction("nods", priority=200))
    sim.run(14)
    sim.check()
    m = sim.session.metrics()
    assert m.rewinds >= 10 and m.dropped == m.skipped == 0
    again = len(rendered) - len(set(rendered))  # they were in the ring, or under way, when it was taken back
    broken_off = sum(record.latents for record in sim.records) - len(rendered)
    assert again <= m.remade / 4 and broken_off > 0
    assert sorted(set(rendered)) == list(range(max(rendered) + 1))


def test_what_comes_too_late_to_be_seen_is_not_rendered():
    """A step takes two seconds: the latents whose frames have left meanwhile cost nothing more."""
    sim = Simulation().run(3)
    sim.costs = {**simulation.COSTS, "denoise": (2.0, 0.0)}
    sim.run(1)
    sim.costs = simulation.COSTS
    sim.run(6)
    sim.check()
    m = sim.session.metrics()
    late = next(r for r in sim.records if r.first_frame // 4 not in sim.pipeline.rendered)
    assert late.latents == 3 and m.dropped == 12
    assert not any(f.repeated for f in sim.frames[-100:])


def test_one_slow_step_is_not_held_against_all_that_follow():
    sim = Simulation()
    sim.at(0.925, lambda: setattr(sim, "costs", {**simulation.COSTS, "denoise": (1.0, 0.0)}))
    sim.at(1.325, lambda: setattr(sim, "costs", simulation.COSTS))
    sim.run(10)
    sim.check()
    assert not any(f.repeated for f in sim.frames[-100:])


@pytest.mark.parametrize("kind", ["interrupted", "spoken"])
def test_a_machine_that_was_busy_answers_soon_again(kind):
    """Steps of some sizes are made now and then only: what they took meanwhile must not count for ever."""
    sim = Simulation()
    sim.at(3, lambda: setattr(sim, "costs", {k: (12 * a, 12 * b) for k, (a, b) in simulation.COSTS.items()}))
    sim.at(13, lambda: setattr(sim, "costs", simulation.COSTS))
    for i in range(7):
        if kind == "interrupted":
            sim.at(4.0 + 1.2 * i, lambda: sim.session.set_instruction("look up", priority=255))
        else:
            sim.at(4.0 + 1.2 * i, lambda i=i: sim.session.push_audio(ramp(0.5), 24_000, utterance_id=str(i), last=True))
    sim.run(20)
    before = Simulation().run(20)
    assert sim.stream.lead < before.stream.lead + 0.1
    sim.at(20, lambda: sim.session.push_audio(ramp(1), 24_000, utterance_id="after", last=True))
    sim.run(3)
    assert sim.session.metrics().ttff_s[-1] < 0.4
    assert not any(f.repeated for f in sim.frames[-100:])


def test_what_was_a_picture_keeps_its_motion():
    """Motion leaves with its own picture, also when that is shown for longer than its frame."""
    sim = Simulation().run(2)
    sim.costs = {**simulation.COSTS, "denoise": (1.5, 0.0)}
    sim.run(3)
    repeated = [f for f in sim.frames if f.repeated]
    assert repeated and all(f.motion[0] < f.index for f in repeated)
    sim.check()


def test_urgent_is_what_the_message_calls_urgent():
    sim = Simulation().run(2)
    before = sim.session.metrics().rewinds
    sim.session.set_instruction("nods", priority=199)
    sim.run(0.5)
    assert sim.session.metrics().rewinds == before
    sim.session.set_instruction("nods", priority=200)
    sim.run(0.5)
    assert sim.session.metrics().rewinds == before + 1
