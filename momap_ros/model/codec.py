"""Motion codecs: trajectories <-> the latent image that the denoiser draws.

Paper: Sec. 3.3.2 compresses a MoMap to (H/8, W/8, 32) with a widened image VAE. The temporal basis here is a linear
codec of the same size: displacements of a cell's representative pixel in a shared orthonormal basis over time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from momap_ros.shapes import check_shapes


class MotionCodec(Protocol):
    """What the pipeline needs of a codec."""

    @property
    def num_steps(self) -> int:
        """T, the observation included."""
        ...

    @property
    def latent_channels(self) -> int:
        """Channels of the latent image."""
        ...

    def encode(self, displacement: torch.Tensor) -> torch.Tensor:
        """(..., T, 3) displacements in scene scales -> (..., C) latents of unit size."""
        ...

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(..., C) latents -> (..., T, 3) displacements in scene scales; linear, and exactly zero at step 0."""
        ...


class TemporalBasisCodec(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers' classes are untyped
    """Displacements as coefficients of K basis functions of time, the same for x, y and z.

    One basis for all axes makes the code equivariant to rotations of the camera. Every coefficient is divided by its
    standard deviation over moving training points, so that noise of unit size hits all of them alike.

    Args:
        num_steps: T, the observation included.
        num_functions: K, basis functions per axis.

    Attributes:
        basis: (T, K) float32, orthonormal columns, row 0 zero.
        coefficient_std: (K,) float32, in scene scales.
    """

    basis: torch.Tensor
    coefficient_std: torch.Tensor

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, num_steps: int = 50, num_functions: int = 10) -> None:
        """Make an empty codec; the numbers come from `fit`, `from_arrays` or a checkpoint."""
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers' classes are untyped
        # No linear algebra here: diffusers builds half-precision models under a half-precision default dtype.
        self.register_buffer("basis", torch.zeros(num_steps, num_functions, dtype=torch.float32))
        self.register_buffer("coefficient_std", torch.ones(num_functions, dtype=torch.float32))

    @classmethod
    def from_arrays(cls, basis: torch.Tensor, coefficient_std: torch.Tensor) -> TemporalBasisCodec:
        """A codec of a given (T, K) basis and (K,) standard deviations."""
        lengths = check_shapes(basis=(basis, "T K"), coefficient_std=(coefficient_std, "K"))
        codec: TemporalBasisCodec = cls(num_steps=lengths["T"], num_functions=lengths["K"])
        codec.basis.copy_(basis)
        codec.coefficient_std.copy_(coefficient_std)
        return codec

    @classmethod
    def fit(cls, displacement: torch.Tensor, num_functions: int) -> TemporalBasisCodec:
        """The K functions with the least squared error over sample trajectories (uncentred PCA).

        Uncentred, so that no motion has the code zero and every function vanishes at step 0.

        Args:
            displacement: (P, T, 3) in scene scales, zero at step 0.
            num_functions: K.
        """
        curves = _curves(displacement)
        _, _, right_t = torch.linalg.svd(curves, full_matrices=False)
        basis = right_t[:num_functions].T
        basis = basis * torch.sign(basis.sum(dim=0, keepdim=True))
        return cls.from_arrays(basis.float(), (curves @ basis).std(dim=0).float())

    @classmethod
    def raw(cls, displacement: torch.Tensor) -> TemporalBasisCodec:
        """No compression in time, for ablations: each step after the first is a function of its own.

        Args:
            displacement: (P, T, 3) in scene scales, zero at step 0.
        """
        curves = _curves(displacement)
        return cls.from_arrays(torch.eye(curves.shape[1])[:, 1:], curves[:, 1:].std(dim=0).float())

    @classmethod
    def pinned_cosines(cls, num_steps: int, num_functions: int) -> TemporalBasisCodec:
        """A basis that needs no data: cosines that vanish at step 0, orthonormalised; unit standard deviations."""
        time = np.arange(num_steps)[:, None] + 0.5
        cosines = np.cos(np.pi * time * np.arange(1, num_functions + 1)[None] / num_steps)
        basis, _ = np.linalg.qr(cosines - cosines[:1])
        return cls.from_arrays(torch.from_numpy(basis).float(), torch.ones(num_functions))

    @property
    def num_steps(self) -> int:
        """T, the observation included."""
        return int(self.basis.shape[0])

    @property
    def latent_channels(self) -> int:
        """3 K: x coefficients, then y, then z."""
        return 3 * int(self.basis.shape[1])

    def encode(self, displacement: torch.Tensor) -> torch.Tensor:
        """(..., T, 3) displacements in scene scales -> (..., 3K) whitened coefficients, axis-major."""
        check_shapes({"T": self.num_steps}, displacement=(displacement, "... T 3"))
        coefficients = torch.einsum("tk,...tc->...ck", self.basis, displacement.float()) / self.coefficient_std
        return coefficients.flatten(-2)

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(..., 3K) whitened coefficients -> (..., T, 3) displacements in scene scales, float32."""
        check_shapes({"C": self.latent_channels}, latents=(latents, "... C"))
        coefficients: torch.Tensor = latents.float().unflatten(-1, (3, -1)) * self.coefficient_std
        # As one product: of transposed latents torch makes one small product per point, seventy times slower.
        return (coefficients.contiguous() @ self.basis.T).transpose(-1, -2)


def _curves(displacement: torch.Tensor) -> torch.Tensor:
    """(P, T, 3) -> (3 P, T) float64, the axes apart."""
    check_shapes(displacement=(displacement, "P T 3"))
    return displacement.double().transpose(1, 2).reshape(-1, displacement.shape[1])


def load_codec(folder: Path) -> TemporalBasisCodec:
    """The codec that a preparation, a run or a checkpoint left in a folder; nothing is looked for elsewhere."""
    codec: TemporalBasisCodec = TemporalBasisCodec.from_pretrained(
        folder, local_files_only=True, low_cpu_mem_usage=False
    )
    return codec
