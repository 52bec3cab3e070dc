# SPDX-License-Identifier: Apache-2.0
"""Decides what the character does, and answers: `mic`, `speech`, `speech/text`, `user_speaking`, `transcript`, `state`
in; `instruction` and goals of `say` out.

python -m flowact_ros.nodes.instruction_planner --ros-args -r __ns:=/avatar -p barge_in:=true
python -m flowact_ros.nodes.instruction_planner --ros-args -r __ns:=/avatar -p backend:=openai -p model:=NAME \
    -p base_url:=http://127.0.0.1:11434/v1
"""

from __future__ import annotations

import sys

from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from flowact_msgs.msg import AudioChunk, AvatarState, Transcript
from flowact_msgs.msg import Instruction as InstructionMessage
from flowact_ros.dialogue.planner import (
    AvatarSpeaking,
    Event,
    RulePlanner,
    RulePlannerConfig,
    SpeechData,
    SpeechText,
    Tick,
    UserPause,
    UserText,
    UserVoice,
)
from flowact_ros.dialogue.vad import EnergyVad, EnergyVadConfig
from flowact_ros.nodes import planner_settings, topics
from flowact_ros.nodes.answers import OVERLAP_S, Answers
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.base import FlowactNode, run
from flowact_ros.nodes.convert import NANOSECONDS, audio_frames, behaviour_number, from_time
from flowact_ros.nodes.params import Param
from flowact_ros.nodes.planner_settings import ConversationFactory
from flowact_ros.vocabulary import SPEAKING

TICK_S = 0.1
INTERRUPT_PATIENCE_S = 2.0  # a later stop would surprise more than it helps
MIC_SILENT_S = 1.0  # a microphone that sends nothing for so long hears nobody


class InstructionPlanner(FlowactNode):
    """Thin: voice activity, rules and conversation are in `dialogue/`, the times are this machine's monotonic ones."""

    PARAMETERS = (
        Param(
            "barge_in",
            False,
            "The user's voice counts while the avatar speaks. Needs a microphone without echo, or a speech_recognizer "
            "whose parameter `echo` is threshold or cancel (docs/conversation.md)",
        ),
        Param("vad_margin", 10.0, "[dB] above the noise floor that counts as a voice", range=(3.0, 40.0)),
        Param("vad_minimum", -50.0, "[dB re full scale] quieter is never a voice", range=(-90.0, -10.0)),
        Param("vad_hangover", 0.6, "[s] of silence after which the user has stopped", range=(0.05, 5.0)),
        Param("thinking_timeout", 4.0, "[s] of thinking if no answer comes", range=(0.0, 60.0)),
        Param("reaction", 1.8, "[s] a reaction (smile, laugh, surprise) lasts", range=(0.2, 10.0)),
        Param(
            "think_after",
            0.12,
            "[s] of a pause in the user's speech, after which the face thinks; 0: only when he has stopped",
            range=(0.0, 5.0),
        ),
        Param(
            "nod_after",
            2.5,
            "[s] of the user's speech, after which a pause in it is nodded at; 0: never",
            range=(0.0, 60.0),
        ),
        Param("dwell", 0.6, "[s] a behaviour is shown at least", range=(0.0, 10.0)),
        Param("seed", 0, "Of the choice among wordings, and of a model's", range=(0, 2**31 - 1)),
        *planner_settings.PARAMETERS,
    )

    def __init__(self, **options: object) -> None:
        super().__init__("instruction_planner", **options)
        self._planner: RulePlanner | None = None
        self._vad: EnergyVad | None = None
        self._answers: Answers | None = None
        self._sent = 0

    def load(self) -> None:
        self._vad_config = EnergyVadConfig(
            margin_db=self.params["vad_margin"],
            release_db=min(6.0, self.params["vad_margin"]),
            minimum_db=self.params["vad_minimum"],
            hangover_s=self.params["vad_hangover"],
        )
        self._factory = ConversationFactory(self.params)
        persona = self._factory.persona
        self._planner_config = RulePlannerConfig(
            barge_in=self.params["barge_in"],
            thinking_timeout_s=self.params["thinking_timeout"],
            reaction_s=self.params["reaction"],
            think_after_s=self.params["think_after"],
            nod_after_s=self.params["nod_after"],
            dwell_s=self.params["dwell"],
            seed=self.params["seed"],
            thinking=persona.thinking if persona is not None else (),
        )

    def begin(self) -> None:
        self._planner = RulePlanner(self._planner_config)
        self._vad = None
        self._decode_mic = AudioDecoder(self.get_logger().warning)
        self._heard_s = float("-inf")
        self._voiced: bool | None = None  # by `user_speaking`, while somebody publishes it
        self._spoke_until_ns = 0  # [ns] of the node's clock: when the avatar's speech ended last
        self._listeners = 0
        self._standing: InstructionMessage | None = None
        self._avatar_known = False
        self._waiting: str | None = None  # speech that the avatar has accepted and does not say yet
        self._interrupt_by: float | None = None  # an interruption is due until then
        self._publisher = self.add_publisher(InstructionMessage, topics.INSTRUCTION)
        self._interrupter = client = self.create_client(Trigger, topics.INTERRUPT)
        self.add_entity(lambda: self.destroy_client(client))
        self.add_subscription(AudioChunk, topics.MIC, self._on_mic, topics.AUDIO_DEEP_QOS)
        self.add_subscription(AudioChunk, topics.SPEECH, self._on_speech, topics.AUDIO_DEEP_QOS)
        self.add_subscription(Transcript, topics.SPEECH_TEXT, self._on_speech_text)
        self.add_subscription(Transcript, topics.TRANSCRIPT, self._on_transcript)
        self.add_subscription(AvatarState, topics.STATE, self._on_state)
        self.add_subscription(Bool, topics.USER_SPEAKING, self._on_user_speaking)
        if self._factory.persona is not None:
            self._answers = Answers(
                self,
                self._factory,
                self._observe,
                lambda: self._planner is not None and self._planner.listens,
                lambda: self._now_s(),
                self.params["proactive"],
            )
        self.add_timer(TICK_S, self._on_tick)

    def end(self) -> None:
        answers, self._answers, self._planner = self._answers, None, None
        if answers is not None:
            answers.close()

    def health(self) -> tuple[int, str, dict[str, object]]:
        if self._planner is None:
            return 0, "", {}
        floor = f"{self._vad.floor_db:.0f} dB" if self._vad is not None else "no microphone heard"
        behaviour = self._planner.behaviour
        known = self._interrupter.service_is_ready() and self.count_publishers(topics.STATE) > 0
        values = {
            "noise_floor": floor,
            "instructions": self._sent,
            "avatar": "found" if known else "not found yet",
        }
        if self._answers is None:
            return 0, behaviour, {"behaviour": behaviour, **values}
        fault = self._answers.conversation.fault
        return (
            (1 if fault else 0),
            fault or behaviour,
            {"behaviour": behaviour, **values, **self._answers.values()},
        )

    @property
    def behaviour(self) -> str:
        """The face's, by the rules; empty before the first one."""
        return self._planner.behaviour if self._planner is not None else ""

    def _now_s(self) -> float:
        return self._steady.now().nanoseconds / 1e9

    def _on_mic(self, message: AudioChunk) -> None:
        pcm, rate = self._decode_mic(message)
        if self._vad is None or self._vad.sample_rate != rate:
            self._vad, self._mic_s, self._paused = EnergyVad(rate, self._vad_config), 0.0, False
        self._heard_s = self._now_s()
        if self._answers is not None:
            self._answers.heard_sound(pcm, rate)
        for event in self._vad.push(pcm):
            if self._voiced is None:  # who recognises speech hears better what is a voice
                self._on_voice(self._heard_s, event.voiced)
        self._mic_s += len(pcm) / rate
        self._tell_pause()

    def _tell_pause(self) -> None:
        """By this node's own detector: one that tells voices from noises is sure of a pause much later."""
        assert self._vad is not None
        if not self._vad.voiced:
            return  # the end, for this one: whoever publishes `user_speaking` may still wait for it
        since_s = self._vad.quiet_since_s
        if since_s is not None or self._paused:
            self._observe(UserPause(self._heard_s, 0.0 if since_s is None else self._mic_s - since_s))
        self._paused = since_s is not None

    def _on_user_speaking(self, message: Bool) -> None:
        self._voiced = message.data
        self._on_voice(self._now_s(), message.data)

    def _on_voice(self, now: float, voiced: bool) -> None:
        self._observe(UserVoice(now, voiced))
        if self._answers is not None:
            self._answers.voice(now, voiced)

    def _on_speech(self, message: AudioChunk) -> None:
        """An avatar says itself what it has accepted; where none is known, speech is what could be."""
        if not self._avatar_known and len(audio_frames(message)[0]):
            self._observe(SpeechData(self._now_s(), message.utterance_id))

    def _on_speech_text(self, message: Transcript) -> None:
        self._observe(SpeechText(self._now_s(), message.utterance_id, message.text))

    def _on_transcript(self, message: Transcript) -> None:
        now = self._now_s()
        self._observe(UserText(now, message.text, message.final))
        if self._answers is not None and message.final:
            if self._is_echo(message):
                self.get_logger().debug("what was heard while the avatar spoke is not answered")
            else:
                self._answers.transcript(message, now)

    def _is_echo(self, message: Transcript) -> bool:
        """Heard while the avatar spoke, by a microphone that hears the avatar as well."""
        if self.params["barge_in"]:
            return False
        start = from_time(message.start)
        if start and self._spoke_until_ns:
            return start < self._spoke_until_ns - int(OVERLAP_S * NANOSECONDS)
        return self.behaviour == SPEAKING

    def _on_state(self, message: AvatarState) -> None:
        now = self._now_s()
        age = self.get_clock().now().nanoseconds - from_time(
            message.header.stamp
        )  # below 0: not on screen yet
        began = now - age / NANOSECONDS
        if message.robot_speaking:
            self._spoke_until_ns = sys.maxsize  # not over yet
        elif self._spoke_until_ns == sys.maxsize:
            self._spoke_until_ns = from_time(message.header.stamp)
        self._observe(AvatarSpeaking(now, message.robot_speaking, message.utterance_id, began))
        self._avatar_known = True
        self._waiting = message.waiting_id if message.speech_waits else None
        if self._waiting is not None:
            self._observe(SpeechData(now, self._waiting))

    def _on_tick(self) -> None:
        now = self._now_s()
        if self._vad is not None and now - self._heard_s > MIC_SILENT_S:
            # The microphone is gone in the middle of a word: nobody waits for the end of it.
            if self._vad.voiced and self._voiced is None:
                self._on_voice(now, False)
            self._vad = None
        if self._voiced is not None and not self.count_publishers(topics.USER_SPEAKING):
            if self._voiced:
                self._on_voice(now, False)
            self._voiced = None
        if self._interrupt_by is not None:
            self._interrupt()
        self._avatar_known = self.count_publishers(topics.STATE) > 0
        if self._waiting is not None and self._avatar_known:
            self._observe(SpeechData(now, self._waiting))
        self._observe(Tick(now))
        if self._answers is not None:
            self._answers.tick(now)
        self._tell_newcomers()

    def _tell_newcomers(self) -> None:
        """An avatar that starts later must know what is to be shown; topics keep nothing for it."""
        listeners = self._publisher.get_subscription_count()
        if listeners > self._listeners and self._standing is not None:
            self._standing.priority = InstructionMessage.PRIORITY_NORMAL
            self._publisher.publish(self._standing)
        self._listeners = listeners

    def _observe(self, event: Event) -> None:
        if self._planner is None:
            return
        instruction = self._planner.observe(event)
        if instruction is None:
            return
        message = InstructionMessage()
        message.header.stamp = self.get_clock().now().to_msg()
        message.behaviour = behaviour_number(instruction.behaviour)
        message.text = instruction.text
        message.priority = instruction.priority
        message.utterance_id = instruction.utterance_id
        self._publisher.publish(message)
        self._standing = message
        if instruction.interrupts:
            self._interrupt_by = self._now_s() + INTERRUPT_PATIENCE_S
            self._interrupt()
            if self._answers is not None:
                self._answers.interrupted(self._now_s())
        self._sent += 1
        self.get_logger().debug(f"{instruction.behaviour}: {instruction.text}")

    def _interrupt(self) -> None:
        """Stops the avatar; again at the next tick while its service has not been discovered yet."""
        if self._interrupter.service_is_ready():
            self._interrupter.call_async(Trigger.Request())
            self._interrupt_by = None
        elif self._interrupt_by is not None and self._now_s() > self._interrupt_by:
            self.get_logger().warning(
                f"no service {topics.INTERRUPT} within {INTERRUPT_PATIENCE_S:g} s: the user could not interrupt"
            )
            self._interrupt_by = None


def main(args: list[str] | None = None) -> int:
    return run(InstructionPlanner, args)


if __name__ == "__main__":
    sys.exit(main())
