# SPDX-License-Identifier: Apache-2.0
"""A pipeline of integers: every frame tells which frame it is, which sound and text it heard and what came before it.

A picture's bytes are read back with `read_picture`; two equal pictures had equal histories.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from flowact_ros.engine.interfaces import Reference, ReferenceError_, StreamState
from flowact_ros.engine.provenance import Provenance
from flowact_ros.engine.watch import MotionFigures
from flowact_ros.timebase import SAMPLES_PER_FRAME, SAMPLES_PER_LATENT

SIDE = 8
COMMITTED = 9  # integers of a latent that memory sees
EVALUATIONS = 3  # of the denoiser a step


def crc(*parts: object) -> int:
    """A stable hash of what the parts print as, or of the bytes of arrays."""
    value = 0
    for part in parts:
        value = zlib.crc32(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode(), value)
    return value


@dataclass(frozen=True)
class Seen:
    """What a picture says. loudest: its frame's greatest |sample|, in 1/255; heard: hash of its step's whole window;
    reference: hash of the picture that the denoiser knew, appearance: of the one that it was drawn with.
    """

    frame: int
    heard: int
    memory: int
    text: int
    appearance: int
    loudest: int
    reference: int


def read_picture(rgb: np.ndarray) -> Seen:
    """uint8 [8, 8, 3] -> Seen."""
    words = np.frombuffer(np.ascontiguousarray(rgb).tobytes()[:28], np.uint32)
    return Seen(*(int(word) for word in words))


class FakePipeline:
    """Implements `Pipeline`. hook(stage) runs inside every call, outside of any lock: it may take time or fail.

    Latents are rows of integers; motion is the frame's index, its loudness, and where it looks (ahead, unless it is
    told: the bits of those floats are the last integers of a latent, and seen in its picture).
    """

    training_motion, waits_ms, draws_beside = None, {}, False
    provenance = Provenance("fake")
    control_names = ("frame", "loudest", "gaze_x", "gaze_y", "head_yaw", "head_pitch")

    def __init__(
        self,
        *,
        context_samples: int = 1920,
        lookahead_samples: int = 1920,
        hook: Callable[[str, float], None] | None = None,
    ) -> None:
        self.context_samples = context_samples
        self.lookahead_samples = lookahead_samples
        self.height = self.width = SIDE
        self.hook = hook or (lambda stage, count: None)
        self.windows: list[np.ndarray] = []
        self.rendered: list[int] = []  # latents, in the order of the calls

    def load_reference(self, rgb: np.ndarray) -> Reference:
        self.hook("load_reference", 1)
        if rgb.max() == 0:
            raise ReferenceError_("the reference image is black: a face is needed")
        return Reference(rgb=rgb, appearance=crc(rgb))

    def start(self, reference: Reference, seed: int) -> StreamState:
        return StreamState(
            latent_index=0, seed=seed, memory=crc("start", reference.appearance), reference=reference
        )

    def denoise(
        self, state: StreamState, pcm: np.ndarray, n_latents: int, text: str, stop: Callable[[], bool] | None = None
    ) -> np.ndarray | None:
        for _ in range(EVALUATIONS):
            if stop is not None and stop():
                return None
            self.hook("denoise", n_latents)
        wanted = self.context_samples + n_latents * SAMPLES_PER_LATENT + self.lookahead_samples
        assert pcm.shape == (wanted,) and pcm.dtype == np.float32
        self.windows.append(pcm)
        latents = np.zeros((n_latents, COMMITTED + 16), np.int64)
        for i in range(n_latents):
            loudest = []
            for frame in range(4):
                at = self.context_samples + i * SAMPLES_PER_LATENT + frame * SAMPLES_PER_FRAME
                loudest.append(round(float(np.abs(pcm[at : at + SAMPLES_PER_FRAME]).max()) * 255))
            index = state.latent_index + i
            noise = crc(state.seed, index)
            latents[i, :COMMITTED] = [
                index,
                crc(pcm, i),
                crc(state.memory, noise),
                crc(text),
                state.reference.appearance,
                *loudest,
            ]
        return latents

    def advance(self, state: StreamState, latents: np.ndarray) -> StreamState:
        self.hook("advance", len(latents))
        memory = state.memory
        for latent in latents:
            assert not latent[COMMITTED:].any()  # memory never sees a look that was told
            memory = crc(memory, latent[:COMMITTED])
        return StreamState(state.latent_index + len(latents), state.seed, memory, state.reference)

    def refine(self, state: StreamState) -> StreamState:
        self.hook("refine", 1)
        return StreamState(state.latent_index, state.seed, crc("refine", state.memory), state.reference)

    def render(self, reference: Reference, latents: np.ndarray) -> np.ndarray:
        self.hook("render", len(latents))
        self.rendered += [int(latent[0]) for latent in latents]
        frames = np.zeros((4 * len(latents), SIDE, SIDE, 3), np.uint8)
        for k, frame in enumerate(frames):
            latent, i = latents[k // 4], k % 4
            words = [latent[0] * 4 + i, *latent[1:4], reference.appearance, latent[5 + i], latent[4]]
            words.append(crc(latent[COMMITTED + 4 * i : COMMITTED + 4 * i + 4]))
            frame.reshape(-1)[:32] = np.frombuffer(np.array(words, np.uint32).tobytes(), np.uint8)
        return frames

    def draw(self, reference: Reference, latents: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        return (self.render(reference, latent) for latent in latents)

    def motion(self, latents: np.ndarray) -> np.ndarray:
        rows = [(4 * latent[0] + i, latent[5 + i]) for latent in latents for i in range(4)]
        looks = latents[:, COMMITTED:].astype(np.int32).view(np.float32).reshape(-1, 4)
        return np.concatenate([np.array(rows, np.float32), looks], 1)

    def with_motion(self, latents: np.ndarray, motion: np.ndarray) -> np.ndarray:
        told = latents.copy()
        told[:, COMMITTED:] = np.ascontiguousarray(motion[:, 2:]).view(np.int32).reshape(len(latents), 16)
        return told

    def render_motion(self, reference: Reference, motion: np.ndarray) -> np.ndarray:
        """Pictures that know their frame, its loudness and its character, and nothing of memory, sound and text."""
        latents = np.zeros((len(motion) // 4, COMMITTED + 16), np.int64)
        latents[:, 0], latents[:, 4] = motion[::4, 0] // 4, reference.appearance
        latents[:, 5:COMMITTED] = motion[:, 1].reshape(-1, 4)
        return self.render(reference, self.with_motion(latents, motion))

    def save(self, state: StreamState) -> bytes:
        return json.dumps([state.latent_index, state.memory]).encode()

    def restore(self, saved: bytes, reference: Reference, seed: int) -> StreamState:
        latent_index, memory = json.loads(saved)
        return StreamState(latent_index, seed, memory, reference)


def face(value: int = 100) -> np.ndarray:
    """A reference image, uint8 [16, 16, 3]."""
    return np.full((16, 16, 3), value, np.uint8)


class AskingWatch:
    """A watch that asks for what it is told to, at given frames."""

    figures, raised = MotionFigures(), 0

    def __init__(self, refine: tuple[int, ...], reset: tuple[int, ...]) -> None:
        self.refine, self.reset, self.frames, self.cuts = refine, reset, 0, 0
        self._refine = self._reset = False

    def frame(self, motion: np.ndarray | None, power: float) -> None:
        self.frames += 1
        self._refine |= self.frames in self.refine
        self._reset |= self.frames in self.reset

    def take_refine(self) -> bool:
        asked, self._refine = self._refine, False
        return asked

    def take_reset(self) -> bool:
        asked, self._reset = self._reset, False
        return asked

    def cut(self) -> None:
        self.cuts += 1
