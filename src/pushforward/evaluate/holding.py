"""Attributes of images beside others that are held fixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import DataError
from .attributes import Attribute, measure

HELD = ("thickness", "slant", "width", "height")
"""What is held fixed while another attribute of the pixels is edited."""

_DETERMINED = 1e-6  # share of an attribute's variance that is left, below which it is rounding


def values_of(
    images: Tensor,
    target: str | Tensor,
    name: str,
    *,
    held: Sequence[str] | Mapping[str, Tensor] | None,
    attributes: Mapping[str, Attribute],
    levels: int,
) -> tuple[str, Tensor, dict[str, Tensor]]:
    """Return the target's name and numbers, and the numbers of what is held, float64 on the CPU."""
    if isinstance(held, str):
        raise ValueError(f"held must be a sequence of names, got the string {held!r}")
    if isinstance(target, str):
        check_known(target, attributes)
        name = name or target
    if held is None:
        # Of attributes that someone else defines it is not known which of them belong to the target.
        held = [h for h in HELD if h in attributes and h != target] if isinstance(target, str) else ()
    names = [] if isinstance(held, Mapping) else list(held)
    for other in names:
        check_known(other, attributes)
    if name in held:
        raise DataError(f"{name!r} cannot be edited and held fixed at once", source="held")
    wanted = [*names, *([target] if isinstance(target, str) else [])]
    measured = measure(images, levels, {other: attributes[other] for other in wanted})
    given = dict(held) if isinstance(held, Mapping) else {other: measured[other] for other in names}
    numbers = measured[target] if isinstance(target, str) else target
    for what, value in (("target", numbers), *((f"held[{other!r}]", v) for other, v in given.items())):
        if value.shape != (len(images),):
            raise ValueError(
                f"{what} must have shape {(len(images),)}, one number for each image, got {tuple(value.shape)}"
            )
    controls = {other: value.detach().to("cpu", torch.float64) for other, value in given.items()}
    return name or "target", numbers.detach().to("cpu", torch.float64), controls


def residual_of(name: str, columns: Tensor, held: tuple[str, ...]) -> Tensor:
    """Return what of the first column ``(n,)`` the others do not explain."""
    count, needed = len(columns), 2 + len(held)
    if count < needed:
        raise DataError(
            f"a direction with {len(held)} attributes held fixed needs at least {needed} images that have them all, "
            f"got {count}",
            source="images",
        )
    spread = columns.std(0, correction=0)
    constant = spread <= 1e-12 * columns.abs().amax(0)
    if bool(constant[0]):
        raise DataError(f"{name!r} is {columns[0, 0]:g} in all {count:,} images", source="target")
    scaled = ((columns - columns.mean(0)) / spread.where(~constant, 1.0)).where(~constant, 0.0)
    # By singular values, for what is held may be repeated.
    basis, sizes, _ = torch.linalg.svd(scaled[:, 1:], full_matrices=False)
    basis = basis[:, sizes > 1e-9 * math.sqrt(count)]
    residual: Tensor = scaled[:, 0] - basis @ (basis.mT @ scaled[:, 0])
    if float(residual.square().mean()) < _DETERMINED:
        raise DataError(
            f"{name!r} cannot change while {', '.join(held)} are held fixed, which determine it",
            source="held",
            remedy="Hold less.",
        )
    return residual * spread[0]


def check_known(name: str, attributes: Mapping[str, Attribute]) -> None:
    """Check that an attribute is one of those known."""
    if name not in attributes:
        raise DataError(f"unknown attribute {name!r}; those known are {', '.join(sorted(attributes))}")
