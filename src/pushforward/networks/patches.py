"""Perceptrons that slide over an image: convolutions as products of matrices with a row for each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.patches import gather, squares
from .mlp import MLP, make_activation
from .shapes import Shape, need_context


class PatchMLP(nn.Module):
    r"""The same multi-layer perceptron at every pixel, of the square of pixels around it.

    It is a convolution of ``patch x patch``, then 1x1 convolutions with rectifiers between them, then, with
    ``spread`` 3, a 3x3 convolution: with ``patch`` 3, ``spread`` 3 and two hidden layers it is the network of Glow.
    Beyond the edges there are zeros. The last layer starts at zero.

    A context is added after the first convolution: a vector ``(E,)`` everywhere, a picture ``(E, h, w)``, averaged or
    repeated to the size of the image, at its place.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        context_shape: ``(E,)``, ``(E, h, w)``, or None.
        hidden: Widths of the hidden layers.
        patch: Side of the square that a pixel is seen with, odd.
        spread: Side of the square that the last layer writes to, odd.
        activation: As of ``MLP``.

    Shapes:
        ``x (*batch, in_channels, H, W)``, ``context (*context_batch, *context_shape)`` -> ``(*batch, out_channels, H,
        W)``.

    Raises:
        ValueError: A side that is even, or impossible widths.

    References:
        Kingma & Dhariwal, Glow, 2018, section 4. https://arxiv.org/abs/1807.03039

    Example:
        >>> net = PatchMLP(2, 4, hidden=(8, 8), spread=3)
        >>> net(torch.randn(5, 2, 6, 6)).shape
        torch.Size([5, 4, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        context_shape: Shape | None = None,
        hidden: Sequence[int] = (64, 64),
        patch: int = 3,
        spread: int = 1,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        for name, side in (("patch", patch), ("spread", spread)):
            if side < 1 or side % 2 == 0:
                raise ValueError(f"{name} must be odd and at least 1, got {side}")
        self.patch, self.spread, self.out_channels = patch, spread, out_channels
        self.context_shape = context_shape
        self.mlp = MLP(
            in_channels * patch**2,
            out_channels * spread**2,
            context_features=0 if context_shape is None else context_shape[0],
            hidden=hidden,
            activation=activation,
        )

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output for images ``x`` under ``context``."""
        rows, given = self.rows(x, context)
        y: Tensor = self.mlp(rows, given)
        if self.spread > 1:
            y = gather(y, self.out_channels, self.spread)
        return y.movedim(-1, -3)

    def rows(
        self, x: Tensor, context: Tensor | None, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the perceptron is given, a row for each pixel ``(*batch, H, W, ...)``, and the context of each.

        Args:
            x: Images, as of ``forward``.
            context: As of ``forward``.
            beside: What else shall stand in the rows, ``(*batch, m, H, W)``.
        """
        last = None if beside is None else beside.movedim(-3, -1)
        return squares(x.movedim(-3, -1), self.patch, last), pixel_context(self, x, context)


class CausalPatchMLP(nn.Module):
    r"""The same multi-layer perceptron at every pixel, of those around it that come before it in reading order.

    It sees the ``radius`` rows above, from ``radius`` columns to the left to as many to the right, the ``radius``
    pixels to its left in its own row, and where it is, as two numbers from -1 to 1. Beyond the edges there are zeros.
    The last layer starts at zero.

    Args:
        channels: Channels of the image.
        out_channels: Channels of the output.
        size: ``(H, W)``.
        context_shape: As of ``PatchMLP``.
        hidden: Widths of the hidden layers.
        radius: How far it sees.
        activation: As of ``MLP``.

    Shapes:
        As of ``PatchMLP``.

    Raises:
        ValueError: A radius below 1, or impossible widths.

    References:
        van den Oord et al., Pixel Recurrent Neural Networks, 2016, section 3.4. https://arxiv.org/abs/1601.06759

    Example:
        >>> net = CausalPatchMLP(1, 4, size=(6, 6), hidden=(8, 8), radius=2)
        >>> net(torch.randn(5, 1, 6, 6)).shape
        torch.Size([5, 4, 6, 6])
    """

    places: Tensor

    def __init__(
        self,
        channels: int,
        out_channels: int,
        *,
        size: tuple[int, int],
        context_shape: Shape | None = None,
        hidden: Sequence[int] = (64, 64),
        radius: int = 3,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if radius < 1:
            raise ValueError(f"radius must be at least 1, got {radius}")
        self.radius, self.side, self.context_shape = radius, 2 * radius + 1, context_shape
        self.count = (radius * self.side + radius) * channels
        self.mlp = MLP(
            self.count + 2,
            out_channels,
            context_features=0 if context_shape is None else context_shape[0],
            hidden=hidden,
            activation=activation,
        )
        rows, columns = (torch.linspace(-1.0, 1.0, n) if n > 1 else torch.zeros(1) for n in size)
        places = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
        self.register_buffer("places", places, persistent=False)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output for images ``x`` under ``context``."""
        y: Tensor = self.mlp(*self.rows(x, context))
        return y.movedim(-1, -3)

    def rows(
        self, x: Tensor, context: Tensor | None, beside: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the perceptron is given, as ``PatchMLP.rows``."""
        last = self.places.expand(*x.shape[:-3], *self.places.shape)
        if beside is not None:
            last = torch.cat([last, beside.movedim(-3, -1)], -1)
        rows = squares(x.movedim(-3, -1), self.side, last, count=self.count)
        return rows, pixel_context(self, x, context)


class ResidualConvNet(nn.Module):
    r"""A residual convolutional network, :math:`h \leftarrow h + W_2\, a(W_1\, a(h))`, whose last layer starts at zero.

    The second convolution of every block starts at zero too, so that depth needs no normalisation and nothing depends
    on the company of a batch.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        context_shape: ``(E,)``, ``(E, h, w)``, or None; as of ``PatchMLP``.
        hidden_channels: Channels inside.
        blocks: Number of residual blocks.
        activation: As of ``MLP``.

    Shapes:
        As of ``PatchMLP``.

    References:
        Dinh et al., Density estimation using Real NVP, 2017, section 3.6; He et al., Identity Mappings in Deep Residual
        Networks, 2016, figure 1b. https://arxiv.org/abs/1603.05027

    Example:
        >>> net = ResidualConvNet(2, 4, hidden_channels=8)
        >>> net(torch.randn(5, 2, 6, 6)).shape
        torch.Size([5, 4, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        context_shape: Shape | None = None,
        hidden_channels: int = 32,
        blocks: int = 2,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.context_shape = context_shape
        self.first = nn.Conv2d(in_channels, hidden_channels, 3, padding=1)
        self.context = (
            None if context_shape is None else nn.Linear(context_shape[0], hidden_channels, bias=False)
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                make_activation(activation),
                nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
                make_activation(activation),
                nn.Conv2d(hidden_channels, hidden_channels, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Sequential(
            make_activation(activation), nn.Conv2d(hidden_channels, out_channels, 3, padding=1)
        )
        for layer in [block[-1] for block in self.blocks] + [self.last[-1]]:  # type: ignore[index]
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the output for images ``x`` under ``context``."""
        batch = x.shape[:-3]
        h: Tensor = self.first(x.reshape(-1, *x.shape[-3:]))
        if self.context is not None:
            shape = h.shape[1:]
            h = (h.reshape(*batch, *shape) + self._mixed(x, context)).reshape(-1, *shape)
        for block in self.blocks:
            h = h + block(h)
        y: Tensor = self.last(h)
        return y.reshape(*batch, *y.shape[1:])

    def _mixed(self, x: Tensor, context: Tensor | None) -> Tensor:
        assert self.context is not None and self.context_shape is not None
        given = need_context(self, context)
        if len(self.context_shape) == 1:
            vector: Tensor = self.context(given)
            return vector[..., None, None]
        picture: Tensor = self.context(resized(given, (x.shape[-2], x.shape[-1])).movedim(-3, -1))
        return picture.movedim(-1, -3)


class PictureEmbedding(nn.Module):
    r"""What a flow is told of a picture that it is given: features at each place, and of the whole.

    Two convolutions see what is near; a perceptron of the picture, four times smaller, what is far; both are added.

    Args:
        shape: That of the picture, ``(channels, h, w)``.
        features: Channels of the features.
        hidden: Width of the perceptron.
        mirror: Dimensions, -2 or -1, along which the features are turned round.

    Shapes:
        ``(*batch, *shape)`` -> ``(*batch, features, h, w)``.

    Example:
        >>> PictureEmbedding((1, 4, 8), features=6)(torch.randn(5, 1, 4, 8)).shape
        torch.Size([5, 6, 4, 8])
    """

    def __init__(
        self, shape: Shape, *, features: int = 32, hidden: int = 128, mirror: Sequence[int] = ()
    ) -> None:
        super().__init__()
        channels, h, w = shape
        self.shape, self.mirror = tuple(shape), tuple(mirror)
        self.near = nn.Sequential(
            nn.Conv2d(channels, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1),
        )
        self.small = nn.Conv2d(channels, 8, 4, stride=2, padding=1) if min(h, w) > 4 else None
        count = channels * h * w if self.small is None else 8 * (h // 2) * (w // 2)
        self.far = nn.Sequential(nn.Linear(count, hidden), nn.ReLU(), nn.Linear(hidden, features))

    def forward(self, picture: Tensor) -> Tensor:
        """Return the features."""
        x = picture.reshape(-1, *self.shape)
        small = x if self.small is None else F.relu(self.small(x))
        y: Tensor = F.relu(self.near(x) + self.far(small.flatten(1))[..., None, None])
        return y.flip(self.mirror).reshape(*picture.shape[:-3], *y.shape[1:])


def pixel_context(network: PatchMLP | CausalPatchMLP, x: Tensor, context: Tensor | None) -> Tensor | None:
    """Return the context at each pixel of ``x``, its last dimension the channels, or None."""
    if network.context_shape is None:
        return None
    given = need_context(network, context)
    if len(network.context_shape) == 1:
        return given[..., None, None, :]
    return resized(given, (x.shape[-2], x.shape[-1])).movedim(-3, -1)


def resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring a picture ``(*batch, E, h, w)`` to another size, by means of its pixels or repeating them."""
    if picture.shape[-2:] == size:
        return picture
    y = F.adaptive_avg_pool2d(picture.reshape(-1, *picture.shape[-3:]), size)
    return y.reshape(*picture.shape[:-2], *size)
