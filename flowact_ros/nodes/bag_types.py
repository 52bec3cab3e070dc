# SPDX-License-Identifier: Apache-2.0
"""What a recording says of its messages: the text of their definitions and its hash, from the installed packages."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from flowact_ros.media.bag import BagError

OWN = "flowact_msgs"


@cache
def known_types() -> Typestore:
    """Those of ROS 2 Jazzy and our own; `describe` adds what else is installed."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for kind, text in own_definitions().items():
        store.register(get_types_from_msg(text, kind))
    return store


@cache
def own_definitions() -> dict[str, str]:
    """Texts of our own .msg files by type. Raises BagError where they are not installed."""
    try:
        folder = Path(get_package_share_directory(OWN)) / "msg"
    except PackageNotFoundError:
        raise BagError(f"the package {OWN} is not installed: run scripts/setup") from None
    return {f"{OWN}/msg/{file.stem}": file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.msg"))}


def describe(kind: str) -> tuple[str, str]:
    """(definition with those of all types that it uses, RIHS01 hash) of "package/msg/Name".

    Raises BagError for a type whose definition is not installed.
    """
    store = known_types()
    _add(store, kind)
    return store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)


def _add(store: Typestore, kind: str) -> None:
    """Registers a type, and those that it uses, from the installed packages."""
    if kind in store.fielddefs:
        return
    package, _, name = kind.partition("/msg/")
    try:
        text = (Path(get_package_share_directory(package)) / "msg" / f"{name}.msg").read_text(encoding="utf-8")
    except (PackageNotFoundError, OSError, ValueError):
        raise BagError(f"the definition of {kind} is not installed: its messages cannot be recorded") from None
    found = get_types_from_msg(text, kind)
    for _, fields in found.values():
        for _, field in fields:
            for part in _names(field):
                _add(store, part)
    store.register(found)


def _names(field: object) -> list[str]:
    """Message types that a field's description names."""
    if isinstance(field, str):
        return [field] if "/msg/" in field else []
    return [name for part in field for name in _names(part)] if isinstance(field, tuple) else []
