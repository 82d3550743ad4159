"""The command line: help that is quick, options made of settings, errors in one line, results on disk."""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from momap_ros.bag import BagReader
from momap_ros.bag_write import BagWriter
from momap_ros.cli import build_parser, guarded, main
from momap_ros.commands.common import add_settings, read_settings
from momap_ros.config import ForecastConfig, SegmentationConfig, Settings, setting
from momap_ros.geometry import PinholeCamera
from momap_ros.instances import InstanceMap
from momap_ros.rgbd import RGBDFrame

COMMANDS = [
    ["demo"],
    ["forecast"],
    ["segment"],
    ["bag"],
    ["bag", "info"],
    ["bag", "check"],
    ["bag", "from-images"],
    ["bag", "play"],
    ["bag", "score"],
    ["view"],
    ["export"],
    ["export", "onnx"],
    ["init-full"],
    ["rollout"],
    ["info"],
    ["bench"],
    ["train"],
    ["data"],
    ["data", "show"],
    ["data", "stats"],
    ["data", "import"],
]
HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "open3d",
    "mujoco",
    "cv2",
    "scipy",
    "rclpy",
    "matplotlib",
    "rosbags",
    "pyarrow",
)
START_NS = 1_700_000_000_000_000_000


def momap(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "momap_ros.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_teaches_and_imports_nothing_heavy(command: list[str]) -> None:
    program = (
        "import sys, atexit; atexit.register(lambda: print('LOADED', *sys.modules));"
        f"from momap_ros.cli import main; raise SystemExit(main({[*command, '--help']!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    text, _, loaded = done.stdout.rpartition("LOADED")
    assert set(loaded.split()).isdisjoint(HEAVY)
    assert "example" in text
    assert f"momap {' '.join(command)}" in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize("command", ["simulate", "evaluate"])
def test_other_programs_show_their_own_help(command: str) -> None:
    done = momap(*command.split(), "--help")
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert "--out" in done.stdout


def test_unknown_steps_of_training_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "everything"]) == 2
    assert "momap train prepare" in capsys.readouterr().err
    assert main(["train"]) == 0


@dataclass(frozen=True)
class SampleSettings(Settings):
    """Settings of every kind."""

    count: int = setting(3, "How many, at 100 % load.", minimum=1, maximum=9)
    ratio: float = setting(0.5, "A share.")
    name: str = setting("", "A name.")
    mode: str = setting("fast", "A mode.", choices=("fast", "good"))
    off: bool = setting(default=False, description="Switched on by its option.")
    on: bool = setting(default=True, description="Switched off by its option.")
    hidden: int = setting(7, "Not offered.")


def parse(*options: str, prefix: str = "") -> SampleSettings:
    parser = argparse.ArgumentParser()
    add_settings(parser, SampleSettings, prefix=prefix, leave_out=("hidden",))
    return read_settings(parser.parse_args(options), SampleSettings, prefix=prefix)


def test_options_are_the_fields_of_the_settings() -> None:
    assert parse() == SampleSettings()
    given = parse("--count", "4", "--ratio", "0.25", "--name", "a b", "--mode", "good", "--off", "--no-on")
    assert given == SampleSettings(4, 0.25, "a b", "good", off=True, on=False)
    assert parse("--x-count", "4", "--no-x-on", prefix="x-") == SampleSettings(count=4, on=False)
    with pytest.raises(ValueError, match=r"count: expected a value in \[1, 9\], got 10"):
        parse("--count", "10")
    with pytest.raises(SystemExit):
        parse("--mode", "slow")
    with pytest.raises(SystemExit):
        parse("--hidden", "1")


def test_help_states_defaults_and_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(prog="x")
    add_settings(parser, SampleSettings, only=("count", "name", "off"))
    parser.print_help()
    text = " ".join(capsys.readouterr().out.split())
    assert "Settings of every kind:" in text
    assert "How many, at 100 % load. (default: 3, at least 1, at most 9)" in text
    assert "A name. (default: empty)" in text
    assert "Switched on by its option. (default: false)" in text
    assert "--ratio" not in text


def test_all_defaults_of_the_command_line_are_the_settings_own() -> None:
    arguments = build_parser().parse_args(["forecast", "bag", "--out", "out"])
    assert read_settings(arguments, ForecastConfig, prompt="") == ForecastConfig()
    assert read_settings(arguments, SegmentationConfig, prefix="segmentation-") == SegmentationConfig()


@pytest.mark.parametrize(
    ("error", "debug", "expected"),
    [
        (ValueError("expected a, got b; do c"), False, "momap: error: expected a, got b; do c\n"),
        (FileNotFoundError(2, "No such file", "x.png"), False, "momap: error: [Errno 2] No such file: 'x.png'\n"),
        (ZeroDivisionError("oops"), False, "momap: error: ZeroDivisionError: oops; a bug: please report it"),
        (ValueError("short"), True, "Traceback (most recent call last):"),
    ],
)
def test_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], error: Exception, expected: str, *, debug: bool
) -> None:
    def fail() -> int:
        raise error

    assert guarded(fail, debug=debug) == 1
    text = capsys.readouterr().err
    assert text.startswith(expected)
    assert debug or text.count("\n") == 1


def test_an_interruption_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> int:
        raise KeyboardInterrupt

    assert guarded(interrupt, debug=False) == 130
    assert capsys.readouterr().err == "momap: stopped\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bag", "info", "absent"], "momap: error: absent: expected a rosbag2 folder"),
        (["forecast", "absent", "--out", "out"], "momap: error: absent: expected a rosbag2 folder"),
        (["segment", "absent", "--out", "out"], "momap: error: absent: expected a rosbag2 folder"),
        (["init-full"], "momap: error: expected --sd-dir and --out, or --describe"),
        (["init-full", "--sd-dir", "absent", "--out", "o"], "momap: error: absent: expected a Stable Diffusion 1.5 or"),
        (["view", "absent"], "momap: error: absent: expected a rosbag2 folder"),
        (["view", "absent.npz"], "momap: error: absent.npz: expected a MoMap file"),
        (["bag", "from-images", "absent", "out"], "momap: error: absent: expected a folder of images or a video"),
        (
            ["forecast", "x", "--out", "o", "--hint", "3=north"],
            "expected ID=WORDS, for instance 3=right,up, got '3=north'",
        ),
        (
            ["forecast", "x", "--out", "o", "--hints", '{"hints": [{"id": 3, "x": "up", "y": "up", "z": "stay"}]}'],
            "hint for instance 3, axis x: expected left, stay or right (or -, 0, +), got 'up'",
        ),
        (["forecast", "x", "--out", "o", "--hints", "absent.json"], "No such file or directory: 'absent.json'"),
        (["forecast", "x", "--out", "o", "--frames", "1,b"], "expected frame numbers like 0,12,24, got '1,b'"),
        (["forecast", "x", "--out", "o", "--every", "0"], "expected a whole number from 1 on, got 0"),
    ],
)
def test_wrong_arguments_are_one_clear_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "momap_ros.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


CAMERA = PinholeCamera(320, 240, 300.0, 300.0, 159.5, 119.5)


def table_scene(index: int) -> tuple[RGBDFrame, InstanceMap]:
    """A camera looks down on a table at one metre; a box of 8 cm height stands on it and moves 1 cm a frame."""
    rng = np.random.default_rng(0)
    depth_m = np.full((240, 320), 1.0, np.float32)
    rgb = rng.integers(90, 110, (240, 320, 3), dtype=np.uint8)
    left = 100 + 3 * index
    depth_m[90:150, left : left + 60] = 0.92
    rgb[90:150, left : left + 60] = (200, 60, 40)
    ids = np.zeros((240, 320), np.int32)
    ids[90:150, left : left + 60] = 5
    stamp_ns = START_NS + index * 100_000_000
    return RGBDFrame(rgb, depth_m, CAMERA, stamp_ns, "optical"), InstanceMap(ids)


@pytest.fixture(scope="module")
def table_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cli") / "table_bag"
    with BagWriter(path) as bag:
        bag.write_prompt("push the box", START_NS - 1)
        for index in range(6):
            frame, instances = table_scene(index)
            bag.write_frame(frame, millimetres=True)
            bag.write_instances(instances, frame.stamp_ns, frame.frame_id)
    return path


def test_bag_info_and_check(table_bag: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "info", str(table_bag)]) == 0
    text = capsys.readouterr().out
    assert "mcap" in text
    assert "/color/image_raw" in text
    assert main(["bag", "check", str(table_bag)]) == 0
    assert "can be used" in capsys.readouterr().out
    assert main(["bag", "check", str(table_bag), "--depth-topic", "/nope"]) == 1
    assert "FAIL  depth topic: /nope: expected a topic" in capsys.readouterr().out


def test_segment_finds_the_box_and_keeps_its_id(
    table_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["segment", str(table_bag), "--out", str(tmp_path / "out"), "--every", "2"]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["instances_bag", "overlay_0000.png", "overlay_0002.png", "overlay_0004.png"]
    assert "3 frames" in capsys.readouterr().out
    with BagReader(tmp_path / "out" / "instances_bag") as bag:
        items = list(bag.frames())
    for item, index in zip(items, (0, 2, 4), strict=True):
        _, truth = table_scene(index)
        assert item.instances is not None
        found = item.instances.ids == 1
        assert (found & (truth.ids == 5)).sum() / (found | (truth.ids == 5)).sum() > 0.8


def test_from_images_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, _ = table_scene(0)
    for kind, image in (("color", frame.rgb[..., ::-1]), ("depth", (frame.depth_m * 1000).astype(np.uint16))):
        (tmp_path / "in" / kind).mkdir(parents=True)
        assert cv2.imwrite(str(tmp_path / "in" / kind / "0.png"), image)
    numbers = ["--fx", "300", "--fy", "300", "--cx", "159.5", "--cy", "119.5"]
    out = tmp_path / "bag"
    command = ["bag", "from-images", str(tmp_path / "in"), str(out)]
    assert main([*command, *numbers[:2]]) == 1
    assert "expected all of --fx --fy --cx --cy" in capsys.readouterr().err
    assert main([*command, *numbers, "--prompt", "lift the box", "--storage", "sqlite3", "--rate", "3"]) == 0
    assert "1 frames, colour and depth" in capsys.readouterr().out
    with BagReader(out) as bag:
        (item,) = bag.frames()
    assert (item.frame.camera, item.prompt) == (CAMERA, "lift the box")
    np.testing.assert_array_equal(item.frame.rgb, frame.rgb)
    assert main([*command, *numbers]) == 1
    assert "exists already" in capsys.readouterr().err


def test_colour_alone_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    assert cv2.imwrite(str(tmp_path / "in" / "0.png"), np.zeros((24, 32, 3), np.uint8))
    assert main(["bag", "from-images", str(tmp_path / "in"), str(tmp_path / "bag")]) == 0
    assert "has colour only; `momap bag check" in capsys.readouterr().err
    assert main(["forecast", str(tmp_path / "bag"), "--out", str(tmp_path / "out")]) == 1
    assert "momap: error: no depth: the bag has colour images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_info_is_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for word in ("momap_ros", "numpy", "devices", "CPU cores", "ROS 2", "model"):
        assert word in text


@pytest.mark.parametrize("metadata", ["", "---\nlicense: apache-2.0\n---\n"])
def test_info_says_what_the_card_says_first(metadata: str, tmp_path: Path) -> None:
    from momap_ros.commands.info import _card_line

    card = f"{metadata}# A model\n\nWhat it does.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nAnd more.\n"
    (tmp_path / "README.md").write_text(card)
    assert _card_line(tmp_path) == "What it does."
