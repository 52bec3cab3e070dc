# SPDX-License-Identifier: Apache-2.0
"""The ament_python package. Requirements are in setup.cfg, tool settings in pyproject.toml."""

from __future__ import annotations

import os
from glob import glob

from setuptools import find_packages, setup

PACKAGE = "flowact_ros"
NODES = (
    "audio_capture",
    "audio_player",
    "audio_adapter",
    "speech_recognizer",
    "instruction_planner",
    "speech_synthesizer",
    "avatar_generator",
    "shared_generator",
    "remote_avatar",
    "kiosk_bridge",
)


def tree(folder: str) -> list[tuple[str, list[str]]]:
    """(install folder, files) of a folder in the source tree, for data_files."""
    found = []
    for root, _, names in os.walk(folder):
        files = sorted(os.path.join(root, name) for name in names if not name.endswith(".pyc"))
        if files:
            found.append((os.path.join("share", PACKAGE, root), files))
    return found


setup(
    name=PACKAGE,
    version="0.1.0",
    packages=find_packages(include=[PACKAGE, PACKAGE + ".*"]),
    package_data={PACKAGE: ["weights/**/*", "evaluation/*.json", "kiosk/static/**/*", "assets/**/*", "**/py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/" + PACKAGE]),
        ("share/" + PACKAGE, ["package.xml"]),
        ("share/" + PACKAGE + "/launch", sorted(glob("launch/*.py"))),
        *tree("config"),
    ],
    python_requires=">=3.10",  # not in setup.cfg: colcon cannot read it there
    zip_safe=False,
    maintainer="FlowAct ROS maintainers",
    maintainer_email="maintainers@flowact.example",
    description="A living face for screen-based social robots: speech in, a talking character out, in real time.",
    license="Apache-2.0",
    entry_points={
        "console_scripts": [
            "flowact = flowact_ros.cli:main",
            *(f"{node} = flowact_ros.nodes.{node}:main" for node in NODES),
        ]
    },
)
