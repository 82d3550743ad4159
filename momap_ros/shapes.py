"""Array shapes checked by name: a letter stands for one length wherever it appears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol


class ShapeError(ValueError):
    """An array's shape contradicts its documented axes."""


class HasShape(Protocol):
    """Anything with a shape: a numpy array, a torch tensor."""

    @property
    def shape(self) -> Sequence[int]:
        """Lengths of the axes."""
        ...


def check_shapes(known: Mapping[str, int] | None = None, /, **arrays: tuple[HasShape, str]) -> dict[str, int]:
    """Check arrays against axis specifications and return the lengths the letters stand for.

    A specification is a list of axes separated by spaces: a number fixes a length, a name binds to the length first
    seen (across all arrays of the call), and a leading `...` lets any number of axes precede.

    Args:
        known: lengths that are already fixed, for instance `{"H": camera.height}`.
        **arrays: argument name -> (array, specification), for instance `depth_m=(depth_m, "H W")`.

    Returns:
        Every name with its length, `known` included.

    Raises:
        ShapeError: an array has another number of axes, or an axis another length.
    """
    lengths = dict(known or {})
    for name, (array, specification) in arrays.items():
        axes = specification.split()
        shape = tuple(int(length) for length in array.shape)
        any_leading = bool(axes) and axes[0] == "..."
        trailing = axes[1:] if any_leading else axes
        documented = "(" + ", ".join(axes) + ")"
        if len(shape) < len(trailing) or (len(shape) > len(trailing) and not any_leading):
            raise ShapeError(f"{name}: expected {documented}, got {shape}; the number of axes differs")
        for axis, length in zip(trailing, shape[len(shape) - len(trailing) :], strict=True):
            expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            if length != expected:
                raise ShapeError(f"{name}: expected {documented}, got {shape}; axis {axis} must be {expected}")
    return lengths
