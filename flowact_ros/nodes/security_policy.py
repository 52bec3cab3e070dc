# SPDX-License-Identifier: Apache-2.0
"""The SROS 2 policy of one avatar, made from `graph.py`; what `flowact security` prints.

    flowact security --namespace robot1/avatar > avatar.policy.xml
    ros2 security create_keystore keystore
    ros2 security generate_artifacts -k keystore -p avatar.policy.xml

Each node has an enclave of its own, `/NAMESPACE/NODE`, and may use what `graph.py` lists and nothing else.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from flowact_ros.launcher.environment import EnvironmentProblem, checked_namespace
from flowact_ros.nodes import topics
from flowact_ros.nodes.graph import EVERY, NODES, PROGRAMS, Uses

VERSION = "0.2.0"  # of sros2's format
# What a Uses has: the element that lists it, its entries, and the attribute that allows it.
_RULES = (
    ("publishes", "topics", "topic", "publish"),
    ("subscribes", "topics", "topic", "subscribe"),
    ("serves", "services", "service", "reply"),
    ("calls", "services", "service", "request"),
    ("acts", "actions", "action", "execute"),
    ("sends", "actions", "action", "call"),
)


def policy(namespace: str = topics.NAMESPACE, nodes: Iterable[str] | None = None) -> str:
    """The policy file's text. nodes: of `NODES` and `PROGRAMS`; None: all of them.

    Raises ValueError for a node that is not known.
    """
    known = {**NODES, **PROGRAMS}
    chosen = list(known) if nodes is None else list(nodes)
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"no node is called {', '.join(unknown)}; there are {', '.join(known)}")
    root = ElementTree.Element("policy", version=VERSION)
    enclaves = ElementTree.SubElement(root, "enclaves")
    for name in chosen:
        enclave = ElementTree.SubElement(enclaves, "enclave", path=enclave_of(namespace, name))
        profiles = ElementTree.SubElement(enclave, "profiles")
        _profile(profiles, namespace, name, EVERY | known[name])
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def enclave_of(namespace: str, node: str) -> str:
    return f"/{namespace.strip('/')}/{node}"


def _profile(parent: ElementTree.Element, namespace: str, node: str, uses: Uses) -> None:
    profile = ElementTree.SubElement(parent, "profile", ns=f"/{namespace.strip('/')}", node=node)
    for kind, group, entry, attribute in _RULES:
        names = sorted(getattr(uses, kind))
        if not names:
            continue
        rule = ElementTree.SubElement(profile, group, {attribute: "ALLOW"})
        for name in names:
            ElementTree.SubElement(rule, entry).text = name


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="flowact security",
        description="Print the SROS 2 policy of an avatar's nodes.",
        epilog="examples:\n  flowact security > avatar.policy.xml\n"
        "  flowact security --namespace robot1/avatar --node avatar_generator --node client",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--namespace", default=topics.NAMESPACE, help="of the avatar (default: avatar)")
    parser.add_argument(
        "--node", action="append", metavar="NODE", help="only this one (repeatable); observer and client are programs"
    )
    options = parser.parse_args(argv)
    try:
        print(policy(checked_namespace(options.namespace), options.node), end="")
    except (EnvironmentProblem, ValueError) as error:
        print(f"flowact security: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
