# SPDX-License-Identifier: Apache-2.0
"""The avatar's topics into an mp4 file: frames and sound laid by their stamps; if wanted with the user's voice, and
with what both say, in the picture and as a text beside the file.

python -m flowact_ros.nodes.recorder --ros-args -r __ns:=/avatar -p path:=out.mp4 -p seconds:=20.0
python -m flowact_ros.nodes.recorder --ros-args -r __ns:=/avatar -p path:=out.mp4 -p voices:=true -p captions:=true
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image

from flowact_msgs.msg import AudioChunk, Transcript
from flowact_ros.media.errors import MediaError
from flowact_ros.media.mp4 import Mp4Writer
from flowact_ros.media.subtitles import burn
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.base import FlowactNode, run, tell_supervisor
from flowact_ros.nodes.content_time import ContentTime
from flowact_ros.nodes.convert import NANOSECONDS, audio_array, from_time, image_array
from flowact_ros.nodes.film_text import FilmText
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.nodes.stamps import is_simulated
from flowact_ros.nodes.voice_track import VoiceTrack
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

FRAME_NS = NANOSECONDS // FRAME_RATE
SOUND_WAIT_FRAMES = 25  # a picture waits so long for its sound before silence is written
FAR_FRAMES = 10 * FRAME_RATE  # a stamp farther from the others than this is of a clock that was set
FAR_ITEMS = 3  # in a row, before the file goes on with that clock
VOICE_WAIT_FRAMES = (
    10  # and for the user's voice: a frame leaves before its time, a microphone's sound after it
)


class Aligner:
    """Pictures and sound by stamps into a writer: frame n of the file is what was stamped start + n/25.

    The file starts with the first picture. A picture that never came is the one before it again; sound that never
    came is silence; sound before the start is cut. When the clock of the stamps is set, the file goes on without a gap.
    """

    def __init__(
        self, writer: Mp4Writer, start_ns: int, text: FilmText | None = None, *, voices: bool = False
    ) -> None:
        """text: of captions that are burnt in; voices: waits for the user's voice."""
        self._writer, self.start_ns, self._text = writer, start_ns, text
        self._wait = VOICE_WAIT_FRAMES if voices or text is not None else 0
        self._voice: dict[int, np.ndarray] = {}
        self._pictures: dict[int, np.ndarray] = {}
        self._sound: dict[int, np.ndarray] = {}
        self._last: np.ndarray | None = None
        self.written = 0
        self.missing_pictures = 0
        self.missing_sound = 0
        self._newest = 0  # place of the newest item
        self._far = 0  # items in a row that are far from it

    def _place(self, stamp_ns: int) -> int | None:
        """Its frame in the file; None for one that is far from all others, as long as it is alone."""
        place = round((stamp_ns - self.start_ns) / FRAME_NS)
        if abs(place - self._newest) > FAR_FRAMES:
            self._far += 1
            if self._far < FAR_ITEMS:
                return None
            place = self._newest + 1
            self.start_ns = stamp_ns - place * FRAME_NS
        self._far, self._newest = 0, max(self._newest, place)
        return place

    def add_picture(self, stamp_ns: int, rgb: np.ndarray) -> None:
        place = self._place(stamp_ns)
        if place is not None:
            self._pictures[place] = rgb

    def add_sound(self, stamp_ns: int, pcm: np.ndarray) -> None:
        """float32 [960 n] at 24 kHz."""
        place = self._place(stamp_ns)
        if place is None:
            return
        for part in range(0, len(pcm), SAMPLES_PER_FRAME):
            self._sound[place + part // SAMPLES_PER_FRAME] = pcm[part : part + SAMPLES_PER_FRAME]

    def add_voice(self, stamp_ns: int, pcm: np.ndarray) -> None:
        """float32 [n] at 24 kHz of any time, to be heard together with the sound of the frames."""
        at = round((stamp_ns - self.start_ns) * SAMPLE_RATE / NANOSECONDS)
        while len(pcm):
            place, offset = divmod(at, SAMPLES_PER_FRAME)
            part, pcm = pcm[: SAMPLES_PER_FRAME - offset], pcm[SAMPLES_PER_FRAME - offset :]
            if place >= self.written:
                block = self._voice.setdefault(place, np.zeros(SAMPLES_PER_FRAME, np.float32))
                block[offset : offset + len(part)] += part
            at += len(part)

    def write(self, *, until: int | None = None, finish: bool = False) -> None:
        """Writes what is complete; with `finish` all that is there. At most `until` frames in all."""
        while until is None or self.written < until:
            n = self.written
            newest = max(self._pictures, default=-1)
            complete = n in self._pictures and n in self._sound and newest - n >= self._wait
            # Later ones are here: this one will not come any more (topics keep their order).
            late = newest - n >= SOUND_WAIT_FRAMES
            if not (complete or ((late or finish) and newest >= n)):
                break
            self._write_one(n)
        for store in (self._pictures, self._sound, self._voice):
            for key in [key for key in store if key < self.written]:
                del store[key]

    def _write_one(self, n: int) -> None:
        picture = self._pictures.get(n)
        if picture is None:
            self.missing_pictures += 1
            picture = self._last
        sound = self._sound.get(n)
        if sound is None:
            self.missing_sound += 1
            sound = np.zeros(SAMPLES_PER_FRAME, np.float32)
        if picture is not None:
            seen = (
                picture if self._text is None else burn(picture, *self._text.at(self.start_ns + n * FRAME_NS))
            )
            self._writer.write_frame(seen)
        self._last = picture
        block = np.zeros(SAMPLES_PER_FRAME, np.float32)
        block[: len(sound)] = sound
        if n in self._voice:
            block += self._voice[n]
        self._writer.write_audio(block)
        self.written += 1


class Recorder(FlowactNode):
    """Writes until `seconds` of content are in the file, or until it is stopped; then the process ends."""

    PARAMETERS = (
        Param("path", "", "The mp4 file to write"),
        Param(
            "seconds",
            0.0,
            "[s] of content, after which the recording ends; 0: until stopped",
            range=(0.0, 86400.0),
        ),
        Param("voices", False, "What the user says is heard as well: `mic` is mixed in"),
        Param(
            "captions",
            False,
            "What both say is in the picture, and in a .txt file beside the video: a line a sentence, with its times",
        ),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("recorder", **options)
        self.finished = threading.Event()
        self._items: queue.Queue[tuple[str, int, np.ndarray] | None] = queue.Queue(500)
        self._thread: threading.Thread | None = None
        self._lost = 0
        self._writer: Mp4Writer | None = None

    def load(self) -> None:
        if not self.params["path"]:
            raise ParameterError("parameter path: must name the mp4 file to write")
        self._path = Path(self.params["path"]).expanduser()
        if self._path.suffix.lower() != ".mp4":
            raise ParameterError(f"parameter path: {self._path} must end in .mp4")
        if not self._path.parent.is_dir():
            raise ParameterError(f"parameter path: there is no folder {self._path.parent}")
        self._until = round(self.params["seconds"] * FRAME_RATE) or None

    def begin(self) -> None:
        self._times = ContentTime()
        self._text = FilmText() if self.params["captions"] else None
        self._thread = threading.Thread(
            target=self.guard(self._work, "recording"), name="recording", daemon=True
        )
        self._thread.start()
        self.add_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        self.add_subscription(Image, topics.IMAGE, self._on_image, topics.IMAGE_WATCH_QOS)
        if self.params["voices"]:
            self._decode, self._track = AudioDecoder(self.get_logger().warning), VoiceTrack()
            self.add_subscription(AudioChunk, topics.MIC, self._on_mic, topics.AUDIO_DEEP_QOS)
        if self._text is not None:
            self.add_subscription(Transcript, topics.CAPTIONS, self._text.add)

    def end(self) -> None:
        if self._thread is not None:
            self._items.put(None)
            self._thread.join(timeout=30.0)
            self._thread = None

    def _on_image(self, message: Image) -> None:
        self._offer(("picture", self._times.picture(from_time(message.header.stamp)), image_array(message)))

    def _on_audio(self, message: AudioChunk) -> None:
        pcm, rate = audio_array(message)
        if rate != SAMPLE_RATE:
            raise ValueError(f"sound at {rate} Hz: recordings are {SAMPLE_RATE} Hz")
        stamp_ns, simulated = from_time(message.header.stamp), is_simulated(self.get_clock())
        time_ns = self._times.sound(stamp_ns, message.first_sample, rate, simulated=simulated)
        self._offer(("sound", time_ns, pcm))

    def _on_mic(self, message: AudioChunk) -> None:
        pcm, rate = self._decode(message)
        self._offer(("voice", *self._track.take(from_time(message.header.stamp), pcm, rate)))

    def _offer(self, item: tuple[str, int, np.ndarray]) -> None:
        try:
            self._items.put_nowait(item)
        except queue.Full:
            self._lost += 1
            self.report("the recording does not keep up: pictures are missing in it")

    def _work(self) -> None:
        try:
            self._record()
        except MediaError as error:  # the disk is full, say: without its end the file cannot be played
            self.report(f"the recording is given up: {error}; make room, and record again")
            tell_supervisor(event="recorded", frames=0)
            if self._writer is not None:
                self._writer.discard()
        finally:
            self.finished.set()

    def _record(self) -> None:
        aligner: Aligner | None = None
        writer: Mp4Writer | None = None
        early: list[tuple[int, np.ndarray]] = []
        try:
            while (item := self._items.get()) is not None and not self.finished.is_set():
                kind, stamp, data = item
                if kind == "voice" and aligner is None:
                    continue
                if kind == "sound" and aligner is None:
                    early = [*early[-50:], (stamp, data)]
                    continue
                if aligner is None:
                    writer = self._writer = Mp4Writer(self._path, data.shape[1], data.shape[0])
                    aligner = Aligner(writer, stamp, self._text, voices=self.params["voices"])
                    for earlier in early:
                        aligner.add_sound(*earlier)
                    tell_supervisor(event="recording", first_frame=time.time())
                if kind == "sound":
                    aligner.add_sound(stamp, data)
                elif kind == "voice":
                    aligner.add_voice(stamp, data)
                else:
                    aligner.add_picture(stamp, data)
                aligner.write(until=self._until)
                if self._until is not None and aligner.written >= self._until:
                    break
        except MediaError:
            raise
        except Exception as error:
            self.report(error, "recording")  # what there is of it is kept
        self._close(writer, aligner)

    def _close(self, writer: Mp4Writer | None, aligner: Aligner | None) -> None:
        if writer is None or aligner is None:
            self.report(f"nothing was recorded: no frame came, {self._path} is not written")
            tell_supervisor(event="recorded", frames=0)
            return
        aligner.write(until=self._until, finish=True)
        writer.close()
        if self._text is not None:
            self._path.with_suffix(".txt").write_text(
                self._text.transcript(aligner.start_ns), encoding="utf-8"
            )
        lost = f", {aligner.missing_pictures} pictures missing" if aligner.missing_pictures else ""
        self.get_logger().info(f"{self._path}: {aligner.written / FRAME_RATE:.2f} s{lost}")
        tell_supervisor(
            event="recorded",
            frames=aligner.written,
            missing_pictures=aligner.missing_pictures,
            missing_sound=aligner.missing_sound,
        )


def main(args: list[str] | None = None) -> int:
    return run(Recorder, args)


if __name__ == "__main__":
    sys.exit(main())
