# SPDX-License-Identifier: Apache-2.0
"""Services that act on the stream at once: `interrupt` and `reset_memory`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from std_srvs.srv import Trigger

from flowact_ros.nodes import topics
from flowact_ros.nodes.base import one_line
from flowact_ros.nodes.params import ParameterError

if TYPE_CHECKING:
    from flowact_ros.engine.session import Session
    from flowact_ros.nodes.base import FlowactNode
    from flowact_ros.nodes.say_server import SayServer


class StreamServices:
    """To be made while the node loads: in the inactive state the answer is that the avatar is not active."""

    def __init__(self, node: FlowactNode, say: SayServer) -> None:
        self._node, self._say = node, say
        self._session: Session | None = None
        node.add_service(Trigger, topics.INTERRUPT, self._answer(self._interrupt))
        node.add_service(Trigger, topics.RESET_MEMORY, self._answer(self._reset_memory))

    def attach(self, session: Session) -> None:
        """Activation."""
        self._session = session

    def detach(self) -> None:
        """Deactivation."""
        self._session = None

    def _interrupt(self, session: Session) -> str:
        self._say.interrupted("by the interrupt service")
        session.interrupt()
        return "interrupted"

    def _reset_memory(self, session: Session) -> str:
        session.reset_memory()
        return "memory starts anew from the reference"

    def _answer(self, act: Callable[[Session], str]) -> Callable[[Trigger.Request, Trigger.Response], Trigger.Response]:
        def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            try:
                if self._session is None:
                    raise ParameterError("the avatar is not active")
                response.message, response.success = act(self._session), True
            except Exception as error:  # a service must answer
                self._node.report(error)
                response.success, response.message = False, one_line(error)
            return response

        return answer
