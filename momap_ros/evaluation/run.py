"""Scores splits in parallel, resumes where it was killed: one file of rows per predictor, condition and few samples."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import re
import tarfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from momap_ros.data.sample import read_shard, shard_paths
from momap_ros.evaluation.futures import groups_of, score_futures
from momap_ros.evaluation.predictor import Predictor
from momap_ros.evaluation.scoring import Condition, Row, episode_of, score_sample
from momap_ros.files import atomic_path

ROWS_FORMAT = 1
CHUNK_SAMPLES = 20


@dataclass(frozen=True)
class Chunk:
    """A range of samples of one shard; whole episodes, so that futures of one frame stay together.

    Attributes:
        shard: its file.
        start: first sample.
        stop: sample after the last.
        shard_sha256: of the file's bytes.
    """

    shard: Path
    start: int
    stop: int
    shard_sha256: str

    @property
    def name(self) -> str:
        """Stem of its files of rows."""
        return f"{self.shard.stem}.{self.start:05d}-{self.stop:05d}"


@dataclass(frozen=True)
class Entrant:
    """A predictor with all that its rows depend on.

    Attributes:
        predictor: what is scored.
        identity: whatever tells it from others of the same name: weights, steps, training motions.
    """

    predictor: Predictor
    identity: str


@dataclass(frozen=True)
class Plan:
    """What is scored.

    Attributes:
        data: folder of shards.
        out: folder for rows/.
        entrants: predictors.
        limit: samples per split, in order, rounded up to whole episodes; all where None.
        workers: processes.
    """

    data: Path
    out: Path
    entrants: Sequence[Entrant]
    limit: int | None = None
    workers: int = 1


def chunks_of(shard: Path, limit: int | None) -> list[Chunk]:
    """The chunks of a shard, up to a number of samples; the samples are counted, not read."""
    with tarfile.open(shard, "r:") as tar:
        keys = [name[: -len(".json")] for name in tar.getnames() if name.endswith(".json")]
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    first_of_episode = [i for i, key in enumerate(keys) if not i or episode_of(key) != episode_of(keys[i - 1])]
    cuts, end = [0], 0
    for start, stop in itertools.pairwise([*first_of_episode, len(keys)]):
        if limit is not None and start >= limit:
            break
        if start - cuts[-1] >= CHUNK_SAMPLES:
            cuts.append(start)
        end = stop
    return [Chunk(shard, a, b, digest) for a, b in itertools.pairwise([*cuts, end])]


def rows_path(plan: Plan, condition: Condition, entrant: Entrant, chunk: Chunk) -> Path:
    """Where the rows of a chunk are kept."""
    words = (condition.title, entrant.predictor.name)
    folders = [re.sub(r"[^\w.-]+", "_", word) for word in words]
    return plan.out.joinpath("rows", *folders, f"{chunk.name}.json")


def _identity(condition: Condition, entrant: Entrant, chunk: Chunk) -> dict[str, Any]:
    """All that decides rows; read back from a file it must be the same."""
    predictor = {"name": entrant.predictor.name, "told": entrant.predictor.told, "identity": entrant.identity}
    facts = {
        "format": ROWS_FORMAT,
        "condition": asdict(condition),
        "predictor": predictor,
        "shard_sha256": chunk.shard_sha256,
    }
    return dict(json.loads(json.dumps(facts)))


def read_rows(path: Path, identity: Mapping[str, Any]) -> dict[str, list[Row]] | None:
    """Rows that were scored before; None where there is no such file.

    Raises:
        ValueError: they were scored with other settings, weights or data.
    """
    if not path.is_file():
        return None
    content = json.loads(path.read_text())
    if content["identity"] != identity:
        different = sorted(name for name, value in identity.items() if content["identity"].get(name) != value)
        raise ValueError(
            f"{path}: expected rows of this evaluation, got some with another {', '.join(different)}; choose another "
            f"--out, or delete this one"
        )
    return {name: content[name] for name in ("rows", "groups", "no_forecast")}


def _score_chunk(chunk: Chunk, plan: Plan, condition: Condition) -> int:
    """Score the predictors whose rows are missing; returns the number of samples."""
    missing = [
        entrant
        for entrant in plan.entrants
        if read_rows(rows_path(plan, condition, entrant, chunk), _identity(condition, entrant, chunk)) is None
    ]
    if not missing:
        return chunk.stop - chunk.start
    names = [entrant.predictor.name for entrant in missing]
    predictors = [entrant.predictor for entrant in missing]
    found: dict[str, dict[str, list[Any]]] = {name: {"rows": [], "groups": [], "no_forecast": []} for name in names}
    samples = list(itertools.islice(read_shard(chunk.shard), chunk.start, chunk.stop))
    for number, sample in enumerate(samples, start=chunk.start):
        for name, row in score_sample(sample, predictors, condition, number).items():
            if row is None:
                found[name]["no_forecast"].append(sample.key)
            else:
                found[name]["rows"].append(row)
    for number, futures in enumerate(groups_of(samples), start=chunk.start):
        for name, row in score_futures(futures, predictors, condition, number).items():
            found[name]["groups"].append(row)
    for entrant in missing:
        content = {"identity": _identity(condition, entrant, chunk)} | found[entrant.predictor.name]
        with atomic_path(rows_path(plan, condition, entrant, chunk)) as path:
            path.write_text(json.dumps(content) + "\n")
    return chunk.stop - chunk.start


_worker: dict[str, Any] = {}


def _start_worker(plan: Plan) -> None:
    """Keep the plan, with models loaded once per process; end with the process that started this one."""
    import torch

    torch.set_num_threads(1)
    _worker["plan"] = plan
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(task: tuple[Chunk, Condition]) -> int:
    return _score_chunk(task[0], _worker["plan"], task[1])


def score_split(plan: Plan, split: str, condition: Condition) -> dict[str, dict[str, list[Row]]]:
    """All rows of one split under one condition; predictor name -> rows, groups and keys without a forecast.

    Every predictor is scored on the same samples and pixels. What is in the folder already is not done again; rows do
    not depend on the number of workers.

    Raises:
        FileNotFoundError: the folder holds no shard of the split.
        ValueError: the out folder holds rows of another evaluation.
    """
    chunks: list[Chunk] = []
    total = 0
    for shard in shard_paths(plan.data, split):
        if plan.limit is None or total < plan.limit:
            chunks += chunks_of(shard, None if plan.limit is None else plan.limit - total)
            total = sum(chunk.stop - chunk.start for chunk in chunks)
    tasks = [(chunk, condition) for chunk in chunks]
    with tqdm(total=total, desc=f"{split}, {condition.title}", unit="sample") as bar:
        for count in _run(plan, tasks):
            bar.update(count)
    return {entrant.predictor.name: _collect(plan, condition, entrant, chunks) for entrant in plan.entrants}


def _run(plan: Plan, tasks: Sequence[tuple[Chunk, Condition]]) -> Iterator[int]:
    """Do the tasks, in this process or in several."""
    if plan.workers == 1:
        _start_worker(plan)
        yield from map(_work, tasks)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(plan.workers, context, _start_worker, (plan,)) as pool:
        yield from pool.map(_work, tasks)


def _collect(plan: Plan, condition: Condition, entrant: Entrant, chunks: Sequence[Chunk]) -> dict[str, list[Row]]:
    """What the files of one predictor hold, in the order of the samples."""
    result: dict[str, list[Row]] = {"rows": [], "groups": [], "no_forecast": []}
    for chunk in chunks:
        content = read_rows(rows_path(plan, condition, entrant, chunk), _identity(condition, entrant, chunk))
        for name in result:
            result[name] += (content or {}).get(name, [])
    return result
