# SPDX-License-Identifier: Apache-2.0
"""The avatar: owns one engine session; speech and instructions in, frames with their sound out.

python -m flowact_ros.nodes.avatar_generator --ros-args -r __ns:=/avatar -p preset:=avatar_cpu
"""

from __future__ import annotations

import os

# Before anything imports torch: an OpenMP team that spins while it waits takes the cores from the other one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import gc
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geometry_msgs.msg import PointStamped

from flowact_msgs.msg import AudioChunk, Instruction, StreamMetrics
from flowact_msgs.srv import SetReference
from flowact_ros.engine.interfaces import AudioQueueFull
from flowact_ros.engine.looking import Looking
from flowact_ros.engine.losses import QUEUE_FULL
from flowact_ros.engine.runtime import best_threads, give_memory_back, keep_freed_memory, spare_the_collector
from flowact_ros.launcher.resources import use_image_profile
from flowact_ros.nodes import topics
from flowact_ros.nodes.audio_decoder import AudioDecoder
from flowact_ros.nodes.base import STUCK_S, FlowactNode, one_line, run
from flowact_ros.nodes.captions import CaptionPublisher
from flowact_ros.nodes.convert import ConversionError, behaviour_name
from flowact_ros.nodes.engine_config import engine_config
from flowact_ros.nodes.engine_log import forward
from flowact_ros.nodes.engine_messages import metrics_message
from flowact_ros.nodes.frame_publisher import FramePublisher
from flowact_ros.nodes.generator_params import PARAMETERS, audio_weights
from flowact_ros.nodes.kept_reference import KeptReference
from flowact_ros.nodes.look_point import Screen
from flowact_ros.nodes.motion_health import motion_health
from flowact_ros.nodes.params import ParameterError
from flowact_ros.nodes.record_publisher import RecordPublisher
from flowact_ros.nodes.reference_request import Refused, change_character
from flowact_ros.nodes.say_server import SayServer
from flowact_ros.nodes.skills import Skills
from flowact_ros.nodes.stream_services import StreamServices
from flowact_ros.nodes.uninstructed import UninstructedBehaviour, wording_of

if TYPE_CHECKING:
    import numpy as np

    from flowact_ros.engine import interfaces
    from flowact_ros.engine.metrics import StreamMetrics as StreamFigures
    from flowact_ros.engine.session import Session

WARM_UP_FRAMES = 2 * 12  # two chunks: with an empty and with a filled memory
TEND_S = 0.1  # how often what is not urgent is looked at
RESTART_S = 0.5  # before a stream that failed is started again; doubled each time
LONGEST_RESTART_S = 30.0


class AvatarGenerator(FlowactNode):
    """Thin: everything about audio, frames and time is in `engine.Session`."""

    PARAMETERS = PARAMETERS

    def __init__(self, **options: object) -> None:
        super().__init__("avatar_generator", **options)
        self._pipeline: interfaces.Pipeline | None = None
        self._reference: interfaces.Reference | np.ndarray | None = None
        self._session: Session | None = None
        self._figures: StreamFigures | None = None  # of the last second
        self._publisher: FramePublisher | None = None
        self._say: SayServer | None = None
        self._skills: Skills | None = None
        self._stream_services: StreamServices | None = None
        self._records: RecordPublisher | None = None
        self._alone: UninstructedBehaviour | None = None
        self._kept = KeptReference(self.get_fully_qualified_name())
        self._chosen: tuple[np.ndarray, str] | None = None  # by `set_reference`
        self._steps, self._stepped = 0, time.monotonic()
        self._ended = threading.Event()
        self._failures = 0
        self._revive_at = 0.0
        self.create_timer(0.5, self.guard(self._revive), clock=self._steady)

    # ------------------------------------------------------------ lifecycle

    def load(self) -> None:
        if self.params["threads"] and "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(self.params["threads"])
        import torch

        torch.set_num_threads(self.params["threads"] or best_threads())
        from flowact_ros.engine.pipeline import build_pipeline
        from flowact_ros.engine.references import load_reference

        self._config, overrides = engine_config(self.params["engine_config"])
        overrides = {
            **overrides,
            "schedule": {**overrides.get("schedule", {}), "order": self.params["schedule"]},
        }
        self._pipeline = build_pipeline(
            self.params["preset"],
            self.params["device"],
            overrides=overrides,
            weights=self.params["weights_dir"] or None,
            runtime=self.params["runtime"],
            audio_backend=self.params["audio_backend"],
            audio_path=audio_weights(self.params),
            text_backend=self.params["text_backend"],
            text_path=self.params["text_path"] or None,
        )
        self._reference = load_reference(self._pipeline, *self._first_reference())
        self._reference_id = self._reference.id
        self._warm_up()
        # Requests are answered in the inactive state as well: that the avatar is not active.
        self._say = SayServer(self)
        self._skills = Skills(self)
        # Encoding a picture takes seconds, in which somebody may want to interrupt.
        self.add_slow_service(SetReference, topics.SET_REFERENCE, self._set_reference)
        self._stream_services = StreamServices(self, self._say)
        spare_the_collector()
        size = f"{self._pipeline.width}×{self._pipeline.height}"
        self.get_logger().info(
            f"{self.params['preset']} on {self.params['device']}: {size}, {self._reference_id}"
        )

    def _warm_up(self) -> None:
        """One step of every size, thrown away: the first one costs much more, and would be late on the screen."""
        from flowact_ros.engine.session import Session

        session = Session(self._pipeline, self._reference, config=self._config)
        frames = session.frames(realtime=False)
        for _ in range(WARM_UP_FRAMES):
            next(frames)
        session.close()

    def _first_reference(self) -> tuple[Any, str]:
        """(uint8 [H, W, 3], its name if it is a shipped one) of the character to begin with. Raises ValueError."""
        from flowact_ros.engine.characters import list_characters, load_character

        self._chosen = self._kept.take() or self._chosen
        if self._chosen is not None:  # the character stays the same when the process or the stream starts anew
            self.get_logger().info(f"goes on with {self._chosen[1]}, which set_reference had chosen")
            return self._chosen
        path, name = self.params["reference_image"], self.params["character"]
        if path:
            from flowact_ros.media.image import read_image

            return read_image(Path(path).expanduser()), ""
        names = list_characters()
        name = name or (names[0] if names else "")
        if name not in names:
            raise ParameterError(
                f"parameter character: {name!r} is not one of {', '.join(names) or 'none installed'}"
            )
        return load_character(name), name

    def begin(self) -> None:
        from flowact_ros.engine.session import Session

        assert self._pipeline is not None  # `load` made it
        self.add_entity(forward(self.get_logger()))
        self._decode = AudioDecoder(self.get_logger().warning)
        self._screen = Screen(
            self.params["screen_width"], self.params["screen_height"], self.params["eye_depth"]
        )
        self._records = RecordPublisher(self)
        self._captions = CaptionPublisher(self)
        self._metrics = self.add_publisher(StreamMetrics, topics.METRICS)
        self._ended.clear()
        looking = Looking(
            self.params["gaze"], timeout_s=self.params["look_at_timeout"], seed=self.params["seed"]
        )
        session = Session(
            self._pipeline,
            self._reference,
            seed=self.params["seed"],
            config=self._config,
            on_chunk=self._records.take,
            reference_id=self._reference_id,
            looking=looking,
        )
        self._alone = UninstructedBehaviour(session)
        self._session, self._looking = session, looking
        self._figures = None
        self._publisher = FramePublisher(
            self,
            session,
            controls=self._pipeline.control_names,
            encoding=self.params["audio_encoding"],
            jpeg_quality=self.params["jpeg_quality"],
            on_frame=self._on_frame,
            on_end=self._on_stream_end,
        )
        publisher = self._publisher
        if self._say is not None:
            self._say.attach(session, lambda: publisher.speaking, self._speech_comes)
        if self._stream_services is not None:
            self._stream_services.attach(session)
        self.add_subscription(AudioChunk, topics.SPEECH, self._on_speech, topics.AUDIO_DEEP_QOS)
        self.add_subscription(Instruction, topics.INSTRUCTION, self._on_instruction)
        self.add_subscription(PointStamped, topics.LOOK_AT, self._on_look_at)
        if self._skills is not None:
            self._skills.attach(
                self._on_look_at, session.look_away, lambda: publisher.speaking, self._on_instruction
            )
        self.add_timer(1.0, self._publish_metrics)
        self.add_timer(TEND_S, self._tend)
        session.start()
        publisher.start()
        self._stepped = time.monotonic()
        self._keep()

    def _keep(self) -> None:
        if self._chosen is not None:
            try:
                self._kept.keep(*self._chosen)
            except OSError as error:
                self.report(error, "the character will not come back after a crash")

    @property
    def lives(self) -> bool:
        """An engine that makes no step for so long will make none any more."""
        return super().lives and (self._session is None or time.monotonic() - self._stepped < STUCK_S)

    def end(self) -> None:
        if self._say is not None:
            self._say.detach()
        if self._skills is not None:
            self._skills.detach()
        if self._stream_services is not None:
            self._stream_services.detach()
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._publisher is not None:
            self._publisher.join()
            self._publish_records()  # of the last frames
            self._publisher = None

    def unload(self) -> None:
        self._pipeline = self._reference = self._alone = self._records = None
        self._say = self._skills = self._stream_services = None
        gc.unfreeze()
        gc.collect()
        give_memory_back()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def health(self) -> tuple[int, str, dict[str, object]]:
        session, publisher = self._session, self._publisher
        if session is None or publisher is None:
            return 0, "", {}
        values = {
            "fps": round(publisher.fps, 1),
            "frames": publisher.frames,
            "image_fill_ms": round(publisher.fill_ms, 2),
            "image_publish_ms": round(publisher.publish_ms, 2),
            "jpegs_dropped": publisher.jpegs_dropped,
            "preset": self.params["preset"],
            "reference": self._reference_id,
        }
        if self._ended.is_set():
            return 2, "the stream has ended", values
        level, alarm, motion = motion_health(self._figures)
        return level, alarm or f"{values['fps']} frames a second", {**values, **motion}

    # ------------------------------------------------------------ inputs (executor)

    def _on_speech(self, message: AudioChunk) -> None:
        if self._session is None:
            return
        try:
            pcm, rate = self._decode(message)
        except ConversionError:
            self._session.refuse_audio(len(message.data) // 2)
            raise
        try:
            taken = self._session.push_audio(
                pcm,
                rate,
                utterance_id=message.utterance_id,
                first_sample=int(message.first_sample),
                sequence=int(message.sequence),
                last=message.last,
            )
        except AudioQueueFull:
            self._session.refuse_audio(len(pcm), QUEUE_FULL)
            raise
        if taken:  # what is refused or empty does not make the face speak
            self._speech_comes(message.utterance_id)
            if self._publisher is not None:
                self._publisher.speech_accepted(message.utterance_id)

    def _speech_comes(self, utterance_id: str) -> None:
        if self._alone is not None:
            self._alone.speech(utterance_id)

    def _on_instruction(self, message: Instruction) -> None:
        behaviour = behaviour_name(message.behaviour)
        if self._session is None:
            return
        self._session.set_instruction(
            message.text or wording_of(behaviour),
            behaviour=behaviour,
            priority=int(message.priority),
            utterance_id=message.utterance_id,
        )
        self._alone = None

    def _on_look_at(self, message: PointStamped) -> None:
        if self._session is not None:
            self._session.look_at(*self._screen.place(message))

    def _set_reference(
        self, request: SetReference.Request, response: SetReference.Response
    ) -> SetReference.Response:
        try:
            chosen = change_character(self._session, request)
            # Kept for the next activation: the character stays the same when the stream starts anew.
            self._reference, self._reference_id = chosen.rgb, chosen.name
            self._chosen = (chosen.rgb, chosen.name)
            self._keep()
            response.reference_id = chosen.name
        except Refused as refusal:
            self.get_logger().warning(f"set_reference refused: {refusal}")
            response.error_code, response.error_msg = refusal.code, str(refusal)
        except Exception as error:  # a service must answer
            self.report(error, topics.SET_REFERENCE)
            response.error_code, response.error_msg = SetReference.Response.ENGINE_ERROR, one_line(error)
        return response

    # ------------------------------------------------------------ outputs

    def _on_frame(self, frame: interfaces.Frame) -> None:
        """Pacing thread."""
        said = None
        if self._say is not None:
            self._say.frame_left(frame)
            said = self._say.said(frame.utterance_id)
        if self._publisher is not None:
            self._captions.frame_left(frame, self._publisher.stamp_ns(frame.index), said)

    def _tend(self) -> None:
        if self._alone is not None and self._session is not None:
            self._alone.tick(self._publisher is not None and self._publisher.speaking)
        self._looking.policy, self._looking.timeout_s = self.params["gaze"], self.params["look_at_timeout"]
        if self._session is not None:
            self._session.recover(self.params["recover"])
        self._publish_records()

    def _publish_records(self) -> None:
        if self._records is not None and self._publisher is not None:
            self._records.publish(self._publisher.stamp_ns)

    def _publish_metrics(self) -> None:
        if self._session is not None and self._publisher is not None:
            figures = self._figures = self._session.metrics()
            if figures.steps != self._steps:
                self._steps, self._stepped = figures.steps, time.monotonic()
            message = metrics_message(figures, self._publisher.fps)
            message.header.stamp = self.get_clock().now().to_msg()
            self._metrics.publish(message)

    def _on_stream_end(self, error: BaseException | None) -> None:
        """Pacing thread: the frames ended, by `end` or because the engine failed."""
        if error is not None:
            self._failures += 1
            self._revive_at = time.monotonic() + min(RESTART_S * 2**self._failures, LONGEST_RESTART_S)
            self.report(error, "engine")
            self._ended.set()

    def _revive(self) -> None:
        """A stream that failed is started again: the screen must not stay frozen."""
        if self._ended.is_set() and self.state == "active" and time.monotonic() >= self._revive_at:
            self.get_logger().warning("the stream is started again")
            self.trigger_deactivate()
            self.trigger_activate()


def main(args: list[str] | None = None) -> int:
    keep_freed_memory()
    use_image_profile()
    status = run(AvatarGenerator, args)
    # Everything is closed and destroyed by now. What the interpreter would still do is take down the networks'
    # libraries, for seconds on a slow board: longer than launch waits before it kills.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
