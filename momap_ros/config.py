"""Every setting of the package with its only default, meaning and range.

ROS parameters, command-line options and the README's tables are generated from these dataclasses; nothing else in the
package states a default.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


def setting(
    default: Any,  # noqa: ANN401 (a setting is of any type; check_setting holds it to its default's)
    description: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:  # noqa: ANN401 (the type checker must take it for a value of the field's type)
    """A dataclass field that documents itself.

    Args:
        default: the value where nobody says otherwise; its type is the setting's type.
        description: one sentence with the unit.
        minimum: smallest allowed number.
        maximum: largest allowed number.
        choices: allowed strings; empty = any.
        read_only: True where a running node cannot change it (it shapes the model or the connections).
    """
    metadata = {
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "read_only": read_only,
    }
    return dataclasses.field(default=default, metadata=metadata)


class Settings:
    """Base of the setting groups: values are checked against their documented range on construction."""

    def __post_init__(self) -> None:
        """Refuse values outside their range, naming the setting."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses, the base is not
            check_setting(field, getattr(self, field.name))


def check_setting(field: dataclasses.Field[Any], value: Any) -> None:  # noqa: ANN401 (any type: it is what is checked)
    """Refuse a value that its field does not allow.

    Raises:
        ValueError: wrong type, outside the range or not among the choices.
    """
    expected = type(field.default)
    if expected is float and type(value) is int:
        expected = int
    if type(value) is not expected:
        raise ValueError(f"{field.name}: expected {expected.__name__}, got {type(value).__name__} {value!r}")
    low, high, choices = (field.metadata[key] for key in ("minimum", "maximum", "choices"))
    # Negated, so that NaN, which compares to nothing, is outside every range.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise ValueError(
            f"{field.name}: expected a value in [{low}, {high}], got {value}; {field.metadata['description']}"
        )
    if choices and value not in choices:
        raise ValueError(
            f"{field.name}: expected one of {list(choices)}, got {value!r}; {field.metadata['description']}"
        )


@dataclass(frozen=True)
class InputConfig(Settings):
    """How camera topics become RGB-D frames."""

    sync_tolerance_s: float = setting(
        0.02, "Largest stamp difference of a colour and a depth image of one frame, seconds.", minimum=0.0, maximum=1.0
    )
    reliability: str = setting(
        "auto",
        "QoS reliability of the image subscriptions; auto takes reliable where every publisher offers it.",
        choices=("auto", "reliable", "best_effort"),
        read_only=True,
    )
    rectified: bool = setting(
        default=False, description="The images are undistorted: intrinsics come from P of camera_info instead of K."
    )
    watchdog_s: float = setting(
        5.0, "Seconds without a frame before the node says which input is missing and why.", minimum=0.5, maximum=600.0
    )


@dataclass(frozen=True)
class SegmentationConfig(Settings):
    """How instances are found."""

    method: str = setting(
        "tabletop",
        "tabletop: plane and edges, no weights; sam2: a local SAM 2 folder prompted by tabletop instances.",
        choices=("tabletop", "sam2"),
        read_only=True,
    )
    sam2_dir: str = setting(
        "", "Folder of a SAM 2 checkpoint in transformers layout; used by method sam2.", read_only=True
    )
    stride: int = setting(
        2,
        "The tabletop method works on every n-th pixel of an image 640 wide (scaled with the width).",
        minimum=1,
        maximum=8,
    )
    plane_tolerance_m: float = setting(
        0.008, "Distance to the table plane that still counts as table, metres.", minimum=0.001, maximum=0.05
    )
    min_height_m: float = setting(
        0.005,
        "Height above the table from which a pixel can belong to an object, metres (more where depth is noisy).",
        minimum=0.001,
        maximum=0.1,
    )
    max_height_m: float = setting(
        0.6, "Height above the table up to which a pixel can belong to an object, metres.", minimum=0.01, maximum=10.0
    )
    depth_jump_m: float = setting(
        0.012, "Depth step between neighbours that separates objects, metres.", minimum=0.001, maximum=1.0
    )
    concavity: float = setting(
        0.25,
        "Slope of a concave edge that separates objects: how far it lies behind its sides, per length of a side.",
        minimum=0.05,
        maximum=2.0,
    )
    min_area_px: int = setting(
        320, "Smallest instance, pixels of an image 640 wide (scaled with the width).", minimum=1
    )
    max_area_share: float = setting(
        0.5, "Largest instance, share of the image; larger ones are walls and shelves.", minimum=0.01, maximum=1.0
    )
    grow_px: int = setting(
        8, "Instances grow back over erased edges by this many working pixels.", minimum=0, maximum=50
    )
    max_lost_frames: int = setting(10, "An id survives this many frames without its object being seen.", minimum=0)


@dataclass(frozen=True)
class ObjectMotionConfig(Settings):
    """How dense trajectories become per-object motion."""

    moving_threshold_m: float = setting(
        0.02, "An object moves when its centroid's displacement exceeds this, metres.", minimum=0.001, maximum=1.0
    )
    rigid_residual_m: float = setting(
        0.015, "Largest RMS residual of a motion that is called rigid, metres.", minimum=0.001, maximum=1.0
    )
    reweighting_iterations: int = setting(
        10, "Most rounds of robust reweighting of trajectories (1 = plain least squares).", minimum=1, maximum=50
    )
    max_points_per_object: int = setting(
        400, "At most this many trajectories of an object enter its fit.", minimum=3, maximum=100_000
    )
    max_fit_steps: int = setting(16, "At most this many steps, spread evenly, tell what goes astray.", minimum=1)
    smoothing_steps: float = setting(
        0.0, "Motions damp changes faster than about this many steps; 0 = off.", minimum=0.0, maximum=1000.0
    )
    max_hypotheses: int = setting(
        3, "At most this many different ends of an object are told apart, the most frequent first.", minimum=1
    )
    joint_min_travel_m: float = setting(
        0.01, "An object whose points (RMS) never get so far has an unknown joint, metres.", minimum=0.001, maximum=1.0
    )
    joint_tolerance_m: float = setting(
        0.002, "RMS residual up to which a joint explains a motion, metres.", minimum=0.0001, maximum=1.0
    )
    joint_tolerance_share: float = setting(
        0.05,
        "The same as a share of the way that the points travel; the larger of the two counts.",
        minimum=0.0,
        maximum=1.0,
    )


@dataclass(frozen=True)
class ForecastConfig(Settings):
    """What is forecast, with which model, and how much of it is published."""

    checkpoint: str = setting(
        "small", "Name of a bundled checkpoint, or a folder with model_index.json and momap.json.", read_only=True
    )
    device: str = setting("auto", "torch device; auto takes cuda where available, else cpu.", read_only=True)
    num_threads: int = setting(0, "CPU threads of the network; 0 leaves torch's choice.", minimum=0, read_only=True)
    precision: str = setting(
        "float32",
        "Of the network; auto measures float32 and bfloat16 at every start and takes the faster.",
        choices=("auto", "float32", "bfloat16"),
        read_only=True,
    )
    compile: str = setting(
        "none",
        "Mode of torch.compile, which needs a C++ compiler and a minute at the start; reduce-overhead needs a GPU.",
        choices=("none", "default", "reduce-overhead"),
        read_only=True,
    )
    prompt: str = setting("", "Sentence that says what will happen; empty = the model decides.")
    num_hypotheses: int = setting(10, "Futures drawn per forecast.", minimum=1, maximum=64, read_only=True)
    num_inference_steps: int = setting(4, "Denoising steps per forecast.", minimum=1, maximum=50)
    deadline_s: float = setting(
        0.0,
        "Fewer denoising steps are taken where a forecast would else be computed for longer than this, seconds; "
        "at least one is. 0 = no limit.",
        minimum=0.0,
        maximum=60.0,
    )
    warm_start: bool = setting(
        default=False,
        description="Go on from the forecast before, in half of the steps: futures then stay the same from frame to "
        "frame. For a camera that stands still.",
    )
    seed: int = setting(0, "Seed of the draws; the same frame, prompt and seed give the same forecast.", minimum=0)
    published_hypotheses: int = setting(
        1, "Futures in ~/trajectories: the most representative, then those that speak for groups unlike it.", minimum=1
    )
    max_points: int = setting(
        1500, "Most foreground points in ~/trajectories; 1500 x 50 steps are 0.9 MB.", minimum=1, maximum=1_000_000
    )
    dense: bool = setting(
        default=False,
        description="Publish every pixel with depth, background included, instead of foreground points (up to 200 MB).",
    )
    target_frame: str = setting(
        "", "TF frame of all published positions; empty = the camera's optical frame.", read_only=True
    )


@dataclass(frozen=True)
class HintsConfig(Settings):
    """How long direction hints hold."""

    max_age_s: float = setting(
        10.0,
        "Seconds after which a direction hint is forgotten; 0 = it holds until a newer message.",
        minimum=0.0,
        maximum=3600.0,
    )


@dataclass(frozen=True)
class VlmConfig(Settings):
    """Which vision-language model writes direction hints; off unless it has an address."""

    base_url: str = setting(
        "",
        "Address of an OpenAI-compatible server, for instance http://localhost:8000/v1; empty = no model is asked.",
        read_only=True,
    )
    model: str = setting("", "Name of the model, as the server knows it.", read_only=True)
    api_key_variable: str = setting(
        "MOMAP_VLM_API_KEY",
        "Environment variable that holds the key; no key is sent where it is not set.",
        read_only=True,
    )
    structured_output: bool = setting(
        default=True,
        description="Ask the server to hold the answer to a JSON schema; false where it cannot.",
        read_only=True,
    )
    timeout_s: float = setting(20.0, "Longest wait for an answer, seconds.", minimum=0.1, maximum=300.0)
    max_attempts: int = setting(
        3, "Attempts per question, where the server fails or its answer is no hint.", minimum=1, maximum=10
    )
    backoff_s: float = setting(
        1.0, "Pause before the second attempt, seconds; it doubles with each further one.", minimum=0.0, maximum=60.0
    )
    period_s: float = setting(
        5.0, "Shortest time between two questions about one sentence, seconds.", minimum=0.0, maximum=3600.0
    )


@dataclass(frozen=True)
class PlannerConfig(Settings):
    """What is published in the messages of planners; each is made only while somebody listens."""

    object_id: int = setting(
        0, "Object of ~/path, ~/poses and ~/swept_volume; 0 = the one, or all, expected to move.", minimum=0
    )
    min_moving_probability: float = setting(
        0.5, "An object is expected to move from this probability on.", minimum=0.0, maximum=1.0
    )
    horizon_s: float = setting(
        0.0, "Planner messages end so many seconds after the image; 0 = with the forecast.", minimum=0.0, maximum=600.0
    )
    voxel_m: float = setting(0.01, "Side of the voxels of ~/swept_volume, metres.", minimum=0.001, maximum=1.0)
    swept_hypotheses: int = setting(
        1, "Futures in ~/swept_volume, the most representative first; as many as are drawn: all.", minimum=1
    )


@dataclass(frozen=True)
class NodeConfig(Settings):
    """How a node starts."""

    autostart: bool = setting(
        default=True,
        description="The node configures and activates itself; false leaves that to a lifecycle manager.",
        read_only=True,
    )


@dataclass(frozen=True)
class ForecastNodeConfig(NodeConfig):
    """How the forecast node starts and where its instances come from."""

    instances_source: str = setting(
        "internal",
        "internal: the node segments its frames itself; topic: it waits for the label image of the same stamp.",
        choices=("internal", "topic"),
        read_only=True,
    )
    self_scoring: bool = setting(
        default=False,
        description="Compare forecasts with what the stream shows later, and say on /diagnostics how good they are.",
        read_only=True,
    )
    scoring_period_s: float = setting(
        1.0, "Time between two forecasts that are scored, seconds.", minimum=0.1, maximum=600.0, read_only=True
    )
    scoring_window_s: float = setting(
        60.0, "How long a score counts in the rolling means, seconds.", minimum=1.0, maximum=3600.0, read_only=True
    )


@dataclass(frozen=True)
class MarkersConfig(Settings):
    """What RViz is shown."""

    max_tracks: int = setting(400, "Most trajectories drawn, spread evenly over the points.", minimum=1, maximum=10_000)
    max_steps: int = setting(12, "Most line segments of a drawn trajectory.", minimum=1, maximum=1000)
    min_displacement_m: float = setting(
        0.01,
        "Trajectories that end within this distance of their start are not drawn, metres.",
        minimum=0.0,
        maximum=1.0,
    )
    line_width_m: float = setting(0.002, "Width of the drawn trajectories, metres.", minimum=0.0001, maximum=0.1)
    text_height_m: float = setting(0.025, "Height of the objects' texts, metres.", minimum=0.001, maximum=1.0)


@dataclass(frozen=True)
class FollowerConfig(Settings):
    """How a gripper follows a forecast, and which gripper it is."""

    min_probability: float = setting(
        0.5, "Objects that move with a smaller probability are not followed.", minimum=0.0, maximum=1.0
    )
    min_displacement_m: float = setting(
        0.008, "Objects none of whose points gets farther than this are not followed, metres.", minimum=0.0, maximum=1.0
    )
    max_spread_m: float = setting(
        0.25, "Largest hypothesis spread of an object that is followed, metres.", minimum=0.001, maximum=10.0
    )
    disagreement_m: float = setting(
        0.06, "It stops where the object is seen farther than this from the plan, metres.", minimum=0.001, maximum=1.0
    )
    support_reach_m: float = setting(
        0.15,
        "A carried object that is to end so near to a support is put onto it, or poured, metres; 0 = off.",
        minimum=0.0,
    )
    replan_s: float = setting(
        0.5, "Forecasts that come sooner than so many seconds after a plan are only compared with it.", minimum=0.0
    )
    replan_within_m: float = setting(
        0.05, "A newer way that is farther from the plan's rest is not followed, metres; 0 = any is.", minimum=0.0
    )
    max_speed_m_s: float = setting(0.25, "Fastest motion of the gripper, m/s.", minimum=0.01, maximum=2.0)
    max_push_speed_m_s: float = setting(
        0.8, "Fastest motion of the gripper that gives a push to something that rolls, m/s.", minimum=0.01, maximum=2.0
    )
    max_turn_rad_s: float = setting(1.5, "Fastest turn of the gripper, rad/s.", minimum=0.01, maximum=10.0)
    opening_m: float = setting(
        0.034, "Distance of either finger's inner face from the grasp centre, open, metres.", minimum=0.005, maximum=0.2
    )
    finger_thickness_m: float = setting(
        0.009, "Thickness of a finger in the closing direction, metres.", minimum=0.001, maximum=0.1
    )
    finger_width_m: float = setting(
        0.022, "Width of a finger across the closing direction, metres.", minimum=0.001, maximum=0.1
    )
    finger_length_m: float = setting(
        0.06, "Length of the fingers behind the grasp centre, metres.", minimum=0.005, maximum=0.3
    )
    fingertip_m: float = setting(
        0.012, "From the grasp centre to the end of the fingers, metres.", minimum=0.001, maximum=0.1
    )
    approach_m: float = setting(
        0.09, "The gripper comes straight over the last metres before it touches.", minimum=0.0, maximum=0.5
    )
