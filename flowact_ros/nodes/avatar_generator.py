# SPDX-License-Identifier: Apache-2.0
"""The avatar: owns one engine session; speech and instructions in, frames with their sound out.

python -m flowact_ros.nodes.avatar_generator --ros-args -r __ns:=/avatar -p preset:=avatar_cpu
"""

from __future__ import annotations

import os

# Before anything imports torch: an OpenMP team that spins while it waits takes the cores from the other one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

from flowact_msgs.msg import StreamMetrics
from flowact_msgs.srv import SetReference
from flowact_ros.engine.looking import Looking
from flowact_ros.engine.runtime import best_threads, give_memory_back, spare_the_collector
from flowact_ros.engine.runtime.lost import lost_gpu
from flowact_ros.nodes import topics
from flowact_ros.nodes.avatar_interface import AvatarInterface
from flowact_ros.nodes.base import FlowactNode, one_line, run
from flowact_ros.nodes.engine_log import forward
from flowact_ros.nodes.engine_messages import metrics_message
from flowact_ros.nodes.frame_publisher import FramePublisher
from flowact_ros.nodes.generator_params import ON_CPU, PARAMETERS, cpu_values
from flowact_ros.nodes.generator_pipeline import build
from flowact_ros.nodes.generator_process import give_freed_memory_back, run_to_the_end
from flowact_ros.nodes.kept_reference import KeptReference
from flowact_ros.nodes.motion_health import WARN, motion_health
from flowact_ros.nodes.pace_health import too_slow
from flowact_ros.nodes.params import ParameterError
from flowact_ros.nodes.record_publisher import RecordPublisher
from flowact_ros.nodes.reference_request import Refused, change_character

if TYPE_CHECKING:
    import numpy as np

    from flowact_ros.engine import interfaces
    from flowact_ros.engine.metrics import StreamMetrics as StreamFigures
    from flowact_ros.engine.session import Session
    from flowact_ros.engine.session_config import SessionConfig

TEND_S = 0.1  # how often what is not urgent is looked at
TRIM_S = 60.0  # how often what hands, other characters and floods of messages took goes back: malloc keeps it
ENGINE_STUCK_S = 6.0  # a dozen steps: a stream that is so late shows nothing that anybody would wait for
RESTART_S = 0.5  # before a stream that failed is started again; doubled each time
LONGEST_RESTART_S = 30.0
HEALTHY_S = 60.0  # a stream that ran for so long starts the doubling anew


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
        self._interface: AvatarInterface | None = None
        self._records: RecordPublisher | None = None
        self._kept = KeptReference(self.get_fully_qualified_name())
        self._chosen: tuple[np.ndarray, str] | None = None  # by `set_reference`
        self._stepped = time.monotonic()  # when the engine made its last step
        self._ended = threading.Event()
        self._failures = 0
        self._lost = ""  # what was said of a GPU that is lost; the stream ended by it
        self._revive_at = self._began = 0.0
        self._down = False  # a stream that failed could not be started again yet
        self.create_timer(0.5, self.guard(self._revive), clock=self._steady)

    # ------------------------------------------------------------ lifecycle

    def load(self) -> None:
        if self.params["threads"] and "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(self.params["threads"])
        from flowact_ros.engine.references import load_reference

        began = time.monotonic()
        self._config, self._pipeline = self._build()
        loaded_s = time.monotonic() - began
        self._reference = load_reference(self._pipeline, *self._first_reference())
        self._reference_id = self._reference.id
        self._warm_up()
        self._interface = AvatarInterface(self, self._set_reference)
        spare_the_collector()
        size = f"{self._pipeline.width}×{self._pipeline.height}"
        self.get_logger().info(
            f"{self.params['preset']} on {self.params['device']}: {size}, {self._reference_id}; "
            f"networks loaded in {loaded_s:.1f} s, ready after {time.monotonic() - began:.1f} s"
        )

    def _build(self) -> tuple[SessionConfig, interfaces.Pipeline]:
        """The stream's settings and the networks. Raises what `generator_pipeline.build` raises."""
        import torch

        torch.set_num_threads(self.params["threads"] or best_threads())
        return build(self.params)

    def _warm_up(self) -> None:
        """What costs much more the first time would be late on the screen. After a reference was drawn: what that has
        compiled is not to be prepared again.
        """
        assert self._pipeline is not None  # `_build` made it
        self._pipeline.prepare(self.get_logger().info)
        self._pipeline.warm_up(self._reference)

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

    def _open(self, **options: Any) -> Session:
        """The session of an activation; options: of `Session`. Raises what that raises."""
        from flowact_ros.engine.session import Session

        assert self._pipeline is not None  # `load` made it
        return Session(self._pipeline, self._reference, **options)

    def _free(self) -> None:
        """What the networks took goes back, once they are forgotten."""
        give_freed_memory_back()

    def begin(self) -> None:
        assert self._pipeline is not None and self._interface is not None  # `load` made them
        self._forward_engine_log()
        self._records = RecordPublisher(self, self._pipeline.control_names)
        self._metrics = self.add_publisher(StreamMetrics, topics.METRICS)
        self._ended.clear()
        looking = Looking(
            self.params["gaze"], timeout_s=self.params["look_at_timeout"], seed=self.params["seed"]
        )
        session = self._open(
            seed=self.params["seed"],
            config=self._config,
            on_chunk=self._on_chunk,
            on_reference=self._records.take_reference,
            reference_id=self._reference_id,
            looking=looking,
        )
        self._session, self._looking = session, looking
        self._figures = None
        self._publisher = FramePublisher(
            self,
            session,
            controls=self._pipeline.control_names,
            encoding=self.params["audio_encoding"],
            jpeg_quality=self.params["jpeg_quality"],
            on_frame=self._interface.frame_left,
            on_end=self._on_stream_end,
        )
        self._interface.attach(session, self._publisher)
        self.add_timer(1.0, self._publish_metrics)
        self.add_timer(TEND_S, self._tend)
        self.add_timer(TRIM_S, give_memory_back)
        session.start()
        self._publisher.start()
        self._stepped = self._began = time.monotonic()
        self._down = False
        self._keep()

    def _forward_engine_log(self) -> None:
        self.add_entity(forward(self.get_logger()))

    def _keep(self) -> None:
        if self._chosen is not None:
            try:
                self._kept.keep(*self._chosen)
            except OSError as error:
                self.report(error, "the character will not come back after a crash")

    def hang(self) -> str:
        """An engine that makes no step for so long will make none any more."""
        idle = time.monotonic() - self._last_step()
        working = self._session is not None and not (self._in_transition or self._ended.is_set())
        stuck = working and idle >= self._stuck_s()
        return super().hang() or (f"its engine made no step for {idle:.0f} s" if stuck else "")

    def _stuck_s(self) -> float:
        """[s] without a step after which none is waited for."""
        return ENGINE_STUCK_S

    def _last_step(self) -> float:
        """Monotonic time at which the engine made one."""
        return self._stepped

    def end(self) -> None:
        if self._interface is not None:
            self._interface.detach()
        if self._session is not None:
            self._session.close()
            self._session = None
        if self._publisher is not None:
            self._publisher.join()
            self._publish_records()  # of the last frames
            self._publisher = None

    def unload(self) -> None:
        self._down = False
        self._pipeline = self._reference = self._records = self._interface = None
        self._free()

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
        if self._figures is not None:
            values |= {f"wait_{name}_ms": round(value, 2) for name, value in self._figures.waits_ms.items()}
        level, alarm, motion = motion_health(self._figures)
        if slow := self._slow():
            self.get_logger().warning(slow, throttle_duration_sec=60.0)
            level, alarm = max(level, WARN), alarm or slow
        return level, alarm or f"{values['fps']} frames a second", {**values, **motion}

    def _slow(self) -> str:
        """Why frames are late, and what to turn; empty where they are not."""
        return too_slow(self._figures, self.params["draw_every"], self.params["preset"] in ON_CPU)

    # ------------------------------------------------------------ what is asked of it

    def _set_reference(
        self, request: SetReference.Request, response: SetReference.Response
    ) -> SetReference.Response:
        """In a thread of its own."""
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

    def _on_chunk(self, record: interfaces.ChunkRecord) -> None:
        """Engine's thread."""
        self._stepped = time.monotonic()
        if self._records is not None:
            self._records.take(record)

    def _tend(self) -> None:
        if self._interface is not None:
            self._interface.tend()
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
            message = metrics_message(figures, self._publisher.fps)
            message.header.stamp = self.get_clock().now().to_msg()
            self._metrics.publish(message)

    def _on_stream_end(self, error: BaseException | None) -> None:
        """Pacing thread: the frames ended, by `end` or because the engine failed."""
        if error is not None:
            if time.monotonic() - self._began > HEALTHY_S:
                self._failures = 0
            self._lost = lost_gpu(error)
            self._wait_to_revive()
            self.report(error, "engine")
            self._ended.set()

    def _wait_to_revive(self) -> None:
        pause_s = RESTART_S
        for _ in range(self._failures + 1):
            pause_s = min(2 * pause_s, LONGEST_RESTART_S)
        self._failures += 1
        self._revive_at = time.monotonic() + pause_s

    def _revive(self) -> None:
        """A stream that failed is started again: the screen must not stay frozen. What a start lacks, such as memory,
        may be there later: it is tried until it succeeds, or somebody else cleans up or activates."""
        ended = self._ended.is_set() and self.state == "active"
        if not (ended or (self._down and self.state == "inactive")) or time.monotonic() < self._revive_at:
            return
        if ended and self._lost:
            self._leave_gpu()
            return
        self.get_logger().warning("the stream is started again")
        if ended:
            self.trigger_deactivate()
        self._down = True
        if self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            self._wait_to_revive()

    def _leave_gpu(self) -> None:
        """Nothing runs on a lost GPU until the process starts anew: the face goes on from the CPU."""
        self.trigger_deactivate()
        self.trigger_cleanup()
        self.set_parameters([Parameter(name, value=value) for name, value in cpu_values(self.params).items()])
        self.get_logger().error(
            f"the GPU was lost in mid-stream ({self._lost}): goes on with {self.params['preset']} on the CPU"
        )
        self._lost = ""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()


def main(args: list[str] | None = None) -> int:
    return run_to_the_end(lambda: run(AvatarGenerator, args))


if __name__ == "__main__":
    sys.exit(main())
