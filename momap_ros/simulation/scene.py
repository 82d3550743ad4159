"""One random table-top scene: room, arm, objects, and what the episode is about."""

from __future__ import annotations

from dataclasses import dataclass, field

import mujoco
import numpy as np

from momap_ros.geometry import Float64
from momap_ros.simulation.arm import BASE_XY, HAND, ArmInfo, add_arm, add_weld
from momap_ros.simulation.assets import NATURAL_COLORS, ObjectInfo, add_object
from momap_ros.simulation.fixtures import FixtureInfo, add_door, add_drawer
from momap_ros.simulation.textures import PALETTE, Materials

Geom = mujoco.mjtGeom
GRASP_WELD = "grasp"
CAMERA = "camera"
WORK_AREA_X = (0.16, 0.42)
WORK_AREA_Y = (-0.24, 0.24)
WORK_AREA_CENTRE = np.array([0.29, 0.0])
REACH_M = (0.20, 0.47)  # distance from the arm's base within which every skill can work
OBJECT_SKILLS = ("lift", "pick_place", "put_in", "stack", "push")
FIXTURE_SKILLS = ("open_drawer", "close_drawer", "open_door", "close_door")
SKILLS = OBJECT_SKILLS + FIXTURE_SKILLS
_GAP_M = 0.012
_WIDE = {"bowl": 0.095, "plate": 0.095, "pot": 0.095}  # radius kept free around the acted or target object, metres
_WIDE_DISTRACTOR_M = 0.09


class NoRoomError(RuntimeError):
    """The table is too full for an object the episode needs."""


@dataclass(frozen=True)
class SceneChoices:
    """Which skills and kinds a split draws from; `acted` overrides `small` for single skills."""

    skills: tuple[str, ...]
    small: tuple[str, ...]
    acted: dict[str, tuple[str, ...]]
    containers: tuple[str, ...]
    distractors: tuple[str, ...]
    weights: tuple[float, ...] = ()


_SEEN = ("block", "can", "ball", "eggplant", "carrot", "pepper", "spoon")
_UNSEEN = ("banana", "sponge", "cup")
SEEN_CHOICES = SceneChoices(
    skills=SKILLS,
    small=_SEEN,
    acted={"stack": ("block", "can")},
    containers=("bowl", "plate"),
    distractors=(*_SEEN, "bottle", "bowl", "plate"),
)
UNSEEN_CHOICES = SceneChoices(
    skills=("pick_place", "put_in", "push", "lift"),
    weights=(1.0, 1.0, 1.4, 1.0),
    small=_SEEN,
    acted={
        "pick_place": _UNSEEN,
        "put_in": ("banana", "sponge"),
        "push": (*_UNSEEN, "pot"),
        "lift": _UNSEEN,
    },
    containers=("bowl", "plate"),
    distractors=(*_SEEN, *_UNSEEN, "bottle", "bowl", "plate", "pot"),
)


@dataclass(frozen=True)
class Scene:
    """A compiled scene and its task.

    Attributes:
        model: the MuJoCo model; body 0 is the world (table, floor, walls).
        skill: one of SKILLS.
        arm: the arm's measures.
        acted: body name of what the sentence asks to move.
        objects: every loose object, the acted one first where the skill is about one.
        target: where the acted object goes, for `put_in` and `stack`.
        goal_xy: (2,) where the acted object goes, metres, world, for `pick_place`.
        push_xy: (2,) motion asked of a `push`, metres, world.
        fixture: the cabinet, for the fixture skills.
    """

    model: mujoco.MjModel
    skill: str
    arm: ArmInfo
    acted: str
    objects: tuple[ObjectInfo, ...]
    target: ObjectInfo | None = None
    goal_xy: Float64 | None = None
    push_xy: Float64 | None = None
    fixture: FixtureInfo | None = None

    @property
    def acted_object(self) -> ObjectInfo | None:
        """The acted object; None where a drawer or door is acted on."""
        return self.objects[0] if self.fixture is None else None


@dataclass
class _Builder:
    """The scene while it grows."""

    spec: mujoco.MjSpec
    materials: Materials
    rng: np.random.Generator
    choices: SceneChoices
    objects: list[ObjectInfo] = field(default_factory=list)
    occupied: list[tuple[Float64, float]] = field(default_factory=list)

    def free_place(self, radius: float) -> Float64:
        """A free (x, y) within reach, which is occupied from now on."""
        for _ in range(60):
            xy = self.rng.uniform([WORK_AREA_X[0], WORK_AREA_Y[0]], [WORK_AREA_X[1], WORK_AREA_Y[1]])
            if not REACH_M[0] <= np.linalg.norm(xy - BASE_XY) <= REACH_M[1]:
                continue
            if all(np.linalg.norm(xy - other) > radius + size + _GAP_M for other, size in self.occupied):
                self.occupied.append((xy, radius))
                return xy
        raise NoRoomError(f"table: expected room for a radius of {radius} m, got {len(self.occupied)} occupied places")

    def add(self, kind: str, radius: float) -> ObjectInfo:
        """Add an object of this kind in a colour that no other object of the kind has."""
        place = self.free_place(radius)
        used = {item.color for item in self.objects if item.kind == kind}
        colors = [color for color in NATURAL_COLORS.get(kind, tuple(PALETTE)) if color not in used]
        color = str(self.rng.choice(colors or [color for color in PALETTE if color not in used]))
        name = f"object_{len(self.objects)}"
        item = add_object(self.spec, self.materials, self.rng, kind=kind, color=color, name=name, xy=place)
        self.objects.append(item)
        return item

    def add_distractors(self, kinds: tuple[str, ...], at_most: int, radius: float) -> None:
        """Up to `at_most` further objects, fewer where the table is full."""
        for _ in range(self.rng.integers(0, at_most + 1)):
            kind = str(self.rng.choice(kinds))
            try:
                self.add(kind, _WIDE_DISTRACTOR_M if kind in _WIDE else radius)
            except NoRoomError:
                return


def build_scene(choices: SceneChoices, rng: np.random.Generator) -> Scene:
    """Draw a scene.

    Raises:
        NoRoomError: the objects drawn do not fit on the table; draw another scene.
    """
    spec = _empty_spec()
    materials = Materials(spec, rng)
    weights = np.array(choices.weights or [1.0] * len(choices.skills))
    skill = str(rng.choice(choices.skills, p=weights / weights.sum()))
    _add_room(spec, materials, rng)
    arm = add_arm(spec, materials, rng)
    builder = _Builder(spec, materials, rng, choices)
    if skill in FIXTURE_SKILLS:
        return _finish_fixture_scene(builder, skill, arm)
    return _finish_object_scene(builder, skill, arm)


def _empty_spec() -> mujoco.MjSpec:
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = 0.004
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    spec.visual.map.znear = 0.02
    spec.visual.map.zfar = 20
    spec.stat.extent = 1.0
    spec.stat.center = [0, 0, 0]
    spec.worldbody.add_camera(name=CAMERA, pos=[0, 0, 1])
    return spec


def _add_room(spec: mujoco.MjSpec, materials: Materials, rng: np.random.Generator) -> None:
    """Lights, table, floor and four walls: every ray ends on a surface."""
    headlight = spec.visual.headlight
    headlight.ambient = [rng.uniform(0.22, 0.42)] * 3
    headlight.diffuse = [rng.uniform(0.08, 0.35)] * 3
    headlight.specular = [0.1] * 3
    world = spec.worldbody
    for index in range(rng.integers(1, 4)):
        position = rng.uniform([-1.5, -1.5, 1.2], [1.5, 1.5, 2.4])
        direction = np.array([0, 0, 0.1]) - position
        directional = rng.random() < 0.6
        color = np.clip(rng.uniform(0.25, 0.65) * rng.uniform(0.85, 1.1, 3), 0, 1)
        world.add_light(
            pos=position,
            dir=direction / np.linalg.norm(direction),
            diffuse=color,
            castshadow=index == 0,
            type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL if directional else mujoco.mjtLightType.mjLIGHT_SPOT,
            cutoff=70,
        )
    half = [rng.uniform(0.47, 0.70), rng.uniform(0.42, 0.60), 0.03]
    world.add_geom(type=Geom.mjGEOM_BOX, size=half, pos=[0.25, 0, -0.03], material=materials.textured())
    world.add_geom(type=Geom.mjGEOM_BOX, size=[4, 4, 0.02], pos=[0, 0, -0.8], material=materials.textured())
    wall = materials.textured()
    for index in range(4):
        angle, distance = index * np.pi / 2, rng.uniform(0.9, 2.2)
        world.add_geom(
            type=Geom.mjGEOM_BOX,
            size=[0.03, 4, 2.5],
            pos=[0.25 + distance * np.cos(angle), distance * np.sin(angle), 1],
            quat=[np.cos(angle / 2), 0, 0, np.sin(angle / 2)],
            material=wall,
            contype=0,
            conaffinity=0,
        )


def _finish_fixture_scene(builder: _Builder, skill: str, arm: ArmInfo) -> Scene:
    rng = builder.rng
    bearing, distance = rng.uniform(-0.5, 0.5), rng.uniform(0.40, 0.46)
    heading = np.array([np.cos(bearing), np.sin(bearing)])
    xy = BASE_XY + distance * heading
    builder.occupied += [(xy, 0.17), (BASE_XY + 0.24 * heading, 0.1)]  # the second keeps the way to the handle free
    add_fixture = add_drawer if skill.endswith("drawer") else add_door
    yaw = bearing + np.pi + rng.uniform(-0.35, 0.35)
    fixture = add_fixture(builder.spec, builder.materials, rng, xy=xy, yaw_rad=yaw)
    distractors = tuple(kind for kind in builder.choices.distractors if kind not in {"plate", "pot"})
    builder.add_distractors(distractors, at_most=3, radius=0.06)
    builder.spec.add_exclude(bodyname1="cabinet", bodyname2=fixture.part)
    return Scene(
        model=_compile(builder.spec, fixture.part),
        skill=skill,
        arm=arm,
        acted=fixture.part,
        objects=tuple(builder.objects),
        fixture=fixture,
    )


def _finish_object_scene(builder: _Builder, skill: str, arm: ArmInfo) -> Scene:
    rng, choices = builder.rng, builder.choices
    kind = str(rng.choice(choices.acted.get(skill, choices.small)))
    acted = builder.add(kind, _WIDE.get(kind, 0.035))
    target: ObjectInfo | None = None
    goal_xy: Float64 | None = None
    push_xy: Float64 | None = None
    if skill == "put_in":
        target = builder.add(str(rng.choice(choices.containers)), 0.095)
    elif skill == "stack":
        target = builder.add("block", 0.035)
    elif skill == "pick_place":
        goal_xy = builder.free_place(0.04)
    elif skill == "push":
        angle = rng.uniform(-np.pi, np.pi)
        push_xy = rng.uniform(0.06, 0.14) * np.array([np.cos(angle), np.sin(angle)])
    builder.add_distractors(choices.distractors, at_most=4, radius=0.05)
    return Scene(
        model=_compile(builder.spec, acted.name),
        skill=skill,
        arm=arm,
        acted=acted.name,
        objects=tuple(builder.objects),
        target=target,
        goal_xy=goal_xy,
        push_xy=push_xy,
    )


def _compile(spec: mujoco.MjSpec, acted: str) -> mujoco.MjModel:
    grasp = add_weld(spec, GRASP_WELD, HAND, acted)
    grasp.active = False
    return spec.compile()
