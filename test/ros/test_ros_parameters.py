from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 Python packages")

from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from momap_ros.config import ForecastConfig, InputConfig, NodeConfig, SegmentationConfig, Settings
from momap_ros.ros.parameters import PREFIXES, Parameters, named_fields, parameter_table_markdown

if TYPE_CHECKING:
    from ros_harness import Ros

pytestmark = pytest.mark.ros

GROUPS: list[type[Settings]] = [NodeConfig, InputConfig, SegmentationConfig, ForecastConfig]


def node_with(ros: Ros, *overrides: Parameter, arguments: tuple[str, ...] = ()) -> tuple[Node, Parameters]:
    cli_args = ["--ros-args", *arguments] if arguments else None
    node = Node(
        "settings",
        context=ros.context,
        use_global_arguments=False,
        cli_args=cli_args,
        parameter_overrides=list(overrides),
    )
    ros.add(node)
    return node, Parameters(node, GROUPS)


def test_defaults_are_the_dataclasses(ros: Ros) -> None:
    node, parameters = node_with(ros)
    for group in GROUPS:
        assert parameters.read(group) == group()
    assert node.get_parameter("autostart").value is True
    assert node.get_parameter("input.sync_tolerance_s").value == InputConfig.sync_tolerance_s


def test_descriptors_state_meaning_range_and_choices(ros: Ros) -> None:
    node, _ = node_with(ros)
    tolerance = node.describe_parameter("input.sync_tolerance_s")
    assert tolerance.description == "Largest stamp difference of a colour and a depth image of one frame, seconds."
    assert (tolerance.floating_point_range[0].from_value, tolerance.floating_point_range[0].to_value) == (0.0, 1.0)
    hypotheses = node.describe_parameter("forecast.num_hypotheses")
    assert (hypotheses.integer_range[0].from_value, hypotheses.integer_range[0].to_value) == (1, 64)
    assert hypotheses.read_only
    assert not node.describe_parameter("forecast.prompt").read_only
    assert node.describe_parameter("input.reliability").additional_constraints == "one of auto, reliable, best_effort"
    assert node.describe_parameter("forecast.seed").additional_constraints == "at least 0"


def test_values_given_at_start_and_later_are_read_back(ros: Ros) -> None:
    node, parameters = node_with(ros, arguments=("-p", "forecast.prompt:=open the drawer", "-p", "forecast.seed:=7"))
    assert parameters.read(ForecastConfig) == ForecastConfig(prompt="open the drawer", seed=7)
    assert node.set_parameters([Parameter("forecast.seed", value=8)])[0].successful
    assert parameters.read(ForecastConfig).seed == 8


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("forecast.num_hypotheses", 0, "out of range. Min: 1, Max: 64"),
        ("forecast.num_hypotheses", 65, "out of range. Min: 1, Max: 64"),
        ("forecast.seed", -1, "expected a value in"),
        ("input.sync_tolerance_s", 1.5, "out of range Min: 0.0, Max: 1.0"),
        ("input.reliability", "sometimes", r"expected one of \['auto', 'reliable', 'best_effort'\], got 'sometimes'"),
    ],
)
def test_values_out_of_range_stop_the_node_at_start(ros: Ros, name: str, value: float | str, reason: str) -> None:
    with pytest.raises(InvalidParameterValueException, match=reason):
        node_with(ros, Parameter(name, value=value))


def test_a_wrong_type_stops_the_node_at_start(ros: Ros) -> None:
    with pytest.raises(InvalidParameterTypeException, match="num_hypotheses"):
        node_with(ros, Parameter("forecast.num_hypotheses", value="ten"))


def test_all_or_nothing_when_several_are_set_together(ros: Ros) -> None:
    node, parameters = node_with(ros)
    result = node.set_parameters_atomically(
        [Parameter("forecast.seed", value=3), Parameter("forecast.max_points", value=0)]
    )
    assert not result.successful
    assert parameters.read(ForecastConfig) == ForecastConfig()


def test_parameter_names_are_unique_over_all_groups() -> None:
    names = [name for group in PREFIXES if group is not NodeConfig for name, _ in named_fields(group)]
    assert len(names) == len(set(names))


def test_table_has_a_row_for_every_field_with_its_default() -> None:
    table = parameter_table_markdown(GROUPS)
    for group in GROUPS:
        for name, field in named_fields(group):
            row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
            assert field.metadata["description"] in row
            shown = str(field.default).lower() if isinstance(field.default, bool) else repr(field.default)
            assert row.split("|")[2].strip() == f"`{shown}`"
    assert len(table.splitlines()) == 2 + sum(len(list(named_fields(group))) for group in GROUPS)
