# SPDX-License-Identifier: Apache-2.0
"""While a picture becomes a character, the node answers everybody else."""

from __future__ import annotations

import threading
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger

from flowact_ros.nodes.base import FlowactNode
from flowact_ros.nodes.params import Param

PATIENCE_S = 60.0


class Busy(FlowactNode):
    PARAMETERS = (Param("unused", 0, "Nothing", range=(0, 1)),)

    def load(self) -> None:
        self.go_on, self.order = threading.Event(), []
        self.add_slow_service(Trigger, "slow", self._slow)
        self.add_service(Trigger, "quick", self._quick)

    def _slow(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self.go_on.wait(PATIENCE_S)
        self.order.append("slow")
        response.success, response.message = True, "at last"
        return response

    def _quick(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.order.append("quick")
        response.success = True
        return response


@pytest.fixture
def spun(within):
    context = rclpy.Context()
    rclpy.init(context=context)
    executor = SingleThreadedExecutor(context=context)
    busy = Busy("busy", context=context)
    client = rclpy.create_node("client", context=context)
    executor.add_node(busy)
    executor.add_node(client)

    def until(condition) -> None:
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end
            executor.spin_once(timeout_sec=0.05)

    yield busy, client, until
    executor.shutdown(timeout_sec=1.0)
    busy.destroy_node()
    client.destroy_node()
    rclpy.shutdown(context=context)


def test_the_quick_one_does_not_wait_for_the_slow_one(spun):
    busy, client, until = spun
    busy.trigger_configure()
    slow, quick = client.create_client(Trigger, "slow"), client.create_client(Trigger, "quick")
    until(lambda: slow.service_is_ready() and quick.service_is_ready())
    asked = [slow.call_async(Trigger.Request()) for _ in range(2)]
    answered = quick.call_async(Trigger.Request())
    until(answered.done)
    assert busy.order == ["quick"] and not any(future.done() for future in asked)
    busy.go_on.set()
    until(lambda: all(future.done() for future in asked))
    assert [future.result().message for future in asked] == ["at last"] * 2
    assert busy.order == ["quick", "slow", "slow"]
    busy.trigger_cleanup()
