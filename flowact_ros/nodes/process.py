# SPDX-License-Identifier: Apache-2.0
"""A node as a process: from its first look at the environment to an end that leaves nothing, and what it tells its
supervisor meanwhile."""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import get_default_context

from flowact_ros.launcher import environment
from flowact_ros.launcher.environment import EXIT_BAD_SETUP
from flowact_ros.launcher.shared_memory import sweep
from flowact_ros.launcher.supervisor import STATUS_FD_VARIABLE, SUPERVISED_VARIABLE
from flowact_ros.nodes.params import ParameterError

if TYPE_CHECKING:
    from flowact_ros.nodes.base import FlowactNode

LAST_WORDS = 20  # callbacks still served after the end was asked for
BEAT_S = 0.5  # how often a node tells its supervisor that it lives
HUNG_BEATS = 4  # in a row without life: a process that was only paused, or is starved, has done something by then
EXIT_HUNG = 75  # whoever started it, `flowact up` or launch, starts it again


def one_line(error: BaseException | str) -> str:
    """The error's own message if it was written for people, else with the kind of the exception in front."""
    text = " ".join(str(error).split())
    if isinstance(error, str) or (text and isinstance(error, (ValueError, RuntimeError))):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def tell_supervisor(**record: object) -> None:
    """One line to the supervisor that started this process; nothing without one."""
    number = os.environ.get(STATUS_FD_VARIABLE, "")
    if not number.isdigit():
        return
    try:
        os.write(int(number), (json.dumps(record) + "\n").encode())
    except OSError:
        os.environ.pop(STATUS_FD_VARIABLE, None)  # the supervisor is gone; stdin says so as well


def run(make_node: Callable[[], FlowactNode], args: Sequence[str] | None = None) -> int:
    """Runs one node until SIGINT, SIGTERM, its supervisor's end or `rclpy.shutdown`. Returns the exit status."""
    return run_several({"": make_node}, args)


def run_several(make_nodes: Mapping[str, Callable[[], FlowactNode]], args: Sequence[str] | None = None) -> int:
    """The same with several nodes, by their full names, in one process: each has an executor and a thread of its own.

    One that cannot be made, since a parameter must not be, is told of and left out where there are others.
    """
    stop = threading.Event()
    try:
        environment.check(os.environ, sys.argv if args is None else args)
        sweep()  # what processes left in shared memory that did not end cleanly; this one would lack it, or wait for it
        # Our own handlers: with rclpy's the context is gone before topics and threads are closed.
        rclpy.init(
            args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO
        )
    except Exception as error:  # rcl has no class of its own for a broken command line or parameter file
        return _bad_setup(error)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    nodes: list[FlowactNode] = []
    for name, make_node in make_nodes.items():
        try:
            nodes.append(make_node())
        except (ParameterError, InvalidParameterTypeException, InvalidParameterValueException) as error:
            if len(make_nodes) == 1:
                rclpy.try_shutdown()
                return _bad_setup(error)
            print(f"error: {name} is left out: {one_line(error)}", file=sys.stderr, flush=True)
            tell_supervisor(event="failed", node=name, error=one_line(error))
    if not nodes:
        rclpy.try_shutdown()
        return _bad_setup("none of the nodes can be made")
    if os.environ.get(SUPERVISED_VARIABLE):
        threading.Thread(target=_watch_supervisor, args=(stop,), name="supervisor-watch", daemon=True).start()
    try:
        _live_beside(nodes, stop)
    finally:
        nodes.clear()
        close_participant()
    return 0


def _live_beside(nodes: Sequence[FlowactNode], stop: threading.Event) -> None:
    others = [
        threading.Thread(target=_live, args=(node, stop), name=f"spin{node.get_namespace()}") for node in nodes[1:]
    ]
    for other in others:
        other.start()
    try:
        _live(nodes[0], stop)
    finally:
        for other in others:
            other.join()


def _live(node: FlowactNode, stop: threading.Event) -> None:
    """From its autostart to its end, which leaves nothing of it."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(node, ended), name="heartbeat", daemon=True)
    heart.start()
    try:
        node.autostart()
        _spin(node, executor, stop)
    finally:
        if node.state == "active":
            node.trigger_deactivate()
            for _ in range(LAST_WORDS):  # results of goals that the deactivation ended
                executor.spin_once(timeout_sec=0.0)
        node.stop()
        ended.set()
        heart.join(timeout=1.0)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()


def close_participant() -> None:
    """Ends this process's part in DDS, with its shared memory: 17 MB of /dev/shm where images are sent.

    rcl closes it with the last object that knows the context, and rclpy's objects know each other in circles.
    """
    rclpy.try_shutdown()
    get_default_context().destroy()
    gc.unfreeze()
    gc.collect()


def _spin(node: FlowactNode, executor: SingleThreadedExecutor, stop: threading.Event) -> None:
    finished = getattr(node, "finished", None)  # a node with an end of its own (a recording) sets this event
    while not stop.is_set() and not (finished is not None and finished.is_set()):
        try:
            executor.spin_once(timeout_sec=0.2)
        except ExternalShutdownException:
            return
        except Exception as error:  # an invalid lifecycle request, say, raises out of rclpy's own service
            node.report(error, "request failed")


def _beat(node: FlowactNode, ended: threading.Event) -> None:
    """The supervisor hears that this process runs, and that its executor does. One that hangs ends itself: launch has
    no eye for that, and a process that ends is started again by either."""
    tell_supervisor(event="alive")  # before it is active: a process that stops at once is missed, too
    hung = 0
    while not ended.wait(BEAT_S):
        reason = node.hang()
        hung = hung + 1 if reason else 0
        if not hung:
            tell_supervisor(event="alive")
        elif hung == HUNG_BEATS:
            _end_hung(node.get_name(), reason)


def _end_hung(name: str, reason: str) -> None:
    """Says what hangs and where each thread is, and ends at once: what hangs would keep any other end waiting."""
    print(f"error: {name} hangs: {reason}; the process ends, to be started again. Its threads:", file=sys.stderr)
    faulthandler.dump_traceback(file=sys.stderr)
    sys.stderr.flush()
    os._exit(EXIT_HUNG)


def _watch_supervisor(stop: threading.Event) -> None:
    while os.read(0, 64):
        continue
    stop.set()


def _bad_setup(error: BaseException | str) -> int:
    print(f"error: {one_line(error)}", file=sys.stderr)
    tell_supervisor(event="bad_setup", error=one_line(error))
    return EXIT_BAD_SETUP
