# SPDX-License-Identifier: Apache-2.0
"""Text to speech: serves `synthesize`, by which `say` speaks a text.

python -m flowact_ros.nodes.speech_synthesizer --ros-args -r __ns:=/avatar -p rate:=1.1
ros2 service call /avatar/synthesize flowact_msgs/srv/Synthesize "{text: Good morning}"

A robot with a synthesizer of its own leaves this node out and serves the same service, or publishes `speech`.
"""

from __future__ import annotations

import sys
import time

from flowact_msgs.msg import WordTime
from flowact_msgs.srv import Synthesize
from flowact_ros.dialogue.speech import NothingToSay, Speech, SynthesizerError
from flowact_ros.dialogue.synthesizer import BACKENDS, Synthesizer, load_synthesizer
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, one_line, run
from flowact_ros.nodes.convert import audio_message, to_duration, to_time
from flowact_ros.nodes.params import Param
from flowact_ros.nodes.yielding import yielding
from flowact_ros.timebase import SAMPLE_RATE

MAX_TEXT = 2000  # characters of a request: a paragraph; `say` sends sentences
LANGUAGE = "en"  # of all voices there are
WARM_UP = "Yes."  # the first text takes a backend ten times as long as others


class SpeechSynthesizer(FlowactNode):
    """Thin: backends are in `dialogue/synthesizer*`. They work in a thread of their own, never in the executor."""

    PARAMETERS = (
        Param(
            "backend",
            "hibari",
            "Who speaks; flite, espeak: with libflite1, libespeak-ng1; kokoro: with `flowact weights get kokoro`",
            choices=tuple(BACKENDS),
        ),
        Param("voice", "", "Of the backend; empty: its first one"),
        Param("rate", 1.0, "2 speaks twice as fast", range=(0.5, 2.0), live=True),
        Param("pitch", 1.0, "2 speaks an octave higher", range=(0.5, 2.0), live=True),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("speech_synthesizer", **options)
        self._synthesizer: Synthesizer | None = None
        self._active = False
        self._texts, self._spoken_s, self._worked_s = 0, 0.0, 0.0

    def load(self) -> None:
        self._backend, self._voice = self.params["backend"], self.params["voice"]
        # A second or two of computing: started again while a face is on the screen, it would take frames from that.
        self._synthesizer = yielding(self._warmed_up)
        # Served in the inactive state as well: it then says that it is not active.
        self.add_slow_service(Synthesize, topics.SYNTHESIZE, self._answer)
        self.get_logger().info(f"speaks by {self._backend}, voices: {', '.join(self._synthesizer.voices)}")

    def begin(self) -> None:
        self._active = True

    def end(self) -> None:
        self._active = False

    def unload(self) -> None:
        self._synthesizer = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        if not self._texts:
            return 0, "", {}
        factor = round(self._worked_s / max(self._spoken_s, 1e-6), 3)
        values = {"backend": self._backend, "texts": self._texts, "spoken_s": round(self._spoken_s, 1)}
        return 0, f"{self._texts} texts spoken", {**values, "real_time_factor": factor}

    # ------------------------------------------------------------ worker thread

    def _answer(self, request: Synthesize.Request, response: Synthesize.Response) -> Synthesize.Response:
        try:
            speech = self._speak(request)
            stamp = to_time(self.now_ns())
            response.audio = audio_message(speech.pcm, SAMPLE_RATE, stamp, last=True)
            response.words = [
                WordTime(text=word.text, start=to_duration(word.start_s), end=to_duration(word.end_s))
                for word in speech.words
            ]
        except _Refused as refusal:
            response.error_code, response.error_msg = refusal.code, str(refusal)
        except NothingToSay as error:
            response.error_code, response.error_msg = Synthesize.Response.NOTHING_TO_SAY, one_line(error)
        except Exception as error:  # a service must answer, whatever a backend raises
            self.report(error, topics.SYNTHESIZE)
            response.error_code, response.error_msg = Synthesize.Response.SYNTHESIZER_ERROR, one_line(error)
        return response

    def _speak(self, request: Synthesize.Request) -> Speech:
        """Raises _Refused, SynthesizerError."""
        synthesizer = self._synthesizer
        if not self._active or synthesizer is None:
            raise _Refused(Synthesize.Response.NOT_ACTIVE, "the speech synthesizer is not active")
        if len(request.text) > MAX_TEXT:
            reason = f"the text has {len(request.text)} characters: at most {MAX_TEXT} are spoken at once"
            raise _Refused(Synthesize.Response.SYNTHESIZER_ERROR, reason)
        language = request.locale.replace("_", "-").partition("-")[0].lower()
        if language not in ("", LANGUAGE):
            reason = (
                f"no voice of {self._backend} speaks {request.locale!r}: locale must be {LANGUAGE} or empty"
            )
            raise _Refused(Synthesize.Response.UNKNOWN_VOICE, reason)
        if request.voice and request.voice not in synthesizer.voices:
            reason = (
                f"{self._backend} has no voice {request.voice!r}; available: {', '.join(synthesizer.voices)}"
            )
            raise _Refused(Synthesize.Response.UNKNOWN_VOICE, reason)
        if request.voice not in ("", self._voice):
            synthesizer = self._load(request.voice)
        began = time.monotonic()
        speech = synthesizer.synthesize(request.text, rate=self.params["rate"], pitch=self.params["pitch"])
        self._texts += 1
        self._spoken_s += speech.seconds
        self._worked_s += time.monotonic() - began
        return speech

    def _warmed_up(self) -> Synthesizer:
        synthesizer = self._load(self._voice)
        synthesizer.synthesize(WARM_UP)
        return synthesizer

    def _load(self, voice: str) -> Synthesizer:
        return load_synthesizer(f"{self._backend}:{voice}" if voice else self._backend)


class _Refused(SynthesizerError):
    """A request that is not carried out, with the code of the answer."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def main(args: list[str] | None = None) -> int:
    return run(SpeechSynthesizer, args)


if __name__ == "__main__":
    sys.exit(main())
