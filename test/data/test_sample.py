from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from momap_ros.data.sample import Role, Sample, SampleError, iterate_samples, read_shard, write_shard
from momap_ros.geometry import PinholeCamera
from momap_ros.shapes import ShapeError


def make_sample(key: str = "train_0000000_0", *, seed: int = 0) -> Sample:
    """A wall 1 m away; body 3 covers the left half and moves 0.1 m per step to the right."""
    rng = np.random.default_rng(seed)
    depth = np.ones((6, 8), np.float32)
    depth[0, 0] = np.nan
    ids = np.zeros((6, 8), np.uint8)
    ids[:, :4] = 3
    ids[5, 7], ids[4, 7] = 1, 2
    motion = np.tile(np.eye(3, 4, dtype=np.float32), (5, 1, 1, 1))
    motion[:, 0, 0, 3] = 0.1 * np.arange(5)
    return Sample(
        key=key,
        split="train",
        skill="push",
        kind="block",
        text="push the block right",
        rgb=rng.integers(0, 256, (6, 8, 3), np.uint8),
        depth_m=depth,
        body_ids=ids,
        camera=PinholeCamera(8, 6, 5.0, 7.0, 3.5, 2.5),
        camera_from_world=np.array([[1.0, 0, 0, 0.2], [0, 0, -1, 0.1], [0, 1, 0, 2], [0, 0, 0, 1]]),
        body_names=("world", "arm_base", "hand", "red block", "mocap"),
        body_roles=(Role.WORLD, Role.ROBOT, Role.ROBOT, Role.ACTED, Role.HIDDEN),
        moving_bodies=np.array([3], np.uint8),
        motion_t_from_0=motion,
        duration_s=2.0,
    )


def test_the_momap_moves_the_pixels_of_moving_bodies_only() -> None:
    sample = make_sample()
    momap = sample.momap()
    expected = np.zeros((5, 6, 8, 3))
    expected[:, :, :4, 0] = 0.1 * np.arange(5)[:, None, None]
    expected[:, 0, 0] = np.nan
    np.testing.assert_allclose(momap.displacement_m, expected, atol=1e-6)
    assert momap.step_s == 0.5
    assert momap.valid.sum() == 47
    np.testing.assert_allclose(momap.xyz[0, 2, 7], [(7 - 3.5) / 5, (2 - 2.5) / 7, 1.0], rtol=1e-6)


def test_a_rotation_turns_points_about_its_axis() -> None:
    sample = make_sample()
    sample.motion_t_from_0[4, 0] = [[0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 2]]  # x -> -z, z -> x, then 2 m along z
    start = sample.momap().xyz[0, 3, 2]
    np.testing.assert_allclose(sample.momap().xyz[4, 3, 2], [start[2], start[1], 2 - start[0]], atol=1e-6)


def test_robot_links_are_one_instance_when_merged() -> None:
    sample = make_sample()
    links, merged = sample.instance_map(merge_robot=False), sample.instance_map(merge_robot=True)
    assert (links.ids[5, 7], links.ids[4, 7]) == (1, 2)
    assert (merged.ids[5, 7], merged.ids[4, 7]) == (1, 1)
    np.testing.assert_array_equal(merged.ids[:, :4], 3)
    assert dict(merged.labels) == {1: "robot", 3: "red block"}
    assert dict(links.labels) == {1: "arm_base", 2: "hand", 3: "red block"}
    assert sample.instance_roles(merge_robot=True) == {1: Role.ROBOT, 3: Role.ACTED}
    assert sample.instance_roles(merge_robot=False) == {1: Role.ROBOT, 2: Role.ROBOT, 3: Role.ACTED}


def test_up_is_against_gravity_in_the_camera() -> None:
    np.testing.assert_array_equal(make_sample().up_in_camera, [0, -1, 0])


def test_samples_survive_a_shard(tmp_path: Path) -> None:
    written = [make_sample("train_0000000_0"), make_sample("train_0000000_1", seed=1)]
    turns = Rotation.from_rotvec([[0.1 * step, 0.4 * step, -0.2] for step in range(4)]).as_matrix()
    written[1].motion_t_from_0[1:, 0, :, :3] = turns
    path = tmp_path / "train-0000000-0000002.tar"
    assert write_shard(path, written) == 2
    for sample, again in zip(written, iterate_samples(tmp_path, "train"), strict=True):
        for name in ("key", "split", "skill", "kind", "text", "camera", "body_names", "body_roles", "duration_s"):
            assert getattr(again, name) == getattr(sample, name)
        for name in ("rgb", "body_ids", "camera_from_world", "moving_bodies"):
            np.testing.assert_array_equal(getattr(again, name), getattr(sample, name))
        np.testing.assert_allclose(again.depth_m, sample.depth_m, atol=0.5e-4)
        np.testing.assert_allclose(again.motion_t_from_0, sample.motion_t_from_0, atol=1e-6)
        assert again.rgb.dtype == np.uint8
        assert again.depth_m.dtype == np.float32


def test_what_only_some_samples_have_survives_a_shard(tmp_path: Path) -> None:
    visible = np.random.default_rng(2).random((5, 6, 8)) < 0.5
    written = replace(
        make_sample(),
        paraphrases=("shove the block right", "slide the block to the right"),
        text_frame="camera",
        contacts=((3, 0.25, 1.5),),
        factors={"arm": "round", "sector": "front"},
        first_frame="futures_0000007",
        visible=visible,
    )
    write_shard(tmp_path / "train-0.tar", [written])
    (again,) = read_shard(tmp_path / "train-0.tar")
    for name in ("paraphrases", "text_frame", "contacts", "factors", "first_frame", "source", "lacks"):
        assert getattr(again, name) == getattr(written, name)
    assert again.visible is not None
    np.testing.assert_array_equal(again.visible, visible)


def test_a_recording_without_motion_has_no_momap(tmp_path: Path) -> None:
    recorded = replace(
        make_sample(),
        moving_bodies=np.zeros(0, np.uint8),
        motion_t_from_0=np.zeros((1, 0, 3, 4), np.float32),
        source="bridge_rlds",
        lacks=("camera", "depth", "instances", "motion"),
    )
    write_shard(tmp_path / "train-0.tar", [recorded])
    (again,) = read_shard(tmp_path / "train-0.tar")
    assert (again.source, again.lacks) == (recorded.source, recorded.lacks)
    with pytest.raises(SampleError, match="got one of bridge_rlds that lacks camera, depth, motion"):
        again.momap()


def test_direction_flags_are_those_of_the_mean_displacement() -> None:
    sample = make_sample()
    sample.motion_t_from_0[:, 0, 1, 3] = -0.03 * np.arange(5)
    flags = sample.direction_flags()
    assert {instance: row.tolist() for instance, row in flags.items()} == {1: [0, 0, 0], 3: [1, -1, 0]}
    assert sample.direction_flags(0)[3].tolist() == [0, 0, 0]
    assert sample.direction_flags(1, threshold_m=0.05)[3].tolist() == [1, 0, 0]


def test_an_unknown_lack_is_refused() -> None:
    with pytest.raises(SampleError, match=r"lacks: expected names of .*got \['colour'\]"):
        replace(make_sample(), lacks=("colour",))


def test_a_shard_of_an_earlier_release_is_refused(tmp_path: Path) -> None:
    whole, old = tmp_path / "train-0.tar", tmp_path / "train-1.tar"
    write_shard(whole, [make_sample()])
    with tarfile.open(whole) as source, tarfile.open(old, "w") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            data = content.read()
            if member.name.endswith(".json"):
                meta = json.loads(data)
                del meta["num_steps"]
                data = json.dumps(meta).encode()
                member.size = len(data)
            target.addfile(member, io.BytesIO(data))
    with pytest.raises(ValueError, match="written by an earlier release"):
        list(read_shard(old))


def test_shards_are_read_in_order_of_their_episodes(tmp_path: Path) -> None:
    for first in (500, 0, 250):
        write_shard(tmp_path / f"train-{first:07d}-{first + 250:07d}.tar", [make_sample(f"train_{first:07d}_0")])
    (tmp_path / ".train-0000750-0001000.partial.tar").write_bytes(b"half")
    keys = [sample.key for sample in iterate_samples(tmp_path, "train")]
    assert keys == ["train_0000000_0", "train_0000250_0", "train_0000500_0"]


def test_a_folder_without_shards_says_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected shards named val-\*\.tar.*momap simulate --split val"):
        next(iterate_samples(tmp_path, "val"))


def test_a_shard_with_a_missing_member_is_refused(tmp_path: Path) -> None:
    whole, part = tmp_path / "train-0.tar", tmp_path / "train-1.tar"
    write_shard(whole, [make_sample()])
    with tarfile.open(whole) as source, tarfile.open(part, "w") as target:
        for member in source:
            if not member.name.endswith("ids.png"):
                target.addfile(member, source.extractfile(member))
    with pytest.raises(ValueError, match=r"sample train_0000000_0: expected .*ids\.png"):
        list(read_shard(part))


def test_a_failing_writer_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> Sample:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_shard(tmp_path / "train-0.tar", (failing() for _ in range(1)))
    assert list(tmp_path.iterdir()) == []


def test_parts_of_different_images_do_not_make_a_sample() -> None:
    sample = make_sample()
    with pytest.raises(ShapeError, match="depth_m"):
        Sample(**{**sample.__dict__, "depth_m": sample.depth_m[:4]})
