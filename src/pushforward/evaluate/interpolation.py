"""Pictures between two others, along lines and arcs of latent space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..distributions import DiagonalNormal
from ..flows import Flow
from ..networks.shapes import check_event

_PARALLEL = 1e-6


@dataclass(frozen=True, slots=True)
class Interpolation:
    """Pictures between pairs of others.

    Attributes:
        images: The pictures, ``(n, steps, *event_shape)``; the ends of each row are the pictures given.
        returned: Share of the pixels of these that their latents give back, within half a level.
        arc: Whether latents went along arcs, and not along lines.
    """

    images: Tensor
    returned: float
    arc: bool


def interpolate(
    flow: Flow,
    first: Tensor,
    second: Tensor,
    steps: int = 9,
    *,
    linear: bool = False,
    context: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Interpolation:
    r"""Return pictures between two, from latents between theirs.

    Under a normal base the latents go along an arc: with :math:`z = \|z\| e` of both ends, standardised by the base,
    and :math:`\omega` the angle between :math:`e_0` and :math:`e_1`,

    .. math:: z_t = \big((1 - t)\|z_0\| + t\|z_1\|\big)\,
        \frac{\sin((1 - t)\omega)\, e_0 + \sin(t\omega)\, e_1}{\sin\omega},

    so that they stay where the mass of a normal distribution lies, near the sphere of radius :math:`\sqrt{D}`; halfway
    on a line of two independent draws the radius is smaller by :math:`\sqrt{2}`. Under another base, or where
    ``linear`` asks for it, :math:`z_t = (1 - t) z_0 + t z_1`.

    The ends are the pictures themselves: what the way there and back misses of them by rounding is no part of it.

    Args:
        flow: The flow.
        first: Pictures to begin with, ``(n, *event_shape)``.
        second: Pictures to end with, of the same shape.
        steps: Pictures in a row, with both ends.
        linear: Along lines.
        context: Contexts, ``(n, *context_shape)``, the same for both ends.
        generator: Source of the noise of dequantisation; None: the same noise at every call.

    Returns:
        The pictures, floating.

    Raises:
        ValueError: Shapes that do not fit, or fewer than 2 steps.

    References:
        White, Sampling Generative Networks, 2016, section 2.1. https://arxiv.org/abs/1609.04468

    Example:
        >>> from pushforward.transforms import Affine, Elementwise
        >>> flow = Flow(Elementwise(Affine(), (1, 1, 2)), DiagonalNormal((1, 1, 2)))
        >>> first, second = torch.tensor([[[[4.0, 0.0]]], [[[0.0, 4.0]]]]).split(1)
        >>> interpolate(flow, first, second, 3).images.flatten(2).norm(dim=-1).round()
        tensor([[4., 4., 4.]])
        >>> interpolate(flow, first, second, 3, linear=True).images.reshape(3, 2).tolist()
        [[4.0, 0.0], [2.0, 2.0], [0.0, 4.0]]
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, for both ends, got {steps}")
    for name, images in (("first", first), ("second", second)):
        check_event(flow, name, images, flow.event_shape)
        if images.shape != first.shape or images.ndim != len(flow.event_shape) + 1 or len(images) == 0:
            raise ValueError(
                f"{name} must have shape {('n', *flow.event_shape)} with n of at least 1, the same as first, "
                f"{tuple(first.shape)}, got {tuple(images.shape)}"
            )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    ends = torch.stack([first, second], 1)
    ends = ends.to(flow.like) if flow.preprocess is None else ends.to("cpu", torch.float64)
    each = None if context is None else context.unsqueeze(1)
    arc = not linear and isinstance(flow.base, DiagonalNormal) and flow.base.source is None
    with torch.no_grad():
        latent = flow.to_latent(ends, each, generator=generator)
        returned = (flow.from_latent(latent, each) - ends).abs() < 0.5
        t = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
        z0, z1 = latent.to("cpu", torch.float64).flatten(2).split(1, 1)
        between = _arc(z0, z1, t[:, None]) if arc else (1.0 - t[:, None]) * z0 + t[:, None] * z1
        images = flow.from_latent(between.reshape(len(first), steps, *latent.shape[2:]).to(latent), each)
        images[:, 0], images[:, -1] = ends.unbind(1)
    return Interpolation(images, float(returned.double().mean()), arc)


def _arc(z0: Tensor, z1: Tensor, t: Tensor) -> Tensor:
    """Return vectors on arcs between those of ``(n, 1, D)``, ``(n, steps, D)``; on lines where there is no one arc."""
    r0, r1 = z0.norm(dim=-1, keepdim=True), z1.norm(dim=-1, keepdim=True)
    tiny = torch.finfo(z0.dtype).tiny
    e0, e1 = z0 / r0.clamp(min=tiny), z1 / r1.clamp(min=tiny)
    # By both sum and difference, which keeps the digits of angles near 0 and near 180 degrees.
    angle = 2.0 * torch.atan2((e0 - e1).norm(dim=-1, keepdim=True), (e0 + e1).norm(dim=-1, keepdim=True))
    line = (angle.sin() < _PARALLEL) | (r0 == 0) | (r1 == 0)
    sine = angle.sin().where(~line, 1.0)
    turned = (((1.0 - t) * angle).sin() * e0 + (t * angle).sin() * e1) / sine
    return torch.where(line, (1.0 - t) * z0 + t * z1, ((1.0 - t) * r0 + t * r1) * turned)
