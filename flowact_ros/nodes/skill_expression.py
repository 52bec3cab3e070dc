# SPDX-License-Identifier: Apache-2.0
"""`/skill/set_expression` of ROS4HRI (`interaction_skills/msg/SetExpression`, a topic): an expression by its name.

Heard where that package is installed. It becomes an instruction like those of the topic `instruction`, and holds
until the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowact_msgs.msg import Instruction
from flowact_ros.dialogue.expressions import expression_of
from flowact_ros.nodes import topics
from flowact_ros.nodes.convert import behaviour_number
from flowact_ros.vocabulary import SPEAKING

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode

SKILL_EXPRESSION = "/skill/set_expression"  # a global convention: one robot, one face


def ros4hri_expression() -> type | None:
    """The message type; None where the package is not installed."""
    try:
        from interaction_skills.msg import SetExpression
    except ImportError:
        return None
    return SetExpression


def expression_instruction(message: Any, speaking: bool) -> Instruction:
    """Of a SetExpression. Raises ValueError for an expression that the character cannot show."""
    wanted = message.expression
    found = expression_of(wanted.expression, wanted.valence, wanted.arousal)
    behaviour, text = (SPEAKING, found.spoken) if speaking else (found.behaviour, found.text)
    return Instruction(behaviour=behaviour_number(behaviour), text=text, priority=Instruction.PRIORITY_URGENT)


def hear_expressions(
    node: FlowactNode, kind: type, speaking: Callable[[], bool], instruct: Callable[[Instruction], None]
) -> None:
    """At activation. speaking: does speech leave now; instruct: what is done with instructions."""
    node.add_subscription(
        kind,
        SKILL_EXPRESSION,
        lambda message: instruct(expression_instruction(message, speaking())),
        topics.EVENT_QOS,
    )
