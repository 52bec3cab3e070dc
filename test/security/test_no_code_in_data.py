# SPDX-License-Identifier: Apache-2.0
"""Data is never executed: no pickle, and checkpoints of others are read as tensors alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowact_ros.launcher.child import NodeSpec
from flowact_ros.launcher.environment import EnvironmentProblem, check
from flowact_ros.launcher.security import security_problem

ROOT = Path(__file__).parents[2]
FOLDERS = ("flowact_ros", "scripts", "launch", "examples")
SOURCES = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
EXECUTING = {"pickle", "cPickle", "dill", "joblib", "marshal", "shelve", "cloudpickle"}
LOADERS = {"load", "loads", "Unpickler", "open"}
SUSPECT = re.compile(rf"\b({'|'.join(EXECUTING)}|torch\.load|allow_pickle)\b")


def loads(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Calls such as `torch.load(...)`, with the module's name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOADERS:
            yield ast.unparse(node.func.value), node


def test_nothing_is_unpickled() -> None:
    assert len(SOURCES) > 200
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if not SUSPECT.search(text):
            continue
        tree = ast.parse(text)
        taken = {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert not taken & EXECUTING, path
        for module, call in loads(tree):
            given = {each.arg: getattr(each.value, "value", None) for each in call.keywords}
            assert module not in EXECUTING, f"{path}: {ast.unparse(call)}"
            assert module != "torch" or given.get("weights_only") is True, f"{path}: {ast.unparse(call)}"
            assert not given.get("allow_pickle"), f"{path}: {ast.unparse(call)}"


def test_security_that_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert security_problem({}) == security_problem({"ROS_SECURITY_ENABLE": "false"}) == ("", "")
    monkeypatch.setattr("flowact_ros.launcher.security._of_wheels", lambda: True)
    with pytest.raises(EnvironmentProblem, match="made of wheels, whose Fast DDS has no security: source a ROS 2"):
        check({"ROS_SECURITY_ENABLE": "true", "HOME": str(tmp_path)})
    monkeypatch.setattr("flowact_ros.launcher.security._of_wheels", lambda: False)
    assert "is no keystore" in security_problem({"ROS_SECURITY_ENABLE": "true"})[0]
    (tmp_path / "enclaves").mkdir()
    assert security_problem({"ROS_SECURITY_ENABLE": "true", "ROS_SECURITY_KEYSTORE": str(tmp_path)}) == ("", "")


def test_a_node_is_started_with_its_own_keys() -> None:
    command = NodeSpec("kiosk_bridge", "module", namespace="robot1/avatar").command()
    assert command[command.index("--enclave") + 1] == "/robot1/avatar/kiosk_bridge"
