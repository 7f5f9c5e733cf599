"""Student's t distribution with independent elements."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..networks.shapes import Shape
from .base import Distribution
from .constraints import check_values, inverse_softplus, register


class StudentT(Distribution):
    r"""Student's t distribution of each element, with location 0, scale 1 and :math:`\nu` degrees of freedom.

    .. math:: \log p(x) = \sum_i \log \frac{\Gamma(\frac{\nu_i + 1}{2})}{\Gamma(\frac{\nu_i}{2})}
        - \tfrac12 \log(\pi \nu_i) - \frac{\nu_i + 1}{2} \log\left(1 + \frac{x_i^2}{\nu_i}\right)

    A flow of Lipschitz maps keeps the tails of its base, so heavy-tailed data want a heavy-tailed base.
    Learned degrees of freedom, one for each element, are :math:`\nu = 2 + \text{softplus}(r)`, so that the
    variance stays finite.

    Args:
        event_shape: Shape of one ``x``.
        df: Degrees of freedom (at first, when learned), of a shape that broadcasts to ``event_shape``.
        trainable: Learn the degrees of freedom.

    Shapes:
        ``x (*batch, *event_shape)`` -> ``(*batch,)``.

    Raises:
        ValueError: ``df`` that is not finite and above 0 (2 when learned), or of another shape or dtype.

    References:
        Jaini et al., Tails of Lipschitz Triangular Flows, 2020, on tail-adaptive flows.
        https://arxiv.org/abs/1907.04481

    Example:
        >>> import torch
        >>> StudentT((1,), 1.0).log_prob(torch.tensor([[0.0], [100.0]]))
        tensor([ -1.1447, -10.3552])
    """

    has_rsample = True
    has_temperature = True
    raw: Tensor

    def __init__(self, event_shape: Shape, df: float | Tensor, *, trainable: bool = False) -> None:
        super().__init__(event_shape)
        value = df if isinstance(df, Tensor) else torch.tensor(float(df))
        lowest = 2 if trainable else 0
        valid = (value > lowest) & value.isfinite()
        check_values("StudentT", "df", value, f"finite and above {lowest}", valid)
        try:
            value = value.expand(self.event_shape)
        except RuntimeError as error:
            raise ValueError(
                f"StudentT: df must broadcast to the event shape {self.event_shape}, got {tuple(value.shape)}"
            ) from error
        self.trainable = trainable
        start = inverse_softplus(value.detach() - 2) if trainable else value
        register(self, "raw", start, trainable=trainable)

    @property
    def df(self) -> Tensor:
        """Degrees of freedom, ``event_shape``."""
        return 2 + F.softplus(self.raw) if self.trainable else self.raw

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        df = self.df
        norm = _log_gamma_step(df / 2) - 0.5 * torch.log(math.pi * df)
        return self._sum_event(norm - (df + 1) / 2 * torch.log1p(x.square() / df))

    def _sample(
        self, shape: Shape, context: Tensor | None, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        noise = self._empty(shape).normal_(generator=generator)
        half = (self.df / 2).expand_as(noise)
        # torch.distributions.Gamma draws by the same function, but takes no generator.
        gamma = torch._standard_gamma(half, generator=generator)
        return temperature * noise * torch.sqrt(half / gamma)


def _log_gamma_step(a: Tensor) -> Tensor:
    r"""Return :math:`\log \Gamma(a + 1/2) - \log \Gamma(a)`, without the cancellation at large ``a``.

    From 20 on by the asymptotic series, whose first term left out is below 1e-14 there.
    """
    b = 1 / a.square()
    series = 0.5 * torch.log(a) - (1 / 8 - b * (1 / 192 - b * (1 / 640 - b * (17 / 14336)))) / a
    return torch.where(a < 20, torch.lgamma(a + 0.5) - torch.lgamma(a), series)
