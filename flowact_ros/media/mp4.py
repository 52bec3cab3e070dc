# SPDX-License-Identifier: Apache-2.0
"""Video with sound in and out of an mp4 file: H.264 + AAC, frame k at exactly k / fps, sample n at n / rate.

An AAC encoder delays sound by its priming samples (1024). They get negative time stamps here, which the muxer turns
into an edit list, so players and `read_mp4` start the sound at the same t0 as the picture.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.codec import Codec
from av.error import FFmpegError

from flowact_ros.media.errors import MediaError
from flowact_ros.media.jpeg import check_rgb
from flowact_ros.timebase import FRAME_RATE, SAMPLE_RATE

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)
_AUDIO_BLOCK = 1024  # samples an AAC packet holds
_BT601, _LIMITED = 6, 1  # SMPTE 170M and studio range: what swscale writes from RGB unless told otherwise


class Mp4Writer:
    """Writes frames and sound that start at the same instant; frames and samples may arrive in any interleaving.

    `width` and `height` [px] must be even. `crf` is the x264 quality (lower is better). The file appears under its
    name only when `close` ran: until then it is `NAME.part`, so that half a recording is never taken for a whole one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: int = FRAME_RATE,
        sample_rate: int = SAMPLE_RATE,
        *,
        crf: int = 18,
        preset: str = "veryfast",
    ) -> None:
        self.path = Path(path)
        if width < 16 or height < 16 or width % 2 or height % 2:
            raise MediaError(f"cannot record {width}x{height}; expected even sides of at least 16 pixels")
        if fps < 1 or sample_rate not in _AAC_RATES:
            raise MediaError(
                f"cannot record {fps} fps, {sample_rate} Hz; expected fps >= 1 and a rate of {_AAC_RATES}"
            )
        self.width, self.height, self.fps, self.sample_rate = (
            int(width),
            int(height),
            int(fps),
            int(sample_rate),
        )
        self.frames = 0  # written so far
        self.samples = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._pending = np.zeros(0, dtype=np.float32)
        try:
            self._part.open("wb").close()  # PyAV opens the file late; a wrong directory should be told now
            self._container = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        except (FFmpegError, OSError, ValueError) as error:
            raise MediaError(f"cannot write {self.path}: {error}") from error
        self._video = self._open_video(crf, preset)
        self._audio = self._container.add_stream("aac", rate=self.sample_rate, layout="mono")
        self._audio.bit_rate = 128_000
        self._closed = False

    def _open_video(self, crf: int, preset: str) -> av.VideoStream:
        name = "libx264" if _has_encoder("libx264") else "mpeg4"
        stream = self._container.add_stream(name, rate=self.fps)
        stream.width, stream.height, stream.pix_fmt = self.width, self.height, "yuv420p"
        context = stream.codec_context
        context.time_base = Fraction(1, self.fps)
        context.thread_count = 1  # a recording runs beside the live stream and must not take its cores
        context.colorspace = context.color_primaries = context.color_trc = _BT601
        context.color_range = _LIMITED
        if name == "libx264":
            stream.options = {"crf": str(crf), "preset": preset}
        else:
            stream.bit_rate = 12 * self.width * self.height
        return stream

    def write_frame(self, rgb: np.ndarray) -> None:
        """The next frame, uint8 [height, width, 3]."""
        self._check_open()
        rgb = check_rgb(rgb, "Mp4Writer.write_frame")
        if rgb.shape[:2] != (self.height, self.width):
            raise MediaError(
                f"frame is {rgb.shape[1]}x{rgb.shape[0]}; this recording is {self.width}x{self.height}"
            )
        frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
        frame.pts, frame.time_base = self.frames, Fraction(1, self.fps)
        self.frames += 1
        self._mux(self._video, frame)

    def write_audio(self, pcm: np.ndarray) -> None:
        """The next samples, float32 [n] mono at `sample_rate`."""
        self._check_open()
        pcm = np.asarray(pcm)
        if pcm.ndim != 1 or pcm.dtype.kind != "f" or not np.isfinite(pcm).all():
            raise MediaError(
                f"write_audio needs finite mono float samples [n], got {pcm.dtype} {list(pcm.shape)}"
            )
        self._pending = np.concatenate([self._pending, np.clip(pcm, -1.0, 1.0).astype(np.float32)])
        while self._pending.size >= _AUDIO_BLOCK:
            self._write_block(self._pending[:_AUDIO_BLOCK])
            self._pending = self._pending[_AUDIO_BLOCK:]

    def close(self) -> None:
        """Drains both encoders and puts the file in place. Harmless when called again."""
        if self._closed:
            return
        if self._pending.size:
            self._write_block(self._pending)
            self._pending = self._pending[:0]
        for stream, written in ((self._video, self.frames), (self._audio, self.samples)):
            if written:
                self._mux(stream, None)
        self._closed = True
        self._container.close()
        if not self.frames and not self.samples:
            self._part.unlink(missing_ok=True)
            raise MediaError(f"nothing was recorded, {self.path} is not written")
        os.replace(self._part, self.path)

    def discard(self) -> None:
        """Gives the recording up and removes what was written."""
        if not self._closed:
            self._closed = True
            try:
                self._container.close()
            except (FFmpegError, OSError):
                pass  # its end cannot be written, and is not wanted
            finally:
                self._part.unlink(missing_ok=True)

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _write_block(self, pcm: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = (
            self.sample_rate,
            self.samples,
            Fraction(1, self.sample_rate),
        )
        self.samples += pcm.size
        self._mux(self._audio, frame)

    def _mux(
        self, stream: av.VideoStream | av.AudioStream, frame: av.VideoFrame | av.AudioFrame | None
    ) -> None:
        try:
            for packet in stream.encode(frame):
                self._container.mux(packet)
        except (FFmpegError, OSError) as error:
            raise MediaError(f"cannot write {self.path}: {error}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise MediaError(f"{self.path} is closed; no more frames or sound can be written")


@dataclass(frozen=True)
class Clip:
    """A decoded file: `frames` uint8 [N, H, W, 3], `times` float64 [N] s, `pcm` float32 [T] mono from time 0."""

    frames: np.ndarray
    times: np.ndarray
    fps: float
    pcm: np.ndarray
    sample_rate: int


def read_mp4(path: str | os.PathLike[str], *, max_frames: int | None = None) -> Clip:
    """Decodes a video file whole (or its first `max_frames`), with sound placed by its time stamps.

    `pcm[n]` is what is heard at n / sample_rate after the file's time 0; it is empty when the file has no sound. Raises
    `MediaError` for a file that is missing, cut short or no video.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path} does not exist; expected a video file")
    frames: list[np.ndarray] = []
    times: list[float] = []
    blocks: list[tuple[int, np.ndarray]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise MediaError(f"{path} holds no video stream")
            video = container.streams.video[0]
            sound = container.streams.audio[0] if container.streams.audio else None
            fps = float(video.average_rate or video.guessed_rate or FRAME_RATE)
            rate = int(sound.rate) if sound is not None else 0
            for frame in container.decode([s for s in (video, sound) if s is not None]):
                if isinstance(frame, av.AudioFrame):
                    blocks.append((round(float(frame.pts * frame.time_base) * rate), _mono(frame)))
                elif max_frames is None or len(frames) < max_frames:
                    frames.append(frame.to_ndarray(format="rgb24"))
                    times.append(float(frame.pts * frame.time_base))
            length = None
            if sound is not None and sound.duration is not None:
                length = round(float(sound.duration * sound.time_base) * rate)
    except MediaError:
        raise
    except (FFmpegError, OSError, ValueError, TypeError) as error:
        raise MediaError(f"{path} is not a readable video ({error})") from error
    if not frames:
        raise MediaError(f"{path} holds no video frame")
    pcm = _place(blocks, length)
    if max_frames is not None and rate:
        pcm = pcm[: round(len(frames) * rate / fps)]
    return Clip(np.stack(frames), np.asarray(times), fps, pcm, rate)


def _mono(frame: av.AudioFrame) -> np.ndarray:
    pcm = frame.to_ndarray()
    if not frame.format.is_planar:
        pcm = pcm.reshape(-1, len(frame.layout.channels)).T
    if pcm.dtype.kind == "i":
        pcm = pcm.astype(np.float32) / float(np.iinfo(pcm.dtype).max + 1)
    return pcm.astype(np.float32).mean(axis=0)


def _place(blocks: list[tuple[int, np.ndarray]], length: int | None) -> np.ndarray:
    """Sound laid at its time stamps: before 0 cut (priming), gaps silent, padding after `length` cut."""
    end = max((at + block.size for at, block in blocks), default=0)
    pcm = np.zeros(max(end, 0), dtype=np.float32)
    for at, block in blocks:
        skip = max(0, -at)
        pcm[at + skip : at + block.size] = block[skip:]
    return pcm if length is None else pcm[:length]


def _has_encoder(name: str) -> bool:
    try:
        Codec(name, "w")
    except (ValueError, FFmpegError):  # PyAV: UnknownCodecError is a ValueError
        return False
    return True
