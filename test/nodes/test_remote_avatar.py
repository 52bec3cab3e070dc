# SPDX-License-Identifier: Apache-2.0
"""The robot's node of a fleet: the topics, the action and the service of the avatar, from a server in a thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("uvicorn", reason="the extra fleet is not installed")

import rclpy  # noqa: E402
from fakes import face  # noqa: E402
from fleet_server import FleetServer  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from ros_harness import FRAME_NS, SUCCEEDED, Watcher, goal, loud, speak, spoken, stamps  # noqa: E402

from flowact_msgs.msg import AvatarState, Instruction  # noqa: E402
from flowact_msgs.srv import SetReference  # noqa: E402
from flowact_ros.media.image import encode_png  # noqa: E402
from flowact_ros.media.jpeg import decode_jpeg  # noqa: E402
from flowact_ros.nodes import topics  # noqa: E402
from flowact_ros.nodes.convert import image_message, to_time  # noqa: E402
from flowact_ros.nodes.remote_avatar import RemoteAvatar  # noqa: E402

pytestmark = [pytest.mark.ros, pytest.mark.usefixtures("domain")]
TOKEN = "0123456789abcdef"


@pytest.fixture
def robot(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Watcher, RemoteAvatar, FleetServer]]:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("FLOWACT_FLEET_TOKEN", TOKEN)
    (tmp_path / "face.png").write_bytes(encode_png(face(100)))
    server = FleetServer(token=TOKEN)
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    values = {"url": server.url, "reference_image": str(tmp_path / "face.png")}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node = RemoteAvatar(context=context, namespace="/avatar", parameter_overrides=overrides)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            executor.spin_once(timeout_sec=0.05)

    assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS, node.last_error
    thread = threading.Thread(target=spin)
    thread.start()
    watcher = Watcher("/avatar", (topics.IMAGE, topics.AUDIO, topics.STATE, topics.MOTION))
    assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS, node.last_error
    yield watcher, node, server
    stop.set()
    thread.join()
    node.stop()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()
    watcher.close()
    server.stop()


def test_the_avatars_topics_come_from_the_fleet(robot: tuple[Watcher, RemoteAvatar, FleetServer]) -> None:
    watcher, node, server = robot
    jpegs = watcher.watch_jpegs()
    watcher.until(lambda: jpegs and all(watcher.seen.values()), "all topics")
    pcm = loud(0.8)
    speak(watcher, pcm, "sentence")
    audio, motion = list(watcher.seen[topics.AUDIO]), list(watcher.seen[topics.MOTION])
    np.testing.assert_array_equal(spoken(audio, "sentence"), pcm)
    assert min(np.diff(stamps(audio))) == FRAME_NS
    assert set(np.diff([message.first_sample for message in audio])) == {960}
    assert tuple(motion[-1].names) == server.pipeline.control_names
    assert decode_jpeg(bytes(jpegs[-1].data)).shape == (8, 8, 3)
    assert watcher.seen[topics.IMAGE][-1].encoding == "rgb8"
    said = [message.robot_speaking for message in watcher.seen[topics.STATE]]
    assert True in said and said[-1] is False

    instruction = watcher.publisher(Instruction, topics.INSTRUCTION)
    instruction.publish(Instruction(behaviour=Instruction.LISTENING, text="listen"))
    state = watcher.seen[topics.STATE]
    watcher.until(lambda: state[-1].behaviour == AvatarState.LISTENING, "the behaviour of the instruction")
    status, result = watcher.say(goal(loud(0.3, seed=2))).result()
    assert status == SUCCEEDED and not result.error_code, result.error_msg

    image = image_message(face(30), to_time(0), "")
    picture = SetReference.Request(source=SetReference.Request.SOURCE_IMAGE, image=image)
    answer = watcher.call(SetReference, topics.SET_REFERENCE, picture)
    assert not answer.error_code and answer.reference_id.startswith("picture-"), answer.error_msg
    named = SetReference.Request(source=SetReference.Request.SOURCE_NAME, name="nobody")
    answer = watcher.call(SetReference, topics.SET_REFERENCE, named)
    assert answer.error_code == SetReference.Response.UNKNOWN_CHARACTER and "nobody" in answer.error_msg
    level, text, values = node.health()
    assert (level, values["connected"], values["moves"]) == (0, True, 0), text


def test_a_robot_needs_no_torch() -> None:
    unwanted = "{'torch', 'ray', 'fastapi'} & set(sys.modules)"
    code = f"import sys, flowact_ros.nodes.remote_avatar; sys.exit(' '.join({unwanted}) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
