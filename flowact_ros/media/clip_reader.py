# SPDX-License-Identifier: Apache-2.0
"""Any video file that FFmpeg reads, as frames at 25 a second and sound at 24 kHz, both from the file's time 0.

Frames are read one after the other, so a clip may be long. FFmpeg's own filters bring them to the frame rate (a
variable one, too) and tell where a new shot begins.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.error import BlockingIOError as NothingYet
from av.error import EOFError as Finished
from av.error import FFmpegError
from av.filter import Graph

from flowact_ros.media.errors import MediaError
from flowact_ros.media.resample import resample
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

CUT = 0.3  # score of FFmpeg's scene detection, 0 .. 1, above which a frame begins a new shot
_SMALL = "160:-2:flags=area"  # noise and small movements count less in a small picture


class ClipReader:
    """One file, opened and looked at. Raises MediaError, one line, for what has no video or no sound."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.damage: str | None = None  # why decoding ended early, once `frames` or `sound` met it
        if not self.path.is_file():
            raise MediaError(f"{self.path} does not exist; expected a video file")
        try:
            with av.open(str(self.path)) as container:
                kinds = {stream.type for stream in container.streams if stream.codec_context is not None}
        except (FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"{self.path} is no video that can be read ({error})") from error
        if "video" not in kinds:
            raise MediaError(f"{self.path} has no video that can be decoded")
        if "audio" not in kinds:
            raise MediaError(f"{self.path} has no sound that can be decoded; a face is learned with its speech")

    def frames(self) -> Iterator[tuple[np.ndarray, bool]]:
        """Frame k, uint8 `[H, W, 3]` as it is shown at k / 25 s, and whether a new shot begins with it.

        A clip that is damaged on the way ends there, and `damage` tells why. Raises MediaError when nothing came.
        """
        count = 0
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for picture, cut in _at_frame_rate(container.decode(stream), stream):
                    yield picture, cut or count == 0
                    count += 1
        except (FFmpegError, OSError, ValueError, TypeError) as error:
            self.damage = f"damaged at {count / FRAME_RATE:.1f} s ({error})"
        if count == 0:
            raise MediaError(f"{self.path} holds no video frame" + (f", {self.damage}" if self.damage else ""))

    def sound(self) -> np.ndarray:
        """float32 mono `[T]` at 24 kHz; sample n is heard at n / 24000 s. Raises MediaError when there is none."""
        blocks: list[tuple[int, np.ndarray]] = []
        rate = SAMPLE_RATE
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.audio[0]
                rate = int(stream.rate)
                plain = av.AudioResampler("fltp", "mono", rate)
                for frame in container.decode(stream):
                    if frame.pts is None:
                        continue
                    at = round(float(frame.pts * frame.time_base) * rate)
                    for part in plain.resample(frame):
                        pcm = part.to_ndarray()[0]
                        blocks.append((at, pcm))
                        at += pcm.size
        except (FFmpegError, OSError, ValueError, TypeError) as error:
            self.damage = self.damage or f"sound damaged ({error})"
        end = max((at + pcm.size for at, pcm in blocks), default=0)
        if end <= 0:
            raise MediaError(f"{self.path} holds no sound" + (f", {self.damage}" if self.damage else ""))
        whole = np.zeros(end, np.float32)
        for at, pcm in blocks:
            skip = max(0, -at)  # an encoder's priming lies before time 0
            whole[at + skip : at + pcm.size] = pcm[skip:]
        return resample(whole, rate, SAMPLE_RATE)


def _at_frame_rate(
    decoded: Iterator[av.VideoFrame], stream: av.VideoStream
) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames at 25 a second, and whether each begins a shot."""
    graph = sink = cuts = None
    begun: set[int] = set()
    turned = 0
    for frame in chain(decoded, [None]):  # None drains the filters
        if frame is None and graph is None:
            return
        if graph is None:
            turned = round(float(getattr(frame, "rotation", 0)) / 90) % 4  # how a phone was held
            graph, source, sink, cuts = _graph(stream)
        source.push(frame)
        while (scene := _pull(cuts)) is not None:
            begun.add(int(scene.pts))
        while (ready := _pull(sink)) is not None:
            picture = ready.to_ndarray(format="rgb24")
            yield np.ascontiguousarray(np.rot90(picture, turned)), int(ready.pts) in begun


def _graph(stream: av.VideoStream) -> tuple[Graph, object, object, object]:
    graph = Graph()
    source = graph.add_buffer(template=stream, time_base=stream.time_base)
    paced = graph.add("fps", f"fps={FRAME_RATE}:start_time=0")
    both, small = graph.add("split"), graph.add("scale", _SMALL)
    chosen = graph.add("select", f"gt(scene\\,{CUT})")
    sink, cuts = graph.add("buffersink"), graph.add("buffersink")
    source.link_to(paced)
    paced.link_to(both)
    both.link_to(sink, 0)
    both.link_to(small, 1)
    small.link_to(chosen)
    chosen.link_to(cuts)
    graph.configure()
    return graph, source, sink, cuts


def _pull(sink: object) -> av.VideoFrame | None:
    try:
        return sink.pull()
    except (NothingYet, Finished):
        return None
