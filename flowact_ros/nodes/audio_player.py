# SPDX-License-Identifier: Apache-2.0
"""The avatar's sound on the robot's own loudspeaker, at its stamps: no page is needed, its clock is corrected for.

python -m flowact_ros.nodes.audio_player --ros-args -r __ns:=/avatar -p device:=usb
"""

from __future__ import annotations

import functools
import sys
import threading
import time

import numpy as np

from flowact_msgs.msg import AudioChunk
from flowact_ros.media.playout import Playout
from flowact_ros.media.resample import resample
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, run
from flowact_ros.nodes.content_time import ContentTime
from flowact_ros.nodes.convert import NANOSECONDS, audio_array, from_time
from flowact_ros.nodes.loudspeaker import Loudspeaker
from flowact_ros.nodes.params import Param
from flowact_ros.nodes.sound_device import SILENT_S, DeviceError
from flowact_ros.nodes.stamp_clock import StampClock
from flowact_ros.nodes.stamps import is_simulated
from flowact_ros.timebase import SAMPLE_RATE

RETRY_S = 2.0  # between attempts to open a loudspeaker
WATCH_S = 0.2
FOREIGN_LOOKS = 10  # at stamps of another clock, every WATCH_S, before it is said


class AudioPlayer(FlowactNode):
    """Plays `audio`. A loudspeaker that is not there, or was unplugged, leaves the node up: it is tried again."""

    PARAMETERS = (
        Param("device", "default", "Loudspeaker: part of its name, its index, or default"),
        Param(
            "delay_ms",
            0,
            "[ms] later than its stamps that sound is heard: as much as the screen shows its pictures later",
            range=(0, 2000),
        ),
        Param("volume", 1.0, "Loudness, 0 (silent) … 1 (as it was made)", range=(0.0, 1.0), live=True),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("audio_player", **options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._playout: Playout | None = None
        self._doing = ""
        self._underflows = 0
        self._volume = 1.0

    def begin(self) -> None:
        self._stopping.clear()
        self._times, self._stamp_clock = ContentTime(), StampClock()
        self._heard_at = float("-inf")
        self._foreign_looks = 0
        self._volume = self.params["volume"]
        self._thread = threading.Thread(
            target=self.guard(self._play, "loudspeaker"), name="loudspeaker", daemon=True
        )
        self._thread.start()
        self.add_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        self.add_timer(WATCH_S, self._follow)

    def end(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
            self._thread = None
        self._playout, self._doing = None, ""

    def health(self) -> tuple[int, str, dict[str, object]]:
        playout = self._playout
        if playout is None:
            return 0, self._doing, {"doing": self._doing}
        figures = playout.figures()
        values = {
            "doing": self._doing,
            "skew_p50_ms": round(figures.skew_p50_s * 1e3, 1),
            "skew_p95_ms": round(figures.skew_p95_s * 1e3, 1),
            "drift_ppm": round(figures.drift_ppm),
            "delay_ms": round(figures.delay_s * 1e3),
            "missing_s": round(figures.missing_s, 2),
            "gaps": figures.gaps,
            "skips": figures.skips,
            "underflows": self._underflows,
        }
        if self._foreign_looks >= FOREIGN_LOOKS:
            return 1, self._foreign(), values
        if figures.delay_s:
            text = f"{self._doing} needs sound earlier than it comes: it is heard {values['delay_ms']} ms late"
            return 1, text, values
        if time.monotonic() - self._heard_at > SILENT_S:
            return 0, f"{self._doing}; no sound comes", values
        return 0, self._doing, values

    def _foreign(self) -> str:
        seconds = self._stamp_clock.foreign_ns / NANOSECONDS
        return (
            f"the sound's stamps are {abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'} this machine's "
            "clock: set both machines by the same time server; meanwhile sound is played as it arrives"
        )

    # ------------------------------------------------------------ executor

    def _on_audio(self, message: AudioChunk) -> None:
        pcm, rate = audio_array(message)
        simulated = is_simulated(self.get_clock())
        stamp_ns = from_time(message.header.stamp)
        stamp_ns = self._times.sound(stamp_ns, message.first_sample, rate, simulated=simulated)
        self._heard_at = time.monotonic()
        at_s = self._stamp_clock.place(
            stamp_ns, clock_ns=self.now_ns(), monotonic_ns=time.monotonic_ns(), simulated=simulated
        )
        playout = self._playout
        if playout is not None:
            playout.push(pcm if rate == SAMPLE_RATE else resample(pcm, rate, SAMPLE_RATE), at_s)

    def _follow(self) -> None:
        self._volume = self.params["volume"]
        # A clock that was just set differs for a moment: stamps follow it within a second.
        self._foreign_looks = self._foreign_looks + 1 if self._stamp_clock.foreign_ns else 0
        if self._foreign_looks == FOREIGN_LOOKS:
            self.get_logger().warning(self._foreign())

    # ------------------------------------------------------------ loudspeaker

    def _play(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            speaker: Loudspeaker | None = None
            try:
                speaker = Loudspeaker(self.params["device"], rescan=attempt > 0)
                playout = Playout(speaker.rate, delay_s=self.params["delay_ms"] / 1000)
                speaker.start(functools.partial(self._fill, playout))
            except DeviceError as error:
                self.set_fault(f"{error} (tried again every {RETRY_S:g} s)")
            else:
                self._use(speaker, playout)
            finally:
                self._playout = None
                if speaker is not None:
                    speaker.close()
            attempt += 1
            self._stopping.wait(RETRY_S)

    def _fill(self, playout: Playout, count: int, at_s: float) -> np.ndarray:
        """PortAudio's thread."""
        return playout.pull(count, at_s) * self._volume

    def _use(self, speaker: Loudspeaker, playout: Playout) -> None:
        """Until the device is gone or the node stops."""
        self.set_fault("")
        self._doing, self._playout = f"{speaker.name} at {speaker.rate} Hz", playout
        self.get_logger().info(f"plays on {self._doing}")
        while not self._stopping.wait(WATCH_S):
            self._underflows = speaker.underflows
            if not speaker.plays:
                self.set_fault(f"the loudspeaker {speaker.name} takes nothing; it is opened again")
                return


def main(args: list[str] | None = None) -> int:
    return run(AudioPlayer, args)


if __name__ == "__main__":
    sys.exit(main())
