# SPDX-License-Identifier: Apache-2.0
"""The rule planner as a table: events at times in, behaviours out."""

from __future__ import annotations

import pytest

from flowact_ros.dialogue.phrases import NODS
from flowact_ros.dialogue.planner import (
    MANNERS,
    REACTIONS,
    WORDINGS,
    AnswerPending,
    AvatarSpeaking,
    Event,
    Instruction,
    PlannerError,
    RulePlanner,
    RulePlannerConfig,
    SpeechData,
    SpeechPlan,
    SpeechText,
    Tick,
    UserPause,
    UserText,
    UserVoice,
    greets,
    manner_of,
    reaction_to,
)
from flowact_ros.vocabulary import BEHAVIOURS, IDLE, LISTENING, PRIORITY_URGENT, REACTING, SPEAKING, THINKING


def play(events: list[Event], until: float = 0.0, **settings) -> list[tuple[float, Instruction]]:
    """Instructions with their times; Ticks come every 50 ms between the events, as the node sends them."""
    planner = RulePlanner(RulePlannerConfig(**settings))
    end = max([until, *(event.time_s for event in events)])
    ticks: list[Event] = [Tick(i * 0.05) for i in range(int(end / 0.05) + 1)]
    out = []
    for event in sorted([*ticks, *events], key=lambda event: event.time_s):
        instruction = planner.observe(event)
        if instruction is not None:
            out.append((event.time_s, instruction))
    return out


def behaviours(events: list[Event], until: float = 0.0, **settings) -> list[str]:
    return [instruction.behaviour for _, instruction in play(events, until, **settings)]


def speech(start: float, end: float) -> list[Event]:
    """A sentence from a TTS: data in 40 ms chunks, and the avatar that speaks it with some delay."""
    data: list[Event] = [SpeechData(start + 0.04 * i, "u1") for i in range(int((end - start) / 0.04))]
    return [*data, AvatarSpeaking(start + 0.5, True, "u1"), AvatarSpeaking(end + 0.5, False, "")]


def said(start: float, end: float, text: str, name: str = "say-1") -> list[Event]:
    """A sentence through the `say` action: its text, and the avatar that speaks it a little later; no `speech`."""
    sounds = [AvatarSpeaking(start + 0.4, True, name), AvatarSpeaking(end + 0.4, False)]
    return [SpeechText(start, name, text), *sounds]


def user(start: float, end: float) -> list[Event]:
    return [UserVoice(start, True), UserVoice(end, False)]


TABLE = {
    "nothing": ([], 10.0, {}, [IDLE]),
    "it speaks": (speech(2, 4), 8.0, {}, [IDLE, SPEAKING, IDLE]),
    "somebody speaks, no answer": (user(2, 4), 12.0, {}, [IDLE, LISTENING, THINKING, IDLE]),
    "question and answer": (
        [*user(2, 4), *speech(5, 7)],
        12.0,
        {},
        [IDLE, LISTENING, THINKING, SPEAKING, IDLE],
    ),
    "an echo while it speaks": ([*speech(2, 6), *user(3, 5)], 12.0, {}, [IDLE, SPEAKING, IDLE]),
    "a barge-in": (
        [*speech(2, 6), *user(3, 5)],  # its sound goes on for a while: nobody has stopped the sender
        12.0,
        {"barge_in": True},
        [IDLE, SPEAKING, LISTENING, THINKING, IDLE],
    ),
    "a barge-in, and an answer": (
        [*speech(2, 4), *user(3, 4.5), SpeechData(5.5, "u2"), AvatarSpeaking(5.8, True, "u2")],
        7.0,
        {"barge_in": True},
        [IDLE, SPEAKING, LISTENING, THINKING, SPEAKING],
    ),
    "a reaction": ([UserText(2, "That is funny!")], 8.0, {}, [IDLE, REACTING, IDLE]),
    "a partial text is no reaction yet": ([UserText(2, "That is funny!", final=False)], 8.0, {}, [IDLE]),
    "speech matters more than a reaction": (
        [*speech(2, 5), UserText(2.2, "thank you")],
        8.0,
        {},
        [IDLE, SPEAKING, IDLE],
    ),
    "silence that the engine put in is no end": (
        [*speech(2, 5), AvatarSpeaking(5.6, True, "u1"), AvatarSpeaking(6.5, False)],
        12.0,
        {},
        [IDLE, SPEAKING, IDLE],
    ),
    "it says hello": (said(2, 3, "Hello!"), 8.0, {}, [IDLE, SPEAKING, IDLE]),
    "a text whose sound is slow to come": (
        [SpeechText(2, "u1", "Hm."), AvatarSpeaking(3.8, True, "u1"), AvatarSpeaking(5, False)],
        8.0,
        {},
        [IDLE, SPEAKING, IDLE],
    ),
    "a text whose sound never comes": ([SpeechText(2, "u1", "Hello!")], 8.0, {}, [IDLE, SPEAKING, IDLE]),
    "a text is an answer": (
        [*user(1, 2), *said(3, 4, "It is ten.")],
        9.0,
        {},
        [IDLE, LISTENING, THINKING, SPEAKING, IDLE],
    ),
    "the text of what was broken into": (
        [*said(2, 6, "One, two, three."), *user(3, 5), SpeechText(3.2, "say-1", "Hello!")],
        12.0,
        {"barge_in": True},
        [IDLE, SPEAKING, LISTENING, THINKING, IDLE],
    ),
    "a pause between two chunks is no end": (
        [*speech(2, 3), *speech(3.3, 4)],
        9.0,
        {},
        [IDLE, SPEAKING, IDLE],
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_table(name: str) -> None:
    events, until, settings, expected = TABLE[name]
    assert behaviours(events, until, **settings) == expected


def test_listening_is_urgent_and_at_once() -> None:
    out = play([UserVoice(2.0, True)], 3.0)
    assert out[-1] == (2.0, out[-1][1])
    assert out[-1][1].behaviour == LISTENING
    assert out[-1][1].priority == PRIORITY_URGENT
    assert all(i.priority == 0 for _, i in out[:-1])


def test_only_a_barge_in_interrupts() -> None:
    out = play([*speech(2, 6), *user(3, 5), *user(12, 13)], 20.0, barge_in=True)
    assert [(t, i.behaviour) for t, i in out if i.interrupts] == [(3, LISTENING)]
    assert not any(i.interrupts for _, i in play([*speech(2, 6), *user(3, 5)], 20.0))


@pytest.mark.parametrize(("began", "interrupted"), [(2.0, [4.0]), (3.5, []), (None, [])])
def test_news_of_speech_may_come_after_the_voice(began: float | None, interrupted: list[float]) -> None:
    """The planner has just found its avatar: a voice that began while it spoke broke into that, however late."""
    late = AvatarSpeaking(4.0, True, "u1", began)
    out = play([*user(3, 5), late], 8.0, barge_in=True)
    assert [t for t, i in out if i.interrupts] == interrupted
    assert not any(i.interrupts for _, i in play([*user(3, 5), late], 8.0))


def test_speaking_carries_the_utterance() -> None:
    found = [i for _, i in play(speech(2, 3), 6.0) if i.behaviour == SPEAKING]
    assert [i.utterance_id for i in found] == ["u1"]


def manners(events: list[Event], until: float = 12.0) -> list[tuple[float, str, str]]:
    """(time, manner, utterance) of the instructions to speak; "" for one without a manner."""
    kind = {text: name for name, texts in MANNERS.items() for text in texts if text not in WORDINGS[SPEAKING]}
    out = [(t, i) for t, i in play(events, until) if i.behaviour == SPEAKING]
    return [(round(t, 2), kind.get(i.text, ""), i.utterance_id) for t, i in out]


def test_speech_without_a_text_has_no_manner() -> None:
    assert manners(speech(2, 3)) == [(2.0, "", "u1")]


def test_a_greeting_is_told_before_it_sounds() -> None:
    assert manners(said(2, 3, "Hello!")) == [(2.0, "greeting", "say-1")]


def test_only_the_beginning_of_a_long_sentence_waves() -> None:
    told = manners(said(2, 10, "Good morning. I am sorry, but the museum is closed today."))
    assert [(manner, name) for _, manner, name in told] == [("greeting", "say-1"), ("serious", "say-1")]
    assert told[1][0] == pytest.approx(2.4 + 2.0, abs=0.06)
    assert [manner for _, manner, _ in manners(said(2, 10, "Hello. It is ten."))] == ["greeting", ""]


def test_a_text_that_comes_with_the_sound_of_a_tts() -> None:
    told = manners([*speech(2, 6), SpeechText(2.1, "u1", "How wonderful to see you!")])
    assert told == [(2.0, "", "u1"), (2.1, "cheerful", "u1")]


def test_what_waits_behind_other_speech_has_its_turn_when_it_sounds() -> None:
    first = [SpeechText(2, "a", "I am sorry."), AvatarSpeaking(2.4, True, "a")]
    second = [SpeechText(2.5, "b", "Hi!"), AvatarSpeaking(5, True, "b"), AvatarSpeaking(6, False)]
    assert manners([*first, *second]) == [(2.0, "serious", "a"), (5.0, "greeting", "b")]
    plain = [SpeechText(2.5, "b", "It is ten."), AvatarSpeaking(5, True, "b"), AvatarSpeaking(6, False)]
    assert manners([*first, *plain]) == [(2.0, "serious", "a"), (5.0, "", "b")]


def test_a_name_that_is_given_again_is_greeted_again() -> None:
    told = manners([*said(2, 3, "Hello!"), *said(6, 7, "Hello again!")])
    assert [manner for _, manner, _ in told] == ["greeting", "greeting"]


def test_silence_put_into_a_sentence_does_not_begin_it_anew() -> None:
    pause = [AvatarSpeaking(5.0, False), AvatarSpeaking(5.2, True, "say-1")]
    told = manners([*said(2, 8, "Hello, it is ten o'clock."), *pause])
    assert [manner for _, manner, _ in told] == ["greeting", ""]


def test_texts_without_a_name_are_not_listened_to() -> None:
    assert behaviours([SpeechText(2, "", "Hello!")], 5.0) == [IDLE]


def test_few_texts_are_remembered() -> None:
    planner = RulePlanner()
    for k in range(1000):
        planner.observe(SpeechText(k, f"u{k}", "Hello!"))
    assert len(planner._texts) < 100


def test_dwell_holds_back_what_is_not_urgent() -> None:
    # The user stops 0.1 s after the onset: listening is still shown for the whole dwell.
    out = {i.behaviour: t for t, i in play(user(2.0, 2.1), 8.0, dwell_s=1.0)}
    assert out[LISTENING] == pytest.approx(2.0, abs=0.01)
    assert out[THINKING] == pytest.approx(3.0, abs=0.06)


def test_thinking_ends_at_its_timeout() -> None:
    out = play(user(2.0, 4.0), 12.0, thinking_timeout_s=3.0)
    assert [i.behaviour for _, i in out] == [IDLE, LISTENING, THINKING, IDLE]
    assert out[-1][0] == pytest.approx(7.0, abs=0.06)


def test_time_never_runs_backwards() -> None:
    planner = RulePlanner()
    planner.observe(Tick(10.0))
    assert planner.observe(UserVoice(9.0, True)).behaviour == LISTENING
    assert planner.observe(Tick(9.5)) is None


def test_wordings_vary_and_a_seed_repeats_them() -> None:
    events = [event for k in range(8) for event in speech(2 + 8 * k, 3 + 8 * k)]
    texts = [i.text for _, i in play(events, 70.0) if i.behaviour == SPEAKING]
    assert len(texts) == 8
    assert all(a != b for a, b in zip(texts, texts[1:], strict=False))
    assert texts == [i.text for _, i in play(events, 70.0) if i.behaviour == SPEAKING]
    other = [i.text for _, i in play(events, 70.0, seed=5) if i.behaviour == SPEAKING]
    assert other != texts


def test_every_behaviour_has_several_wordings() -> None:
    assert set(WORDINGS) | {REACTING} == set(BEHAVIOURS)
    assert all(len(texts) >= 2 for texts in [*WORDINGS.values(), *REACTIONS.values(), *MANNERS.values()])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Hello there", "smile"),
        ("Thank you very much", "smile"),
        ("tell me a JOKE", "laugh"),
        ("Wow, I like it", "surprise"),
        ("hello, that is so funny", "laugh"),
        ("the hippopotamus is in the shell", None),
        ("", None),
    ],
)
def test_reactions_are_whole_words(text: str, kind: str | None) -> None:
    assert reaction_to(text) == kind


@pytest.mark.parametrize(
    ("text", "greeting", "manner"),
    [
        ("Hello!", True, ""),
        ("'Hi there', he said", True, ""),
        ("Well, good morning everybody", True, ""),
        ("Welcome to the museum.", True, ""),
        ("Thank you for coming, goodbye!", True, "cheerful"),
        ("Hello, I am sorry: unfortunately we are closed", True, "serious"),
        ("He said hello to her", False, ""),
        ("Hi-fi systems are on your left", False, "explaining"),
        ("This is a high shell", False, ""),
        ("CONGRATULATIONS, how funny", False, "cheerful"),
        ("The lift is out of order because of the storm", False, "explaining"),
        ("Great, but be careful", False, "serious"),
        ("", False, ""),
    ],
)
def test_the_manner_of_a_text(text: str, greeting: bool, manner: str) -> None:
    assert (greets(text), manner_of(text)) == (greeting, manner)


def test_bad_settings_and_events_are_named() -> None:
    with pytest.raises(PlannerError, match="dwell_s"):
        RulePlannerConfig(dwell_s=-1)
    with pytest.raises(PlannerError, match="str"):
        RulePlanner().observe("hello")  # type: ignore[arg-type]


def test_it_thinks_for_as_long_as_an_answer_is_made() -> None:
    events = [*user(1, 2), AnswerPending(2.5, True), *said(12, 14, "It is ten."), AnswerPending(17, False)]
    out = play(events, 20.0, thinking=("pondering",))
    assert [instruction.behaviour for _, instruction in out] == [
        IDLE,
        LISTENING,
        THINKING,
        SPEAKING,
        THINKING,
        IDLE,
    ]
    assert out[2][1].text == out[4][1].text == "pondering"
    assert out[-1][0] == pytest.approx(17.0, abs=0.11)


def test_a_plan_counts_for_its_utterance_from_when_it_sounds() -> None:
    plans = [SpeechPlan(1, "a", SPEAKING, "smiling"), SpeechPlan(1, "b", REACTING, "laughing heartily")]
    events = [
        *plans,
        AvatarSpeaking(2, True, "a"),
        AvatarSpeaking(3, True, "b"),
        AvatarSpeaking(4, True, "c"),
    ]
    out = [instruction for _, instruction in play([*events, AvatarSpeaking(5, False)], 8.0)]
    assert [(i.behaviour, i.utterance_id) for i in out] == [
        (IDLE, ""),
        (SPEAKING, "a"),
        (REACTING, "b"),
        (SPEAKING, "c"),
        (IDLE, ""),
    ]
    assert [i.text for i in out[1:3]] == ["smiling", "laughing heartily"] and out[3].text in WORDINGS[
        SPEAKING
    ]


def test_a_plan_that_comes_late_changes_what_is_shown() -> None:
    events = [AvatarSpeaking(1, True, "a"), SpeechPlan(2, "a", SPEAKING, "waving"), AvatarSpeaking(3, False)]
    assert [i.text for _, i in play(events, 4.0)][2] == "waving"


def test_a_plan_is_no_match_for_the_user() -> None:
    events = [SpeechPlan(1, "a", REACTING, "laughing"), AvatarSpeaking(2, True, "a"), UserVoice(3, True)]
    last = play(events, 4.0, barge_in=True)[-1][1]
    assert last.behaviour == LISTENING and last.interrupts


def pause(start: float, seconds: float) -> list[Event]:
    """As the node tells of it: with every 40 ms of the microphone, and when the voice goes on."""
    steps = [UserPause(start + 0.04 * i, 0.04 * i) for i in range(1, round(seconds / 0.04) + 1)]
    return [*steps, UserPause(start + seconds + 0.04, 0.0)]


def talk(start: float, *pauses: tuple[float, float], end: float) -> list[Event]:
    """Words with pauses at (when, seconds); the detector is sure of their end 0.6 s after it."""
    inner = [event for at, seconds in pauses for event in pause(at, seconds)]
    return [UserVoice(start, True), *inner, *pause(end, 0.56)[:-1], UserVoice(end + 0.6, False)]


def test_a_pause_that_may_be_the_end_makes_it_think_at_once() -> None:
    out = play(talk(1.0, end=3.0), 6.0)
    assert [i.behaviour for _, i in out] == [IDLE, LISTENING, THINKING]  # the end itself is nothing new
    at, thinks = out[-1]
    assert at == pytest.approx(3.12) and thinks.priority == PRIORITY_URGENT and not thinks.interrupts
    late = play(talk(1.0, end=3.0), 6.0, think_after_s=0.0)
    thinks = [(round(at, 2), i.behaviour) for at, i in late if i.text not in NODS]
    assert thinks[1:] == [(1.0, LISTENING), (3.6, THINKING)]


def test_a_voice_that_goes_on_is_listened_to_again() -> None:
    out = play(talk(1.0, (2.0, 0.36), end=4.0), 6.0, nod_after_s=0.0)
    shown = [(round(at, 2), i.behaviour) for at, i in out][1:]
    assert shown == [(1.0, LISTENING), (2.12, THINKING), (2.4, LISTENING), (4.2, THINKING)]
    assert all(i.priority == PRIORITY_URGENT for _, i in out[1:])


def test_who_pauses_once_is_given_more_time_until_he_has_ended() -> None:
    turns = [
        *talk(1.0, (2.0, 0.16), (3.0, 0.16), (3.5, 0.2), (4.0, 0.24), (5.0, 0.4), end=7.0),
        *talk(9.0, end=11.0),
    ]
    out = play(sorted(turns, key=lambda event: event.time_s), 12.0, nod_after_s=0.0)
    assert [round(at, 2) for at, i in out if i.behaviour == THINKING] == [2.12, 3.7, 5.28, 7.44, 11.12]


def test_hardly_anything_said_is_hardly_all() -> None:
    out = play(talk(1.0, (1.35, 0.2), end=1.9), 3.0)  # "Well, … no."
    assert [round(at, 2) for at, i in out if i.behaviour == THINKING] == [2.02]
    assert [round(at, 2) for at, i in play(talk(1.0, end=1.4), 3.0) if i.behaviour == THINKING] == [1.64]


def test_it_does_not_answer_before_the_user_has_ended() -> None:
    planner = RulePlanner(RulePlannerConfig())
    planner.observe(UserVoice(1.0, True))
    planner.observe(UserPause(3.0, 0.2))
    assert planner.behaviour == THINKING and planner.listens
    planner.observe(UserVoice(3.4, False))
    assert not planner.listens


def test_a_pause_in_the_avatars_own_echo_is_nobodys() -> None:
    events = [*speech(1, 6), UserVoice(2.0, True), *pause(4.0, 0.5)]
    assert behaviours(events, 5.0) == [IDLE, SPEAKING]


def test_pauses_of_a_user_who_talks_for_long_are_nodded_at() -> None:
    talk = [UserVoice(1.0, True), UserVoice(12.0, False)]
    # The first comes too early, two of the others right after a nod, one is too short.
    pauses = [UserPause(at, 0.3) for at in (2.0, 4.0, 5.0, 6.0, 9.0)]
    told = sorted([*talk, *pauses, UserPause(8.0, 0.2)], key=lambda event: event.time_s)
    out = [(at, i) for at, i in play(told, 12.0, think_after_s=0.0) if i.behaviour == LISTENING]
    nods = [at for at, i in out if i.text in NODS]
    assert nods == [4.0, 9.0]
    assert [i.text in NODS for _, i in out] == [False, True, False, True, False]
    assert [i.priority == PRIORITY_URGENT for _, i in out] == [True, True, False, True, False]
    assert out[2][0] == pytest.approx(5.6, abs=0.06) and not any(i.interrupts for _, i in out)


def test_who_goes_on_after_a_pause_that_seemed_the_end_is_nodded_at() -> None:
    out = play(talk(1.0, (4.0, 0.2), (9.0, 0.28), end=10.5), 12.0, think_after_s=0.2)
    assert [(round(at, 2), i.behaviour, i.text in NODS) for at, i in out][1:] == [
        (1.0, LISTENING, False),
        (4.2, THINKING, False),
        (4.24, LISTENING, True),
        (pytest.approx(5.85, abs=0.06), LISTENING, False),
        (9.28, LISTENING, True),  # for the second pause it waits longer, and nods
        (10.82, THINKING, False),
    ]


@pytest.mark.parametrize(
    ("events", "settings"),
    [
        ([UserVoice(1.0, True), UserPause(9.0, 0.5)], {"nod_after_s": 0.0}),
        ([UserPause(9.0, 0.5)], {}),
        ([UserVoice(1.0, True), UserVoice(8.9, False), UserPause(9.0, 0.5)], {}),
    ],
)
def test_nobody_else_is_nodded_at(events: list[Event], settings: dict) -> None:
    assert not any(i.text in NODS for _, i in play(events, 12.0, **settings))


def test_a_pause_in_words_that_break_into_speech_does_not_interrupt_twice() -> None:
    events = [*speech(1.0, 9.0), UserVoice(3.0, True), UserPause(6.0, 0.3), UserVoice(8.0, False)]
    out = [i for _, i in play(events, 8.0, barge_in=True, think_after_s=0.0) if i.behaviour == LISTENING]
    assert [i.interrupts for i in out] == [True, False, False] and out[1].text in NODS


def test_nods_are_wordings_of_listening_that_the_model_knows() -> None:
    from flowact_ros.data.wordings import WORDINGS as TRAINED

    assert len(NODS) >= 2 and set(NODS) <= set(TRAINED["listening"])
    assert not set(NODS) & set(WORDINGS[LISTENING])
