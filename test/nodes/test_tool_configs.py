# SPDX-License-Identifier: Apache-2.0
"""The files for other tools name topics, fields, controls and nodes that there are."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from diagnostic_msgs.msg import DiagnosticArray
from ros_harness import OUTPUTS
from std_msgs.msg import Bool

from flowact_msgs.msg import Instruction
from flowact_ros.models.codec.motion import CONTROL_NAMES
from flowact_ros.nodes import topics
from flowact_ros.nodes.graph import NODES

CONFIG = Path(__file__).parents[2] / "config"
KINDS = {**OUTPUTS, topics.USER_SPEAKING: Bool, topics.DIAGNOSTICS: DiagnosticArray}
PATH = re.compile(r"/avatar/(?P<topic>[\w/]+?)[./](?P<field>\w+)(?:\[(?P<index>\d+)\])?")


def check_path(path: str, label: str = "") -> None:
    """`/avatar/motion.values[15]`: a topic, a field of its message, and the control that is meant."""
    found = PATH.fullmatch(path)
    assert found and found["topic"] in topics.QOS, path
    assert found["field"] in KINDS[found["topic"]].get_fields_and_field_types(), path
    if found["topic"] == topics.MOTION:
        name = CONTROL_NAMES[int(found["index"])]
        assert label in ("", name), f"{path} is {name}"


def leaves(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        assert layout["direction"] in ("row", "column") and 0 < layout["splitPercentage"] < 100
        yield from leaves(layout["first"])
        yield from leaves(layout["second"])


def test_foxglove() -> None:
    content = json.loads((CONFIG / "foxglove_layout.json").read_text(encoding="utf-8"))
    panels = content["configById"]
    assert sorted(leaves(content["layout"])) == sorted(panels)
    for name, panel in panels.items():
        for path in panel.get("paths", ()):
            check_path(path["value"], path.get("label", "") if name.startswith("Plot") else "")
    assert panels["Image!face"]["imageMode"]["imageTopic"] == f"/avatar/{topics.COMPRESSED}"
    assert panels["RawMessages!captions"]["topicPath"] == f"/avatar/{topics.CAPTIONS}"
    assert panels["CallService!interrupt"]["serviceName"] == f"/avatar/{topics.INTERRUPT}"
    assert panels["DiagnosticSummary!nodes"]["topicToRender"] == topics.DIAGNOSTICS
    published = panels["Publish!instruction"]
    assert published["topicName"] == f"/avatar/{topics.INSTRUCTION}"
    assert published["datatype"] == "flowact_msgs/msg/Instruction"
    Instruction(**json.loads(published["value"]))


def test_rqt() -> None:
    content = json.loads((CONFIG / "rqt.perspective").read_text(encoding="utf-8"))
    manager = content["groups"]["pluginmanager"]
    running = ast.literal_eval(manager["keys"]["running-plugins"]["repr"])
    names = {f"plugin__{kind.replace('/', '__')}__{number}" for kind, all_ in running.items() for number in all_}
    assert names == set(manager["groups"])
    for plugin in manager["groups"].values():
        keys = {name: ast.literal_eval(key["repr"]) for name, key in plugin["groups"]["plugin"]["keys"].items()}
        for path in keys.get("topics", ()):
            check_path(path)
        assert keys.get("topic", f"/avatar/{topics.IMAGE}") == f"/avatar/{topics.IMAGE}"


@pytest.mark.parametrize("node", NODES)
def test_every_node_is_in_one_folder_of_the_aggregator(node: str) -> None:
    content = yaml.safe_load((CONFIG / "diagnostic_aggregator.yaml").read_text(encoding="utf-8"))
    analyzers = {key: value for key, value in content["/**"]["ros__parameters"].items() if isinstance(value, dict)}
    assert all(value["type"] == "diagnostic_aggregator/GenericAnalyzer" for value in analyzers.values())
    status = f"robot1/avatar/{node}"
    assert [key for key, value in analyzers.items() if any(part in status for part in value["contains"])] != []
    assert sum(any(part in status for part in value["contains"]) for value in analyzers.values()) == 1
