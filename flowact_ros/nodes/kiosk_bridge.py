# SPDX-License-Identifier: Apache-2.0
"""The page's node: frames, sound and state from topics to the browser.

    python -m flowact_ros.nodes.kiosk_bridge --ros-args -r __ns:=/avatar -p port:=8620

JPEGs are subscribed to only while a page is open, so that nobody encodes them for nothing. What people do at the page
is in kiosk_turn.py, what `/fleet` shows in fleet_watch.py.
"""

from __future__ import annotations

import sys
import time
from queue import Empty, SimpleQueue
from typing import Any

from sensor_msgs.msg import CompressedImage

from flowact_msgs.msg import AudioChunk, AvatarState, StreamMetrics, Transcript
from flowact_ros.kiosk.display import MAX_ATTRACT_S, OPEN, TALK_MODES, Display
from flowact_ros.kiosk.errors import PortTaken
from flowact_ros.kiosk.hub import LEFT, VOICE, PageEvent
from flowact_ros.kiosk.protocol import STOP, TALK
from flowact_ros.kiosk.server import KioskServer
from flowact_ros.nodes import topics
from flowact_ros.nodes.base import FlowactNode, NotYet, run, tell_supervisor
from flowact_ros.nodes.captions import USER
from flowact_ros.nodes.content_time import ContentTime
from flowact_ros.nodes.convert import audio_array, behaviour_name, from_time
from flowact_ros.nodes.fleet_watch import FleetWatch
from flowact_ros.nodes.kiosk_turn import TouchTurn
from flowact_ros.nodes.params import Param
from flowact_ros.nodes.stamps import is_simulated
from flowact_ros.vocabulary import IDLE, S16LE

WATCH_S = 0.25  # how often pages are counted
STALE_S = 2.0  # without a frame for so long the page says so
METRICS_S = 1.0  # how often the generator sends its metrics
SILENT_S = 2.5  # without them for so long it hangs, or is gone
FLEET_S = 1.0  # how often the fleet's page has news


class KioskBridge(FlowactNode):
    """Owns one KioskServer from configure to cleanup: pages stay connected while topics come and go."""

    PARAMETERS = (
        Param("host", "127.0.0.1", "Address the page is served on; others than loopback ask for a token"),
        Param("port", 8620, "Port of the page; 0 takes any free one", range=(0, 65535)),
        Param("title", "", "Title of the page, and what stands on the counter of an upright screen"),
        Param("captions", True, "Show what is said and heard, unless the settings of a page say otherwise"),
        Param(
            "background",
            "",
            "Around the picture: empty for its own colours, #rrggbb, or the path of a JPEG, PNG or WebP file",
        ),
        Param(
            "attract_after",
            60.0,
            "[s] without anybody until the page invites people; 0: never",
            range=(0.0, MAX_ATTRACT_S),
        ),
        Param("attract_text", "Hello! | Ask me anything", "How it invites them; several texts in turn between |"),
        Param(
            "talk",
            OPEN,
            "What a touch opens. open: the robot's microphone is always open, a touch has the avatar stop and listen; "
            "push: the node `microphone` is active only during a touched turn; page: the microphone of the device that "
            "shows the page; off: nothing",
            choices=TALK_MODES,
        ),
        Param("talk_timeout", 12.0, "[s] without a voice that end a turn which was touched for", range=(2.0, 120.0)),
        Param("stop", True, "A touch stops what the avatar says"),
        Param("settings", True, "A long press (or S) opens the settings of a page; false: for screens in public"),
        Param("buffer_ms", 200, "[ms] jitter buffer of the pages", range=(40, 2000)),
        Param(
            "allowed_origins",
            "",
            "Behind a proxy: what the address bar shows, https://robot.example; several between commas",
        ),
        Param("base_path", "", "Behind a proxy that leaves it on: the path before the page's own, /face"),
    )

    def __init__(self, **options: object) -> None:
        super().__init__("kiosk_bridge", **options)
        self._server: KioskServer | None = None
        self._turn: TouchTurn | None = None
        self._events: SimpleQueue[PageEvent] = SimpleQueue()
        self._frames = None
        self._state: dict[str, object] = {}
        self._frame_time = time.monotonic()
        self._metrics_time, self._fps = float("-inf"), 0.0

    def load(self) -> None:
        params = self.params
        display = Display(
            title=params["title"],
            captions=params["captions"],
            background=params["background"],
            attract_after_s=params["attract_after"],
            attract_text=params["attract_text"],
            talk=params["talk"],
            stop=params["stop"],
            settings=params["settings"],
        )
        self._woken = self.create_guard_condition(self.guard(self._on_events, "what somebody did at the page"))
        self.add_entity(lambda: self.destroy_guard_condition(self._woken))
        try:
            self._server = KioskServer(
                params["host"],
                params["port"],
                buffer_ms=params["buffer_ms"],
                allowed_origins=tuple(filter(str.strip, params["allowed_origins"].split(","))),
                base_path=params["base_path"],
                display=display,
                on_event=self._on_event,
            )
        except PortTaken as error:
            raise NotYet(f"{error}; the page comes up when it is free") from None
        self._server.set_health("paused")
        # The token of a page that others can reach belongs to whoever started this, not into a log that is kept.
        self.get_logger().info(f"page: {self._server.page}")
        tell_supervisor(event="url", node=self.get_name(), url=self._server.url)

    def begin(self) -> None:
        self._state = {"behaviour": IDLE, "speaking": False, "message": "waiting for the avatar"}
        self._frame_time = float("-inf")
        self._metrics_time, self._fps = float("-inf"), 0.0
        self._last_metrics, self._stood_in = StreamMetrics(), float("-inf")
        self._metrics = self.add_publisher(StreamMetrics, topics.METRICS)
        self._times = ContentTime()
        self.add_subscription(AudioChunk, topics.AUDIO, self._on_audio, topics.AUDIO_DEEP_QOS)
        self.add_subscription(AvatarState, topics.STATE, self._on_state)
        self.add_subscription(StreamMetrics, topics.METRICS, self._on_metrics)
        if self.params["captions"]:
            self.add_subscription(Transcript, topics.CAPTIONS, self._on_caption)
        self._turn = TouchTurn(self, self.params["talk"], self.params["talk_timeout"], self._on_turn)
        self._fleet = FleetWatch(self)
        self.add_timer(WATCH_S, self._watch)
        self.add_timer(FLEET_S, self._watch_fleet)
        self._tell_pages()

    def end(self) -> None:
        self._listen(False)
        if self._turn is not None:
            self._turn.close()
            self._turn = None
        if self._server is not None:
            self._server.set_state({**self._state, "message": "paused"})
            self._server.set_health("paused")

    def unload(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        if self._server is None:
            return 0, "", {}
        stats = self._server.stats()
        return (
            0,
            f"{stats['clients']} page(s)",
            {"page": self._server.page, **{key: value for key, value in stats.items() if key != "pages"}},
        )

    def _watch(self) -> None:
        if self._server is None:
            return
        self._server.set_health(self._health())
        self._stand_in()
        self._listen(self._server.wanted)
        if self._turn is not None:
            self._turn.tick()
        stale = self._server.wanted and time.monotonic() - self._frame_time > STALE_S
        news: dict[str, object] = {"message": "waiting for the avatar" if stale else ""}
        # A user's turn is one where somebody hears him.
        news["listens"] = bool(self.count_publishers(topics.MIC) and self.count_publishers(topics.TRANSCRIPT))
        if any(self._state.get(name) != value for name, value in news.items()):
            self._state.update(news)
            self._tell_pages()

    def _watch_fleet(self) -> None:
        if self._server is not None:
            avatars = self._fleet.tick(self._server.fleet_wanted)
            if avatars is not None:
                self._server.set_fleet(avatars)

    def _on_event(self, event: PageEvent) -> None:
        """In the server's thread."""
        self._events.put(event)
        self._woken.trigger()

    def _on_events(self) -> None:
        while True:
            try:
                event = self._events.get_nowait()
            except Empty:
                return
            if self._turn is None:
                continue  # paused, which the page shows
            if event.kind == TALK:
                (self._turn.press if event.value else self._turn.release)(event.page)
            elif event.kind == STOP:
                self._turn.stop()
            elif event.kind == VOICE:
                self._turn.hear(event.page, event.value, event.rate)
            elif event.kind == LEFT:
                self._turn.left(event.page)

    def _on_turn(self, turn: dict[str, Any]) -> None:
        if self._state.get("turn", {}) != turn:
            self._state["turn"] = turn
            self._tell_pages()

    def _health(self) -> str:
        """Of the avatar, for monitors: a page that runs says nothing about the face on it."""
        age = time.monotonic() - self._metrics_time
        if age == float("inf"):
            return "waiting for the avatar"
        if age > SILENT_S:
            return f"stalled: nothing was heard of the avatar for {age:.1f} s"
        return "ok" if self._fps > 0 else "stalled: no frames leave"

    def _stand_in(self) -> None:
        """Metrics with no frames a second, in place of a generator that fell silent: they would just end otherwise."""
        now = time.monotonic()
        silent = now - self._metrics_time
        if SILENT_S < silent < float("inf") and now - self._stood_in >= METRICS_S:
            self._stood_in = now
            self._last_metrics.header.stamp = self.get_clock().now().to_msg()
            self._last_metrics.header.frame_id = self.get_name()
            self._last_metrics.fps = 0.0
            self._metrics.publish(self._last_metrics)

    def _listen(self, wanted: bool) -> None:
        if wanted and self._frames is None:
            handler = self.guard(self._on_frame, "a frame")
            self._frames = self.create_subscription(
                CompressedImage, topics.COMPRESSED, handler, topics.IMAGE_WATCH_QOS
            )
            self._frame_time = time.monotonic()
        elif not wanted and self._frames is not None:
            self.destroy_subscription(self._frames)
            self._frames = None

    def _on_frame(self, message: CompressedImage) -> None:
        self._frame_time = time.monotonic()
        if self._server is not None:
            pts = self._times.picture(from_time(message.header.stamp)) / 1e9
            self._server.push_frame(bytes(message.data), pts)

    def _on_audio(self, message: AudioChunk) -> None:
        if self._server is None or not self._server.wanted:
            return
        stamp_ns, simulated = from_time(message.header.stamp), is_simulated(self.get_clock())
        time_ns = self._times.sound(stamp_ns, message.first_sample, message.sample_rate, simulated=simulated)
        pts = time_ns / 1e9
        if message.encoding == S16LE and message.channels == 1:
            self._server.push_audio(bytes(message.data), message.sample_rate, pts)
            return
        pcm, rate = audio_array(message)
        self._server.push_audio((pcm * 32767.0).clip(-32768, 32767).astype("<i2").tobytes(), rate, pts)

    def _on_state(self, message: AvatarState) -> None:
        self._state["behaviour"] = behaviour_name(message.behaviour)
        self._state["speaking"] = message.robot_speaking
        self._state["utterance"] = message.utterance_id
        if self._turn is not None:
            self._turn.on_state(message)
        self._tell_pages()

    def _on_caption(self, message: Transcript) -> None:
        """The page shows it when it is heard: `pts` is on the clock of the frames."""
        pts = self._times.picture(from_time(message.header.stamp)) / 1e9
        side = "heard" if message.header.frame_id == USER else "said"
        self._state[side] = {"text": message.text, "pts": pts}
        self._tell_pages()

    def _on_metrics(self, message: StreamMetrics) -> None:
        if message.header.frame_id:
            return  # a bridge's, this one's or another's, that stands in for a generator which is silent
        self._metrics_time, self._fps = time.monotonic(), float(message.fps)
        self._last_metrics = message
        self._state["fps"] = round(float(message.fps), 1)
        for name, value in (
            ("real_time_factor", message.real_time_factor),
            ("load", message.load),
            ("ttff", message.ttff),
            ("step_ms", message.step_ms),
        ):
            if value == value:  # not measured yet: NaN
                self._state[name] = round(float(value), 3)
        self._state["repeated"] = int(message.repeated_frames)
        self._state["dropped"] = int(message.dropped_frames)
        self._tell_pages()

    def _tell_pages(self) -> None:
        if self._server is not None:
            self._server.set_state(self._state)


def main(args: list[str] | None = None) -> int:
    return run(KioskBridge, args)


if __name__ == "__main__":
    sys.exit(main())
