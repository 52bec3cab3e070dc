# SPDX-License-Identifier: Apache-2.0
"""`flowact serve --cluster`: what is said where no cluster is, and what is left of one at the end."""

from __future__ import annotations

import socket
import types

import pytest

pytest.importorskip("ray.serve", reason="the extra fleet is not installed")

import ray  # noqa: E402
from fleet_server import free_port  # noqa: E402

from flowact_ros.fleet import serve  # noqa: E402


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("gpu.local", "neither auto nor the HOST:PORT"),
        ("http://gpu.local:6379", "neither auto nor the HOST:PORT"),
        ("gpu.local:66000", "neither auto nor the HOST:PORT"),
        ("127.0.0.1:FREE", "no Ray cluster is at 127.0.0.1:FREE (Connection refused)"),
        ("nowhere.invalid:6379", "no Ray cluster is at nowhere.invalid:6379"),
    ],
)
def test_an_address_without_a_cluster_is_one_line(
    address: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(free_port())
    assert serve.main(["--cluster", address.replace("FREE", port)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("flowact serve: --cluster: ") and complaint.count("\n") == 1
    assert reason.replace("FREE", port) in complaint


def test_an_address_where_something_listens_is_left_to_ray() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        serve.check_cluster(f"127.0.0.1:{there.getsockname()[1]}")


@pytest.mark.parametrize(
    ("joined", "others", "done"),
    [
        (False, {"somebody's": 1}, ["shutdown", "leave"]),
        (True, {}, ["delete flowact", "shutdown", "leave"]),
        (True, {"somebody's": 1}, ["delete flowact", "leave"]),
    ],
)
def test_what_others_run_on_the_cluster_stays(
    joined: bool, others: dict[str, int], done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: seen.append("leave"))
    monkeypatch.setattr(ray.serve, "delete", lambda name: seen.append(f"delete {name}"))
    monkeypatch.setattr(ray.serve, "shutdown", lambda: seen.append("shutdown"))
    monkeypatch.setattr(ray.serve, "status", lambda: types.SimpleNamespace(applications=others))
    serve.down(joined=joined)
    assert seen == done
