# SPDX-License-Identifier: Apache-2.0
"""The shipped Fast DDS profile: who uses it, and that a large image passes between two real processes through it."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from flowact_ros.launcher import resources

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "config" / "fastdds.xml"

SENDER = """
import array, sys, time, rclpy
from sensor_msgs.msg import Image
from flowact_ros.launcher.resources import use_image_profile
use_image_profile()
rclpy.init()
node = rclpy.create_node("sender")
publisher = node.create_publisher(Image, "image", 25)  # all: whoever is late gets what was sent meanwhile
end = time.monotonic() + 60
while not publisher.get_subscription_count() and time.monotonic() < end:
    time.sleep(0.05)
for number in range(25):
    data = array.array("B", bytes([number]) * (832 * 480 * 3))
    message = Image(height=480, width=832, encoding="rgb8", step=832 * 3)
    message.data = data
    publisher.publish(message)
    time.sleep(0.04)
sys.stdin.read()
"""

RECEIVER = """
import time, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("receiver")
seen = []
def keep(message):
    assert len(message.data) == 832 * 480 * 3 and message.data[0] == message.data[-1]
    seen.append(message.data[0])
node.create_subscription(Image, "image", keep, 25)
print("ready", flush=True)
end = time.monotonic() + 90
while len(seen) < 25 and time.monotonic() < end:
    rclpy.spin_once(node, timeout_sec=0.1)
print(*seen)
"""


def test_segment_and_transports() -> None:
    tree = ElementTree.parse(PROFILE)
    space = "{http://www.eprosima.com}"
    transports = {t.findtext(f"{space}type"): t for t in tree.iter(f"{space}transport_descriptor")}
    assert set(transports) == {"SHM", "UDPv4"}
    assert int(transports["SHM"].findtext(f"{space}segment_size")) == 16 * 2**20
    (participant,) = tree.iter(f"{space}participant")
    assert participant.get("is_default_profile") == "true"
    used = [t.text for t in participant.iter(f"{space}transport_id")]
    assert sorted(used) == sorted(t.findtext(f"{space}transport_id") for t in transports.values())


def test_the_users_profile_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    for own in ({}, {"FASTDDS_DEFAULT_PROFILES_FILE": "/mine.xml"}):
        environ = dict(own)
        monkeypatch.setattr(os, "environ", environ)
        resources.use_image_profile()
        assert environ == (own or dict.fromkeys(resources.PROFILE_VARIABLES, str(PROFILE)))


@pytest.mark.ros
def test_images_pass_between_processes() -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed (make setup)")
    environ = {name: value for name, value in os.environ.items() if name not in resources.PROFILE_VARIABLES}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], **pipes)
    sender = None
    try:
        assert receiver.stdout.readline() == "ready\n"
        sender = subprocess.Popen([sys.executable, "-c", SENDER], **pipes)
        out, _ = receiver.communicate(timeout=150)
        assert [int(word) for word in out.split()] == list(range(25))
    finally:
        for process in filter(None, (sender, receiver)):
            process.kill()
            process.communicate()
