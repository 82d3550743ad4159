"""The settings of momap_ros.config as ROS parameters: declared, checked and read back from the dataclasses alone.

A parameter's name is its group's prefix and the field's name, `input.sync_tolerance_s`; the groups that only say how a
node starts have no prefix. Fields that are read-only can be set at start, all others at any time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from momap_ros.config import (
    FollowerConfig,
    ForecastConfig,
    ForecastNodeConfig,
    HintsConfig,
    InputConfig,
    MarkersConfig,
    NodeConfig,
    ObjectMotionConfig,
    PlannerConfig,
    SegmentationConfig,
    Settings,
    VlmConfig,
    check_setting,
)

PREFIXES: dict[type[Settings], str] = {
    NodeConfig: "",
    ForecastNodeConfig: "",
    InputConfig: "input",
    SegmentationConfig: "segmentation",
    ForecastConfig: "forecast",
    ObjectMotionConfig: "motion",
    PlannerConfig: "planner",
    HintsConfig: "hints",
    VlmConfig: "vlm",
    MarkersConfig: "markers",
    FollowerConfig: "follower",
}

Group = TypeVar("Group", bound=Settings)


class Parameters:
    """The parameters of one node, by group."""

    def __init__(self, node: Node, groups: Sequence[type[Settings]]) -> None:
        """Declare every field of the groups on the node, and refuse values outside their documented range.

        Raises:
            rclpy.exceptions.ParameterException: a value given at start has the wrong type or is not allowed.
        """
        self._node = node
        self._fields = {name: field for group in groups for name, field in named_fields(group)}
        # Before the declarations, so that values given at start are checked by the same rule.
        node.add_on_set_parameters_callback(self._check)
        for name, field in self._fields.items():
            node.declare_parameter(name, field.default, descriptor_of(field))

    def read(self, group: type[Group]) -> Group:
        """The group with its parameters' present values."""
        values = {field.name: self._node.get_parameter(name).value for name, field in named_fields(group)}
        return group(**values)

    def _check(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            field = self._fields.get(parameter.name)
            # rclpy itself refuses another type, with a text of its own.
            if field is None or type(parameter.value) is not type(field.default):
                continue
            try:
                check_setting(field, parameter.value)
            except ValueError as error:
                return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)


def named_fields(group: type[Settings]) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """(parameter name, field) of every field of a group."""
    prefix = PREFIXES[group]
    for field in dataclasses.fields(group):  # type: ignore[arg-type]  # subclasses are dataclasses, the base is not
        yield (f"{prefix}.{field.name}" if prefix else field.name), field


def descriptor_of(field: dataclasses.Field[Any]) -> ParameterDescriptor:
    """What `ros2 param describe` shows for a field; a range with one open end is stated in words."""
    descriptor = ParameterDescriptor(
        description=field.metadata["description"],
        additional_constraints=_constraint_text(field),
        read_only=field.metadata["read_only"],
    )
    low, high = field.metadata["minimum"], field.metadata["maximum"]
    if low is not None and high is not None:
        if isinstance(field.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
        else:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
    return descriptor


def parameter_table_markdown(groups: Sequence[type[Settings]]) -> str:
    """The README's table of the parameters of some groups."""
    lines = ["| parameter | default | allowed | when | meaning |", "|---|---|---|---|---|"]
    for group in groups:
        for name, field in named_fields(group):
            default = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)
            when = "start" if field.metadata["read_only"] else "any time"
            allowed = _constraint_text(field) or type(field.default).__name__
            lines.append(f"| `{name}` | `{default}` | {allowed} | {when} | {field.metadata['description']} |")
    return "\n".join(lines) + "\n"


def _constraint_text(field: dataclasses.Field[Any]) -> str:
    low, high, choices = (field.metadata[key] for key in ("minimum", "maximum", "choices"))
    if choices:
        return "one of " + ", ".join(choices)
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"at least {low}"
    return "" if high is None else f"at most {high}"
