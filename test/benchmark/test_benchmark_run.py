from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from momap_ros.bag_write import BagWriter
from momap_ros.benchmark.report import STAGES, markdown, read_report
from momap_ros.benchmark.scene import HEIGHT, WIDTH, first_scene, twenty_objects
from momap_ros.cli import main
from momap_ros.config import ForecastConfig, ObjectMotionConfig
from momap_ros.object_motion import estimate_object_motions


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One simulated 320x240 frame with its sentence."""
    pytest.importorskip("momap_ros.simulation", exc_type=ImportError)
    from momap_ros.simulation.video import render_video

    video = render_video("val", 0, width=320, height=240, frame_rate_hz=0.1)
    path = tmp_path_factory.mktemp("benchmark") / "bag"
    with BagWriter(path) as writer:
        writer.write_prompt(video.sample.text, 1)
        writer.write_frame(video.frames[0], millimetres=True)
    return path


def test_the_scene_is_the_bag_at_full_size(bag: Path) -> None:
    scene = first_scene(bag)
    assert scene.frame.rgb.shape == (HEIGHT, WIDTH, 3)
    assert scene.prompt


def test_twenty_objects_move_rigidly_but_for_the_outliers() -> None:
    trajectories = twenty_objects()
    assert trajectories.positions.shape == (1, 65_536, 50, 3)
    motions = estimate_object_motions(trajectories, ObjectMotionConfig())
    assert [motion.instance_id for motion in motions] == list(range(1, 21))
    assert all(motion.rigid for motion in motions)
    np.testing.assert_allclose([motion.inlier_fraction for motion in motions], 0.85, atol=0.08)
    assert np.median([motion.displacement_m for motion in motions]) > 0.05


@pytest.mark.slow
@pytest.mark.ros
def test_a_quick_run_measures_every_stage(
    bag: Path, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["bench", "--quick", "--bag", str(bag), "--checkpoint", str(tiny_checkpoint), "--out", str(tmp_path)]
    assert main(arguments) == 0
    report = read_report(tmp_path / "benchmark.json")
    assert report.quick
    assert [item.name for item in report.rows] == [stage.name for stage in STAGES]
    assert [item.skipped for item in report.rows] == [None] * len(STAGES)
    medians = {item.name: item.median or 0.0 for item in report.rows}
    assert all(median > 0 for name, median in medians.items() if name != "not_network")
    assert medians["end_to_end"] > medians["decode"] + medians["segment"]
    assert report.settings["num_hypotheses"] == ForecastConfig().num_hypotheses
    table = (tmp_path / "benchmark.md").read_text()
    assert table == markdown(report)
    assert table in capsys.readouterr().out
