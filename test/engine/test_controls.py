# SPDX-License-Identifier: Apache-2.0
"""Which instruction is in force."""

from __future__ import annotations

from flowact_ros.engine.controls import Instruction, Instructions


def test_the_newest_that_applies():
    table = Instructions()
    assert table.at("").prompt == "" and table.at("a").behaviour == ""
    first = Instruction("nods", "listening")
    table.set(first, wait=False)
    table.set(Instruction("beams", "reacting", utterance_id="a"), wait=True)
    assert table.at("") is first and table.at("b") is first
    assert table.at("a").text == "beams" and table.at("a").text == "beams"  # looking changes nothing
    table.set(Instruction("stares", "thinking"), wait=False)
    assert table.at("a").text == table.at("").text == "stares"
    table.set(Instruction("waves", utterance_id="a"), wait=True)
    assert table.at("a").text == "waves" and table.at("").text == "stares"


def test_what_waits_is_bounded():
    table = Instructions()
    for i in range(1000):
        table.set(Instruction(str(i), utterance_id=str(i)), wait=True)
    assert len(table._waiting) <= 64 and table.at("999").text == "999" and table.at("0").text == ""


def test_a_behaviour_without_text_is_its_own_prompt():
    assert Instruction("", "thinking").prompt == "thinking"


def test_a_lower_priority_does_not_replace_a_higher_one_of_its_utterance():
    table = Instructions()
    high = Instruction("laughs", priority=50, utterance_id="a")
    assert table.set(high, wait=False)
    assert not table.set(Instruction("frowns", priority=49, utterance_id="a"), wait=False)
    assert table.at("a") is table.at("") is high
    assert table.set(Instruction("beams", priority=50, utterance_id="a"), wait=False)
    assert table.at("a").text == "beams"
    assert table.set(Instruction("waves", priority=9, utterance_id="b"), wait=True)
    assert not table.set(Instruction("yawns", utterance_id="b"), wait=True) and table.at("b").text == "waves"
    assert table.set(Instruction("stands still"), wait=False)  # of no utterance: the newest counts
    assert table.at("a").text == table.at("").text == "stands still"
