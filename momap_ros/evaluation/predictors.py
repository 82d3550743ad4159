"""Predictors by name, each with what its figures depend on."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np

from momap_ros.data.sample import iterate_samples
from momap_ros.evaluation.baselines import (
    ConstantVelocityOracle,
    RetrievalOracle,
    RigidOracle,
    SkillMeanOracle,
    SkillMotions,
    Static,
)
from momap_ros.evaluation.predictor import MoMapPredictor, Predictor
from momap_ros.evaluation.run import Entrant

NAMES = ("ours", "ours+no-projection", "static", "skill_mean", "retrieval", "constant_velocity", "rigid_oracle")
_SKILL_SAMPLES, _SKILL_STRIDE = 6000, 3  # every third: about one view of an episode


def build_entrants(
    names: Iterable[str], checkpoint: str, steps: Sequence[int], *, data: Path, num_steps: int, num_draws: int = 0
) -> list[Entrant]:
    """The predictors that were asked for.

    Args:
        names: of NAMES, or MODULE:NAME[=TEXT] for a predictor of one's own.
        checkpoint: of "ours", projected or not.
        steps: numbers of denoising steps of "ours".
        data: folder with train shards, for those that learn from them.
        num_steps: T of the samples.
        num_draws: futures that "ours" draws; 0 = the wanted ones alone.

    Raises:
        ValueError: a name is unknown, or two predictors have the same.
        CheckpointError: there is no such checkpoint.
        FileNotFoundError: the folder lacks train shards.
    """

    @cache
    def skill_motions() -> SkillMotions:
        return SkillMotions(itertools.islice(iterate_samples(data, "train"), 0, _SKILL_SAMPLES, _SKILL_STRIDE))

    entrants: list[Entrant] = []
    for name in names:
        if name.startswith("ours") and name in NAMES:
            from momap_ros.model.checkpoint import find_checkpoint

            weights = _files_digest(find_checkpoint(checkpoint))
            projected = name == "ours"
            called, mark = ("ours", "") if projected else ("ours without projection", ", no projection")
            if num_draws:
                called, mark = f"{called}, {num_draws} draws", f", {num_draws} draws{mark}"
            for count in steps:
                title = f"{called}, {count} step{'s' if count > 1 else ''}"
                predictor = MoMapPredictor(checkpoint, count, title, projected=projected, num_draws=num_draws)
                entrants.append(Entrant(predictor, f"weights {weights}, {count} steps{mark}"))
        elif name in ("skill_mean", "retrieval"):
            motions = skill_motions()
            kind = SkillMeanOracle if name == "skill_mean" else RetrievalOracle
            entrants.append(Entrant(kind(motions), f"training motions {_motions_digest(motions)}"))
        elif name in NAMES:
            simple: dict[str, Predictor] = {
                "static": Static(num_steps),
                "constant_velocity": ConstantVelocityOracle(),
                "rigid_oracle": RigidOracle(),
            }
            entrants.append(Entrant(simple[name], name))
        else:
            # A file or folder that it is called with most likely holds its weights.
            path = Path(name.partition("=")[2])
            weights = f", files {_files_digest(path)}" if path.name and path.exists() else ""
            entrants.append(Entrant(_own(name), f"{name}{weights}"))
    found = [entrant.predictor.name for entrant in entrants]
    if twice := sorted({name for name in found if found.count(name) > 1}):
        raise ValueError(f"--predictors: expected different names, got {twice} more than once; leave one out")
    return entrants


def _own(specification: str) -> Predictor:
    """MODULE:NAME[=TEXT] as a predictor."""
    path, _, text = specification.partition("=")
    module, separator, name = path.partition(":")
    if not separator:
        raise ValueError(
            f"--predictors: expected some of {', '.join(NAMES)} or MODULE:NAME[=TEXT], got {specification!r}"
        )
    make = getattr(import_module(module), name)
    predictor: Predictor = make(text) if text else make()
    return predictor


def _files_digest(path: Path) -> str:
    """Of a file, or of all files of a folder, their names included; what is only written for readers does not count."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and file.suffix != ".md":
            digest.update(file.relative_to(path).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _motions_digest(motions: SkillMotions) -> str:
    digest = hashlib.sha256()
    for skill, translations in sorted(motions.by_skill.items()):
        digest.update(skill.encode() + np.ascontiguousarray(translations).tobytes())
    return digest.hexdigest()[:16]
