# SPDX-License-Identifier: Apache-2.0
"""The avatar of a robot without a GPU: the topics of `avatar_generator`, computed by a fleet (`flowact serve`).

FLOWACT_FLEET_TOKEN=… python -m flowact_ros.nodes.remote_avatar --ros-args -r __ns:=/avatar -p url:=ws://gpu.local:8630

It needs no torch and no weights. Frames come as JPEGs, and are decoded only where somebody wants `image_raw`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from flowact_msgs.srv import SetReference
from flowact_ros.engine.interfaces import EngineError, ReferenceError_
from flowact_ros.engine.looking import FOLLOW, POLICIES
from flowact_ros.fleet.client import RemoteSession
from flowact_ros.fleet.wire import TOKEN_VARIABLE
from flowact_ros.media.image import read_image
from flowact_ros.nodes import topics
from flowact_ros.nodes.avatar_interface import AvatarInterface
from flowact_ros.nodes.base import FlowactNode, one_line, run
from flowact_ros.nodes.convert import ConversionError, image_array
from flowact_ros.nodes.frame_publisher import FramePublisher
from flowact_ros.nodes.params import Param, ParameterError
from flowact_ros.vocabulary import AUDIO_ENCODINGS, S16LE

TEND_S = 0.1  # how often what is not urgent is looked at
FIRST_CHARACTER = "mia"
CODES = SetReference.Response

PARAMETERS = (
    Param("url", "ws://127.0.0.1:8630", f"Of the fleet, ws:// or wss://; its token is in {TOKEN_VARIABLE}"),
    Param("character", FIRST_CHARACTER, "Name of a character that the fleet has"),
    Param("reference_image", "", "Path of a portrait to animate instead of it"),
    Param("seed", 0, "Of the stream's noise", range=(0, 2**31 - 1)),
    Param("gaze", FOLLOW, "Where it looks: see avatar_generator", choices=POLICIES),
    Param("look_at_timeout", 3.0, "[s] a point of look_at counts", range=(0.2, 3600.0)),
    Param("lead", 0.2, "[s] from a frame's arrival to its stamp: what the link's jitter may take", range=(0.05, 2.0)),
    Param("audio_encoding", S16LE, "Of the published sound", choices=AUDIO_ENCODINGS),
    Param("screen_width", 0.52, "[m] of the screen, for points of look_at", range=(0.02, 20.0)),
    Param("screen_height", 0.29, "[m] of the screen, for points of look_at", range=(0.02, 20.0)),
    Param("eye_depth", 0.5, "[m] behind the screen from where the character seems to look", range=(0.05, 10.0)),
)


class RemoteAvatar(FlowactNode):
    """Thin: everything about the link is in `fleet.client.RemoteSession`."""

    PARAMETERS = PARAMETERS

    def __init__(self, **options: object) -> None:
        super().__init__("remote_avatar", **options)
        self._session: RemoteSession | None = None
        self._publisher: FramePublisher | None = None
        self._end_reason = ""

    # ------------------------------------------------------------ lifecycle

    def load(self) -> None:
        if not self.params["url"].startswith(("ws://", "wss://")):
            raise ParameterError(f"parameter url: {self.params['url']!r} is no ws://HOST:PORT or wss://HOST:PORT")
        path = self.params["reference_image"]
        self._picture = read_image(Path(path).expanduser()) if path else None
        self._interface = AvatarInterface(self, self._set_reference)

    def begin(self) -> None:
        self._end_reason = ""
        session = RemoteSession(
            self.params["url"],
            token=os.environ.get(TOKEN_VARIABLE, ""),
            character=self.params["character"],
            reference=self._picture,
            seed=self.params["seed"],
            gaze=self.params["gaze"],
            look_at_timeout_s=self.params["look_at_timeout"],
            lead_s=self.params["lead"],
            warn=lambda text: self.report(text, "fleet"),
        )
        publisher = FramePublisher(
            self,
            session,
            controls=lambda: session.control_names,
            encoding=self.params["audio_encoding"],
            jpeg_quality=85,
            on_frame=self._interface.frame_left,
            on_end=self._on_end,
            jpeg_of=lambda frame: frame.jpeg,
        )
        self._session, self._publisher = session, publisher
        self._interface.attach(session, publisher)
        self.add_timer(TEND_S, self._interface.tend)
        session.start()
        publisher.start()

    def end(self) -> None:
        self._interface.detach()
        if self._session is not None:
            self._session.close()
        if self._publisher is not None:
            self._publisher.join()
        self._session = self._publisher = None

    def health(self) -> tuple[int, str, dict[str, object]]:
        session, publisher = self._session, self._publisher
        if session is None or publisher is None:
            return 0, "", {}
        values = {
            "url": self.params["url"], "server": session.server, "connected": session.connected,
            "fps": round(publisher.fps, 1), "frames": publisher.frames, "moves": session.moves, "late": session.late,
            "reference": session.reference_id,
        }  # fmt: skip
        if self._end_reason:
            return 2, self._end_reason, values
        if not session.connected:
            return 2, "no server of the fleet is connected", values
        return 0, f"{values['fps']} frames a second", values

    # ------------------------------------------------------------ what is asked of it

    def _set_reference(
        self, request: SetReference.Request, response: SetReference.Response
    ) -> SetReference.Response:
        """In a thread of its own. Which characters there are, only the fleet knows."""
        session = self._session
        try:
            if session is None:
                response.error_code, response.error_msg = CODES.NOT_ACTIVE, "the avatar is not active"
            elif request.source == SetReference.Request.SOURCE_IMAGE:
                response.reference_id = session.set_reference(image_array(request.image))
            elif request.source == SetReference.Request.SOURCE_NAME:
                response.reference_id = session.set_reference(None, request.name)
            else:
                text = "a fleet has characters (source 1) and takes pictures (0); seeds are for avatar_generator"
                response.error_code, response.error_msg = CODES.UNKNOWN_CHARACTER, text
        except ConversionError as error:
            response.error_code, response.error_msg = CODES.INVALID_IMAGE, str(error)
        except ReferenceError_ as error:
            named = request.source == SetReference.Request.SOURCE_NAME
            response.error_code = CODES.UNKNOWN_CHARACTER if named else CODES.NOT_REPRESENTABLE
            response.error_msg = str(error)
        except EngineError as error:
            self.report(error, topics.SET_REFERENCE)
            response.error_code, response.error_msg = CODES.ENGINE_ERROR, one_line(error)
        return response

    def _on_end(self, error: BaseException | None) -> None:
        if error is not None:
            self._end_reason = one_line(error)
            self.report(error, "fleet")


def main(args: list[str] | None = None) -> int:
    return run(RemoteAvatar, args)


if __name__ == "__main__":
    sys.exit(main())
