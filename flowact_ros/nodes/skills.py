# SPDX-License-Identifier: Apache-2.0
"""The skills of ROS4HRI that this avatar has, each where its package is installed (docs/motion.md, docs/speech.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowact_ros.nodes.skill_expression import hear_expressions, ros4hri_expression
from flowact_ros.nodes.skill_look_at import LookAtServer, ros4hri_look_at
from flowact_ros.nodes.skill_say import SkillServer, ros4hri_say

if TYPE_CHECKING:
    from geometry_msgs.msg import PointStamped

    from flowact_msgs.msg import Instruction
    from flowact_ros.nodes.base import FlowactNode


class Skills:
    """To be made while the node loads: requests are answered in the inactive state as well."""

    def __init__(self, node: FlowactNode) -> None:
        self._node = node
        say, look_at = ros4hri_say(), ros4hri_look_at()
        if say is not None:
            SkillServer(node, say)
        self._look_at = LookAtServer(node, look_at) if look_at is not None else None

    def attach(
        self,
        look: Callable[[PointStamped], None],
        look_away: Callable[[], None],
        speaking: Callable[[], bool],
        instruct: Callable[[Instruction], None],
    ) -> None:
        """Activation. speaking: does speech leave now; the others: as the topics `look_at` and `instruction` do it."""
        if self._look_at is not None:
            self._look_at.attach(look, look_away)
        expression = ros4hri_expression()
        if expression is not None:
            hear_expressions(self._node, expression, speaking, instruct)

    def detach(self) -> None:
        """Deactivation."""
        if self._look_at is not None:
            self._look_at.detach()
