"""Samplers and log-densities of the 2-D benchmarks; ``densities`` says what each is.

Each function gives the pair ``draw(n, generator) -> (n, 2)`` in float64 and ``log_density(x: (n, 2)) -> (n,)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import _curves

Draw = Callable[[int, torch.Generator | None], Tensor]
LogDensity = Callable[[Tensor], Tensor]


def checkerboard() -> tuple[Draw, LogDensity]:
    """Uniform on the squares of one colour."""

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        column, half = _integers(4, n, generator) - 2, _integers(2, n, generator)
        corner = torch.stack((column, 2 * half - 2 + column % 2), -1)
        return 2.0 * (corner + _uniform(n, 2, generator))

    def log_density(x: Tensor) -> Tensor:
        # The squares are closed, since casting a row to fewer digits may round it onto an edge. Of the two squares
        # at an inner edge, one is in the support.
        cell = torch.floor(0.5 * x).clamp(max=1.0)
        inside = (cell.sum(-1) % 2 == 0) | ((2.0 * cell == x) & (x > -4.0)).any(-1)
        inside = inside & (x.abs() <= 4.0).all(-1)
        zero = 0.0 * x.sum(-1)  # so that the result has a gradient
        return (zero - math.log(32.0)).masked_fill(~inside, -math.inf)

    return draw, log_density


def eight_gaussians() -> tuple[Draw, LogDensity]:
    """Equal Gaussians around a circle."""
    scale = 0.5 / 1.414
    centres = 4.0 / 1.414 * _unit(torch.arange(8, dtype=torch.float64) * (0.25 * math.pi))
    log_weights = torch.full((8,), -math.log(8.0), dtype=torch.float64)

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        chosen = _integers(8, n, generator)
        return centres.to(chosen.device)[chosen] + scale * _normal(n, generator)

    return draw, lambda x: _curves.log_gaussians(x, centres, log_weights, scale)


def moons() -> tuple[Draw, LogDensity]:
    """Two half circles, each reaching into the other, with noise."""
    scale = 0.2

    def curve(t: Tensor, lower: Tensor) -> Tensor:
        upper = 2.0 * _unit(t) + t.new_tensor([-1.0, -0.2])
        return torch.where(lower[:, None], t.new_tensor([0.0, 0.6]) - upper, upper)

    t, weights = _curves.gauss_legendre(128, 0.0, math.pi)
    lower = torch.arange(256) >= 128
    nodes, log_weights = curve(t.repeat(2), lower), torch.log(weights.repeat(2) / (2.0 * math.pi))

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        t = math.pi * _uniform(n, 1, generator)[:, 0]
        return curve(t, _integers(2, n, generator).bool()) + scale * _normal(n, generator)

    return draw, lambda x: _curves.log_gaussians(x, nodes, log_weights, scale)


def two_spirals() -> tuple[Draw, LogDensity]:
    """Two spiral arms, smeared by a square and by noise."""
    scale, width, end = 0.1, 1.0 / 6.0, 3.0 * math.pi

    def curve(t: Tensor) -> Tensor:
        return torch.stack((-t.cos(), t.sin()), -1) * (t / 3.0)[:, None]

    t, weights = _curves.gauss_legendre(320, 0.0, end)
    centres = curve(t) + 0.5 * width
    nodes = torch.cat((centres, -centres))
    log_weights = torch.log(t * weights / end**2).repeat(2)

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        u = _uniform(n, 3, generator)
        side = (2 * _integers(2, n, generator) - 1)[:, None]
        return side * (curve(end * u[:, 0].sqrt()) + width * u[:, 1:]) + scale * _normal(n, generator)

    return draw, lambda x: _curves.log_box_gaussians(x, nodes, log_weights, 0.5 * width, scale)


def rings() -> tuple[Draw, LogDensity]:
    """Four concentric circles with noise."""
    scale = 0.08
    radii = torch.arange(1, 5, dtype=torch.float64) * 0.75

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        chosen = _integers(4, n, generator)
        angle = 2.0 * math.pi * _uniform(n, 1, generator)[:, 0]
        return radii.to(angle)[chosen, None] * _unit(angle) + scale * _normal(n, generator)

    return draw, lambda x: _curves.log_rings(x, radii, scale)


def swiss_roll() -> tuple[Draw, LogDensity]:
    """A spiral that begins away from its centre, with noise."""
    scale, start, end = 0.2, 1.5 * math.pi, 4.5 * math.pi

    def curve(t: Tensor) -> Tensor:
        return _unit(t) * (t / 5.0)[:, None]

    t, weights = _curves.gauss_legendre(320, start, end)
    nodes, log_weights = curve(t), torch.log(weights / (end - start))

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        t = start + (end - start) * _uniform(n, 1, generator)[:, 0]
        return curve(t) + scale * _normal(n, generator)

    return draw, lambda x: _curves.log_gaussians(x, nodes, log_weights, scale)


def pinwheel() -> tuple[Draw, LogDensity]:
    """Five twisted Gaussian blades."""
    blades, rate, scales = 5, 0.25, (0.3, 0.1)

    def draw(n: int, generator: torch.Generator | None) -> Tensor:
        noise = _normal(n, generator)
        f, g = 1.0 + scales[0] * noise[:, 0], scales[1] * noise[:, 1]
        angle = 2.0 * math.pi / blades * _integers(blades, n, generator) + rate * f.exp()
        return 2.0 * torch.stack((f * angle.cos() + g * angle.sin(), g * angle.cos() - f * angle.sin()), -1)

    return draw, lambda x: _curves.log_pinwheel(0.5 * x, blades, 1.0, scales, rate) - math.log(4.0)


def _unit(angle: Tensor) -> Tensor:
    return torch.stack((angle.cos(), angle.sin()), -1)


def _uniform(n: int, columns: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, columns, generator=generator, device=_device(generator), dtype=torch.float64)


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 2, generator=generator, device=_device(generator), dtype=torch.float64)


def _integers(high: int, n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(high, (n,), generator=generator, device=_device(generator))


def _device(generator: torch.Generator | None) -> torch.device | None:
    return None if generator is None else generator.device
