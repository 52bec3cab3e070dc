# SPDX-License-Identifier: Apache-2.0
"""An engine that fails while it runs: the node says so and starts the stream again; the screen does not stay frozen."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from ros_harness import spun_generator

from flowact_ros.nodes import avatar_generator
from flowact_ros.nodes.avatar_generator import AvatarGenerator

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("within")]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AvatarGenerator]:
    """A configured generator, spun by a thread."""
    monkeypatch.setattr(avatar_generator, "RESTART_S", 0.05)
    path = tmp_path / "face.png"
    Picture.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(path)
    with spun_generator(path) as node:
        yield node


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < deadline, f"did not happen: {what}"
        time.sleep(0.02)
    return value


def test_a_failed_step_restarts_the_stream(node: AvatarGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    works = node._pipeline.denoise
    calls = []

    def sometimes(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) == 4:
            raise RuntimeError("the device is lost")
        return works(*arguments)

    monkeypatch.setattr(node._pipeline, "denoise", sometimes)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    first = node._session
    until(lambda: node._session is not None and node._session is not first, "a new session")
    assert "the device is lost" in node.last_error
    until(lambda: node.health()[2].get("frames", 0) > 10, "frames again")
    assert node.state == "active" and node.health()[0] == 0
    assert len(calls) > 4


def test_a_start_that_fails_as_well_is_tried_again(node: AvatarGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that the engine lacked is lacking for a while: the screen must not stay black for good."""
    works, opens, failing, tries = node._pipeline.denoise, node._open, [True], []

    def denoise(*arguments: Any) -> Any:
        if failing:
            raise RuntimeError("no memory left")
        return works(*arguments)

    def open_session(**options: Any) -> Any:
        tries.append(None)
        if 2 <= len(tries) <= 3:
            raise RuntimeError("no memory left for a start")
        return opens(**options)

    monkeypatch.setattr(node._pipeline, "denoise", denoise)
    monkeypatch.setattr(node, "_open", open_session)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    until(lambda: len(tries) >= 2, "a start after the failure")
    failing.clear()
    until(lambda: node.health()[2].get("frames", 0) > 10, "frames again")
    assert node.state == "active" and len(tries) == 4
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    node._revive()
    assert node.state == "inactive"  # what somebody else deactivates stays so


def test_failures_far_apart_do_not_lengthen_the_pause(node: AvatarGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []
    for ran_s in (0.0, 0.0, 0.0, 1e6, *[0.0] * 1200):
        node._began = time.monotonic() - ran_s
        node._on_stream_end(RuntimeError("the device is lost"))
        pauses.append(node._revive_at - time.monotonic())
    first = 2 * avatar_generator.RESTART_S
    assert pauses[:5] == pytest.approx([first, 2 * first, 4 * first, first, 2 * first], abs=0.04)
    assert max(pauses) <= avatar_generator.LONGEST_RESTART_S


def test_a_gpu_lost_in_mid_stream_is_left_for_the_cpu(node: AvatarGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    works, calls, said = node._pipeline.denoise, [], []

    def until_it_is_lost(*arguments: Any) -> Any:
        calls.append(None)
        if len(calls) > 3:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nCUDA kernel errors might be ...")
        return works(*arguments)

    monkeypatch.setattr(node._pipeline, "denoise", until_it_is_lost)
    monkeypatch.setattr(node.get_logger(), "error", said.append)
    lost = node._pipeline
    values = {"runtime": "eager", "precision": "bfloat16"}  # of the GPU; what the CPU takes is chosen anew
    for name, value in values.items():
        node._parameters[name] = Parameter(name, value=value)
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    until(lambda: node._pipeline is not None and node._pipeline is not lost, "networks on the CPU")
    until(lambda: node.health()[2].get("frames", 0) > 10, "frames again")
    assert node.state == "active" and node.health()[0] == 0
    assert {name: node.params[name] for name in ("device", "preset", "runtime", "precision")} == {
        "device": "cpu", "preset": "debug", "runtime": "auto", "precision": "auto",
    }  # fmt: skip
    line = "the GPU was lost in mid-stream (CUDA error: unspecified launch failure): goes on with debug on the CPU"
    assert said.count(line) == 1


def test_an_engine_that_hangs_is_noticed(node: AvatarGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    works, released = node._pipeline.denoise, threading.Event()
    node.trigger_activate()
    until(lambda: node.health()[2].get("frames", 0) > 10, "frames")
    until(lambda: node.health()[2].get("wait_exposed_encode_ms", 0) > 0, "figures")
    assert node.hang() == ""
    monkeypatch.setattr(avatar_generator, "ENGINE_STUCK_S", 1.0)
    monkeypatch.setattr(node._pipeline, "denoise", lambda *given: (released.wait(60), works(*given))[1])
    told = until(node.hang, "the engine hangs")
    assert re.fullmatch(r"its engine made no step for \d+ s", told)  # the executor goes on
    released.set()
    until(lambda: not node.hang(), "a step")


def test_threads_end_with_the_node(node: AvatarGenerator) -> None:
    ours = {"pacing", "jpeg", "flowact-engine"}
    for _ in range(3):
        node.trigger_activate()
        until(lambda: node.health()[2].get("frames", 0) > 2, "frames")
        assert ours <= {thread.name for thread in threading.enumerate()}
        node.trigger_deactivate()
        assert not ours & {thread.name for thread in threading.enumerate()}
    assert node._session is None and node._publisher is None
    node.trigger_cleanup()
    assert node._pipeline is None
