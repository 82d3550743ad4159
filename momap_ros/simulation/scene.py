"""A scene that grows: room, arm, fixtures and objects on a table, and what the episode is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import BASE_XY, HAND, MOCAP, ArmInfo, add_arm, add_weld
from momap_ros.simulation.assets import KINDS, NATURAL_COLORS, WIDE_KINDS, ObjectInfo, add_object, has_trait, kinds_with
from momap_ros.simulation.fixture_kinds import FIXTURES
from momap_ros.simulation.fixtures import FixtureInfo, add_latch
from momap_ros.simulation.room import add_room, empty_spec
from momap_ros.simulation.splits import STRANGE_KINDS, Split
from momap_ros.simulation.task import Task
from momap_ros.simulation.textures import PALETTE, Materials

GRASP_WELD = "grasp"
WORK_AREA_X = (0.16, 0.42)
WORK_AREA_Y = (-0.24, 0.24)
WORK_AREA_CENTRE = np.array([0.29, 0.0])
REACH_M = (0.20, 0.47)  # distance from the arm's base within which every skill can work
_GAP_M = 0.012
_TOUCHING_GAP_M = -0.004
_CLUTTERED_SHARE = 0.25  # of the scenes have objects that touch
_PILED_SHARE = 0.2  # of the scenes have an object on another, on a dish or in one
_PLACE_TRIES = 60
_RADIUS_M, _WIDE_RADIUS_M = 0.05, 0.095  # kept free around an object, metres
_OTHER_FIXTURE_SHARE = 0.15  # of the scenes have a fixture that they need not have
NO_ARM_SHARE = 0.5  # of the scenes in which nobody acts
_STRANGE_SHARE = 0.5  # of the acted objects of a split that has strange things are one; of the others, some are
_LONGER = 1.5  # that something small may be than wide
_TOUCHING_SHARE = 0.6  # of the objects there that are put right beside another one
_ROUND_KINDS = tuple(dict.fromkeys((*kinds_with("any_side"), *kinds_with("small"))))  # about as long as wide
_BELOW_KINDS = {*kinds_with("support"), *kinds_with("container"), *kinds_with("stackable")}
STATIC_FIXTURE_KINDS = frozenset({"plate", "pot", "pan", "tray", "strange dish"})


class NoRoomError(RuntimeError):
    """The table is too full for something the episode needs, or the split allows no kind that it needs."""


@dataclass(frozen=True)
class Scene:
    """A compiled scene and its task.

    Attributes:
        model: the MuJoCo model; body 0 is the world (table, floor, walls).
        task: what is to happen.
        arm: the arm's measures; None where there is none.
        objects: every loose object.
        fixtures: everything that is fixed to the table.
        hindered: names of the objects that cannot be taken as usual: another one lies on them, or they lie on a side.
        factors: what the scene was drawn from, by name.
    """

    model: mujoco.MjModel
    task: Task
    arm: ArmInfo | None
    objects: tuple[ObjectInfo, ...]
    fixtures: tuple[FixtureInfo, ...] = ()
    hindered: frozenset[str] = frozenset()
    factors: Mapping[str, str] = field(default_factory=dict)

    @property
    def skill(self) -> str:
        """Name of the skill."""
        return self.task.skill

    @property
    def acted(self) -> str:
        """Body name of what the sentence asks to move; "" where nothing is."""
        return self.task.acted

    @property
    def acted_object(self) -> ObjectInfo | None:
        """The acted object; None where a part of a fixture, or nothing, is acted on."""
        return self.task.item

    @property
    def target(self) -> ObjectInfo | None:
        """The object that the acted one goes to or comes from."""
        return self.task.target

    @property
    def fixture(self) -> FixtureInfo | None:
        """The fixture that the episode is about."""
        return self.task.fixture

    @property
    def free_objects(self) -> tuple[ObjectInfo, ...]:
        """The objects that stand or lie as usual with nothing on them, so that any skill can act on them."""
        return tuple(item for item in self.objects if item.name not in self.hindered)

    def start_xy(self, item: ObjectInfo) -> Float64:
        """(2,) where an object was put, metres, world."""
        return np.array(self.model.body(item.name).pos[:2])

    def free_xy(self, rng: np.random.Generator, radius: float) -> Float64 | None:
        """(2,) a place within reach that is free at the beginning, metres, world; None where none is found."""
        taken = [self.start_xy(item) for item in self.objects]
        taken += [fixture.xy for fixture in self.fixtures]
        for _ in range(_PLACE_TRIES):
            xy = _draw_xy(rng)
            if xy is not None and all(np.linalg.norm(xy - other) > radius + _RADIUS_M for other in taken):
                return xy
        return None

    def with_task(self, task: Task) -> Scene:
        """The same scene, about something else."""
        return replace(self, task=task)


@dataclass
class SceneBuilder:
    """The scene while it grows; skills add to it what they need.

    Attributes:
        spec: the MuJoCo specification.
        materials: looks.
        rng: source of every choice.
        split: decides which kinds may be acted on and lie about.
        gap_m: room between two objects; negative where they may touch.
        objects: so far.
        fixtures: so far.
        occupied: centre and radius of every place taken.
        hindered: names of the objects that cannot be taken as usual: another one lies on them, or they lie on a side.
    """

    spec: mujoco.MjSpec
    materials: Materials
    rng: np.random.Generator
    split: Split
    gap_m: float = _GAP_M
    objects: list[ObjectInfo] = field(default_factory=list)
    fixtures: list[FixtureInfo] = field(default_factory=list)
    occupied: list[tuple[Float64, float]] = field(default_factory=list)
    hindered: set[str] = field(default_factory=set)

    def free_place(self, radius: float) -> Float64:
        """A free (x, y) within reach, which is occupied from now on.

        Raises:
            NoRoomError: there is none.
        """
        for _ in range(_PLACE_TRIES):
            xy = _draw_xy(self.rng)
            if xy is not None and all(
                np.linalg.norm(xy - other) > radius + size + self.gap_m for other, size in self.occupied
            ):
                self.occupied.append((xy, radius))
                return xy
        raise NoRoomError(f"table: expected room for a radius of {radius} m, got {len(self.occupied)} occupied places")

    def choose_acted(self, skill: str, kinds: Iterable[str]) -> str:
        """One of the kinds that the skill can act on and that the split lets it act on.

        Raises:
            NoRoomError: the split allows none of them.
        """
        allowed = self.split.acted_kinds(skill, kinds)
        strange = tuple(kind for kind in allowed if kind in STRANGE_KINDS)
        if strange and self.rng.random() < _STRANGE_SHARE:
            allowed = strange
        return self._choose(allowed, f"{skill} may act on none of {list(kinds)}")

    def choose_other(self, kinds: Iterable[str]) -> str:
        """One of the kinds that may lie about in this split.

        Raises:
            NoRoomError: the split allows none of them.
        """
        return self._choose(self.split.other_kinds(kinds), f"none of {list(kinds)} may lie about")

    def _choose(self, allowed: tuple[str, ...], otherwise: str) -> str:
        if not allowed:
            raise NoRoomError(f"split {self.split.name}: {otherwise}")
        return str(self.rng.choice(allowed))

    def add(
        self, kind: str, *, radius: float | None = None, xy: Float64 | None = None, z_m: float = 0.0005
    ) -> ObjectInfo:
        """Add an object of this kind in a colour that no other object of the kind has.

        Args:
            kind: one of KINDS.
            radius: room it needs, metres; that of its kind where None.
            xy: (2,) where, metres, world; a free place where None.
            z_m: height of its lowest point.

        Raises:
            NoRoomError: there is no free place.
        """
        if radius is None:
            radius = _WIDE_RADIUS_M if kind in WIDE_KINDS else _RADIUS_M
        place = self.free_place(radius) if xy is None else xy
        used = {item.color for item in self.objects if item.kind == kind}
        colors = [color for color in NATURAL_COLORS.get(kind, tuple(PALETTE)) if color not in used]
        color = str(self.rng.choice(colors or [color for color in PALETTE if color not in used]))
        name = f"object_{len(self.objects)}"
        yaw = None
        if kind == "pan":  # its handle, by which it is taken, is within reach
            yaw = float(np.arctan2(*(BASE_XY - place)[::-1]) + self.rng.uniform(-1, 1))
        item = add_object(
            self.spec, self.materials, self.rng, kind=kind, color=color, name=name, xy=place, z_m=z_m, yaw_rad=yaw
        )
        self.objects.append(item)
        return item

    def add_on(self, kind: str, below: ObjectInfo) -> ObjectInfo:
        """Add an object of this kind on another one, or in it."""
        rests_m = 0.008 if has_trait(below.kind, "support") and not has_trait(below.kind, "stackable") else 0.0
        xy = self.spec.body(below.name).pos[:2]
        self.hindered.add(below.name)
        return self.add(kind, xy=xy.copy(), z_m=rests_m or below.height_m + 0.002)

    def add_beside(self, kind: str, other: ObjectInfo) -> ObjectInfo:
        """Add an object of this kind so close to another that they touch, or nearly.

        Raises:
            NoRoomError: there is no free place beside it.
        """
        item = self.add(kind, xy=np.zeros(2))
        centre = self.spec.body(other.name).pos[:2].copy()
        distance = _around_m(item) + _around_m(other) + self.rng.uniform(0, 0.003)
        for angle in self.rng.uniform(-np.pi, np.pi, _PLACE_TRIES):
            xy = centre + distance * np.array([np.cos(angle), np.sin(angle)])
            away = [np.linalg.norm(xy - place) - 0.7 * size for place, size in self.occupied if (place != centre).any()]
            if is_within_reach(xy) and min(away, default=1.0) > _around_m(item):
                self.spec.body(item.name).pos[:2] = xy
                self.occupied.append((xy, _around_m(item)))
                return item
        self.objects.remove(item)
        self.spec.delete(self.spec.body(item.name))
        raise NoRoomError(f"table: expected room beside {other.name}, got none")

    def add_fixture(self, kind: str, *, start: tuple[float, float] = (0.0, 0.0), falls: bool = False) -> FixtureInfo:
        """Put a fixture on the table, and keep the way to it free.

        Args:
            kind: one of FIXTURES.
            start: range of the position of its joint in the first frame, as a share of its limit.
            falls: its part is held until the first frame, and then moves by its own weight.

        Raises:
            NoRoomError: there is no free place.
        """
        xy, bearing = self._fixture_place(kind)
        spread = 0.35 if FIXTURES[kind].facing_arm else np.pi
        yaw = bearing + np.pi + self.rng.uniform(-spread, spread)
        fixture = FIXTURES[kind].make(self.spec, self.materials, self.rng, xy=xy, yaw_rad=yaw)
        fixture = replace(fixture, start=fixture.limit * float(self.rng.uniform(*start)))
        if falls:
            fixture = replace(fixture, latch=f"{fixture.part}_latch")
            self.spec.body(fixture.part).gravcomp = 0
            add_latch(self.spec, fixture)
        self.fixtures.append(fixture)
        return fixture

    def _fixture_place(self, kind: str) -> tuple[Float64, float]:
        """(x, y), which is occupied from now on, and its bearing from the arm."""
        radius = FIXTURES[kind].radius_m
        for _ in range(_PLACE_TRIES):
            bearing, distance = self.rng.uniform(-0.5, 0.5), self.rng.uniform(*FIXTURES[kind].distance_m)
            heading = np.array([np.cos(bearing), np.sin(bearing)])
            xy = BASE_XY + distance * heading
            if all(np.linalg.norm(xy - other) > radius + size for other, size in self.occupied):
                self.occupied += [(xy, radius), (BASE_XY + 0.24 * heading, 0.1)]
                return xy, float(bearing)
        raise NoRoomError(f"table: expected room for a {kind}, got {len(self.occupied)} occupied places")

    def add_distractors(self, at_most: int, *, without: Iterable[str] = ()) -> None:
        """Up to `at_most` further objects, fewer where the table is full; sometimes one lies on another."""
        kinds = [kind for kind in self.split.other_kinds(KINDS) if kind not in set(without)]
        if self.rng.random() < _OTHER_FIXTURE_SHARE:
            self._add_other_fixture()
        if self.rng.random() < _CLUTTERED_SHARE:
            self.gap_m, at_most = _TOUCHING_GAP_M, at_most + 3
        with suppress(NoRoomError):
            if self.rng.random() < _PILED_SHARE:
                below = self.add(str(self.rng.choice([kind for kind in kinds if kind in _BELOW_KINDS])))
                fitting = "small" if has_trait(below.kind, "container") else "steady"
                self.add_on(self.choose_other(kinds_with(fitting)), below)
            for _ in range(self.rng.integers(0, at_most + 1)):
                near = [item for item in self.objects if item.kind in _ROUND_KINDS and item.name not in self.hindered]
                if self.gap_m < 0 and near and self.rng.random() < _TOUCHING_SHARE:
                    fitting = self.choose_other(_ROUND_KINDS)
                    self.add_beside(fitting, near[self.rng.integers(len(near))])
                else:
                    self.add(str(self.rng.choice(kinds)))

    def _add_other_fixture(self) -> None:
        """A fixture that the episode is not about, open or closed; none where the table is full."""
        present = {fixture.body for fixture in self.fixtures}
        kind = str(self.rng.choice([kind for kind, made in FIXTURES.items() if made.body not in present]))
        with suppress(NoRoomError):
            self.add_fixture(kind, start=(0.6, 1.0) if kind != "lamp" and self.rng.random() < 0.4 else (0.0, 0.0))


def is_within_reach(xy: Float64) -> bool:
    """Whether every skill can work at a place (2,), metres, world."""
    return bool(REACH_M[0] <= np.linalg.norm(xy - BASE_XY) <= REACH_M[1])


def _draw_xy(rng: np.random.Generator) -> Float64 | None:
    xy = rng.uniform([WORK_AREA_X[0], WORK_AREA_Y[0]], [WORK_AREA_X[1], WORK_AREA_Y[1]])
    return xy if is_within_reach(xy) else None


def _around_m(item: ObjectInfo) -> float:
    """Radius of a circle around an object of _ROUND_KINDS."""
    return item.half_width_m * (1.0 if has_trait(item.kind, "any_side") else _LONGER)


def build_scene(
    split: Split, furnish: Callable[[SceneBuilder], Task], rng: np.random.Generator, *, needs_arm: bool = True
) -> Scene:
    """Draw a scene.

    Args:
        split: decides what may be in it.
        furnish: adds what the task needs, and says what the task is.
        rng: source of every choice.
        needs_arm: else there is an arm in half of the scenes only.

    Raises:
        NoRoomError: the objects drawn do not fit on the table, or the split has none; draw another scene.
    """
    spec = empty_spec()
    materials = Materials(spec, rng, held_out=split.unseen_scene)
    factors = add_room(spec, materials, rng)
    arm: ArmInfo | None = None
    if needs_arm or rng.random() >= NO_ARM_SHARE:
        arm = add_arm(spec, materials, rng, held_out=split.unseen_scene)
        grasp = add_weld(spec, GRASP_WELD, HAND, MOCAP)  # its second body is set when something is grasped
        grasp.active = False
    builder = SceneBuilder(spec, materials, rng, split)
    task = furnish(builder)
    crowded = STATIC_FIXTURE_KINDS if builder.fixtures else ()
    builder.add_distractors(3 if builder.fixtures else 4, without=crowded)
    for fixture in builder.fixtures:
        for part in fixture.parts:
            spec.add_exclude(bodyname1=fixture.body, bodyname2=part)
    clutter = "touching" if builder.gap_m < 0 else "apart"
    factors |= {"arm": arm.style if arm else "none", "clutter": clutter}
    parts = tuple(builder.objects), tuple(builder.fixtures), frozenset(builder.hindered)
    return Scene(spec.compile(), task, arm, *parts, factors=factors)
