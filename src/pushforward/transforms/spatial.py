"""Transforms of the shape of images: squeeze, flatten, and several scales."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .base import Shape, Transform, merge_context_shapes


class Squeeze(Transform):
    r"""Space to channels: of an image ``(C, H, W)`` every ``a x b`` block of pixels becomes one pixel.

    Channel :math:`c\,ab + bi + j` of the result is the pixel in row ``i`` and column ``j`` of each block of channel
    ``c``, so a mask of these channels is a checkerboard on the pixels. :math:`\log|\det J| = 0`.

    Args:
        event_shape: ``(C, H, W)``.
        block: ``(a, b)``, which must divide ``(H, W)``.

    Raises:
        ValueError: Another shape, or a block that does not divide it.

    References:
        Dinh et al., Density estimation using Real NVP, 2017, section 3.6. https://arxiv.org/abs/1605.08803

    Example:
        >>> Squeeze((1, 2, 4))(torch.arange(8.0).reshape(1, 2, 4))[0]
        tensor([[[0., 2.]],
        <BLANKLINE>
                [[1., 3.]],
        <BLANKLINE>
                [[4., 6.]],
        <BLANKLINE>
                [[5., 7.]]])
    """

    reversible = True

    def __init__(self, event_shape: Shape, block: tuple[int, int] = (2, 2)) -> None:
        if len(event_shape) != 3:
            raise ValueError(
                f"Squeeze: event_shape must be (channels, rows, columns), got {tuple(event_shape)}"
            )
        channels, h, w = event_shape
        a, b = block
        if a < 1 or b < 1 or h % a or w % b:
            raise ValueError(f"Squeeze: block must divide the {h} x {w} pixels, got {a} x {b}")
        super().__init__((channels, h, w), latent_shape=(channels * a * b, h // a, w // b))
        self.block = (a, b)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        (c, h, w), (a, b) = self.event_shape, self.block
        batch = x.shape[:-3]
        n = len(batch)
        y = x.reshape(*batch, c, h // a, a, w // b, b).permute(*range(n), n + 1, n + 3, n, n + 2, n + 4)
        # In memory the channels of a pixel lie together, which is how the maps of pixels compute.
        return y.reshape(*batch, h // a, w // b, c * a * b).movedim(-1, -3), x.new_zeros(batch)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        (c, h, w), (a, b) = self.event_shape, self.block
        batch = y.shape[:-3]
        n = len(batch)
        x = y.reshape(*batch, c, a, b, h // a, w // b).permute(*range(n), n, n + 3, n + 1, n + 4, n + 2)
        return x.reshape(*batch, c, h, w), y.new_zeros(batch)


class Flatten(Transform):
    r"""Lay an event out as a vector, :math:`\log|\det J| = 0`.

    Args:
        event_shape: Shape of one point.

    Example:
        >>> Flatten((2, 2))(torch.ones(2, 2))
        (tensor([1., 1., 1., 1.]), tensor(0.))
    """

    reversible = True

    def __init__(self, event_shape: Shape) -> None:
        super().__init__(event_shape, latent_shape=(math.prod(event_shape),))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        batch = x.shape[: x.ndim - len(self.event_shape)]
        return x.reshape(*batch, *self.latent_shape), x.new_zeros(batch)

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return y.reshape(*y.shape[:-1], *self.event_shape), y.new_zeros(y.shape[:-1])


class MultiScale(Transform):
    r"""Transforms on smaller and smaller parts: after each but the last, half of the channels are finished.

    .. math:: (h_1, z_1) = f_1(x), \quad (h_2, z_2) = f_2(h_1), \quad \dots, \quad z_L = f_L(h_{L-1}); \qquad
        y = (z_L, \dots, z_2, z_1)

    with :math:`h_l` the first half of the channels. Every latent is kept and they lie in one vector, so that both
    directions are exact inverses of each other. The learned prior of a half given the other, which models of this kind
    have, is an affine coupling at the end of :math:`f_l`, under which the second half moves and the first stays.

    Args:
        scales: Each maps ``(C, H, W)`` to an image; the next takes the first half of its channels.

    Raises:
        ValueError: No transform, a number of channels that cannot be halved, or shapes that do not follow from each
            other.

    References:
        Dinh et al., Density estimation using Real NVP, 2017, eq. 13-15; Kingma & Dhariwal, Glow, 2018, figure 2b.

    Example:
        >>> t = MultiScale([Squeeze((1, 4, 4)), Squeeze((2, 2, 2))])
        >>> t(torch.zeros(3, 1, 4, 4))[0].shape
        torch.Size([3, 16])
    """

    def __init__(self, scales: Sequence[Transform]) -> None:
        parts = list(scales)
        if not parts:
            raise ValueError("MultiScale: at least one transform is needed, got none")
        for i, part in enumerate(parts):
            if len(part.latent_shape) != 3 or (i < len(parts) - 1 and part.latent_shape[0] % 2):
                raise ValueError(
                    f"MultiScale: transform {i} must give an image with an even number of channels, "
                    f"got {part.latent_shape}"
                )
            if i and part.event_shape != _half(parts[i - 1].latent_shape):
                raise ValueError(
                    f"MultiScale: transform {i} must take half of what the one before gives, "
                    f"{_half(parts[i - 1].latent_shape)}, got {part.event_shape}"
                )
        super().__init__(
            parts[0].event_shape,
            latent_shape=(math.prod(parts[0].event_shape),),
            context_shape=merge_context_shapes(parts, "MultiScale"),
        )
        self.scales = nn.ModuleList(parts)

    def scale(self, place: int) -> Transform:
        """Return one of the transforms."""
        part = self.scales[place]
        assert isinstance(part, Transform)
        return part

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        finished: list[Tensor] = []
        total: Tensor | None = None
        for i in range(len(self.scales)):
            x, log_abs_det = self.scale(i)._forward(x, context)
            total = log_abs_det if total is None else total + log_abs_det
            if i < len(self.scales) - 1:
                x, done = x.chunk(2, -3)
                finished.insert(0, done.flatten(-3))
        assert total is not None
        return torch.cat([x.flatten(-3), *finished], -1), total

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        last = self.scale(len(self.scales) - 1)
        count = math.prod(last.latent_shape)
        x = y[..., :count].unflatten(-1, last.latent_shape)
        total: Tensor | None = None
        for i in range(len(self.scales) - 1, -1, -1):
            part = self.scale(i)
            if i < len(self.scales) - 1:
                half = _half(part.latent_shape)
                done = y[..., count : 2 * count].unflatten(-1, half)
                x, count = torch.cat([x, done], -3), 2 * count
            x, log_abs_det = part._inverse(x, context)
            total = log_abs_det if total is None else total + log_abs_det
        assert total is not None
        return x, total

    def initialize(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Initialise each transform on what the ones before it leave."""
        finished: list[Tensor] = []
        for i in range(len(self.scales)):
            x = self.scale(i).initialize(x, context)
            if i < len(self.scales) - 1:
                x, done = x.chunk(2, -3)
                finished.insert(0, done.flatten(-3))
        return torch.cat([x.flatten(-3), *finished], -1)


class Leading(Transform):
    """A transform of the first elements of a vector, in the shape that it takes; the others stay.

    It is how a scale looks from outside: ``MultiScale`` is ``Flatten``, then ``Leading`` for each scale.

    Args:
        transform: The transform.
        features: Elements of the vector.

    Example:
        >>> Leading(Flatten((1, 2)), 3)(torch.tensor([1.0, 2.0, 3.0]))
        (tensor([1., 2., 3.]), tensor(0.))
    """

    def __init__(self, transform: Transform, features: int) -> None:
        super().__init__((features,), context_shape=transform.context_shape)
        self.transform, self.reversible = transform, transform.reversible

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        shape = self.transform.event_shape
        first, rest = x[..., : math.prod(shape)], x[..., math.prod(shape) :]
        y, log_abs_det = self.transform._forward(first.unflatten(-1, shape), context)
        return torch.cat([y.flatten(-len(self.transform.latent_shape)), rest], -1), log_abs_det

    def _inverse(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        shape = self.transform.latent_shape
        first, rest = y[..., : math.prod(shape)], y[..., math.prod(shape) :]
        x, log_abs_det = self.transform._inverse(first.unflatten(-1, shape), context)
        return torch.cat([x.flatten(-len(self.transform.event_shape)), rest], -1), log_abs_det


def _half(shape: Shape) -> Shape:
    return (shape[0] // 2, *shape[1:])
