"""The velocity of a continuous flow of images: a U-Net that sees them at several sizes and knows the time."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.calls import followed, gradients_of_formula
from ..kernels.tracing import traced
from .fields import VectorField
from .shapes import Shape, check_context, check_event

# Of the waves of the time. Faster ones would only make the velocity rough for a solver: near t = 1, where it changes
# most, it does so within about the width of a grey level.
_FREQUENCIES = 16
_FASTEST = 100.0

# What a group norm adds to the variance.
_LEAST_VARIANCE = 1e-5


class UNetField(VectorField):
    r"""The velocity :math:`v(t, x; c)` of a continuous flow of images, zero at first.

    Residual blocks see the image, then what is left of it after halving its sides, and so on; on the way back each
    size is joined by what the way down had seen at it. Every block is

    .. math:: x + W_2\, a\bigl((1 + s)\, N(W_1\, a(N(x))) + b\bigr), \qquad (s, b) = V a(e), \quad e = g(t) + U c,

    with convolutions of 3x3, group norms :math:`N`, SiLU :math:`a`, and a perceptron :math:`g` of
    :math:`(\sin \omega_k t, \cos \omega_k t)_k`. All of it is smooth, and an image knows nothing of the others.

    A context that is a vector is added to the time's embedding, so that zeros mean none; one that is a picture lies
    beside the image.

    Args:
        event_shape: ``(C, H, W)``; odd sides are halved upwards.
        context_shape: ``(E,)``, a picture ``(E, H, W)``, or None.
        width: Channels at the full size, a multiple of 8; they double when the sides are halved.
        levels: How many times the sides are halved; fewer where 1x1 is reached before.
        blocks: Blocks at each size on the way down, and again on the way up.

    Shapes:
        ``t (n,)``, ``x (n, C, H, W)``, ``context (n, *context_shape)`` -> ``(n, C, H, W)``.

    Raises:
        ValueError: Sizes that no network can have, or a picture of another size than the image.

    References:
        Ronneberger et al., U-Net, 2015. https://arxiv.org/abs/1505.04597
        Ho et al., Denoising Diffusion Probabilistic Models, 2020, appendix B. https://arxiv.org/abs/2006.11239
        Nichol & Dhariwal, Improved Denoising Diffusion Probabilistic Models, 2021, appendix A.
        https://arxiv.org/abs/2102.09672

    Example:
        >>> field = UNetField((1, 5, 7), context_shape=(10,), width=8)
        >>> field(torch.rand(4), torch.randn(4, 1, 5, 7), torch.zeros(4, 10)).shape
        torch.Size([4, 1, 5, 7])
    """

    frequencies: Tensor

    def __init__(
        self,
        event_shape: Shape,
        *,
        context_shape: Shape | None = None,
        width: int = 32,
        levels: int = 2,
        blocks: int = 1,
    ) -> None:
        super().__init__()
        _check_sizes(event_shape, context_shape)
        if width < 8 or width % 8:
            raise ValueError(f"width must be a positive multiple of 8, got {width}")
        for name, value, least in (("levels", levels, 0), ("blocks", blocks, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.event_shape = tuple(event_shape)
        self.context_shape = None if context_shape is None else tuple(context_shape)
        channels, *sides = self.event_shape
        beside = self.context_shape[0] if self._sees_picture() else 0  # type: ignore[index]
        features = 4 * width
        frequencies = torch.logspace(0.0, math.log10(_FASTEST), _FREQUENCIES)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time = nn.Sequential(
            nn.Linear(2 * _FREQUENCIES, features), nn.SiLU(), nn.Linear(features, features)
        )
        self.context = (
            nn.Linear(self.context_shape[0], features, bias=False)
            if self.context_shape is not None and not beside
            else None
        )
        halvings = min(levels, math.ceil(math.log2(max(sides))))
        widths = [width * 2**i for i in range(halvings + 1)]
        self.first = nn.Conv2d(channels + beside, width, 3, padding=1)
        self.down = nn.ModuleList(_Level(fine, fine, features, blocks) for fine in widths[:-1])
        self.halve = nn.ModuleList(
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths)
        )
        self.lowest = _Level(widths[-1], widths[-1], features, blocks + 1)
        self.narrow = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(_Level(2 * fine, fine, features, blocks) for fine in widths[:-1])
        self.last = nn.Sequential(
            _Norm(width),
            nn.SiLU(),
            _zeroed(nn.Conv2d(width, channels, 3, padding=1)),
        )

    def forward(self, t: Tensor, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the velocity of images ``x`` at times ``t`` under ``context``."""
        context = self._check(t, x, context)
        angles = t[:, None] * self.frequencies
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        if context is not None:
            if self.context is None:
                x = torch.cat([x, context], 1)
            else:
                embedded = embedded + self.context(context)
        embedded = F.silu(embedded)
        h = self.first(x)
        if x.is_cpu and not traced():
            # With the channels of a pixel side by side in memory, as they then stay, it takes 3/4 of the time.
            h = h.movedim(1, -1).contiguous().movedim(-1, 1)
        seen = []
        for level, halve in zip(self.down, self.halve, strict=True):
            seen.append(level(h, embedded))
            h = halve(seen[-1])
        h = self.lowest(h, embedded)
        for level, narrow, finer in zip(
            reversed(self.up), reversed(self.narrow), reversed(seen), strict=True
        ):
            height, width = finer.shape[-2:]
            h = F.interpolate(narrow(h), scale_factor=2.0)[..., :height, :width]
            h = level(torch.cat([h, finer], 1), embedded)
        velocity: Tensor = self.last(h)
        return velocity

    def _sees_picture(self) -> bool:
        return self.context_shape is not None and len(self.context_shape) == 3

    def _check(self, t: Tensor, x: Tensor, context: Tensor | None) -> Tensor | None:
        """Check one call; return the context, None where it is ignored."""
        label = type(self).__name__
        check_event(self, "x", x, self.event_shape)
        if x.ndim != 4:
            raise ValueError(f"{label}: x must have one batch dimension, got shape {tuple(x.shape)}")
        if t.ndim != 1 or t.shape[0] != x.shape[0]:
            raise ValueError(f"{label}: t must have shape ({x.shape[0]},), got {tuple(t.shape)}")
        if t.dtype != x.dtype:
            raise ValueError(f"{label}: t must have the dtype {x.dtype}, that of x, got {t.dtype}")
        context = check_context(self, context, x.dtype, "that of x")
        if context is not None and (context.ndim != 1 + len(self.context_shape) or len(context) != len(x)):  # type: ignore[arg-type]
            raise ValueError(
                f"{label}: context must have the batch shape ({x.shape[0]},), got shape {tuple(context.shape)}"
            )
        return context


class _Level(nn.Module):
    """Residual blocks at one size of the image."""

    def __init__(self, in_channels: int, out_channels: int, features: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(out_channels if i else in_channels, out_channels, features) for i in range(blocks)
        )

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x, embedded)
        return x


class _Block(nn.Module):
    """The residual block of ``UNetField``, the identity at first where it keeps the channels."""

    def __init__(self, in_channels: int, out_channels: int, features: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            _Norm(in_channels), nn.SiLU(), nn.Conv2d(in_channels, out_channels, 3, padding=1)
        )
        self.norm = _Norm(out_channels)
        self.scale_and_shift = nn.Linear(features, 2 * out_channels)
        self.after = nn.Sequential(nn.SiLU(), _zeroed(nn.Conv2d(out_channels, out_channels, 3, padding=1)))
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        scale, shift = self.scale_and_shift(embedded)[..., None, None].chunk(2, 1)
        h = torch.addcmul(shift, 1.0 + scale, self.norm(self.before(x)))
        y: Tensor = self.skip(x) + self.after(h)
        return y


class _Norm(nn.Module):
    """Group norm in at most 8 groups of at least 4 channels: a group of one number, at the size 1x1, would lose it.

    ``nn.GroupNorm`` cannot be asked, of images whose channels lie side by side, for many gradients at once, nor of any
    for gradients of many gradients.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = min(8, channels // 4)
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)  # under autocast
        if traced():
            return _normalised(x, self.weight, self.bias, self.groups)
        y: Tensor = _Normalised.apply(x, self.weight, self.bias, self.groups)  # type: ignore[no-untyped-call]
        return y


def _normalised(x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
    """The formula of the group norm."""
    parts: Tensor = x.unflatten(1, (groups, -1))
    centred = parts - parts.mean((2, 3, 4), keepdim=True)
    variance = centred.square().mean((2, 3, 4), keepdim=True)
    y = (centred * (variance + _LEAST_VARIANCE).rsqrt()).flatten(1, 2)
    return y * weight[:, None, None] + bias[:, None, None]


class _Normalised(torch.autograd.Function):
    """``_normalised`` by torch's kernels, and its gradient; by the formula where somebody follows the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        ctx.sizes = x.shape[0], x.shape[1], x.shape[2] * x.shape[3], groups
        found = torch.ops.aten.native_group_norm(_laid_out(x), weight, bias, *ctx.sizes, _LEAST_VARIANCE)
        y: Tensor = found[0]
        ctx.save_for_backward(x, weight, bias, *found[1:])
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, scale = ctx.saved_tensors
        if followed(gradient):
            formula = partial(_normalised, groups=ctx.sizes[-1])
            return *gradients_of_formula(ctx, formula, (x, weight, bias), (gradient,)), None
        x = _laid_out(x)
        if gradient.stride() != x.stride():
            gradient = torch.empty_like(x).copy_(gradient)
        found = torch.ops.aten.native_group_norm_backward(
            gradient, x, mean, scale, weight, *ctx.sizes, list(ctx.needs_input_grad[:3])
        )
        return *found, None


def _laid_out(x: Tensor) -> Tensor:
    """Return images in an order in memory that torch's group norm takes: two of them on a CPU, else one."""
    channels_last = x.is_cpu and x.is_contiguous(memory_format=torch.channels_last)
    return x if channels_last else x.contiguous()


def _zeroed(layer: nn.Conv2d) -> nn.Module:
    """Set a convolution to zero and return it."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _check_sizes(event_shape: Shape, context_shape: Shape | None) -> None:
    """Refuse shapes that no network can have."""
    if len(event_shape) != 3 or min(event_shape) < 1:
        raise ValueError(
            f"event_shape must be (channels, height, width), each at least 1, got {tuple(event_shape)}"
        )
    if context_shape is not None:
        picture = len(context_shape) == 3 and tuple(context_shape[1:]) == tuple(event_shape[1:])
        if not (picture or len(context_shape) == 1) or context_shape[0] < 1:
            raise ValueError(
                f"context_shape must be (E,) or (E, {event_shape[1]}, {event_shape[2]}) with E at least 1, "
                f"got {tuple(context_shape)}"
            )


class Enlarge(nn.Module):
    """Enlarges pictures ``(*batch, C, H, W)`` by a whole factor, each pixel becoming a square.

    Example:
        >>> Enlarge(2)(torch.tensor([[[1.0, 2.0]]]))
        tensor([[[1., 1., 2., 2.],
                 [1., 1., 2., 2.]]])
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return the larger pictures."""
        return x.repeat_interleave(self.factor, -2).repeat_interleave(self.factor, -1)
