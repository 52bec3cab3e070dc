# SPDX-License-Identifier: Apache-2.0
"""What every avatar has in ROS, whoever computes its frames: the topics that it hears, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from geometry_msgs.msg import PointStamped

from flowact_msgs.msg import AudioChunk, Instruction
from flowact_msgs.srv import SetReference
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.engine.losses import QUEUE_FULL
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.captions import CaptionPublisher
from flowact_ros.nodes.convert import ConversionError, behaviour_name
from flowact_ros.nodes.look_point import Screen
from flowact_ros.nodes.say_server import SayServer
from flowact_ros.nodes.skills import Skills
from flowact_ros.nodes.stream_services import StreamServices
from flowact_ros.nodes.uninstructed import UninstructedBehaviour, wording_of

if TYPE_CHECKING:
    from flowact_ros.engine.interfaces import Frame
    from flowact_ros.engine.session import Session
    from flowact_ros.fleet.arrival import RemoteFrame
    from flowact_ros.fleet.client import RemoteSession
    from flowact_ros.nodes.base import FlowactNode
    from flowact_ros.nodes.frame_publisher import FramePublisher

SetReferenceCallback = Callable[[SetReference.Request, SetReference.Response], SetReference.Response]


class AvatarInterface:
    """To be made while the node loads: requests are answered in the inactive state as well, that it is not active.

    The node has the parameters `screen_width`, `screen_height` and `eye_depth`. `frame_left` is called in the pacing
    thread, the rest in the executor.
    """

    def __init__(self, node: FlowactNode, set_reference: SetReferenceCallback) -> None:
        """set_reference: answers requests, in a thread of its own"""
        self._node = node
        self._say = SayServer(node)
        self._skills = Skills(node)
        # Encoding a picture takes seconds, in which somebody may want to interrupt.
        node.add_slow_service(SetReference, topics.SET_REFERENCE, set_reference)
        self._services = StreamServices(node, self._say)
        self._session: Session | RemoteSession | None = None
        self._publisher: FramePublisher | None = None
        self._captions: CaptionPublisher | None = None
        self._alone: UninstructedBehaviour | None = None

    def attach(self, session: Session | RemoteSession, publisher: FramePublisher) -> None:
        """Activation, before the first frame leaves."""
        node = self._node
        self._session, self._publisher = session, publisher
        self._decode = AudioDecoder(node.get_logger().warning)
        self._screen = Screen(*(node.params[name] for name in ("screen_width", "screen_height", "eye_depth")))
        self._captions = CaptionPublisher(node)
        self._alone = UninstructedBehaviour(session)
        self._say.attach(session, lambda: publisher.speaking, self._speech_comes)
        self._services.attach(session)
        node.add_subscription(AudioChunk, topics.SPEECH, self._on_speech, topics.AUDIO_DEEP_QOS)
        node.add_subscription(Instruction, topics.INSTRUCTION, self._on_instruction)
        node.add_subscription(PointStamped, topics.LOOK_AT, self._on_look_at)
        self._skills.attach(
            self._on_look_at, session.look_away, lambda: publisher.speaking, self._on_instruction
        )

    def detach(self) -> None:
        """Deactivation, before the session is closed: its last frames still leave."""
        self._say.detach()
        self._skills.detach()
        self._services.detach()
        self._session = self._alone = None

    def tend(self) -> None:
        """From time to time, while it is active."""
        if self._alone is not None and self._publisher is not None:
            self._alone.tick(self._publisher.speaking)

    def frame_left(self, frame: Frame | RemoteFrame) -> None:
        self._say.frame_left(frame)
        if self._publisher is not None and self._captions is not None:
            stamp_ns = self._publisher.stamp_ns(frame.index)
            self._captions.frame_left(frame, stamp_ns, self._say.said(frame.utterance_id))

    # ------------------------------------------------------------ what it hears

    def _on_speech(self, message: AudioChunk) -> None:
        session, publisher = self._session, self._publisher
        if session is None or publisher is None:
            return
        try:
            pcm, rate = self._decode(message)
        except ConversionError:
            session.refuse_audio(len(message.data) // 2)
            raise
        try:
            taken = session.push_audio(
                pcm,
                rate,
                utterance_id=message.utterance_id,
                first_sample=int(message.first_sample),
                sequence=int(message.sequence),
                last=message.last,
            )
        except AudioQueueFull:
            session.refuse_audio(len(pcm), QUEUE_FULL)
            raise
        if taken:  # what is refused or empty does not make the face speak
            self._speech_comes(message.utterance_id)
            publisher.speech_accepted(message.utterance_id)

    def _speech_comes(self, utterance_id: str) -> None:
        if self._alone is not None:
            self._alone.speech(utterance_id)

    def _on_instruction(self, message: Instruction) -> None:
        behaviour = behaviour_name(message.behaviour)
        if self._session is None:
            return
        self._session.set_instruction(
            message.text or wording_of(behaviour),
            behaviour=behaviour,
            priority=int(message.priority),
            utterance_id=message.utterance_id,
        )
        self._alone = None

    def _on_look_at(self, message: PointStamped) -> None:
        if self._session is not None:
            self._session.look_at(*self._screen.place(message))
