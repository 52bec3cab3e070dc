# SPDX-License-Identifier: Apache-2.0
"""What the session drives and what it hands out: the seam between the networks and the live stream.

A `Pipeline` is a set of pure functions of explicit state (no threads, no clock); a `Session` owns time, audio and
threads. Nodes, benchmark, evaluation and command line touch only the session and the dataclasses below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from flowact_ros.timebase import SAMPLE_RATE

if TYPE_CHECKING:  # both import torch, which a robot whose avatar is computed elsewhere has not
    from flowact_ros.engine.provenance import Provenance
    from flowact_ros.models.codec.motion_statistics import MotionStatistics

#: [samples] of sound after a step that it may hear: 80 ms, and two chunks that the diagonal order has in flight.
MAX_LOOKAHEAD = SAMPLE_RATE * (80 + 2 * 480) // 1000


class EngineError(RuntimeError):
    """The stream cannot go on, or was asked for something that its state does not allow."""


class AudioError(ValueError):
    """Audio that cannot be taken: wrong shape, rate or metadata. The stream goes on without it."""


class AudioQueueFull(AudioError):
    """More speech is waiting than the queue may hold: push it later, or interrupt."""


class ReferenceError_(ValueError):
    """A reference image that cannot become a character; the message says why."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A character, ready to be animated.

    rgb: uint8 [H, W, 3] the image as given; id: name in records (filled with a hash of the pixels when empty);
    appearance: what the renderer draws with, made once, opaque here.
    """

    rgb: np.ndarray
    id: str = ""
    appearance: Any = None


@dataclass(frozen=True, eq=False)
class StreamState:
    """All that the next step depends on besides its inputs. A snapshot is a kept reference to one of these.

    latent_index: absolute index of the next latent (latent k holds frames 4k .. 4k+3); noise is a function of
    (seed, latent_index, step). The session may move latent_index forward when latents had to be skipped. recent: the
    latents before it, as many as the codec draws the next ones after; None for one that draws a latent by itself.
    """

    latent_index: int
    seed: int
    memory: Any
    reference: Reference
    recent: Any = None


class Latents(Protocol):
    """Clean latents of a step, opaque here: they are counted and cut, `latents[i:j]` is again Latents."""

    def __len__(self) -> int: ...

    def __getitem__(self, cut: slice) -> Latents: ...


@runtime_checkable
class Pipeline(Protocol):
    """The networks as the session sees them. Every method is deterministic and free of side effects."""

    context_samples: int  # at 24 kHz: past audio wanted before the first frame of a step
    lookahead_samples: int  # at 24 kHz, <= MAX_LOOKAHEAD: future audio wanted after its last frame
    height: int  # of published frames
    width: int
    control_names: tuple[str, ...]  # of the columns of `motion`
    training_motion: MotionStatistics | None  # what the live watch compares with; None: it is not known
    provenance: Provenance  # what computes, and with which weights
    waits_ms: Mapping[str, float]  # medians of what frames waited for, by name; empty where nothing is measured
    draws_beside: bool  # `denoise` has begun to draw, so that `render` only waits, and may in another thread; no gaze

    def load_reference(self, rgb: np.ndarray) -> Reference:
        """uint8 [H, W, 3] of any size -> Reference. Raises ReferenceError_ with the reason."""
        ...

    def start(self, reference: Reference, seed: int) -> StreamState:
        """State before latent 0."""
        ...

    def refine(self, state: StreamState) -> StreamState:
        """The same state with memory's newest entry renewed (paper, section 2.2), against what it inherited."""
        ...

    def denoise(
        self, state: StreamState, pcm: np.ndarray, n_latents: int, text: str, stop: Callable[[], bool] | None = None
    ) -> Latents | None:
        """pcm float32 [context + n*3840 + lookahead] at 24 kHz -> n latents.

        stop: asked before each evaluation of the network; once it says yes, the answer is None.
        """
        ...

    def advance(self, state: StreamState, latents: Latents) -> StreamState:
        """Commit latents (of a whole step, or its front) to memory; returns the state after them."""
        ...

    def render(self, reference: Reference, latents: Latents) -> np.ndarray:
        """n latents -> frames uint8 [4 * n, height, width, 3]. A function of these two alone."""
        ...

    def draw(self, reference: Reference, latents: Iterator[Latents]) -> Iterator[np.ndarray]:
        """The same of one latent after another, of which the next may be asked for before the frames of one are given.

        To be closed where not all frames are wanted.
        """
        ...

    def motion(self, latents: Latents) -> np.ndarray:
        """n latents -> float32 [4 * n, K], the controls of the rig in their own units: exactly what is rendered of each
        frame that is drawn.
        """
        ...

    def with_motion(self, latents: Latents, motion: np.ndarray) -> Latents:
        """Latents that render as `motion` float32 [4 * n, K]; for pictures only, they are never committed."""
        ...

    def render_motion(self, reference: Reference, motion: np.ndarray) -> np.ndarray:
        """Recorded motion float32 [4 * n, K] -> frames uint8 [4 * n, height, width, 3], without the denoiser."""
        ...

    def save(self, state: StreamState) -> bytes:
        """What `restore` needs to give this state again, in the same and in another process."""
        ...

    def restore(self, saved: bytes, reference: Reference, seed: int) -> StreamState:
        """The state that was saved. Raises EngineError for bytes that this model cannot have saved."""
        ...


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture with exactly the sound that belongs to it.

    index: k; pts: presentation time t0 + k/25 in seconds of the session's clock; rgb: uint8 [H, W, 3]; motion: float32
    [K], the controls of the rig in frame k, in their own units (the picture shows an earlier frame's where not every
    frame is drawn); audio: float32 [960] at 24 kHz; utterance_id: whose speech sounds in it ("" for none); behaviour:
    one of vocabulary.BEHAVIOURS; speaking: speech sounds in it; repeated: picture and motion are the previous ones
    because the engine was late (the audio is always that of frame k).
    """

    index: int
    pts: float
    rgb: np.ndarray
    motion: np.ndarray
    audio: np.ndarray
    utterance_id: str
    behaviour: str
    speaking: bool
    repeated: bool


@dataclass(frozen=True)
class SpeechSpan:
    """Speech in content time: samples [start, end) at 24 kHz belong to `utterance_id`."""

    start: int
    end: int
    utterance_id: str


@dataclass(frozen=True, eq=False)
class DrawnLatent:
    """What a step drew of one latent, for comparison with a replay.

    latent: its index; motion: float32 [4, K] as it was rendered; digest: see `engine.records.digest_of`, of its frames;
    pixels: uint8 [h, w, 3], some of its first frame's (`engine.records.sample`), to tell how far off other frames are.
    """

    latent: int
    motion: np.ndarray
    digest: int
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class ChunkRecord:
    """What one step used: replaying records in order with the same references gives the same frames.

    A record whose first_sample lies before the end of the one before it is a rewind to there (a latent's boundary);
    one whose first_frame lies after its own first_sample skips what is between (the engine was late). `resets`
    changes when the step starts from the reference alone (set_reference, reset_memory). look: the target of the gaze,
    in halves of the screen to the right and up, exact in single precision; None: there was none. refines: memory was
    refined before the step. pcm: float32 at
    24 kHz from `first_sample` to the end of the step plus the look-ahead actually used; the context before it is what
    earlier records hold. drawn: what became of it, latent by latent; keyframe: with it a replay may begin here
    (`engine.keyframe`), empty in most records; provenance: what computed it.
    """

    step: int
    first_frame: int
    latents: int
    first_sample: int
    instruction: str
    behaviour: str
    utterance_id: str
    reference_id: str
    seed: int
    rewinds: int
    resets: int
    pcm: np.ndarray
    spans: tuple[SpeechSpan, ...] = ()
    look: tuple[float, float] | None = None
    refines: bool = False
    drawn: tuple[DrawnLatent, ...] = ()
    keyframe: bytes = b""
    provenance: Provenance | None = None
