# SPDX-License-Identifier: Apache-2.0
"""`flowact bench dialogue` on the debug preset: it talks, and says what it promises. Never how fast."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from flowact_ros.evaluation import bench, bench_dialogue

PROMISED = {
    "reply_s": {"p50", "p95"},
    "reaction_s": {"p50", "p95"},
    "barge_in_s": {"p50", "p95"},
    "first_answer_s": {"p50", "p95"},
    "turns": None,
    "false_reactions": None,
    "fallbacks": None,
    "planner_backend": None,
    "repeated_frames": None,
    "frames": None,
    "minutes": None,
}
SCRIPT = """
turns:
  - say: ['When do you open?', 0.5, 'And who are you?']
  - {say: 'What is a galaxy?', break_in: 0.3}
"""


@pytest.mark.slow
@pytest.mark.ros
def test_two_turns_with_all_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rclpy", reason="the nodes need ROS 2: `make setup` installs it")
    pytest.importorskip("hibari", reason="the voice of the package hibari-tts is not installed")
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    argv = ["dialogue", "--preset", "debug", "--turns", "2", "--listen", "script", "--script", str(script)]
    assert bench.main([*argv, "--json"]) == 0, capsys.readouterr().err
    result = json.loads(capsys.readouterr().out)
    for name, inside in PROMISED.items():
        assert name in result and (inside is None or set(result[name]) == inside)
    assert result["turns"] == result["answered"] == 2 and result["planner_backend"] == "rules"
    assert result["frames"] > 50 and result["page_frames"] > 50 and result["page_error"] == ""
    # The second answer only says that there is none: it is a reply, and no answer.
    assert (result["counts"]["reply_s"], result["counts"]["first_answer_s"]) == (2, 1)
    # In place of a recogniser the text comes 0.6 s after the voice, and what follows from it later.
    assert result["final_text_s"]["p50"] >= 0.6
    first, second = result["log"]
    assert first["heard_s"] <= first["planned_s"] <= first["spoken_s"] == first["answered_s"]
    assert first["answer"].startswith("We are open") and second["heard"] == "What is a galaxy?"
    bench_dialogue.show(result)
    table = capsys.readouterr().out
    assert "first frame that speaks" in table and "hearing: none: the script's words" in table


def turn(**times: float | None) -> dict:
    told = ("instructed_s", "reacted_s", "heard_s", "planned_s", "spoken_s", "answered_s", "rested_s")
    names = ("began_s", "ended_s", *told)
    return {
        "said": "a b",
        "heard": "a c",
        "answer": "",
        "broke_in": False,
        "false_reactions": 1,
        **dict.fromkeys(names),
        **times,
    }


def test_figures_are_those_of_the_turns_that_have_them() -> None:
    turns = [
        turn(
            began_s=0.0,
            ended_s=1.0,
            instructed_s=1.1,
            reacted_s=1.3,
            heard_s=1.7,
            spoken_s=2.5,
            answered_s=3.5,
        ),
        turn(began_s=5.0, ended_s=6.0, heard_s=5.5, rested_s=5.4),
        {**turn(began_s=10.0, ended_s=11.0, spoken_s=12.0, rested_s=10.4), "broke_in": True},
    ]
    seen = {
        "turns": turns,
        "seconds": 60.0,
        "frames": 1500,
        "repeated": 3,
        "dropped": 0,
        "planner": {"planner_backend": "openai", "fallbacks": "1"},
        "processes": {},
        "page_frames": 1,
        "page_error": "",
    }
    args = argparse.Namespace(planner="openai", model="m", listen="tiny.en", recognizer="faster-whisper")
    result = bench_dialogue.summary(seen, args, 0.5)
    assert result["counts"] == {
        "instruction_s": 1,
        "reaction_s": 1,
        "final_text_s": 1,
        "first_sentence_s": 0,
        "reply_s": 2,
        "first_answer_s": 1,
        "barge_in_s": 1,
    }
    assert result["barge_in_s"] == {"p50": 0.4, "p95": 0.4} and result["first_answer_s"]["p50"] == 2.5
    assert result["first_sentence_s"] == {"p50": None, "p95": None}
    assert (result["fallbacks"], result["repeated_a_minute"], result["answered"]) == (1, 3.0, 2)
    assert result["false_reactions"] == 3
    assert result["word_error_rate"] == 0.5 and result["fps"] == 25.0
    result = bench_dialogue.summary({**seen, "turns": turns[:1]}, args, 0.5)
    assert result["barge_in_s"]["p95"] is None and "no turn broke into" in result["barge_in_reason"]


@pytest.mark.parametrize(
    ("argv", "status", "words"),
    [
        (["--turns", "0"], 2, "--turns is 0; it must lie in 1 .. 1000"),
        (["--script", "/nowhere/s.yaml"], 2, "/nowhere/s.yaml cannot be read"),
    ],
)
def test_bad_input_is_one_clear_line(
    argv: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["dialogue", *argv]) == status
    error = capsys.readouterr().err.strip()
    assert words in error and "\n" not in error
