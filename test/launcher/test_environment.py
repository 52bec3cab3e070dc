# SPDX-License-Identifier: Apache-2.0
"""What is refused before anything starts, in one line; what is put right; standard streams that are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowact_ros import cli
from flowact_ros.launcher import environment, start_node
from flowact_ros.launcher.environment import EnvironmentProblem


@pytest.mark.parametrize("name", ["avatar", "/avatar", "avatar/", "/avatar/", " avatar ", "robot1/avatar", "_a/B_2"])
def test_namespaces_that_ros_takes(name: str) -> None:
    assert environment.checked_namespace(name) == name.strip().strip("/")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("my-robot", "my_robot"),
        ("1robot", "r1robot"),
        ("a//b", "a/b"),
        ("//a", "a"),
        ("a__b", "a_b"),
        ("a b/c.d", "a_b/c_d"),
        ("rößler", "r_ler"),
        ("/", "avatar"),
        ("", "avatar"),
        ("~/x", "x"),
        ("x" * 250, "x" * 200),
    ],
)
def test_namespaces_that_no_node_can_have(name: str, near: str) -> None:
    """Refused with one that can be, which is then taken."""
    with pytest.raises(EnvironmentProblem, match="letter") as refused:
        environment.checked_namespace(name)
    assert f"for example {near!r}" in str(refused.value) and "\n" not in str(refused.value)
    assert environment.checked_namespace(near) == near


@pytest.mark.parametrize("domain", ["300", "233", "-1", "abc", "1.5", "٣", " 1"])
def test_a_domain_that_is_none(domain: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="0 … 232"):
        environment.check({"ROS_DOMAIN_ID": domain, "HOME": str(tmp_path)})


@pytest.mark.parametrize("domain", ["", "0", "232"])
def test_domains(domain: str, tmp_path: Path) -> None:
    environment.check({"ROS_DOMAIN_ID": domain, "HOME": str(tmp_path)})


def test_a_middleware_that_is_not_there(tmp_path: Path) -> None:
    environ = {"RMW_IMPLEMENTATION": "rmw_none_cpp", "HOME": str(tmp_path)}
    with pytest.raises(EnvironmentProblem, match="RMW_IMPLEMENTATION=rmw_none_cpp is not installed here: unset it"):
        environment.check(environ)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "librmw_none_cpp.so").touch()
    environment.check({**environ, "AMENT_PREFIX_PATH": str(tmp_path)})


def test_the_namespace_among_a_nodes_arguments(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    for argument in ("__ns:=/my-robot", "page:__ns:=/my-robot"):
        with pytest.raises(EnvironmentProblem, match="my_robot"):
            environment.check(environ, ["node", "--ros-args", "-r", argument])
    environment.check(environ, ["node", "--ros-args", "-r", "__ns:=/robot1/avatar", "-r", "__ns:=/"])


@pytest.mark.parametrize("home", [None, "", "/proc", "/dev/null"])
def test_without_a_home_logs_and_caches_have_a_place(home: str | None, tmp_path: Path) -> None:
    environ = {} if home is None else {"HOME": home}
    environment.check(environ)
    assert environment.log_folder(environ).is_dir() and Path(environ["XDG_CACHE_HOME"]).is_dir()
    assert environ["ROS_LOG_DIR"] == str(environment.log_folder(environ))


def test_a_home_is_left_as_it_is(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}
    environment.check(environ)
    assert environ == {"HOME": str(tmp_path)}
    assert environment.log_folder(environ) == tmp_path / ".ros" / "log"


def test_a_log_folder_that_was_named_must_be_usable(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="ROS_LOG_DIR=/proc/x cannot be written to: unset it"):
        environment.check({"ROS_LOG_DIR": "/proc/x", "HOME": str(tmp_path)})


# ------------------------------------------------------------ the command


@pytest.mark.parametrize("verb", [["up"], ["demo"], ["say", "--wav", "x.wav"]])
def test_every_verb_that_uses_ros_looks_first(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "300")
    assert cli.main(verb) == 2
    assert capsys.readouterr().err.startswith(f"flowact {verb[0]}: ROS_DOMAIN_ID=300 is no domain: set it to")
    monkeypatch.setenv("ROS_DOMAIN_ID", "3")
    assert cli.main([*verb, "--namespace", "my-robot"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "my_robot" in line


def child(code: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    """A Python under a shell, which can close its streams or take its reader away."""
    command = ["bash", "-c", f'set -o pipefail; "{sys.executable}" -c "$0" {redirect}', code]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)


LINES = (
    "import sys; from flowact_ros.launcher.streams import lasting_streams\n"
    "with lasting_streams():\n"
    "    for number in range(20000): print('line', number)\n"
    "    print('to the end', file=sys.stderr)\n"
    "sys.exit(3)"
)


def test_a_reader_that_leaves_stops_nothing() -> None:
    done = child(LINES, "| head -1")
    assert (done.stdout, done.stderr, done.returncode) == ("line 0\n", "to the end\n", 3)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed: str, tmp_path: Path) -> None:
    """A file that is opened later must not become one of them."""
    out = tmp_path / "out"
    code = (
        "import os, sys; from flowact_ros.launcher.streams import lasting_streams\n"
        "with lasting_streams():\n"
        f"    file = open({str(out)!r}, 'w')\n"
        "    print('on out'); print('on err', file=sys.stderr)\n"
        "    file.write(str(file.fileno()))\n"
    )
    done = child(code, closed)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert int(out.read_text()) > 2


def test_a_full_disk_is_not_taken_for_a_reader_that_left() -> None:
    assert child(LINES, "> /dev/full").returncode not in (0, 3)


def test_a_terminal_without_our_characters() -> None:
    code = "from flowact_ros.launcher.streams import lasting_streams\nwith lasting_streams(): print('0 … 232')"
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=150)
    assert (done.stdout, done.returncode) == ("0 ? 232\n", 0)


# ------------------------------------------------------------ programs in the user's folder


def start(module: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, start_node.__file__, module, "--ros-args"]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False, timeout=150
    )


def test_files_in_the_current_folder_are_not_executed(tmp_path: Path) -> None:
    for name in ("queue", "random", "numpy", "yaml", "json", "importlib", "flowact_ros", "rclpy"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('somebody has a {name}.py')\n")
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "program.py").write_text(
        "import queue, random, json, numpy, yaml, flowact_ros.cli, sys; print(sys.argv[1:])\n"
    )
    for path in (str(modules), f":{modules}", f"{modules}:", f".:{modules}"):
        done = start("program", tmp_path, PYTHONPATH=path)
        assert (done.stdout, done.returncode) == ("['--ros-args']\n", 0), done.stderr


def test_an_empty_part_of_pythonpath_does_not_mean_the_current_folder(tmp_path: Path) -> None:
    """Not even for the command itself."""
    (tmp_path / "random.py").write_text("raise SystemExit('somebody has a random.py')\n")
    flowact = Path(sys.executable).with_name("flowact")
    if not flowact.exists():
        pytest.skip("no `flowact` in this environment (make setup)")
    environ = {**os.environ, "PYTHONPATH": ":/nowhere:"}
    command = [str(flowact), "--help"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False, timeout=150
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_current_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.main(["up"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "flowact up: the current folder does not exist any more: change to one that does"


def test_a_broken_package_is_one_line(tmp_path: Path) -> None:
    """Told as a bad setup: it would fail again."""
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").write_text("raise AttributeError('made for another numpy')\n")
    done = start("flowact_ros.nodes.kiosk_bridge", tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == environment.EXIT_BAD_SETUP
    (line,) = done.stderr.splitlines()
    assert f"rclpy cannot be imported from {tmp_path / 'rclpy'} (AttributeError: made for another numpy)" in line
    assert f"take {tmp_path} out" in line


def test_a_missing_package_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import no_such_package_at_all\n")
    done = start("program", Path("/"), PYTHONPATH=str(tmp_path))
    assert done.returncode == environment.EXIT_BAD_SETUP
    assert "no_such_package_at_all" in done.stderr and "make setup" in done.stderr
    assert len(done.stderr.splitlines()) == 1
