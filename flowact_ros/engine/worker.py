# SPDX-License-Identifier: Apache-2.0
"""Who has the steps of sessions made: a thread of each one's own, or a host that lends one to several in turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from flowact_ros.engine.session import Session


class Host(Protocol):
    """Has the steps of several sessions made, each by `outlook`, `next_step`, `make`, and `fail` if that raises."""

    def attach(self, session: Session) -> Callable[[], None]:
        """Its steps are made from now on. What is returned is called when what `outlook` said may have changed."""
        ...

    def detach(self, session: Session, timeout_s: float) -> bool:
        """No step of it is begun any more. False if one still runs after `timeout_s`."""
        ...


class Worker:
    """The `Host` of one session, in a thread that sleeps until `await_step` has something for it."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def attach(self, session: Session) -> Callable[[], None]:
        self._thread = threading.Thread(target=_work, args=(session,), name="flowact-engine", daemon=True)
        self._thread.start()
        return lambda: None  # the session's own condition wakes it

    def detach(self, session: Session, timeout_s: float) -> bool:
        thread = self._thread
        if thread is None or thread is threading.current_thread():  # a step's own callback closes its session
            return True
        thread.join(timeout_s)
        return not thread.is_alive()


def _work(session: Session) -> None:
    try:
        while (step := session.await_step()) is not None:
            session.make(step)
    except BaseException as error:
        session.fail(error)
