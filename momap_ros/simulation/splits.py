"""The sets of episodes, and by which factor each differs from what a model is trained on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# Kinds that are never acted on, and never lie about, in training: long, flat, round, hollow and handled shapes.
UNSEEN_KINDS = frozenset({"banana", "sponge", "cup", "pot", "pan", "screwdriver", "lemon"})
# Random shapes with made-up names (`momap_ros.simulation.strange`), which occur in the split `strange` alone.
STRANGE_KINDS = frozenset(
    f"strange {shape}" for shape in ("turned thing", "beads", "bent thing", "tool", "lump", "slab", "tower", "dish")
)
# Skills that training never shows, each made of parts it does show: hinges are closed, things are pushed and lifted.
UNSEEN_SKILLS = frozenset({"open_door", "topple"})
# Skill -> kinds it never acts on in training, although both occur there.
UNSEEN_PAIRS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "lift": frozenset({"carrot"}),
        "pick_place": frozenset({"pepper"}),
        "put_in": frozenset({"spoon"}),
        "push": frozenset({"eggplant"}),
        "pull": frozenset({"book"}),
        "slide": frozenset({"soap"}),
        "sweep": frozenset({"tomato"}),
        "stack": frozenset({"can"}),
        "turn": frozenset({"toy car"}),
        "upright": frozenset({"jar"}),
        "pour": frozenset({"mug"}),
    }
)


@dataclass(frozen=True)
class Split:
    """One set of episodes.

    Attributes:
        name: in file names and on the command line.
        seed: first number of every random stream; no two splits share one.
        factor: what its episodes have that training never shows; "" where they are of the same kinds.
        meaning: one line for readers.
        num_futures: demonstrations that start from one first frame.
    """

    name: str
    seed: int
    factor: str
    meaning: str
    num_futures: int = 1

    @property
    def unseen_scene(self) -> bool:
        """Whether arm, textures and cameras are the held-out ones."""
        return self.factor == "scene"

    def allows_skill(self, skill: str) -> bool:
        """Whether episodes of this skill occur."""
        if self.factor == "composition":
            return skill in UNSEEN_PAIRS
        return (skill in UNSEEN_SKILLS) == (self.factor == "skill")

    def acted_kinds(self, skill: str, kinds: Iterable[str]) -> tuple[str, ...]:
        """Those of the kinds a skill can act on that it does act on in this split, in their order; may be empty."""
        pairs = UNSEEN_PAIRS.get(skill, frozenset())
        if self.factor == "objects":
            return tuple(kind for kind in kinds if kind in UNSEEN_KINDS)
        if self.factor == "composition":
            return tuple(kind for kind in kinds if kind in pairs)
        return tuple(kind for kind in self.other_kinds(kinds) if kind not in pairs)

    def other_kinds(self, kinds: Iterable[str]) -> tuple[str, ...]:
        """Those of the kinds that may lie about in this split."""
        never = (frozenset() if self.factor == "objects" else UNSEEN_KINDS) | (
            frozenset() if self.factor == "strange" else STRANGE_KINDS
        )
        return tuple(kind for kind in kinds if kind not in never)


SPLITS = {
    split.name: split
    for split in (
        Split("train", 1, "", "what a model learns from"),
        Split("val", 2, "", "the same kinds of scenes, never the same episode"),
        Split("objects", 3, "objects", f"the acted object is of a kind never seen: {', '.join(sorted(UNSEEN_KINDS))}"),
        Split("composition", 4, "composition", "a skill acts on a kind on which it never acts in train"),
        Split("skill", 5, "skill", f"a skill never seen: {', '.join(sorted(UNSEEN_SKILLS))}"),
        Split("scene", 6, "scene", "arm, textures and camera directions never seen"),
        Split("strange", 8, "strange", "also things of random shape, with made-up names: to learn from, beside train"),
        Split("futures", 7, "", "several demonstrations from one first frame", num_futures=8),
    )
}
