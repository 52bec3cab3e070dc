# SPDX-License-Identifier: Apache-2.0
"""Each check of `flowact doctor` against a healthy and a broken thing, and the exit status of the whole."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections import namedtuple
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from flowact_ros.launcher import doctor, doctor_checks, environment
from flowact_ros.launcher.doctor_checks import ERROR, OK, WARNING, Check
from flowact_ros.launcher.isolation import isolated
from flowact_ros.models import checkpoint

Usage = namedtuple("Usage", "total used free")


def missing(name: str) -> ModuleType:
    raise ImportError(f"No module named {name!r}")


def torch_with(available: bool) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_available=lambda: available,
        mem_get_info=lambda: (60 * 2**30, 80 * 2**30),
        get_device_name=lambda: "NVIDIA Test",
    )
    return SimpleNamespace(cuda=cuda, __version__="2.13.0", get_num_threads=lambda: 2)


def test_python() -> None:
    assert doctor_checks.check_python((3, 10, 1)).level == OK
    assert doctor_checks.check_python((3, 13, 9)).level == OK
    assert doctor_checks.check_python((3, 9, 18)).level == ERROR
    assert doctor_checks.check_python((3, 15, 0)).level == WARNING


def raising() -> Check:
    raise AttributeError("a library of another\nversion")


def ending() -> Check:
    os.write(2, b"[ERROR] expected another middleware\n")  # as a library does
    os._exit(102)


def crashing() -> Check:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it had ended")


def hanging() -> Check:
    time.sleep(60)
    return Check("device", OK, "answers after all")


def test_no_check_takes_the_others_along() -> None:
    """An exception, an exit out of a library, a signal, silence: each is a finding, and all others are made."""

    def well(name: str) -> Check:
        return Check(name, OK, "fine")

    parts = [("ros", ending), ("torch", crashing), ("device", hanging), ("av", raising), ("rmw", ending)]
    checks = [("first", lambda: well("first"))]
    for name, check in parts:
        checks += [(name, check), (f"after {name}", lambda name=name: well(f"after {name}"))]
    found = list(isolated(checks, patience_s=4.0))  # a busy machine answers late, too
    assert [check.name for check in found] == [name for name, _ in checks]
    assert all(check.level == OK for check in found if check.name.startswith(("first", "after")))
    by_name = {check.name: check for check in found}
    assert by_name["ros"].found == "the check ended the process with status 102: [ERROR] expected another middleware"
    assert "RMW_IMPLEMENTATION" in by_name["ros"].remedy
    assert by_name["torch"].found == "the check was ended by SIGKILL"
    assert by_name["device"].found == "the check did not answer within 4 s" and "unplug" in by_name["device"].remedy
    assert by_name["av"].found == "cannot be looked at: AttributeError: a library of another version"
    assert all(check.remedy for check in found if check.level == ERROR)


def test_the_environment(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert doctor_checks.check_environment(home).level == OK
    check = doctor_checks.check_environment({**home, "ROS_DOMAIN_ID": "300"})
    assert check.level == ERROR and "300" in check.found and "0 … 232" in check.remedy
    check = doctor_checks.check_environment({**home, "RMW_IMPLEMENTATION": "rmw_none"})
    assert check.level == ERROR and "unset it" in check.remedy
    check = doctor_checks.check_environment({})
    assert check.level == WARNING and "HOME is not set" in check.found and "ROS_LOG_DIR=" in check.found


def test_what_is_advised_fits_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package in the place of ours is not mended by `make setup`."""

    def broken(name: str) -> ModuleType:
        raise AttributeError("made for another numpy")

    other = tmp_path / "rclpy"
    monkeypatch.setattr(doctor_checks, "origin_of", lambda name: str(other))
    monkeypatch.setattr(environment, "origin_of", lambda name: str(other))
    monkeypatch.setenv("PYTHONPATH", f"/elsewhere:{tmp_path}")
    check = doctor_checks.check_ros({}, broken)
    assert check.level == ERROR and f"rclpy of {other} cannot be imported: AttributeError" in check.found
    assert f"take {tmp_path} out" in check.remedy
    monkeypatch.delenv("PYTHONPATH")
    assert "make setup" in doctor_checks.check_ros({}, broken).remedy


def test_packages() -> None:
    assert doctor_checks.check_package("numpy", lambda name: "2.0") == Check("numpy", OK, "2.0")

    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    check = doctor_checks.check_package("soxr", absent)
    assert check.level == ERROR and "make setup" in check.remedy


def test_torch_and_gpu() -> None:
    assert "2.13.0, 2 threads" in doctor_checks.check_torch(lambda name: torch_with(False)).found
    assert doctor_checks.check_torch(missing).level == ERROR
    assert "60 of 80 GiB" in doctor_checks.check_gpu(lambda name: torch_with(True), lambda name: None).found
    assert doctor_checks.check_gpu(lambda name: torch_with(False), lambda name: None).level == OK
    check = doctor_checks.check_gpu(lambda name: torch_with(False), lambda name: "/usr/bin/nvidia-smi")
    assert check.level == WARNING and "FLOWACT_TORCH=auto" in check.remedy


def test_ros_rmw_interfaces() -> None:
    assert doctor_checks.check_ros({}, missing).level == ERROR
    assert "jazzy, sourced" in doctor_checks.check_ros({"ROS_DISTRO": "jazzy"}, lambda name: ModuleType(name)).found
    assert doctor_checks.check_rmw(lambda: "rmw_fastrtps_cpp").level == OK
    assert doctor_checks.check_rmw(lambda: "rmw_cyclonedds_cpp").level == WARNING
    # An unbuilt flowact_msgs is an empty namespace package beside the repository's root.
    check = doctor_checks.check_interfaces(lambda name: ModuleType(name))
    assert check.level == ERROR and "make setup" in check.remedy


def test_the_interfaces_of_this_environment() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (make setup)")
    check = doctor_checks.check_interfaces()
    assert check.level == OK, check.found


@pytest.mark.parametrize(
    ("total", "free", "left", "level", "words"),
    [
        (25e9, 20e9, 0, OK, "20000 of 25000 MB"),
        (67e6, 60e6, 0, OK, "60 of 67 MB"),  # a plain container: only the generator has a large segment
        (16e6, 16e6, 0, WARNING, "--shm-size=256m"),
        (67e6, 5e6, 53e6, OK, "53 MB left by processes that ended"),  # the next start has that room
        (67e6, 5e6, 0, WARNING, "lsof"),
    ],
)
def test_shared_memory(tmp_path: Path, total: float, free: float, left: float, level: str, words: str) -> None:
    check = doctor_checks.check_shared_memory(
        tmp_path, lambda path: Usage(total, total - free, free), lambda path: int(left)
    )
    assert check.level == level
    assert words in check.found + check.remedy


def test_shared_memory_absent(tmp_path: Path) -> None:
    assert "UDP" in doctor_checks.check_shared_memory(tmp_path / "none").found


def test_profile(tmp_path: Path) -> None:
    broken = tmp_path / "own.xml"
    broken.write_text("<dds>")
    check = doctor_checks.check_profile({"FASTRTPS_DEFAULT_PROFILES_FILE": str(broken)})
    assert check.level == WARNING and "unset" in check.remedy
    assert doctor_checks.check_profile({}).level == OK


def devices(*inputs: int) -> SimpleNamespace:
    found = [{"name": f"device {n}", "max_input_channels": channels} for n, channels in enumerate(inputs)]
    return SimpleNamespace(query_devices=lambda: found)


def test_audio() -> None:
    assert doctor_checks.check_audio(lambda name: devices(0, 2)) == Check("microphone", OK, "1: device 1")
    assert doctor_checks.check_audio(lambda name: devices(0)).level == WARNING

    def no_library(name: str) -> ModuleType:
        raise OSError("PortAudio library not found")

    check = doctor_checks.check_audio(no_library)
    assert check.level == WARNING and "libportaudio2" in check.remedy and "files work" in check.found
    assert doctor_checks.check_audio(missing).level == WARNING


def safetensors(path: Path, values: int = 4) -> None:
    header = json.dumps(
        {
            "__metadata__": {"kind": "renderer"},
            "w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]},
        }
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4 * values))
    path.with_suffix(".json").write_text("{}")


def shipped(folder: Path) -> list[Path]:
    paths = [folder / pattern.replace("*", "avatar_cpu") for pattern in doctor_checks.WEIGHTS]
    for path in paths:
        safetensors(path)
    return paths


def test_weights_are_whole(tmp_path: Path) -> None:
    shipped(tmp_path)
    assert doctor_checks.check_weights(tmp_path).level == OK


@pytest.mark.parametrize("length", [0, 5, 40, -1])
def test_truncated_weights(tmp_path: Path, length: int) -> None:
    path = shipped(tmp_path)[1]
    path.write_bytes(path.read_bytes()[:length])
    check = doctor_checks.check_weights(tmp_path)
    assert check.level == ERROR and "avatar_cpu/denoiser.safetensors is damaged" in check.found
    assert "git checkout" in check.remedy


def test_weights_that_are_missing_or_no_weights(tmp_path: Path) -> None:
    paths = shipped(tmp_path)
    paths[3].with_suffix(".json").unlink()
    assert "no readable card" in doctor_checks.check_weights(tmp_path).found
    paths[0].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "renderer.safetensors is damaged" in doctor_checks.check_weights(tmp_path).found
    paths[0].unlink()
    assert "renderer.safetensors is missing" in doctor_checks.check_weights(tmp_path).found
    paths[0].with_suffix(".json").unlink()
    assert "renderer.safetensors is missing" in doctor_checks.check_weights(tmp_path).found


def test_every_shard_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights as the exports write them, cut into pieces: what the loader would refuse is no "ok" here."""
    first = shipped(tmp_path)[0]
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 1000)
    module = torch.nn.Sequential(*(torch.nn.Linear(16, 16) for _ in range(5)))
    checkpoint.save_weights(first, module, kind="renderer", config={}, card={})
    pieces = sorted(first.parent.glob("renderer*.safetensors"))
    assert len(pieces) > 2
    check = doctor_checks.check_weights(tmp_path)
    assert check.level == OK and f"{len(pieces) + 3} files" in check.found
    whole = pieces[0].read_bytes()
    pieces[0].write_bytes(whole[:-1])
    assert f"avatar_cpu/{pieces[0].name} is damaged" in doctor_checks.check_weights(tmp_path).found
    pieces[0].unlink()
    check = doctor_checks.check_weights(tmp_path)
    assert check.level == ERROR and f"avatar_cpu/{pieces[0].name} is missing" in check.found
    with pytest.raises(checkpoint.CheckpointError, match=pieces[0].name):
        checkpoint.load_weights(first, module, kind="renderer", config={})


@pytest.mark.parametrize("card", ["", "[]", '{"shards": 3}', '{"shards": [3]}', '{"shards": [""]}'])
def test_a_card_that_lists_no_shards(tmp_path: Path, card: str) -> None:
    shipped(tmp_path)[0].with_suffix(".json").write_text(card)
    check = doctor_checks.check_weights(tmp_path)
    assert check.level == ERROR and "renderer.safetensors has no readable card" in check.found


def test_weights_without_torch(tmp_path: Path) -> None:
    assert doctor_checks.check_weights(tmp_path, load=missing).level == WARNING


def test_browser_disk_cpu(tmp_path: Path) -> None:
    assert doctor_checks.check_browser(lambda: "/usr/bin/chromium").level == OK
    assert "chromium" in doctor_checks.check_browser(lambda: None).remedy
    assert doctor_checks.check_disk(tmp_path, lambda path: Usage(1e12, 0, 5e8)).level == WARNING
    assert doctor_checks.check_disk(tmp_path, lambda path: Usage(1e12, 0, 5e10)).level == OK
    assert doctor_checks.check_cpu(1, "").level == WARNING
    assert doctor_checks.check_cpu(2, "fpu avx2 avx512f").level == OK


def test_exit_status_and_lines(capsys: pytest.CaptureFixture[str]) -> None:
    well = [Check("a", OK, "fine"), Check("b", WARNING, "poor", "do this")]
    assert doctor.run(found=iter(well)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4 and lines[2].strip() == "-> do this" and lines[3] == "0 errors, 1 warnings"
    assert doctor.run(found=iter([*well, Check("c", ERROR, "gone", "get it")])) == 1


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.run(json=True, found=iter([Check("c", ERROR, "gone", "get it")])) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "checks": [{"name": "c", "level": "error", "found": "gone", "remedy": "get it"}],
    }


def test_every_problem_on_this_machine_has_a_remedy() -> None:
    """By a process of its own: its checks fork, which a process with other tests' threads survives by luck."""
    done = subprocess.run(
        [sys.executable, "-m", "flowact_ros.launcher.doctor", "--json"], capture_output=True, text=True, timeout=120
    )
    told = json.loads(done.stdout)
    found = [Check(**check) for check in told["checks"]]
    assert done.returncode == (0 if told["ok"] else 1) and not done.stderr
    assert {
        "python",
        "environment",
        "ros",
        "rmw",
        "flowact_msgs",
        "shared memory",
        "microphone",
        "browser",
        "weights",
        "disk",
    } <= {check.name for check in found}
    for check in found:
        assert "\n" not in check.found + check.remedy
        assert (check.level == OK) == (not check.remedy), check
