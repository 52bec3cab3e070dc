# SPDX-License-Identifier: Apache-2.0
"""Node parameters: declared from one table with description, range and choices, and checked in one place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class ParameterError(ValueError):
    """A parameter has a value it must not have: one line with the value and what would be right."""


@dataclass(frozen=True)
class Param:
    """One parameter. Its type is that of `default`; numbers given as int for a float are taken.

    `live`: may change while the node is configured; others are read at configure and refused after it.
    """

    name: str
    default: bool | int | float | str
    description: str
    range: tuple[float, float] | None = None
    choices: tuple[str, ...] | None = None
    live: bool = False

    def check(self, value: Any) -> Any:
        """The value in the parameter's own type. Raises ParameterError."""
        kind = type(self.default)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is str and type(value) is int:
            value = str(value)  # a device index, or a name that looks like a number, written without quotes
        if type(value) is not kind:
            raise ParameterError(f"parameter {self.name}: must be {_KINDS[kind]}, not {value!r}")
        if self.range is not None and not self.range[0] <= value <= self.range[1]:
            raise ParameterError(
                f"parameter {self.name}: {value:g} is out of range, {self.range[0]:g} … {self.range[1]:g}"
            )
        if self.choices is not None and value not in self.choices:
            raise ParameterError(f"parameter {self.name}: {value!r} is not one of {', '.join(self.choices)}")
        return value

    def descriptor(self) -> ParameterDescriptor:
        descriptor = ParameterDescriptor(description=self.description, dynamic_typing=True)
        if self.choices is not None:
            descriptor.additional_constraints = "one of: " + ", ".join(self.choices)
        if self.range is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(self.range[0]), to_value=float(self.range[1]), step=0.0)
            ]
        elif self.range is not None:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.range[0]), to_value=int(self.range[1]), step=1)
            ]
        return descriptor


class Params:
    """The declared parameters of a node. `params["name"]` is the checked value of now."""

    def __init__(self, node: Node, table: Sequence[Param], locked: Callable[[], bool]) -> None:
        """Raises ParameterError for a value given at start that must not be."""
        self._node = node
        self._table = {param.name: param for param in table}
        self._locked = locked
        for param in table:
            # Ranges are checked here rather than by rclpy, which would say it less clearly; the descriptor still
            # carries them for tools, and rclpy checks later changes against it.
            override = (
                node._parameter_overrides.get(param.name) if hasattr(node, "_parameter_overrides") else None
            )
            if override is not None and override.type_ != Parameter.Type.NOT_SET:
                param.check(override.value)
            node.declare_parameter(param.name, param.default, param.descriptor())
            param.check(node.get_parameter(param.name).value)
        node.add_on_set_parameters_callback(self._on_set)

    def __getitem__(self, name: str) -> Any:
        return self._table[name].check(self._node.get_parameter(name).value)

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        for change in changes:
            param = self._table.get(change.name)
            if param is None:
                continue  # use_sim_time and the like belong to rclpy
            try:
                param.check(change.value)
            except ParameterError as error:
                return SetParametersResult(successful=False, reason=str(error))
            if not param.live and self._locked():
                reason = (
                    f"parameter {change.name}: is read at configure; deactivate and clean up the node first"
                )
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
