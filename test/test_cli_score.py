"""`momap bag score` on small recordings, with a tiny model and with recorded forecasts."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "scoring"))

from box_scene import forecast, moved, pose, render

from momap_ros.bag_write import BagWriter
from momap_ros.cli import main
from momap_ros.geometry import Float64
from momap_ros.selection import in_frame

RATE_S = 0.25


def box_at(time_s: float) -> Float64:
    return moved(pose(), (0.08 * time_s, 0, 0))


def write_bag(path: Path, *, seconds: float, sway_m: float = 0.0, with_poses: bool = False) -> Path:
    """The box slides; the first frame has the true forecast, in the camera's frame or, with poses, in the world's."""
    world_from_camera = moved(np.eye(4), (1.0, 2.0, 0.5), 30.0)
    with BagWriter(path) as bag:
        for index in range(round(seconds / RATE_S) + 1):
            time_s = index * RATE_S
            first_from_camera = moved(np.eye(4), (sway_m * time_s, 0, 0))
            frame, instances = render(box_at(time_s), time_s, world_from_camera=first_from_camera)
            bag.write_frame(frame)
            bag.write_instances(instances, frame.stamp_ns, frame.frame_id)
            if with_poses:
                bag.write_transform(
                    world_from_camera @ first_from_camera, frame.stamp_ns, parent="world", child=frame.frame_id
                )
            if index == 0:
                true = forecast(frame, instances, [box_at(step * 0.5) for step in range(5)], step_s=0.5)
                true = in_frame(true, world_from_camera, "world") if with_poses else true
                bag.write_forecast(true, [], model_name="truth", latency_s=0.1)
    return path


@pytest.mark.parametrize("with_poses", [False, True])
def test_recorded_forecasts_are_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str], *, with_poses: bool) -> None:
    bag = write_bag(tmp_path / "bag", seconds=2.0, sway_m=0.05 * with_poses, with_poses=with_poses)
    options = ["--recorded", "--instances", "bag", "--horizons", "1,2", "--out", str(tmp_path / "out")]
    assert main(["bag", "score", str(bag), *options]) == 0
    printed = capsys.readouterr().out
    assert "1 forecasts of" in printed
    assert "model truth" in printed
    assert ("camera: poses from the recording" if with_poses else "camera: at rest") in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["scores.json", "scores.png"]
    content = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    for horizon in content["horizons"]:
        assert horizon["num_moved"] == 1
        assert horizon["moved_error_m"] < 0.005
        assert horizon["moved_static_error_m"] == pytest.approx(0.08 * horizon["horizon_s"], abs=0.005)


def test_a_model_is_run_every_so_often(
    tmp_path: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(tmp_path / "bag", seconds=1.5)
    options = ["--checkpoint", str(tiny_checkpoint), "--num-hypotheses", "2", "--num-inference-steps", "1"]
    options += ["--device", "cpu", "--instances", "bag", "--every", "0.5", "--horizons", "0.5"]
    assert main(["bag", "score", str(bag), *options]) == 0
    assert "4 forecasts of" in capsys.readouterr().out


def test_errors_say_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--recorded", "--instances", "bag"]
    short = write_bag(tmp_path / "short", seconds=0.25)
    assert main(["bag", "score", str(short), *options]) == 1
    assert "the recording covers 0.2 s, the forecasts 2.0 s" in capsys.readouterr().err
    swaying = write_bag(tmp_path / "swaying", seconds=1.0, sway_m=0.05)
    assert main(["bag", "score", str(swaying), *options]) == 1
    assert "expected one that rests, got one that moved" in capsys.readouterr().err
    assert main(["bag", "score", str(swaying), *options, "--estimate-camera"]) == 0
    assert "camera: estimated from the background" in capsys.readouterr().out
    colour_only = tmp_path / "colour_only"
    with BagWriter(colour_only) as bag:
        frame, _ = render(box_at(0))
        bag.write_color(frame.rgb, frame.stamp_ns, frame.frame_id)
    assert main(["bag", "score", str(colour_only), *options]) == 1
    assert "no depth: the bag has colour images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["bag", "score", str(short), "--horizons", "0,1"])
    assert "expected positive seconds like 0.5,1,2" in capsys.readouterr().err
