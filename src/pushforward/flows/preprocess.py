"""Preprocessing that stands inside a flow, in double precision on the CPU wherever the flow is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from ..configs import ColumnSchema
from ..networks.shapes import Shape
from ..transforms import Chain, CompressTails, Standardise, Support, Transform


class DataMap(nn.Module, ABC):
    r"""A fixed map :math:`u` from the units of the data to those of the model, with a log-weight.

    The density of a point is that of ``u(x)`` times the exponential of the log-weight, and so in the units of the data.

    It keeps float64 on the CPU whatever the flow is moved or cast to: a float32 cannot hold a timestamp, and an
    accelerator may have no float64.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``z (*batch, *latent_shape)``, log-weight ``batch``. ``forward`` casts its
        result to the dtype and device asked for; ``inverse`` and ``decode`` return float64 on the CPU.
    """

    @property
    @abstractmethod
    def event_shape(self) -> Shape:
        """Shape of one point in the units of the data."""

    @property
    @abstractmethod
    def latent_shape(self) -> Shape:
        """Shape of one point in the model's units."""

    @abstractmethod
    def initialize(self, x: Tensor) -> None:
        """Fit the map to points ``(n, *event_shape)``, float64."""

    @abstractmethod
    def forward(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` to the model's units; the results have the dtype and device of ``like``."""

    @abstractmethod
    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z`` back to the units of the data, and return minus the log-weight of ``forward`` too."""

    def decode(self, z: Tensor) -> Tensor:
        """Map ``z`` back to the units of the data."""
        return self.inverse(z)[0]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return self


class Preprocess(DataMap):
    """A fixed transform as a ``DataMap``, whose log-weight is the log-determinant.

    Args:
        transform: The transform, without context; its tensors are made float64.

    Shapes:
        As those of the transform.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform.to(device="cpu", dtype=torch.float64)

    @property
    def event_shape(self) -> Shape:
        """Shape of one point in the units of the data."""
        return self.transform.event_shape

    @property
    def latent_shape(self) -> Shape:
        """Shape of one point in the model's units."""
        return self.transform.latent_shape

    def initialize(self, x: Tensor) -> None:
        """Fit the map to points ``(n, *event_shape)``, float64."""
        self.transform.initialize(x)

    def forward(self, x: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x`` to the model's units; the results have the dtype and device of ``like``."""
        z, log_abs_det = self._through(x, inverse=False)
        return z.to(like), log_abs_det.to(like)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z`` back to the units of the data, float64 on the CPU."""
        return self._through(z, inverse=True)

    def _through(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        x = x.to("cpu", torch.float64)
        parts = list(self.transform) if isinstance(self.transform, Chain) else [self.transform]
        total: Tensor | None = None
        for part in reversed(parts) if inverse else parts:
            x, log_abs_det = _map(part, x, inverse=inverse)
            total = log_abs_det if total is None else total + log_abs_det
        assert total is not None
        return x, total


def _map(part: Transform, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """Take points through a part; of one that draws in tails only heavy columns, since it leaves the others alone."""
    if isinstance(part, CompressTails):
        columns = part.heavy.nonzero().flatten()
        if len(columns) == 0:
            return x, x.new_zeros(()).expand(x.shape[:-1])
        y, log_abs_det = _both_ways(part.select(columns), x[..., columns], inverse=inverse)
        return x.index_copy(-1, columns, y), log_abs_det
    return _both_ways(part, x, inverse=inverse)


def _both_ways(part: Transform, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = part.inverse(x) if inverse else part.forward(x)
    return result


def column_preprocess(columns: Sequence[ColumnSchema]) -> Preprocess:
    """Return the map of numeric columns, still to be fitted: supports, heavy tails, and location and scale.

    A discrete value stands for the cell above it, so its support ends one step above the highest value.

    Example:
        >>> column_preprocess([ColumnSchema(name="a", low=0.0)]).event_shape
        (1,)
    """
    angles = [i for i, c in enumerate(columns) if c.periodic]
    light = [i for i, c in enumerate(columns) if c.tails is False]
    heavy = [i for i, c in enumerate(columns) if c.tails]
    compress = CompressTails(len(columns), keep=[*angles, *light], always=heavy)
    standardise = Standardise(len(columns), keep=angles)
    if not any(c.bounded for c in columns):
        return Preprocess(Chain([compress, standardise]))
    high = [None if c.high is None else c.high + (c.step or 0.0) for c in columns]
    support = Support([c.low for c in columns], high, [c.periodic for c in columns])
    return Preprocess(Chain([support, compress, standardise]))
