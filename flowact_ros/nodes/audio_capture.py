# SPDX-License-Identifier: Apache-2.0
"""Sound into ROS: a file or a microphone, as the avatar's `speech` or as the `mic` it hears.

python -m flowact_ros.nodes.audio_capture --ros-args -r __ns:=/avatar -p role:=speech -p file:=hello.wav
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
from rclpy.duration import Duration

from flowact_msgs.msg import AudioChunk
from flowact_ros.dialogue.vad import EnergyVad
from flowact_ros.media.errors import MediaError
from flowact_ros.media.wav import read_audio
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, run
from flowact_ros.nodes.convert import audio_message, to_time
from flowact_ros.nodes.microphone import Microphone
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.nodes.sound_device import SILENT_S, DeviceError
from flowact_ros.nodes.stamps import SteadyOffset

RETRY_S = 2.0  # between attempts to open a microphone
SETTLE_S = 0.3  # after a listener appeared: both ends must have found each other
BURST_CHUNKS = 20  # sent at once when as fast as possible; the listener's queue holds 50
BURST_PAUSE_S = 0.04
PREROLL_S = 0.2  # of a live voice, from before its onset was sure


class AudioCapture(FlowactNode):
    """Publishes `speech` or `mic`. Its thread reads the source; a source that fails leaves the node up."""

    PARAMETERS = (
        Param(
            "role",
            "speech",
            "What the sound is: what the avatar says, or what it hears",
            choices=("speech", "mic"),
        ),
        Param("source", "file", "Where the sound comes from", choices=("file", "microphone")),
        Param("file", "", "Path of an audio file (wav, flac, ogg, mp3); empty: nothing is played"),
        Param("loop", False, "Play the file again and again"),
        Param("loop_gap", 2.0, "[s] between two rounds of a looped file", range=(0.0, 3600.0)),
        Param("start_delay", 0.0, "[s] before the first round, once somebody listens", range=(0.0, 3600.0)),
        Param(
            "pace",
            1.0,
            "Speed of a file: 1 = as it sounds, 0 = as fast as the listener can",
            range=(0.0, 100.0),
        ),
        Param("chunk_ms", 40, "[ms] of sound in a message", range=(20, 40)),
        Param(
            "utterance_id", "", "Of the file; empty: made from its name. Rounds after the first get a number"
        ),
        Param("wait_for_listener", True, "Keep a file back until an avatar (for mic: anybody) subscribes"),
        Param("device", "default", "Microphone: part of its name, its index, or default"),
        Param(
            "sample_rate", 16000, "[Hz] wished of the microphone; its own if it cannot", range=(8000, 192000)
        ),
        Param(
            "gate", True, "role speech from a microphone: publish only while somebody speaks, as utterances"
        ),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("audio_capture", **options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._published = 0
        self._overflows = 0
        self._doing = ""

    def load(self) -> None:
        role, source = self.params["role"], self.params["source"]
        self._topic = topics.SPEECH if role == "speech" else topics.MIC
        self._source, self._gated = source, role == "speech" and self.params["gate"]
        self._file = self.params["file"]
        if source == "microphone" and self._file:
            raise ParameterError("parameter file: is given, but source is microphone; give one of the two")

    def begin(self) -> None:
        self._publisher = self.add_publisher(AudioChunk, self._topic, topics.AUDIO_DEEP_QOS)
        self._stopping.clear()
        self._sequence = 0
        work = self._play_file if self._source == "file" else self._capture
        self._thread = threading.Thread(
            target=self.guard(work, self._source), name="sound-source", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self._doing = ""

    def health(self) -> tuple[int, str, dict[str, object]]:
        values = {"chunks": self._published, "overflows": self._overflows, "doing": self._doing}
        return 0, self._doing, values

    # ------------------------------------------------------------ file

    def _play_file(self) -> None:
        if not self._file:
            self._doing = "nothing to play"
            return
        try:
            pcm, rate = read_audio(Path(self._file).expanduser())
        except MediaError as error:
            self.set_fault(str(error))
            return
        if not self._wait_for_listener() or self._stopping.wait(self.params["start_delay"]):
            return
        name = self.params["utterance_id"] or Path(self._file).stem
        number = 1
        while not self._stopping.is_set():
            self._doing = f"playing {Path(self._file).name}"
            self._play(pcm, rate, name if number == 1 else f"{name}-{number}")
            if not self.params["loop"] or self._stopping.wait(self.params["loop_gap"]):
                break
            number += 1
        self._doing = "file played"

    def _wait_for_listener(self) -> bool:
        """False if the node stops meanwhile."""
        if not self.params["wait_for_listener"]:
            return not self._stopping.is_set()
        self._doing = "waiting for a listener"
        known = 0
        while True:
            heard = self._heard_by_somebody()
            if heard and heard == known:  # nobody new since: both ends of each have found each other
                self._doing = ""
                return not self._stopping.is_set()
            known = heard
            if self._stopping.wait(SETTLE_S if heard else 0.05):
                return False

    def _heard_by_somebody(self) -> int:
        """Listeners, if all that are known are connected. Speech is for an avatar: that its planner listens is not
        enough, whose end is often there earlier; words would be lost.
        """
        listeners = self.get_subscriptions_info_by_topic(self.resolve_topic_name(self._topic))
        if self._topic == topics.SPEECH:
            state = self.get_publishers_info_by_topic(self.resolve_topic_name(topics.STATE))
            avatars = {(end.node_namespace, end.node_name) for end in state}
            if not any((end.node_namespace, end.node_name) in avatars for end in listeners):
                return 0
        connected = self._publisher.get_subscription_count()
        return connected if connected >= len(listeners) else 0

    def _play(self, pcm: np.ndarray, rate: int, utterance_id: str) -> None:
        step = max(1, rate * self.params["chunk_ms"] // 1000)
        pace = self.params["pace"]
        starts = range(0, len(pcm), step)
        began, began_ns = time.monotonic(), self.now_ns()
        for number, first in enumerate(starts):
            if pace > 0:
                wait = began + first / rate / pace - time.monotonic()
                stamp = began_ns + round(first / rate / pace * 1e9)
            else:
                wait = self._burst_pause(number)
                stamp = self.now_ns()
            if self._stopping.wait(max(0.0, wait)):
                return
            last = first + step >= len(pcm)
            self._publish(pcm[first : first + step], rate, stamp, first, number, utterance_id, last)

    def _burst_pause(self, number: int) -> float:
        """As fast as possible, but never more than the listener's queue holds: a reliable reader keeps 50."""
        if number == 0 or number % BURST_CHUNKS:
            return 0.0
        self._publisher.wait_for_all_acked(Duration(seconds=1.0))
        return BURST_PAUSE_S

    def _publish(
        self,
        pcm: np.ndarray,
        rate: int,
        stamp_ns: int,
        first: int,
        sequence: int,
        utterance_id: str,
        last: bool,
    ) -> None:
        self._publisher.publish(
            audio_message(
                pcm,
                rate,
                to_time(stamp_ns),
                first_sample=first,
                sequence=sequence,
                utterance_id=utterance_id,
                last=last,
                frame_id=self.get_name(),
            )
        )
        self._published += 1

    # ------------------------------------------------------------ microphone

    def _capture(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            try:
                microphone = Microphone(
                    self.params["device"],
                    self.params["sample_rate"],
                    self.params["chunk_ms"] / 1000,
                    rescan=attempt > 0,
                )
            except DeviceError as error:
                attempt += 1
                self.set_fault(f"{error} (tried again every {RETRY_S:g} s)")
                self._stopping.wait(RETRY_S)
                continue
            attempt = 1
            try:
                self.set_fault("")
                self._doing = f"listening to {microphone.name} at {microphone.rate} Hz"
                self.get_logger().info(self._doing)
                self._read(microphone)
            finally:
                microphone.close()

    def _read(self, microphone: Microphone) -> None:
        """Publishes blocks until the device falls silent or the node stops."""
        gate = VoiceGate(microphone.rate) if self._gated else None
        offset = SteadyOffset()
        position = sequence = 0
        heard = time.monotonic()
        while not self._stopping.is_set():
            block = microphone.read()
            self._overflows = microphone.overflows
            if block is None:
                if time.monotonic() - heard > SILENT_S:
                    self.set_fault(f"the microphone {microphone.name} delivers nothing; it is opened again")
                    return
                continue
            heard = time.monotonic()
            stamp = offset.take(self.now_ns(), time.monotonic_ns()) + round(block.captured * 1e9)
            if gate is None:
                self._publish(block.pcm, microphone.rate, stamp, position, sequence, "", False)
                position, sequence = position + len(block.pcm), sequence + 1
                continue
            out = gate.push(block.pcm)
            if out is None:
                continue
            first_ns = stamp - round((len(out.pcm) - len(block.pcm)) / microphone.rate * 1e9)
            self._publish(
                out.pcm, microphone.rate, first_ns, out.first_sample, out.sequence, out.utterance_id, out.last
            )


class GatedChunk:
    """A piece of an utterance cut out of a live sound."""

    __slots__ = ("pcm", "first_sample", "sequence", "utterance_id", "last")

    def __init__(
        self, pcm: np.ndarray, first_sample: int, sequence: int, utterance_id: str, last: bool
    ) -> None:
        self.pcm, self.first_sample, self.sequence = pcm, first_sample, sequence
        self.utterance_id, self.last = utterance_id, last


class VoiceGate:
    """Cuts a live sound into utterances by voice activity: nothing passes while nobody speaks."""

    def __init__(self, rate: int) -> None:
        self._vad = EnergyVad(rate)
        self._preroll = int(rate * PREROLL_S)
        self._kept = np.zeros(0, np.float32)
        self._open = False
        self._number = self._position = self._sequence = 0

    def push(self, pcm: np.ndarray) -> GatedChunk | None:
        events = self._vad.push(pcm)
        opens = any(event.voiced for event in events)
        if not self._open and not opens:
            self._kept = np.concatenate([self._kept, pcm])[-self._preroll :]
            return None
        if not self._open:
            self._open = True
            self._number, self._position, self._sequence = self._number + 1, 0, 0
            pcm = np.concatenate([self._kept, pcm])
            self._kept = self._kept[:0]
        last = not self._vad.voiced
        chunk = GatedChunk(pcm, self._position, self._sequence, f"live-{self._number}", last)
        self._position, self._sequence = self._position + len(pcm), self._sequence + 1
        self._open = not last
        return chunk


def main(args: list[str] | None = None) -> int:
    return run(AudioCapture, args)


if __name__ == "__main__":
    sys.exit(main())
