# SPDX-License-Identifier: Apache-2.0
"""Avatars of several namespaces in one process, which share one model and the time of one device.

python -m flowact_ros.nodes.shared_generator --namespaces robot1/avatar robot2/avatar --ros-args -p preset:=avatar_cpu

Each is an `avatar_generator` in its namespace, with a life cycle, a character and a clock of its own. Parameters of one
are given by its full name in a parameter file: `/robot1/avatar/avatar_generator`.
"""

from __future__ import annotations

import os

# Before anything imports torch: an OpenMP team that spins while it waits takes the cores from the other one.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import rclpy.logging
from rclpy.utilities import remove_ros_args

from flowact_ros.launcher.environment import EXIT_BAD_SETUP, EnvironmentProblem, checked_namespace
from flowact_ros.nodes.avatar_generator import AvatarGenerator
from flowact_ros.nodes.engine_log import forward
from flowact_ros.nodes.generator_params import PARAMETERS
from flowact_ros.nodes.generator_process import give_freed_memory_back, run_to_the_end
from flowact_ros.nodes.process import run_several
from flowact_ros.nodes.shared_model import SHARED_PARAMETERS, Lease, SharedModel

if TYPE_CHECKING:
    from flowact_ros.engine import interfaces
    from flowact_ros.engine.session import Session
    from flowact_ros.engine.session_config import SessionConfig

NAME = "avatar_generator"
STUCK_ROUNDS = 12  # of steps, as long as they take now, without which the device hangs


class SharedGenerator(AvatarGenerator):
    """A generator whose steps are made where those of the others are."""

    PARAMETERS = (*PARAMETERS, *SHARED_PARAMETERS)

    def __init__(self, model: SharedModel, **options: Any) -> None:
        self._model = model
        self._lease: Lease | None = None  # of `model`
        super().__init__(**options)

    def _build(self) -> tuple[SessionConfig, interfaces.Pipeline]:
        self._lease = self._model.take(self.params, self.get_logger().info)
        return self._lease.config, self._lease.streams.pipeline

    def _warm_up(self) -> None:
        assert self._lease is not None  # `_build` took it
        self._model.measure(self._lease, self._reference, self.get_logger().info)

    def _open(self, **options: Any) -> Session:
        assert self._lease is not None and self._reference is not None  # `load` made them
        from flowact_ros.engine.streams.host import TooManyStreams

        try:
            return self._lease.streams.open(self._reference, **options)
        except TooManyStreams as error:
            raise TooManyStreams(f"{error} (parameter max_streams)") from None

    def _free(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            self._model.give_back(lease)

    def _leave_gpu(self) -> None:
        if self._lease is not None:
            self._model.abandon(self._lease)  # the others will find theirs lost as well, and follow
        super()._leave_gpu()

    def _last_step(self) -> float:
        """Of any of the streams: one that waits for its turn does not hang."""
        return max(super()._last_step(), 0.0 if self._lease is None else self._lease.streams.stepped)

    def _stuck_s(self) -> float:
        """A device that many share may be slow, and a process that is started again for it makes it no faster."""
        streams = None if self._lease is None else self._lease.streams
        measured = 0.0 if streams is None else streams.budget.round_s(streams.batch)
        return max(super()._stuck_s(), STUCK_ROUNDS * measured)

    def _forward_engine_log(self) -> None:
        """The process does, once for all: a line of the engine does not say which stream it is of."""

    def health(self) -> tuple[int, str, dict[str, object]]:
        level, message, values = super().health()
        if self._lease is None or not values:
            return level, message, values
        figures = self._lease.streams.figures()
        values |= {"streams": figures.streams, "device_load": round(figures.load, 2)}
        if figures.fits is not None:
            values["streams_that_fit"] = figures.fits
        return level, message, values

    def _slow(self) -> str:
        figures = None if self._lease is None else self._lease.streams.figures()
        if figures is not None and figures.load > 1:
            return f"overloaded: {figures.streams} streams share a device on which {figures.fits} fit"
        return super()._slow()


def _namespaces(arguments: list[str]) -> list[str]:
    """Of the command line. Raises EnvironmentProblem, SystemExit."""
    parser = argparse.ArgumentParser(prog="shared_generator", description="Several avatars that share one model.")
    parser.add_argument("--namespaces", nargs="+", required=True, metavar="NS", help="one for each avatar")
    names = [checked_namespace(name) for name in parser.parse_args(arguments).namespaces]
    for name in names:
        if names.count(name) > 1:
            raise EnvironmentProblem(f"namespace {name} is given twice", "each avatar needs one of its own")
    return names


def main(args: list[str] | None = None) -> int:
    given = list(sys.argv if args is None else args)
    try:
        names = _namespaces(remove_ros_args(given)[1:])
    except EnvironmentProblem as problem:
        print(f"error: {problem}", file=sys.stderr)
        return EXIT_BAD_SETUP

    def start() -> int:
        model = SharedModel(give_freed_memory_back)
        end = forward(rclpy.logging.get_logger("shared_generator"))
        try:
            nodes = {f"/{name}/{NAME}": partial(SharedGenerator, model, namespace=name) for name in names}
            return run_several(nodes, args)
        finally:
            end()

    return run_to_the_end(start)


if __name__ == "__main__":
    sys.exit(main())
