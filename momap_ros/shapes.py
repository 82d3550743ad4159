"""Array shapes checked by name: a letter stands for one length wherever it appears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
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
        any_leading, axes = _parsed(specification)
        shape = array.shape
        extra = len(shape) - len(axes)
        if extra < 0 or (extra and not any_leading):
            raise ShapeError(f"{_contradiction(name, array, specification)}; the number of axes differs")
        for (axis, fixed), length in zip(axes, shape[extra:] if extra else shape, strict=True):
            expected = lengths.setdefault(axis, int(length)) if fixed is None else fixed
            if length != expected:
                raise ShapeError(f"{_contradiction(name, array, specification)}; axis {axis} must be {expected}")
    return lengths


@cache  # read anew at every call it would cost more than many a small computation
def _parsed(specification: str) -> tuple[bool, tuple[tuple[str, int | None], ...]]:
    """Whether axes may precede, and the name of each axis with its length where that is fixed."""
    axes = specification.split()
    any_leading = bool(axes) and axes[0] == "..."
    return any_leading, tuple((axis, int(axis) if axis.isdigit() else None) for axis in axes[any_leading:])


def _contradiction(name: str, array: HasShape, specification: str) -> str:
    documented = "(" + ", ".join(specification.split()) + ")"
    return f"{name}: expected {documented}, got {tuple(int(length) for length in array.shape)}"
