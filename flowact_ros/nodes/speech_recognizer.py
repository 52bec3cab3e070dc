# SPDX-License-Identifier: Apache-2.0
"""Hears the user: `mic` and, for the robot's own voice in it, `audio` and `robot_speaking` in; `transcript` and
`user_speaking` out.

python -m flowact_ros.nodes.speech_recognizer --ros-args -r __ns:=/avatar -p model:=tiny.en

Every time `user_speaking` becomes false, one final transcript follows: of empty text where nothing was understood.
Where hri_msgs is installed, transcripts are on `live_speech` as well.
"""

from __future__ import annotations

import secrets
import sys
import threading

import numpy as np
from std_msgs.msg import Bool

from flowact_msgs.msg import AudioChunk, Transcript
from flowact_ros.dialogue.ear import Ear
from flowact_ros.dialogue.echo import MODES, MUTE, EchoFilter, Played, Suppressor, load_suppressor, strict
from flowact_ros.dialogue.hearing import Hearing, HearingConfig, Request
from flowact_ros.dialogue.recognition import Answer, Recognition
from flowact_ros.dialogue.recognizer import BACKENDS, RATE, Recognizer, RecognizerConfig, load_recognizer
from flowact_ros.dialogue.vad import BACKENDS as DETECTORS
from flowact_ros.dialogue.vad import EnergyVadConfig, load_vad
from flowact_ros.dialogue.vad_silero import SileroVadConfig
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.base import FlowactNode, run
from flowact_ros.nodes.convert import NANOSECONDS, audio_array, from_time, to_time
from flowact_ros.nodes.live_speech import live_speech, live_speech_type
from flowact_ros.nodes.params import Param

TICK_S = 0.1
MIC_SILENT_S = 1.0  # a microphone that sends nothing for so long hears nobody
CLOSE_S = 10.0  # for the recognition that runs when the node is deactivated
LATE_S = 15.0  # [s] of speech that waits: the recogniser is too slow for this computer


class SpeechRecognizer(FlowactNode):
    """Thin: voices and utterances are in `dialogue/ear`, the recogniser works in `dialogue/recognition`'s thread."""

    PARAMETERS = (
        Param("recognizer", "faster-whisper", "Backend that turns speech into text", choices=tuple(BACKENDS)),
        Param(
            "model", "tiny.en", "Name that the backend knows (`flowact weights list`), or the path of a model"
        ),
        Param("language", "", "BCP 47 tag such as en or pt-BR; empty: the model decides each time"),
        Param("device", "cpu", "cpu, cuda or cuda:N"),
        Param("threads", 1, "Of the recogniser; the face needs cores as well", range=(1, 64)),
        Param("beam_size", 1, "Hypotheses followed side by side in final recognitions", range=(1, 10)),
        Param(
            "vad", "auto", "Voice activity detector; auto: silero where it is installed", choices=DETECTORS
        ),
        Param("vad_threshold", 0.5, "silero: probability that counts as a voice", range=(0.05, 0.95)),
        Param(
            "vad_margin", 10.0, "energy: [dB] above the noise floor that counts as a voice", range=(3.0, 40.0)
        ),
        Param(
            "vad_minimum", -50.0, "energy: [dB re full scale] quieter is never a voice", range=(-90.0, -10.0)
        ),
        Param("vad_onset", 0.1, "[s] of voice that make an onset", range=(0.04, 0.8)),
        Param("vad_hangover", 0.6, "[s] of silence after which the user has stopped", range=(0.05, 5.0)),
        Param("preroll", 0.4, "[s] heard before an onset", range=(0.0, 2.0)),
        Param("partial_interval", 1.5, "[s] between partial texts; 0: none", range=(0.0, 30.0)),
        Param(
            "pause", 0.2, "[s] of a pause that is recognised ahead of its end; 0: not ahead", range=(0.0, 2.0)
        ),
        Param("longest", 25.0, "[s] after which an utterance is cut", range=(5.0, 28.0)),
        Param(
            "echo",
            MUTE,
            "The robot's own voice in the microphone. mute: nothing is heard while it speaks; threshold: what is "
            "louder than its echo; cancel: the echo is filtered out; none: a microphone without echo",
            choices=MODES,
        ),
        Param(
            "mute_hangover",
            0.3,
            "[s] for which it stays mute after the robot spoke, with echo 'mute'",
            range=(0.0, 3.0),
            live=True,
        ),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("speech_recognizer", **options)
        self._recognizer: Recognizer | None = None
        self._recognition: Recognition | None = None
        self._ear: Ear | None = None
        self._suppressor: Suppressor | None = None
        self._sent = threading.Lock()  # of what the recognition's thread publishes, against the topics' end

    # ------------------------------------------------------------ lifecycle

    def load(self) -> None:
        value = self.params
        self._hearing_config = HearingConfig(
            preroll_s=value["preroll"],
            partial_interval_s=value["partial_interval"],
            pause_s=value["pause"],
            longest_s=value["longest"],
        )
        onset, hangover = value["vad_onset"], value["vad_hangover"]
        self._energy = EnergyVadConfig(
            margin_db=value["vad_margin"],
            release_db=min(6.0, value["vad_margin"]),
            minimum_db=value["vad_minimum"],
            onset_s=onset,
            onset_window_s=min(1.0, 2 * onset),
            hangover_s=hangover,
        )
        self._silero = SileroVadConfig(
            threshold=value["vad_threshold"],
            release=max(0.03, value["vad_threshold"] - 0.15),
            onset_s=onset,
            onset_window_s=min(1.0, 2 * onset),
            hangover_s=hangover,
        )
        self._suppressor = load_suppressor(value["echo"])  # once: what it learns of the room is kept
        if self._suppressor is not None:
            self._silero = strict(self._silero)
        self._detector()  # what is missing is told now
        self._recognizer = load_recognizer(
            RecognizerConfig(
                backend=value["recognizer"],
                model=value["model"],
                language=value["language"],
                device=value["device"],
                threads=value["threads"],
                beam_size=value["beam_size"],
            )
        )
        # The first recognition is slow; better now than for the first thing that somebody says.
        self._recognizer.recognize(np.random.default_rng(0).normal(0, 0.01, RATE).astype(np.float32))

    def begin(self) -> None:
        assert self._recognizer is not None
        # New with each start: a text of an utterance before is never taken for one of now.
        self._prefix = f"heard-{secrets.token_hex(2)}"
        self._decode = AudioDecoder(self.get_logger().warning)
        self._hearing = Hearing(RATE, self._hearing_config, self._prefix)
        self._ear = None
        self._played = Played()
        self._heard_s = self._mute_until_s = float("-inf")
        self._robot_speaking = self._user_speaking = False
        self._finals = 0
        self._last_wait_s = 0.0
        self._open = True
        self._transcripts = self.add_publisher(Transcript, topics.TRANSCRIPT)
        self._speaking = self.add_publisher(Bool, topics.USER_SPEAKING)
        kind = live_speech_type()
        self._live = (kind, self.add_publisher(kind, topics.LIVE_SPEECH)) if kind else None
        self._speaking.publish(Bool(data=False))
        self._due: dict[str, float] = {}  # when the final request of an utterance was made
        self._recognition = Recognition(self._recognizer, self.guard(self._on_answer, "a recognised text"))
        self.add_subscription(Bool, topics.ROBOT_SPEAKING, self._on_robot_speaking)
        if self._suppressor is not None:
            self.add_subscription(AudioChunk, topics.AUDIO, self._on_played, topics.AUDIO_DEEP_QOS)
        self.add_subscription(AudioChunk, topics.MIC, self._on_mic, topics.AUDIO_DEEP_QOS)
        self.add_timer(TICK_S, self._on_tick)

    def end(self) -> None:
        with self._sent:
            self._open = False
        if self._recognition is not None and not self._recognition.close(CLOSE_S):
            self.report(f"a recognition still runs after {CLOSE_S:g} s; it is left alone")
        self._recognition = None

    def unload(self) -> None:
        self._recognizer = self._suppressor = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        recognition = self._recognition
        if recognition is None:
            return 0, "", {}
        waiting = recognition.waiting_s
        values = {
            "detector": type(self._ear.detector).__name__ if self._ear else "no microphone heard",
            "user_speaking": self._user_speaking,
            "muted": self._is_mute(),
            "echo": self._suppressor.describe() if self._suppressor else self.params["echo"],
            "utterances": self._finals,
            "waiting": f"{waiting:.1f} s",
            "partials_dropped": recognition.dropped,
            "last_final_after": f"{self._last_wait_s:.2f} s",
        }
        if waiting > LATE_S:
            return (
                1,
                f"{waiting:.0f} s of speech wait: take a smaller model, or longer partial_interval",
                values,
            )
        if self._suppressor is not None and self._robot_speaking and self._played.end is None:
            return 1, f"nothing comes on '{topics.AUDIO}': the robot's voice is taken for the user's", values
        return 0, "", values

    # ------------------------------------------------------------ hearing

    def _detector(self):
        return load_vad(self.params["vad"], RATE, energy=self._energy, silero=self._silero)

    def _now_s(self) -> float:
        return self._steady.now().nanoseconds / NANOSECONDS

    def _is_mute(self) -> bool:
        if self.params["echo"] != MUTE:
            return False
        return self._robot_speaking or self._now_s() < self._mute_until_s

    def _on_robot_speaking(self, message: Bool) -> None:
        if self._robot_speaking and not message.data:
            self._mute_until_s = self._now_s() + self.params["mute_hangover"]
        self._robot_speaking = message.data
        if self._is_mute():
            self._finish()  # what the user has said so far, before the robot talks over it

    def _on_played(self, message: AudioChunk) -> None:
        pcm, rate = audio_array(message)
        self._played.push(pcm, rate, from_time(message.header.stamp))

    def _new_ear(self, rate: int) -> Ear:
        suppressor, played = self._suppressor, self._played
        echo = None if suppressor is None else lambda: EchoFilter(suppressor, played)
        return Ear(rate, self._detector(), self._hearing, echo)

    def _on_mic(self, message: AudioChunk) -> None:
        pcm, rate = self._decode(message)
        self._heard_s = self._now_s()
        if self._is_mute():
            return
        if self._ear is None or self._ear.sample_rate != rate:
            self._finish()
            self._ear = self._new_ear(rate)
        stamp = from_time(message.header.stamp)
        if stamp == 0:
            stamp = self.now_ns() - len(pcm) * NANOSECONDS // rate
        self._hearing.origin_ns = stamp - round(self._ear.seconds * NANOSECONDS)
        voices, requests = self._ear.hear(pcm, stamp)
        for voice in voices:
            self._tell(voice.voiced)
        self._ask(requests)

    def _finish(self) -> None:
        """Nobody is listened to any more: what was being said ends here."""
        if self._ear is None:
            return
        self._ask(self._ear.finish())
        self._tell(False)
        self._ear = None

    def _on_tick(self) -> None:
        if self._ear is not None and self._now_s() - self._heard_s > MIC_SILENT_S:
            self._finish()  # the microphone is gone in the middle of a word: nobody waits for the end of it

    def _tell(self, speaking: bool) -> None:
        if speaking != self._user_speaking:
            self._user_speaking = speaking
            self._speaking.publish(Bool(data=speaking))

    def _ask(self, requests: list[Request]) -> None:
        if self._recognition is None:
            return
        for request in requests:
            if request.final:
                self._due[request.utterance_id] = self._now_s()
            self._recognition.put(request)

    # ------------------------------------------------------------ in the recognition's thread

    def _on_answer(self, answer: Answer) -> None:
        request, found = answer.request, answer.hypothesis
        if answer.error:
            self.report(answer.error, f"utterance {request.utterance_id}")
        if not found.text and not request.final:
            return
        message = Transcript(
            utterance_id=request.utterance_id,
            text=found.text,
            locale=found.locale,
            final=request.final,
            confidence=float(found.confidence),
            start=to_time(request.origin_ns + round(found.start_s * NANOSECONDS)),
            end=to_time(request.origin_ns + round(found.end_s * NANOSECONDS)),
        )
        message.header.stamp = self.get_clock().now().to_msg()
        with self._sent:
            if not self._open:
                return
            self._transcripts.publish(message)
            if self._live is not None:
                kind, publisher = self._live
                publisher.publish(live_speech(kind, message))
        if request.final:
            self._finals += 1
            self._last_wait_s = self._now_s() - self._due.pop(request.utterance_id, self._now_s())
            self.get_logger().debug(f"{request.utterance_id}: {found.text!r}")


def main(args: list[str] | None = None) -> int:
    return run(SpeechRecognizer, args)


if __name__ == "__main__":
    sys.exit(main())
