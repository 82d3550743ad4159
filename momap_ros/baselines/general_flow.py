"""General Flow: a conditional VAE over trajectories of query points in a point cloud, in the paper's three variants.

Source: Yuan et al., General Flow as Foundation Affordance for Scalable Robot Learning, CoRL 2024, arXiv:2401.11439; the
variants are those of MoMaps, Sec. 4.1. As there:

- query points join the cloud with a learned feature in the place of colour and position; the text is a feature of 6
  numbers of every point; coordinates are metres from the queries' mean; balls begin at 5 cm;
- a trajectory is its steps divided by its length, and the length; both are drawn by two heads of one conditional VAE
  with a standard normal prior, which is given the query's position and feature;
- the loss is squared steps + 25 squared length + squared positions in metres, summed over time, + the KL divergence;
- one code drawn for all queries keeps a future coherent; it is drawn anew in every round of a rollout.

What had to differ, and why:

- The cloud is the small model's 1024 cells (2048 points there, 4096 in the paper's variant): the same data for all. All
  widths are half of G-Flow-large's and its last stage, of 4 points here, is absent: the same budget of computing time.
- CLIP is replaced by learned word embeddings: no weights of others, and the vocabulary of the other models.
- Queries are drawn by the small model's loss weights, which do what the original's clustering by length is for: as many
  moving as resting ones. Its augmentation is replaced by the sensor and segmentation faults that all models train on.
- The KL divergence is weighed by 0.01 rather than 1: the normalised steps of an even motion have squares that sum up to
  1/49, not 1/3, and against that a divergence of full weight lets the code say nothing.
- A head predicts how long the motion takes, from the text; evaluation needs seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import nn

from momap_ros.baselines.point_network import PointNetwork, gather
from momap_ros.conditioning import GRID, MAX_WORDS, Conditioning
from momap_ros.model.codec import MotionCodec
from momap_ros.model.device import training_autocast
from momap_ros.shapes import check_shapes
from momap_ros.training.batches import Batch

RADIUS_M = 0.05
NUM_NEIGHBOURS = 16
TEXT_FEATURES = 6
WORD_WIDTH = 64
LENGTH_WEIGHT = 25.0
MIN_LENGTH_M = 1e-6
NUM_CELLS = GRID * GRID


@dataclass(frozen=True)
class FlowSettings:
    """One variant.

    Attributes:
        horizon: H, future steps that one call predicts.
        num_queries: queries per scene and training step.
        max_queries: queries that share one cloud at inference.
        code_size: of the VAE's latent vector.
        num_layers: of encoder, decoder and heads.
        semantic: whether points carry the colour of their instance.
        blocks: of the point network's stages.
        width: of its finest stage.
        hidden: width of the VAE's layers.
    """

    horizon: int
    num_queries: int = 128
    max_queries: int = 512
    code_size: int = 16
    num_layers: int = 2
    semantic: bool = False
    blocks: tuple[int, ...] = (2, 3, 2)
    width: int = 32
    hidden: int = 256


def variant(kind: str, num_steps: int) -> FlowSettings:
    """Settings of a variant as the paper describes it (MoMaps, Sec. 4.1).

    "original" is General Flow with its prediction extended from 4 frames to T; "rollout" keeps 4 frames, the first one
    included, and takes the last as the next first one until T is reached; "extend" has more queries (the paper: 20,000,
    here every cell that is an instance's, 512 of all cells in training), instance colours as features of all points, a
    code of 32 numbers and more layers.

    Args:
        kind: "original", "rollout" or "extend".
        num_steps: T, the observation included.
    """
    settings = FlowSettings(horizon=num_steps - 1)
    if kind == "rollout":
        return replace(settings, horizon=3)
    if kind == "extend":
        return replace(
            settings,
            num_queries=512,
            max_queries=NUM_CELLS,
            code_size=32,
            num_layers=3,
            semantic=True,
            blocks=(3, 4, 3),
        )
    if kind != "original":
        raise ValueError(f"variant: expected original, rollout or extend, got {kind!r}")
    return settings


@dataclass(frozen=True, eq=False)
class Cloud:
    """Scenes as General Flow reads them; P is the number of cells.

    Attributes:
        points_m: (B, P, 3) metres, optical frame; anything where not valid.
        valid: (B, P) bool, cells with depth.
        colors: (B, P, 3) in about [-1, 1].
        instance_colors: (B, P, 3) random colour of the cell's instance, 0 for the background.
        words: (B, MAX_WORDS) int64.
    """

    points_m: torch.Tensor
    valid: torch.Tensor
    colors: torch.Tensor
    instance_colors: torch.Tensor
    words: torch.Tensor

    @classmethod
    def of(cls, conditioning: Conditioning, scale_m: torch.Tensor) -> Cloud:
        """The cells of the small model's inputs, back in metres; scale_m is (B,)."""
        # (B, 1024, C), channels in the order of `conditioning.assemble`
        maps = conditioning.maps.flatten(2).transpose(1, 2)
        centred = maps[..., 15:18] + torch.tensor([0.0, 0.0, 1.0], device=maps.device)
        colors = maps[..., :12].unflatten(-1, (3, 4)).mean(dim=-1)
        return cls(centred * scale_m[:, None, None], maps[..., 18] > 0, colors, maps[..., 12:15], conditioning.words)

    def repeat(self, count: int, points_m: torch.Tensor) -> Cloud:
        """A single scene `count` times, its cells moved to (count, P, 3)."""
        same = (self.valid, self.colors, self.instance_colors, self.words)
        return Cloud(points_m, *(values.expand(count, *values.shape[1:]) for values in same))


@dataclass(frozen=True, eq=False)
class Queries:
    """Cells whose future is asked for.

    Attributes:
        cells: (B, Q) int64.
        valid: (B, Q) bool; the others only fill up.
    """

    cells: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True, eq=False)
class FlowBatch:
    """One training batch.

    Attributes:
        cloud: scenes at the step from which the future is predicted.
        queries: cells whose future is learned.
        motion_m: (B, Q, H, 3) displacement from that step on, metres.
        weights: (B, Q) loss weights, which sum up to 1 in every scene; 0 where a query is not valid.
        log_duration: (B,).
    """

    cloud: Cloud
    queries: Queries
    motion_m: torch.Tensor
    weights: torch.Tensor
    log_duration: torch.Tensor


def flow_batch(
    batch: Batch, scale_m: torch.Tensor, *, codec: MotionCodec, settings: FlowSettings, generator: torch.Generator
) -> FlowBatch:
    """Draw queries, and the step from which the future is predicted where the horizon is shorter than the motion.

    A short horizon is learned from all parts of the motion, as from the clips of a video: the cells are carried along
    to the drawn step, which is what a rollout does with its own predictions. The generator is of the CPU, so that a
    seed draws the same on every device.
    """
    count, horizon, device = len(batch.latents), settings.horizon, batch.latents.device
    cloud = Cloud.of(batch.conditioning, scale_m)
    motion_m = codec.decode(batch.latents.flatten(2).transpose(1, 2)) * scale_m[:, None, None, None]  # (B, P, T, 3)
    start = torch.randint(0, codec.num_steps - horizon, (count,), generator=generator).to(device)
    weights = batch.weights.flatten(1) * cloud.valid
    cells, corrected = draw_queries(weights, settings.num_queries, generator)
    queries = Queries(cells, corrected > 0)
    at_start = motion_m[torch.arange(count, device=device), :, start]  # (B, P, 3)
    window = start[:, None] + torch.arange(1, horizon + 1, device=device)  # (B, H)
    of_queries = motion_m.gather(1, cells[..., None, None].expand(-1, -1, *motion_m.shape[2:]))
    future = of_queries.gather(2, window[:, None, :, None].expand(-1, cells.shape[1], -1, 3))
    return FlowBatch(
        replace(cloud, points_m=cloud.points_m + at_start),
        queries,
        future - gather(at_start, cells)[:, :, None],
        corrected / corrected.sum(dim=1, keepdim=True),
        batch.log_duration,
    )


def draw_queries(weights: torch.Tensor, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw cells without replacement, in proportion to their weights, weighed so that sums keep their mean.

    Source: Kool et al., Stochastic Beams and Where to Find Them, ICML 2019, arXiv:1903.06059, Sec. 4.1: the largest of
    log weight + Gumbel noise are the sample; given the first one that is not, each was drawn with a known probability.

    Args:
        weights: (B, P), not negative.
        count: Q < P, cells drawn.
        generator: of the noise, on the CPU.

    Returns:
        (B, Q) int64 cells, and (B, Q) weights over those probabilities, 0 for cells that only fill up.
    """
    uniform = torch.rand(weights.shape, generator=generator).to(weights.device).clamp(min=1e-20)
    keys, order = (weights.log() - (-uniform.log()).log()).topk(count + 1, dim=1)
    cells = order[:, :-1]
    drawn = weights.gather(1, cells)
    probability = -torch.expm1(-drawn * (-keys[:, -1:]).exp())
    return cells, torch.where(drawn > 0, drawn / probability.clamp(min=1e-12), torch.zeros(()))


def split_trajectory(motion_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Total length normalisation: (..., H, 3) steps over the path's length, and (..., 1) lengths in metres."""
    steps = torch.diff(motion_m, dim=-2, prepend=torch.zeros_like(motion_m[..., :1, :]))
    length_m = steps.norm(dim=-1).sum(dim=-1, keepdim=True)
    moves = length_m[..., None] > MIN_LENGTH_M
    return torch.where(moves, steps / length_m[..., None].clamp(min=MIN_LENGTH_M), torch.zeros(())), length_m


def layers(channels_in: int, hidden: int, count: int) -> nn.Sequential:
    """Fully connected layers with ELU, as in the original."""
    parts: list[nn.Module] = []
    for number in range(count):
        parts += [nn.Linear(hidden if number else channels_in, hidden), nn.ELU()]
    return nn.Sequential(*parts)


class GeneralFlow(nn.Module):
    """Point network, text feature and conditional VAE.

    Args:
        num_words: distinct numbers of words, padding and hash buckets included.
        settings: the variant.
    """

    def __init__(self, num_words: int, settings: FlowSettings) -> None:
        """Build with random weights."""
        super().__init__()
        self.settings = settings
        self.words = nn.Embedding(num_words, WORD_WIDTH)
        self.positions = nn.Parameter(torch.randn(MAX_WORDS, WORD_WIDTH) * 0.02)
        self.read_word = nn.Sequential(nn.Linear(WORD_WIDTH, WORD_WIDTH), nn.ELU(), nn.Linear(WORD_WIDTH, WORD_WIDTH))
        self.text = nn.Sequential(nn.ELU(), nn.Linear(WORD_WIDTH, TEXT_FEATURES))
        self.duration = nn.Linear(WORD_WIDTH, 1)
        self.query_feature = nn.Parameter(torch.randn(6))
        channels_in = 6 + TEXT_FEATURES + 3 * settings.semantic
        self.network = PointNetwork(
            channels_in,
            width=settings.width,
            blocks=settings.blocks,
            radius=RADIUS_M,
            num_neighbours=NUM_NEIGHBOURS,
        )
        context, hidden, trajectory = 3 + settings.width, settings.hidden, 3 * settings.horizon
        self.encoder = layers(trajectory + 1 + context, hidden, settings.num_layers)
        self.posterior = nn.Linear(hidden, 2 * settings.code_size)
        self.decoder = layers(settings.code_size + context, hidden, settings.num_layers)
        self.step_head = nn.Sequential(*layers(hidden, hidden, settings.num_layers), nn.Linear(hidden, trajectory))
        self.length_head = nn.Sequential(*layers(hidden, hidden, settings.num_layers), nn.Linear(hidden, 1))

    def read(self, words: torch.Tensor) -> torch.Tensor:
        """(B, MAX_WORDS) -> (B, WORD_WIDTH) mean over the words of what each says at its place; 0 without words."""
        given = (words > 0)[..., None]
        each = self.read_word(self.words(words) + self.positions) * given
        return torch.as_tensor(each.sum(dim=1) / given.sum(dim=1).clamp(min=1))

    def log_duration(self, words: torch.Tensor) -> torch.Tensor:
        """(B,) natural logarithm of the motion's length in seconds."""
        return torch.as_tensor(self.duration(self.read(words))[:, 0])

    def context(self, cloud: Cloud, queries: Queries) -> torch.Tensor:
        """(B, Q, 3 + width) where every query is, metres from their mean, and what is around it."""
        check_shapes(cells=(queries.cells, "B Q"), valid=(queries.valid, "B Q"), points_m=(cloud.points_m, "B P 3"))
        cells, count = queries.cells, queries.valid.sum(dim=1).clamp(min=1)[:, None, None]
        at_queries = gather(cloud.points_m, cells)
        centre = (at_queries * queries.valid[..., None]).sum(dim=1, keepdim=True) / count
        points, query_points = cloud.points_m - centre, at_queries - centre
        text = self.text(self.read(cloud.words))[:, None]
        features = [
            torch.cat([cloud.colors, points], dim=-1),
            self.query_feature.expand(*cells.shape, -1),
        ]
        joined = [torch.cat([f, text.expand(-1, f.shape[1], -1)], dim=-1) for f in features]
        if self.settings.semantic:
            of_queries = gather(cloud.instance_colors, cells)
            semantic = (cloud.instance_colors, of_queries)
            joined = [torch.cat([f, color], dim=-1) for f, color in zip(joined, semantic, strict=True)]
        found = self.network(
            torch.cat([points, query_points], dim=1),
            torch.cat([cloud.valid, queries.valid], dim=1),
            torch.cat(joined, dim=1),
        )
        return torch.cat([query_points, found[:, points.shape[1] :].to(query_points.dtype)], dim=-1)

    def encode(
        self, steps: torch.Tensor, length_m: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and log variance of the posterior, (B, Q, Z) each, from (B, Q, H, 3), (B, Q, 1) and the context."""
        hidden = self.encoder(torch.cat([steps.flatten(-2), length_m, context], dim=-1))
        mean, log_variance = self.posterior(hidden).float().chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, code: torch.Tensor, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(..., Z) and (..., 3 + width) -> (..., H, 3) steps over the path's length and (..., 1) lengths in metres."""
        hidden = self.decoder(torch.cat([code, context], dim=-1))
        steps: torch.Tensor = self.step_head(hidden).float().unflatten(-1, (-1, 3))
        return steps, self.length_head(hidden).float()

    @torch.no_grad()
    def draw(
        self, cloud: Cloud, cells: torch.Tensor, *, num_hypotheses: int, num_steps: int, generator: torch.Generator
    ) -> torch.Tensor:
        """Draw futures of cells of one scene, in as many rounds as the horizon makes necessary.

        Args:
            cloud: a single scene.
            cells: (Q,) int64, valid ones.
            num_hypotheses: N.
            num_steps: T.
            generator: of the codes.

        Returns:
            (N, Q, T, 3) displacement in metres, zero at step 0.
        """
        settings, rounds = self.settings, [torch.zeros(num_hypotheses, len(cells), 1, 3)]
        if not len(cells):
            return torch.zeros(num_hypotheses, 0, num_steps, 3)
        num_chunks = -(-len(cells) // settings.max_queries)
        done, moved = 1, cloud
        while done < num_steps:
            code = torch.randn(num_hypotheses, 1, settings.code_size, generator=generator)
            future = torch.empty(num_hypotheses, len(cells), settings.horizon, 3)
            for chunk in range(num_chunks):
                # Every chunk is spread over the scene, as the queries of a training step are.
                part = cells[chunk::num_chunks].expand(len(moved.valid), -1)
                context = self.context(moved, Queries(part, torch.ones_like(part, dtype=torch.bool)))
                context = context.expand(num_hypotheses, -1, -1)
                steps, length_m = self.decode(code.expand(-1, context.shape[1], -1), context)
                future[:, chunk::num_chunks] = (steps * length_m[..., None]).cumsum(dim=-2)
            rounds.append(rounds[-1][:, :, -1:] + future)
            done += settings.horizon
            points_m = cloud.points_m.repeat(num_hypotheses, 1, 1)
            points_m[:, cells] += rounds[-1][:, :, -1]
            moved = cloud.repeat(num_hypotheses, points_m)
        return torch.cat(rounds, dim=2)[:, :, :num_steps]


def training_loss(
    model: GeneralFlow, batch: FlowBatch, *, noise: torch.Tensor, kl_weight: float, duration_weight: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The original's four terms, weighted over queries, and the error of the duration.

    Args:
        model: the network.
        batch: what it learns from.
        noise: (B, Q, Z) of the posterior.
        kl_weight: of the divergence from the prior.
        duration_weight: of the error of the duration's logarithm.
    """
    steps, length_m = split_trajectory(batch.motion_m)
    with training_autocast(noise.device):
        context = model.context(batch.cloud, batch.queries)
        mean, log_variance = model.encode(steps, length_m, context)
        drawn_steps, drawn_length_m = model.decode(mean + (0.5 * log_variance).exp() * noise, context)
        log_duration = model.log_duration(batch.cloud.words)
    drawn_m = (drawn_steps * drawn_length_m[..., None]).cumsum(dim=-2)

    def over_queries(values: torch.Tensor) -> torch.Tensor:
        return (values * batch.weights).sum(dim=1).mean()

    parts = {
        "shape": over_queries(((drawn_steps - steps) ** 2).sum(dim=(-1, -2))),
        "length": over_queries(((drawn_length_m - length_m) ** 2)[..., 0]),
        "position": over_queries(((drawn_m - batch.motion_m) ** 2).sum(dim=(-1, -2))),
        "kl": over_queries(0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(dim=-1)),
        "duration": functional.l1_loss(log_duration.float(), batch.log_duration),
    }
    loss = parts["shape"] + LENGTH_WEIGHT * parts["length"] + parts["position"]
    return loss + kl_weight * parts["kl"] + duration_weight * parts["duration"], parts
