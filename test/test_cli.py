# SPDX-License-Identifier: Apache-2.0
"""The `flowact` command: help with examples for every verb, and one clear line with a status for bad input."""

from __future__ import annotations

import importlib
import io
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from flowact_ros import cli, cli_options
from flowact_ros.launcher.resources import config_file
from flowact_ros.media.wav import read_audio, write_wav

VERBS = ("demo", "up", "say", "train", "data", "eval", "bench", "weights", "doctor")


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    path = tmp_path / "hello.wav"
    write_wav(path, (0.1 * np.sin(np.arange(8000) / 9)).astype(np.float32), 16000)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        status = cli.main([str(argument) for argument in arguments])
    except SystemExit as end:
        status = int(end.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(f"\n    {verb}" in out for verb in VERBS)
    assert "examples:" in out


@pytest.mark.parametrize("verb", ["demo", "up", "say"])
def test_help_of_a_verb_has_examples(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    status, out, _ = run(capsys, verb, "--help")
    assert status == 0 and "examples:" in out and f"flowact {verb}" in out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from flowact_ros import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'rclpy', 'numpy', 'av', 'aiohttp'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


BAD = {
    "no verb": ([], "VERB"),
    "unknown verb": (["sing"], "sing"),
    "wav missing": (["demo", "--wav", "/nowhere/x.wav"], "/nowhere/x.wav"),
    "wav empty": (["demo", "--wav", "EMPTY"], "empty"),
    "wav is text": (["demo", "--wav", "TEXT"], "not readable audio"),
    "wav is a folder": (["demo", "--wav", "FOLDER"], "directory"),
    "wav with NaN": (["demo", "--wav", "NAN"], "NaN"),
    "wav cut short": (["demo", "--wav", "SHORT"], "cut short"),
    "wav of a telephone's half rate": (["demo", "--wav", "SLOW"], "4000 Hz; expected 8000 to 192000 Hz"),
    "say, wav missing": (["say", "--wav", "/nowhere/x.wav"], "/nowhere/x.wav"),
    "say nothing": (["say"], "--wav"),
    "say an empty text": (["say", "  "], "nothing to say"),
    "say a text and a wav": (["say", "hello", "--wav", "GOOD"], "or --wav FILE"),
    "say two texts": (["say", "hello", "--text", "hello"], "or --wav FILE"),
    "demo, empty text": (["demo", "--text", " "], "nothing to say"),
    "demo, text and wav": (["demo", "--text", "hello", "--wav", "GOOD"], "--wav and --text: give one of the two"),
    "talk and wav": (["demo", "--wav", "GOOD", "--talk"], "--wav and --talk: give one of the two"),
    "script missing": (["demo", "--script", "/nowhere/s.yaml"], "/nowhere/s.yaml cannot be read"),
    "script without turns": (["demo", "--script", "TEXT"], "the keys are turns"),
    "script and microphone": (["demo", "--script", "SCRIPT", "--mic", "default"], "give one of the two"),
    "no script to listen to": (["demo", "--talk", "--listen", "script"], "goes with --script"),
    "planner": (["demo", "--talk", "--planner", "oracle"], "oracle"),
    "recognizer": (["up", "--recognizer", "ear"], "ear"),
    "audio encoder": (["up", "--audio-encoder", "ear"], "ear"),
    "priority": (["say", "--wav", "GOOD", "--priority", "256"], "256"),
    "policy": (["say", "--wav", "GOOD", "--policy", "shout"], "shout"),
    "two sources": (["demo", "--wav", "GOOD", "--mic-as-speech"], "one of the two"),
    "seconds": (["demo", "--wav", "GOOD", "--seconds", "-1"], "-1"),
    "seconds no number": (["demo", "--seconds", "long"], "long"),
    "seconds NaN": (["demo", "--wav", "GOOD", "--seconds", "nan"], "nan"),
    "record suffix": (["demo", "--wav", "GOOD", "--record", "out.avi"], "mp4"),
    "record folder": (["demo", "--wav", "GOOD", "--record", "/nowhere/out.mp4"], "/nowhere"),
    "port": (["demo", "--wav", "GOOD", "--port", "70000"], "70000"),
    "params file": (["up", "--params-file", "/nowhere/p.yaml"], "/nowhere/p.yaml"),
    "namespace": (["up", "--namespace", "/"], "--namespace"),
    "character": (["demo", "--wav", "GOOD", "--character", "Nobody At All"], "Nobody At All"),
    "unknown node": (["up", "--without", "brain"], "brain"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, capsys: pytest.CaptureFixture[str], wav: Path, tmp_path: Path) -> None:
    arguments, says = BAD[name]
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("this is not sound")
    (tmp_path / "short.wav").write_bytes(wav.read_bytes()[:-3000])
    write_wav(tmp_path / "slow.wav", np.zeros(10, np.float32), 4000)
    write_wav(tmp_path / "nan.wav", np.zeros(10, np.float32), 16000, subtype="FLOAT")
    data = bytearray((tmp_path / "nan.wav").read_bytes())
    data[-4:] = np.array([np.nan], "<f4").tobytes()
    (tmp_path / "nan.wav").write_bytes(data)
    names = {
        "GOOD": wav,
        "EMPTY": tmp_path / "empty.wav",
        "TEXT": tmp_path / "text.wav",
        "NAN": tmp_path / "nan.wav",
        "SHORT": tmp_path / "short.wav",
        "SLOW": tmp_path / "slow.wav",
        "FOLDER": tmp_path,
        "SCRIPT": config_file("dialogue.yaml"),
    }
    status, _, err = run(capsys, *(names.get(argument, argument) for argument in arguments))
    assert status != 0
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


@pytest.mark.parametrize("verb", ["train", "data", "eval", "bench", "weights", "doctor"])
def test_rooms_get_their_arguments(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    module = types.SimpleNamespace(main=lambda arguments: seen.append(arguments) or 3)
    wanted = cli_options.PASSED_ON[verb][0]
    real = importlib.import_module
    monkeypatch.setattr(importlib, "import_module", lambda name: module if name == wanted else real(name))
    assert cli.main([verb, "quick", "--json"]) == 3
    assert seen == [["quick", "--json"]]


def test_a_wav_may_come_through_a_pipe(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nodes that speak it are other processes: they get a copy."""
    from flowact_ros.launcher import bringup

    heard = []
    monkeypatch.setattr(bringup, "run_demo", lambda options: heard.append(read_audio(options.wav)) or 0)
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(wav.read_bytes())))
    assert cli.main(["demo", "--wav", "-", "--headless"]) == 0
    np.testing.assert_array_equal(heard[0][0], read_audio(wav)[0])


def test_demo_options_reach_the_nodes(wav: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.launcher import bringup

    seen = []
    monkeypatch.setattr(bringup, "run_demo", lambda options: seen.append(options) or 0)
    record = tmp_path / "out.mp4"
    arguments = [
        "demo",
        "--wav",
        wav,
        "--seconds",
        "4",
        "--record",
        record,
        "--headless",
        "--preset",
        "debug",
    ]
    assert cli.main([str(a) for a in [*arguments, "--port", "0", "--namespace", "r2/avatar"]]) == 0
    options = seen[0]
    assert not options.browser and not options.microphone
    specs = {spec.name: spec for spec in bringup.node_specs(options)}
    assert set(specs) == {
        "avatar_generator",
        "kiosk_bridge",
        "instruction_planner",
        "speech_synthesizer",
        "speech_source",
        "recorder",
    }
    assert specs["avatar_generator"].parameters == {"preset": "debug"}
    assert specs["kiosk_bridge"].parameters == {"port": 0}
    assert specs["recorder"].parameters == {"path": str(record), "seconds": 4.0}
    assert specs["speech_source"].parameters["file"] == str(wav)
    assert all("__ns:=/r2/avatar" in spec.command() for spec in specs.values())
    assert all(spec.params_file.endswith("flowact.yaml") for spec in specs.values())


def test_demo_with_a_microphone_as_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.launcher import bringup

    seen = []
    monkeypatch.setattr(bringup, "run_demo", lambda options: seen.append(options) or 0)
    assert cli.main(["demo", "--mic-as-speech", "--mic", "usb"]) == 0
    specs = {spec.name: spec for spec in bringup.node_specs(seen[0])}
    assert "speech_source" not in specs
    assert specs["microphone"].parameters == {"role": "speech", "source": "microphone", "device": "usb"}


def test_listening_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.launcher import bringup

    seen = []
    monkeypatch.setattr(bringup, "run_up", lambda options: seen.append(options) or 0)
    assert cli.main(["up"]) == 0 and cli.main(["up", "--listen", "base.en"]) == 0
    deaf, listening = ({spec.name: spec for spec in bringup.node_specs(options)} for options in seen)
    assert set(listening) - set(deaf) == {"speech_recognizer"}
    assert listening["speech_recognizer"].parameters == {"model": "base.en"}


def test_a_demo_is_private_and_a_robot_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.launcher.bringup import environment

    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.delenv(name, raising=False)
    private = environment(private=True)
    assert 1 <= int(private["ROS_DOMAIN_ID"]) <= 101
    assert private["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert "ROS_DOMAIN_ID" not in environment(private=False)
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    assert environment(private=True)["ROS_DOMAIN_ID"] == "42"


def test_demo_with_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowact_ros.launcher import bringup

    seen = []
    monkeypatch.setattr(bringup, "run_demo", lambda options: seen.append(options) or 0)
    assert cli.main(["demo", "--text", "Good morning", "--headless"]) == 0
    assert seen[0].text == "Good morning" and not seen[0].wav
    names = {spec.name for spec in bringup.node_specs(seen[0])}
    assert "speech_synthesizer" in names and "speech_source" not in names


@pytest.mark.parametrize(
    ("arguments", "stdin", "text"),
    [
        (["Good morning"], "", "Good morning"),
        (["-"], " from a pipe\n", "from a pipe"),
        (["--", "--dash"], "", "--dash"),
    ],
)
def test_say_a_text(arguments: list[str], stdin: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr(cli, "_import_say", lambda: lambda pcm, rate, **given: said.append((pcm, given)) or 0)
    monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    assert cli.main(["say", "--policy", "reject", *arguments]) == 0
    ((pcm, given),) = said
    assert pcm is None and (given["text"], given["policy"]) == (text, "reject")


def test_the_backends_of_the_command_line_are_those_there_are() -> None:
    """Written down twice, since `flowact --help` imports nothing heavy."""
    from flowact_ros.dialogue.language_model import BACKENDS
    from flowact_ros.dialogue.recognizer import BACKENDS as RECOGNIZERS

    assert set(cli_options.RECOGNIZERS) == set(RECOGNIZERS) and set(cli_options.PLANNERS) == {"rules", *BACKENDS}
