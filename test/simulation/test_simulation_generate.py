from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("momap_ros.simulation", exc_type=ImportError)

import mujoco
import numpy as np

from momap_ros.data.sample import iterate_samples, read_shard
from momap_ros.simulation import shard_run, shards
from momap_ros.simulation.episodes import simulate_episode
from momap_ros.simulation.generate import Request, generate, main, plan, regenerate
from momap_ros.simulation.shard_folder import FolderInUseError, ShardFolder
from momap_ros.simulation.shard_run import GenerationError
from momap_ros.simulation.shards import ShardProgress, ShardTask, make_shard

SMALL = Request("val", num_views=1, width=64, height=64, episodes=6)
NAMES = ["val-0000000-0000003", "val-0000003-0000006"]


@pytest.fixture(autouse=True, scope="module")
def _small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "EPISODES_PER_SHARD", 3)
        yield


@pytest.fixture(scope="module")
def made(_small_shards: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six episodes in two shards; tests that change it copy it."""
    path = tmp_path_factory.mktemp("generated")
    generate(SMALL, path, num_workers=2)
    return path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.tar")}


def visible_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in {".lock", ".workers.lock"})


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_writing(folder: Path) -> bool:
    return any((folder / ".unfinished").glob("*.partial.tar"))


def command(*arguments: object) -> subprocess.Popen[str]:
    """`momap simulate` with shards of three episodes."""
    program = (
        "import sys; from momap_ros.simulation import generate, shards; shards.EPISODES_PER_SHARD = 3\n"
        "sys.exit(generate.main())"
    )
    words = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)


def test_shards_reports_and_manifest_are_written(made: Path) -> None:
    assert visible_names(made) == sorted(
        ["manifest.json", *(f"{name}.{suffix}" for name in NAMES for suffix in ("json", "tar"))]
    )
    samples = list(iterate_samples(made, "val"))
    assert len({sample.key for sample in samples}) == len(samples)
    assert all(sample.rgb.shape == (64, 64, 3) and sample.split == "val" for sample in samples)
    assert all(len(sample.motion_t_from_0) == 50 for sample in samples)


def test_the_manifest_counts_what_lies_there(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    assert (manifest["format"], manifest["licence"]) == ("momap_samples/2", "Apache-2.0")
    [maker] = manifest["made_with"]
    assert maker["mujoco"] == manifest["mujoco"] == mujoco.__version__
    assert maker["renderer"]
    assert maker["simd"] in str(np.show_config(mode="dicts")["SIMD Extensions"])
    assert manifest["arguments"]["episodes"] == 6
    entry = manifest["splits"]["val"]
    samples = list(iterate_samples(made, "val"))
    assert (entry["size"], entry["num_views"], entry["num_steps"]) == ("64x64", 1, 50)
    assert entry["episodes"] == [[0, 6]]
    assert entry["samples"] == entry["rollouts"] == len(samples) == sum(s["samples"] for s in entry["shards"])
    assert {shard["name"] + ".tar": shard["sha256"] for shard in entry["shards"]} == digests(made)
    tried: dict[str, list[bool]] = {}
    for index in range(6):
        episode = simulate_episode("val", index)
        assert episode is not None
        tried.setdefault(episode.scene.skill, []).append(episode.rollout.success)
    assert entry["no_scene"] == 0
    for skill, successes in tried.items():
        counts = entry["skills"][skill]
        assert counts["tried"] == len(successes)
        assert counts.get("succeeded", 0) == sum(successes)
        assert counts.get("failed", 0) == len(successes) - sum(successes)
    assert entry["skills"].keys() == tried.keys()
    assert manifest["dead_workers"] == []


def test_a_finished_shard_is_kept_and_a_missing_one_is_made_again_alike(folder: Path) -> None:
    before = digests(folder)
    kept, lost = (folder / f"{name}.tar" for name in NAMES)
    stamp = kept.stat().st_mtime_ns
    lost.with_suffix(".json").unlink()
    lost.unlink()
    generate(SMALL, folder, num_workers=1)
    assert kept.stat().st_mtime_ns == stamp
    assert digests(folder) == before


def test_a_truncated_shard_is_named_and_made_again(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(folder)
    path = folder / f"{NAMES[0]}.tar"
    path.write_bytes(path.read_bytes()[:-512])
    generate(SMALL, folder, num_workers=1)
    assert digests(folder) == before
    assert f"{NAMES[0]}.json: made again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 32, "height": 32}, "expected width 32, got 64"),
        ({"num_views": 2}, "expected num_views 2, got 1"),
        ({"first_episode": 1}, r"expected a shard of the episodes 1\.\.3 or none of them, got 0\.\.2"),
        ({"first_episode": 2, "episodes": None, "count": 9}, r"episodes 2\.\.4 or none of them, got 0\.\.2"),
        ({"first_episode": 9, "num_views": 2}, "expected num_views 2, got 1"),
    ],
)
def test_a_folder_is_never_mixed(folder: Path, changes: dict[str, Any], message: str) -> None:
    before = digests(folder)
    with pytest.raises(ValueError, match=message):
        generate(replace(SMALL, **changes), folder, num_workers=1)
    assert digests(folder) == before


def test_shards_of_another_simulator_or_format_are_refused(folder: Path) -> None:
    path = folder / f"{NAMES[1]}.json"
    report = json.loads(path.read_text())
    report["made_with"]["mujoco"] = "3.0.0"
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match=rf"{NAMES[1]}: expected mujoco {mujoco.__version__}, got 3\.0\.0"):
        generate(SMALL, folder, num_workers=1)
    del report["sha256"]
    path.write_text(json.dumps(report))
    with pytest.raises(ValueError, match="older version of this package"):
        generate(SMALL, folder, num_workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": None}, "either episodes or count, got None and None"),
        ({"count": 3}, "either episodes or count, got 6 and 3"),
        ({"episodes": 0}, "episodes: expected at least 1, got 0"),
        ({"num_views": 0}, "num_views: expected at least 1, got 0"),
        ({"first_episode": -1}, "first_episode: expected at least 0, got -1"),
        ({"width": 8}, "width: expected at least 16, got 8"),
        ({"num_steps": 1}, "num_steps: expected at least 2, got 1"),
        ({"split": "futures", "visibility": True}, "split futures: expected no visibility"),
    ],
)
def test_requests_that_mean_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)


@pytest.mark.slow
def test_images_of_any_size_with_any_steps_and_visibility(tmp_path: Path) -> None:
    request = replace(SMALL, width=80, height=48, num_steps=7, visibility=True, episodes=3)
    entry = generate(request, tmp_path, num_workers=1)["splits"]["val"]
    assert (entry["size"], entry["num_steps"], entry["visibility"]) == ("80x48", 7, True)
    samples = list(iterate_samples(tmp_path, "val"))
    assert len(samples) >= 2
    for sample in samples:
        assert sample.rgb.shape == (48, 80, 3)
        assert sample.visible is not None
        assert sample.visible.shape == (7, 48, 80)
        assert sample.visible[0].mean() > 0.98


@pytest.mark.slow
def test_futures_of_one_first_image_lie_together(tmp_path: Path) -> None:
    entry = generate(replace(SMALL, split="futures", episodes=3), tmp_path, num_workers=1)["splits"]["futures"]
    samples = list(iterate_samples(tmp_path, "futures"))
    groups = {sample.first_frame: [s for s in samples if s.first_frame == sample.first_frame] for sample in samples}
    assert entry["rollouts"] == len(groups) <= 3
    assert max(len(group) for group in groups.values()) >= 3
    for group in groups.values():
        assert len({sample.key for sample in group}) == len(group)
        assert all((sample.rgb == group[0].rgb).all() for sample in group)


@pytest.mark.slow
def test_count_takes_the_fewest_whole_shards_whatever_the_number_of_workers(made: Path, tmp_path: Path) -> None:
    stored = [sum(1 for _ in read_shard(made / f"{name}.tar")) for name in NAMES]
    for count, workers in ((1, 2), (stored[0], 1), (stored[0] + 1, 2)):
        folder = tmp_path / f"{count}_{workers}"
        manifest = generate(replace(SMALL, episodes=None, count=count), folder, num_workers=workers)
        wanted = NAMES[: 1 if count <= stored[0] else 2]
        assert manifest["splits"]["val"]["rollouts"] == sum(stored[: len(wanted)]) >= count
        assert digests(folder) == {f"{name}.tar": digests(made)[f"{name}.tar"] for name in wanted}
        assert not (folder / ".unfinished").exists()


def test_shards_made_ahead_are_never_counted(made: Path, tmp_path: Path) -> None:
    ahead = tmp_path / ".unfinished"
    ahead.mkdir()
    for suffix in (".tar", ".json"):
        shutil.copy(made / f"{NAMES[1]}{suffix}", ahead)
    manifest = generate(replace(SMALL, episodes=None, count=1), tmp_path, num_workers=1)
    assert list(digests(tmp_path)) == [f"{NAMES[0]}.tar"]
    assert manifest["splits"]["val"]["episodes"] == [[0, 3]]
    assert not ahead.exists()


def test_only_what_a_killed_run_left_half_done_is_removed(made: Path, tmp_path: Path) -> None:
    hidden = tmp_path / ".unfinished"
    hidden.mkdir()
    for suffix in (".tar", ".json"):
        shutil.copy(made / f"{NAMES[0]}{suffix}", hidden)  # whole, not yet published
    stale = [
        hidden / f".{NAMES[1]}.0123abcd.partial.tar",
        hidden / f".{NAMES[1]}.0123abcd.partial.json",
        hidden / f"{NAMES[1]}.tar",  # without a report
        tmp_path / ".manifest.0123abcd.partial.json",
        tmp_path / f".{NAMES[1]}.0123abcd.partial.tar",  # as older versions left it
    ]
    others = [tmp_path / ".hidden", tmp_path / ".notes.0123abcd.partial.txt", tmp_path / "table.json"]
    for path in [*stale, *others]:
        path.write_bytes(b"half")
    whole = ShardFolder(tmp_path, print)
    with whole.locked():
        assert not any(path.exists() for path in stale)
        assert all(path.exists() for path in others)
        [first, _] = SMALL.tasks()
        assert whole.find(first) is not None
    generate(SMALL, tmp_path, num_workers=1)
    assert digests(tmp_path) == digests(made)
    assert all(path.exists() for path in others)


def test_a_kill_between_the_two_moves_of_a_shard_loses_nothing(folder: Path) -> None:
    before = digests(folder)
    hidden = folder / ".unfinished"
    hidden.mkdir()
    (folder / f"{NAMES[1]}.json").rename(hidden / f"{NAMES[1]}.json")  # the tar is in place already
    stamp = (folder / f"{NAMES[1]}.tar").stat().st_mtime_ns
    generate(SMALL, folder, num_workers=1)
    assert (folder / f"{NAMES[1]}.tar").stat().st_mtime_ns == stamp
    assert digests(folder) == before
    assert (folder / f"{NAMES[1]}.json").exists()


def test_two_runs_into_one_folder_are_refused(tmp_path: Path) -> None:
    with (
        ShardFolder(tmp_path, print).locked(),
        pytest.raises(FolderInUseError, match=f"expected no other run, but process {os.getpid()} writes into it"),
    ):
        generate(SMALL, tmp_path, num_workers=1)


@pytest.mark.slow
@pytest.mark.parametrize(("made_of", "said"), [("request", "rollouts"), ("plan", "hash not known before")])
def test_kill_9_of_the_run_loses_and_doubles_nothing(made_of: str, said: str, tmp_path: Path) -> None:
    arguments: tuple[object, ...] = ("--split", "val", "--views", 1, "--size", 64, "--count", 9)
    if made_of == "plan":
        plan(replace(SMALL, episodes=12), tmp_path / "nothing", tmp_path / "plan.json")
        arguments = ("--from-manifest", tmp_path / "plan.json")
    interrupted = tmp_path / "interrupted"
    process = command(*arguments, "--workers", 2, "--out", interrupted)
    wait_for(lambda: (interrupted / f"{NAMES[0]}.json").exists() and is_writing(interrupted))
    process.kill()
    process.communicate()
    first = digests(interrupted)
    stamp = (interrupted / f"{NAMES[0]}.tar").stat().st_mtime_ns
    assert not (interrupted / "manifest.json").exists()
    whole = tmp_path / "whole"
    for workers, folder in ((2, interrupted), (1, whole)):
        process = command(*arguments, "--workers", workers, "--out", folder)
        assert said in process.communicate()[1]
        assert process.returncode == 0
    assert digests(interrupted) == digests(whole)
    assert first.items() <= digests(whole).items()
    assert (interrupted / f"{NAMES[0]}.tar").stat().st_mtime_ns == stamp
    assert visible_names(interrupted) == visible_names(whole)


def test_kill_9_of_a_worker_is_named_and_changes_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []

    def kill_one() -> None:
        wait_for(lambda: is_writing(tmp_path))
        pid = multiprocessing.active_children()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    manifest = generate(SMALL, tmp_path, num_workers=1)
    killer.join()
    assert digests(tmp_path) == digests(made)
    [death] = manifest["dead_workers"]
    assert death["pid"] == killed[0]
    assert death["shard"] in NAMES
    said = capsys.readouterr().err
    assert f"worker 0 (pid {killed[0]}) died (signal 9 (SIGKILL); short of memory?) in {death['shard']} at" in said
    assert "Traceback" not in said


def poisoned(folder: Path, task: ShardTask, report: Callable[[ShardProgress], None]) -> dict[str, Any]:
    """A worker's work that ends the process at episode 4."""
    for index in range(task.first, task.stop):
        report(ShardProgress(index))
        if index == 4:
            os.kill(os.getpid(), signal.SIGSEGV)
    return make_shard(task, folder / ".unfinished" / f"{task.name}.tar", report)


@pytest.mark.slow
def test_an_episode_that_ends_every_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_run, "write_unfinished", poisoned)
    expected = (
        r"val-0000003-0000006: 3 workers died, the last one \(signal 11 \(SIGSEGV\)\) at episode 4\..* "
        "momap simulate --split val --first-episode 4 --episodes 1 --workers 1 --views 1 --size 64x64 --steps 50"
    )
    with pytest.raises(GenerationError, match=expected):
        generate(SMALL, tmp_path, num_workers=1)
    assert list(digests(tmp_path)) == [f"{NAMES[0]}.tar"]  # what was whole is kept
    monkeypatch.undo()
    deaths = generate(SMALL, tmp_path, num_workers=1)["dead_workers"]  # found again by the next run
    assert [(death["shard"], death["at"]) for death in deaths] == [(NAMES[1], "episode 4")] * 3


def test_an_interrupted_shard_leaves_no_file(tmp_path: Path) -> None:
    def interrupted(progress: ShardProgress) -> None:
        if progress.episode == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_shard(next(SMALL.tasks()), tmp_path / "shard.tar", interrupted)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_makes_the_same_bytes_again(made: Path, tmp_path: Path) -> None:
    assert regenerate(made / "manifest.json", tmp_path, num_workers=1) is None
    assert digests(tmp_path) == digests(made)


def test_a_difference_from_the_manifest_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["val"]["shards"][1]["sha256"] = "0" * 64
    manifest["made_with"][0]["numpy"] = "1.0.0"
    del manifest["made_with"][0]["simd"]  # as in manifests of before
    path = tmp_path / "other.json"
    path.write_text(json.dumps(manifest))
    monkeypatch.setattr(sys, "argv", ["momap simulate", "--from-manifest", str(path), "--out", str(folder)])
    assert main() == 1
    said = capsys.readouterr().err
    assert f"{NAMES[1]}.tar: expected sha256 {'0' * 64}" in said
    assert "numpy: made with 1.0.0" in said
    assert "simd: made with an unknown one, here is " in said
    assert NAMES[0] not in said


def test_a_plan_makes_what_it_lists_and_says_which_hashes_are_new(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nine = replace(SMALL, episodes=9)
    before = visible_names(made)
    manifest = plan(nine, made, tmp_path / "plan.json")
    assert visible_names(made) == before
    assert json.loads((tmp_path / "plan.json").read_text()) == manifest
    entry = manifest["splits"]["val"]
    assert entry["episodes"] == [[0, 9]]
    assert [(shard["first"], shard["stop"]) for shard in entry["shards"]] == [(0, 3), (3, 6), (6, 9)]
    known = {f"{shard['name']}.tar": shard["sha256"] for shard in entry["shards"] if "sha256" in shard}
    assert known == digests(made)
    assert manifest["planned_with"]["mujoco"] == mujoco.__version__

    again = tmp_path / "again"
    assert regenerate(tmp_path / "plan.json", again, num_workers=1) is None
    assert known.items() < digests(again).items()
    said = [line for line in capsys.readouterr().err.splitlines() if "not known before" in line]
    assert said == ["momap simulate: val-0000006-0000009.tar: made, hash not known before"]
    completed = plan(nine, again, tmp_path / "completed.json")
    assert completed["planned_with"] is None
    hashes = {f"{shard['name']}.tar": shard["sha256"] for shard in completed["splits"]["val"]["shards"]}
    assert hashes == digests(again)


def test_a_plan_needs_no_folder_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    words = ["--split", "val", "--episodes", "7", "--plan", str(path), "--out", str(tmp_path / "nothing")]
    monkeypatch.setattr(sys, "argv", ["momap simulate", *words])
    assert main() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    assert "3 shards, 0 with hashes from" in capsys.readouterr().err
    manifest = json.loads(path.read_text())
    assert manifest["splits"]["val"]["shards"][-1] == {"name": "val-0000006-0000007", "first": 6, "stop": 7}
    assert manifest["made_with"] == []
    manifest["planned_with"]["mujoco"] = "3.1.2"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"pip install mujoco==3\.1\.2"):
        regenerate(path, tmp_path / "nothing", num_workers=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": None, "count": 5}, "expected episodes, got a count"),
        ({"width": 32, "height": 32}, "expected width 32, got 64"),
        ({"first_episode": 1}, r"episodes 1\.\.3 or none of them, got 0\.\.2"),
    ],
)
def test_plans_that_cannot_be_are_refused(made: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(replace(SMALL, **changes), made, tmp_path / "plan.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest["made_with"][0].update(mujoco="3.1.2"), r"pip install mujoco==3\.1\.2"),
        (lambda manifest: manifest.update(format="momap_samples/1"), "expected format momap_samples/2, got"),
        (lambda manifest: manifest.pop("format"), "expected the manifest.json of a folder of shards"),
    ],
)
def test_a_manifest_that_cannot_be_made_again_is_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=message):
        regenerate(folder / "manifest.json", tmp_path / "again", num_workers=1)
    assert not (tmp_path / "again").exists()


def test_a_folder_is_not_compared_with_itself(folder: Path) -> None:
    with pytest.raises(ValueError, match="another --out folder than the manifest's own"):
        regenerate(folder / "manifest.json", folder, num_workers=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--count", "5"], "expected --split"),
        (["--split", "val", "--count", "5", "--episodes", "5"], "not allowed with"),
        (["--from-manifest", "manifest.json", "--size", "64"], "was given too"),
        (["--from-manifest", "manifest.json", "--plan", "plan.json"], "was given too"),
        (["--split", "val", "--count", "5", "--size", "640x"], "expected a number of pixels or WIDTHxHEIGHT"),
    ],
)
def test_commands_that_contradict_themselves_are_refused(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["momap simulate", *words, "--out", "nowhere"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert message in capsys.readouterr().err
    assert not Path("nowhere").exists()


def test_the_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["momap simulate", "--help"])
    with pytest.raises(SystemExit, match="0"):
        main()
    text = capsys.readouterr().out
    words = ("usage: momap simulate", "examples:", "what comes out", "interrupted?", "manifest.json", "--first-episode")
    assert all(word in text for word in words)
    assert max(len(line) for line in text.splitlines()) <= 120
