# SPDX-License-Identifier: Apache-2.0
"""A hook of mkdocs: the pages that are made from the code, and figures from the weights' cards.

`mkdocs build` calls `on_files` and `on_page_markdown` (mkdocs.yml names this file). Messages come from the interface
files, parameters from the nodes' tables, names from `nodes/graph.py`; nothing of it is written by hand.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / "flowact_ros" / "weights"
FIGURES = re.compile(r"<!-- figures: (\w+) -->")
CARDS = {
    "denoiser": "avatar_cpu/denoiser.json",
    "renderer": "avatar_cpu/renderer.json",
    "audio_encoder": "audio_encoder.json",
    "text_encoder": "text_encoder.json",
}
NODE_CLASS = re.compile(r"^class (\w+)\(FlowactNode\):", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Adds the generated pages."""
    for name, text in (
        ("reference/messages.md", messages()),
        ("reference/parameters.md", parameters()),
        ("reference/names.md", names()),
    ):
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Puts a card's figures in place of `<!-- figures: NAME -->`."""
    return FIGURES.sub(lambda found: card_table(found[1]), markdown)


# ---------------------------------------------------------------- interfaces


def messages() -> str:
    """A heading an interface, a table a part of it."""
    pages = ["# Messages, services and actions\n\nMade from the files in `flowact_msgs/`.\n"]
    for folder in ("msg", "srv", "action"):
        for path in sorted((ROOT / "flowact_msgs" / folder).glob(f"*.{folder}")):
            pages.append(_interface(path, folder))
    return "\n".join(pages)


def _interface(path: Path, folder: str) -> str:
    titles = {"msg": [""], "srv": ["Request", "Answer"], "action": ["Goal", "Result", "Feedback"]}[folder]
    parts = re.split(r"^---$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lead = " ".join(line.lstrip("# ").rstrip() for line in _leading_comment(parts[0]))
    blocks = [f"## flowact_msgs/{folder}/{path.stem}\n\n{_escaped(lead)}\n"]
    for title, part in zip(titles, parts):
        if title:
            blocks.append(f"**{title}**\n")
        rows = list(_fields(part))
        if rows:
            blocks.append("| type | name | |\n|---|---|---|")
            blocks += [f"| `{kind}` | `{name}` | {_escaped(comment)} |" for kind, name, comment in rows]
            blocks.append("")
    return "\n".join(blocks)


def _leading_comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line


def _fields(text: str) -> Iterator[tuple[str, str, str]]:
    """(type, name or constant with its value, comment); comments that go on in the lines below are joined."""
    row: list[str] = []
    for line in text.splitlines():
        code, _, comment = line.partition("#")
        code, comment = code.strip(), comment.strip()
        if code:
            if row:
                yield row[0], row[1], row[2]
            kind, _, name = code.partition(" ")
            row = [kind, name.strip(), comment]
        elif row and line[:1].isspace() and comment:
            row[2] += f" {comment}"
        elif row:
            yield row[0], row[1], row[2]
            row = []
    if row:
        yield row[0], row[1], row[2]


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# ---------------------------------------------------------------- nodes


def parameters() -> str:
    """A table a node, from its `PARAMETERS`."""
    from flowact_ros.nodes.base import _AUTOSTART

    pages = [
        "# Parameters\n\nMade from the nodes' tables. *While it runs*: may be changed while the node is active; others "
        "are read when it is configured. Every node also has "
        f"`{_AUTOSTART.name}` ({_AUTOSTART.description.lower()}) and ROS 2's own `use_sim_time`.\n"
    ]
    for path in sorted((ROOT / "flowact_ros" / "nodes").glob("*.py")):
        found = NODE_CLASS.search(path.read_text(encoding="utf-8"))
        if found is None:
            continue
        node = path.stem
        table = getattr(importlib.import_module(f"flowact_ros.nodes.{node}"), found[1]).PARAMETERS
        pages += [f"## {node}\n", "| parameter | default | | values | while it runs |", "|---|---|---|---|---|"]
        for param in table:
            default = json.dumps(param.default, ensure_ascii=False)
            values = ", ".join(f"`{choice}`" for choice in param.choices or ()) or (
                " … ".join(f"{end:,}" for end in param.range) if param.range else ""
            )
            live = "yes" if param.live else ""
            pages.append(f"| `{param.name}` | `{default}` | {_escaped(param.description)} | {values} | {live} |")
        pages.append("")
    return "\n".join(pages)


def names() -> str:
    """Who publishes, hears, serves and calls what, with the quality of service."""
    from rclpy.qos import DurabilityPolicy

    from flowact_ros.nodes import topics
    from flowact_ros.nodes.graph import NODES, OPTIONAL

    def users(kind: str, name: str) -> str:
        return ", ".join(node for node, uses in NODES.items() if name in getattr(uses, kind))

    pages = [
        "# Names\n\nMade from `nodes/topics.py` and `nodes/graph.py`. Names are relative to the namespace; those with "
        "an asterisk are there where the package of their interface is installed. All nodes publish `/diagnostics`.\n",
        "## Topics\n",
        "| topic | reliable, keeps | published by | heard by |",
        "|---|---|---|---|",
    ]
    known = {name for uses in NODES.values() for name in uses.publishes | uses.subscribes}
    for name in sorted(set(topics.QOS) | known):
        profile = topics.QOS.get(name)
        kept = ""
        if profile is not None:
            latched = profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            kept = f"{profile.depth}{', latched' if latched else ''}"
        mark = " \\*" if name in OPTIONAL else ""
        pages.append(f"| `{name}`{mark} | {kept} | {users('publishes', name)} | {users('subscribes', name)} |")
    for title, serve, call in (("Services", "serves", "calls"), ("Actions", "acts", "sends")):
        pages += ["", f"## {title}\n", "| name | served by | used by |", "|---|---|---|"]
        for name in sorted({name for uses in NODES.values() for name in getattr(uses, serve) | getattr(uses, call)}):
            mark = " \\*" if name in OPTIONAL else ""
            pages.append(f"| `{name}`{mark} | {users(serve, name)} | {users(call, name)} |")
    return "\n".join(pages) + "\n"


# ---------------------------------------------------------------- cards


def card_table(name: str) -> str:
    """The figures of a card in `flowact_ros/weights`, as a table of two columns."""
    card = json.loads((WEIGHTS / CARDS[name]).read_text(encoding="utf-8"))
    rows = list(_flat({key: value for key, value in card.items() if key in _SHOWN}))
    lines = ["| | |", "|---|---|", *(f"| `{key}` | {value} |" for key, value in rows)]
    return "\n".join(lines) + f"\n\nFrom `flowact_ros/weights/{CARDS[name]}`, which also has the configuration.\n"


_SHOWN = {"parameters", "steps", "commit", "licence", "teacher", "metrics", "heldout", "speech_minutes", "texts"}


def _flat(tree: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        elif isinstance(value, float) and not value.is_integer():
            yield before + key, f"{value:.3g}"
        else:
            yield before + key, f"{int(value):,}" if isinstance(value, (int, float)) else str(value)
