# SPDX-License-Identifier: Apache-2.0
"""Which node uses which name of `topics.py`, and how: what SROS 2 policies and the documents are made from.

A test starts the nodes and compares. Names that begin with a slash are global, the others are the namespace's.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from flowact_ros.nodes import topics
from flowact_ros.nodes.kiosk_turn import MICROPHONE
from flowact_ros.nodes.skill_expression import SKILL_EXPRESSION
from flowact_ros.nodes.skill_look_at import SKILL_LOOK_AT
from flowact_ros.nodes.skill_say import SKILL_SAY

# Of packages that need not be there: a node has these only where their interface is installed.
OPTIONAL = frozenset({topics.CLOSED_CAPTIONS, topics.LIVE_SPEECH, SKILL_EXPRESSION, SKILL_LOOK_AT, SKILL_SAY})


@dataclass(frozen=True)
class Uses:
    """The names that a node uses. `serves` and `calls`: services; `acts` and `sends`: actions."""

    publishes: frozenset[str] = frozenset()
    subscribes: frozenset[str] = frozenset()
    serves: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    acts: frozenset[str] = frozenset()
    sends: frozenset[str] = frozenset()

    def __or__(self, other: Uses) -> Uses:
        return Uses(*(getattr(self, each.name) | getattr(other, each.name) for each in fields(self)))


def _uses(**names: tuple[str, ...]) -> Uses:
    return Uses(**{kind: frozenset(listed) for kind, listed in names.items()})


# What rclpy gives every lifecycle node. `~` is the node's own name.
EVERY = _uses(
    publishes=("/rosout", "/parameter_events", topics.DIAGNOSTICS, "~/transition_event"),
    subscribes=("/clock",),
    serves=(
        "~/change_state",
        "~/get_state",
        "~/get_available_states",
        "~/get_available_transitions",
        "~/get_transition_graph",
        "~/get_type_description",
        "~/describe_parameters",
        "~/get_parameter_types",
        "~/get_parameters",
        "~/list_parameters",
        "~/set_parameters",
        "~/set_parameters_atomically",
    ),
)

_CAPTURE_MIC = _uses(publishes=(topics.MIC,))
_CAPTURE_SPEECH = _uses(publishes=(topics.SPEECH,))

# By the names under which `flowact up`, `flowact demo` and the launch file start them.
NODES: dict[str, Uses] = {
    "avatar_generator": _uses(
        publishes=(
            topics.IMAGE,
            topics.COMPRESSED,
            topics.AUDIO,
            topics.MOTION,
            topics.STATE,
            topics.ROBOT_SPEAKING,
            topics.CAPTIONS,
            topics.CLOSED_CAPTIONS,
            topics.CHUNKS,
            topics.SETUP,
            topics.METRICS,
            topics.SPEECH_TEXT,
        ),
        subscribes=(
            topics.SPEECH,
            topics.SPEECH_TEXT,
            topics.INSTRUCTION,
            topics.LOOK_AT,
            topics.TRANSCRIPT,
            SKILL_EXPRESSION,
        ),
        serves=(topics.SET_REFERENCE, topics.INTERRUPT, topics.RESET_MEMORY),
        calls=(topics.SYNTHESIZE,),
        acts=(topics.SAY, SKILL_SAY, SKILL_LOOK_AT),
        sends=(topics.SAY,),  # what /skill/say passes on
    ),
    "instruction_planner": _uses(
        publishes=(topics.INSTRUCTION,),
        subscribes=(
            topics.MIC,
            topics.SPEECH,
            topics.SPEECH_TEXT,
            topics.TRANSCRIPT,
            topics.STATE,
            topics.USER_SPEAKING,
        ),
        calls=(topics.INTERRUPT,),
        sends=(topics.SAY,),
    ),
    "speech_synthesizer": _uses(serves=(topics.SYNTHESIZE,)),
    "speech_recognizer": _uses(
        publishes=(topics.TRANSCRIPT, topics.USER_SPEAKING, topics.LIVE_SPEECH),
        subscribes=(topics.MIC, topics.AUDIO, topics.ROBOT_SPEAKING),
    ),
    "kiosk_bridge": _uses(
        publishes=(topics.METRICS, topics.INSTRUCTION, topics.MIC),
        subscribes=(
            topics.AUDIO,
            topics.STATE,
            topics.METRICS,
            topics.CAPTIONS,
            topics.COMPRESSED,
            topics.INSTRUCTION,
            topics.TRANSCRIPT,
            topics.USER_SPEAKING,
            topics.DIAGNOSTICS,
        ),
        calls=(topics.INTERRUPT, f"{MICROPHONE}/change_state"),
    ),
    "microphone": _CAPTURE_MIC | _CAPTURE_SPEECH,
    "speech_source": _CAPTURE_SPEECH,
    "audio_player": _uses(subscribes=(topics.AUDIO,)),
    # With the names of the other package that its parameters have by default.
    "audio_adapter": _uses(
        publishes=(topics.MIC, topics.SPEECH, "audio_stamped", "audio_info"),
        subscribes=(topics.AUDIO, "audio_stamped", "audio_info"),
    ),
    "recorder": _uses(subscribes=(topics.AUDIO, topics.IMAGE, topics.MIC, topics.CAPTIONS)),
}
# The same for the robot; records and figures of the engine stay at the server.
NODES["remote_avatar"] = replace(
    NODES["avatar_generator"],
    publishes=NODES["avatar_generator"].publishes - {topics.CHUNKS, topics.SETUP, topics.METRICS},
)
_ALL_TOPICS = frozenset(topics.QOS)
# What programs beside the nodes may be allowed. An observer only hears (rosbag2, Foxglove); a client is one's own TTS,
# recogniser, tracker or planner, and `flowact say`.
PROGRAMS: dict[str, Uses] = {
    "observer": Uses(subscribes=_ALL_TOPICS),
    "client": Uses(
        publishes=frozenset(
            {
                topics.SPEECH,
                topics.SPEECH_TEXT,
                topics.MIC,
                topics.TRANSCRIPT,
                topics.USER_SPEAKING,
                topics.INSTRUCTION,
                topics.LOOK_AT,
            }
        ),
        subscribes=_ALL_TOPICS,
        serves=frozenset({topics.SYNTHESIZE}),
        calls=frozenset({topics.SET_REFERENCE, topics.INTERRUPT, topics.RESET_MEMORY, topics.SYNTHESIZE}),
        sends=frozenset({topics.SAY}),
    ),
}
