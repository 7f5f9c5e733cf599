"""The density of a table with columns of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, prod
from typing import Any

import torch
from torch import Tensor, nn

from ..configs import ColumnSchema, MixedConfig, TableSchema
from ..distributions import Distribution
from ..networks import Growing, MaskedPerceptron
from ..networks.shapes import Shape, check_event
from ..transforms import Flatten
from .columns import CHANNELS, MixedPreprocess
from .factors import ColumnFactors, ColumnInputs
from .flow import Flow
from .layers import orders

_DRAWN_AT_ONCE = 2**15  # rows that are drawn together, where each is one of many candidates


def refuse_temperature(temperature: float) -> None:
    """Refuse another temperature than 1."""
    if temperature != 1.0:
        raise ValueError(
            f"temperature must be 1 for a mixed density, which has no location, got {temperature}"
        )


class ColumnDistribution(Distribution):
    r"""An autoregressive distribution of column factors, averaged over orders of the columns,

    .. math:: p(z \mid c) = \frac1M \sum_{m=1}^M \prod_{i=1}^D p_m(z_{\pi_m(i)} \mid z_{\pi_m(1)}, \dots,
              z_{\pi_m(i-1)}, c),

    each factor a ``ColumnFactors`` whose parameters a masked network gives from the values and the gaps of the columns
    before it. A row of it is the channels of ``MixedPreprocess``, as one vector.

    Args:
        columns: The columns.
        context: The columns conditioned on.
        config: Sizes.

    References:
        Uria et al., RNADE, 2013, eq. 1 (factors); A Deep and Tractable Density Estimator, 2014, section 4 (orders).
        https://arxiv.org/abs/1306.0186 https://arxiv.org/abs/1310.1757
    """

    has_rsample = False
    has_temperature = False

    def __init__(
        self, columns: Sequence[ColumnSchema], context: Sequence[ColumnSchema], config: MixedConfig
    ) -> None:
        count = len(columns)
        super().__init__((count * CHANNELS,), context_shape=(len(context), CHANNELS) if context else None)
        self.inputs, self.factors = (
            ColumnInputs(columns),
            ColumnFactors(columns, bins=config.bins, bound=config.bound),
        )
        self.context_inputs = ColumnInputs(context) if context else None
        given = 0 if self.context_inputs is None else len(self.context_inputs.elements)
        self.networks = nn.ModuleList(
            MaskedPerceptron(
                order,
                inputs=self.inputs.elements,
                outputs=self.factors.elements,
                context_features=given,
                hidden=config.hidden,
                activation=config.activation,
            )
            for order in orders(count, config.orders)
        )

    def log_prob_of_orders(self, z: Tensor, context: Tensor | None) -> Tensor:
        """Return the log-density under each order, ``(M, *batch)``, of channels ``(*batch, D, 3)``."""
        inputs = self.inputs(z)
        given = None if self.context_inputs is None or context is None else self.context_inputs(context)
        return torch.stack([self.factors.log_prob(z, network(inputs, given)) for network in self.networks])

    def _log_prob(self, x: Tensor, context: Tensor | None) -> Tensor:
        logs = self.log_prob_of_orders(x.unflatten(-1, (-1, CHANNELS)), context)
        return logs[0] if len(logs) == 1 else torch.logsumexp(logs, 0) - log(len(logs))

    def _sample(self, shape: Shape, context: Tensor | None, temperature: float, generator: Any) -> Tensor:
        raise ValueError(
            "ColumnDistribution: rows are drawn by the flow, whose preprocess knows what values there are"
        )


@dataclass(frozen=True, slots=True)
class Filled:
    """Rows whose unknown values were drawn given the known ones.

    Attributes:
        x: The rows, ``(n, D)``.
        effective: How many of the candidates count, ``(n,)``; all of them where the draw is exact.
        exact: Whether the known columns come first, so that no weighting was needed.
    """

    x: Tensor
    effective: Tensor
    exact: bool


class MixedFlow(Flow):
    """The density of rows of a mixed table: numbers, places of labels, and NaN for gaps.

    The log-density is exact, with respect to Lebesgue measure for continuous values and counting measure for labels,
    atoms and gaps; that of values on a grid is divided by the step, as a density in the units of the data.

    Args:
        config: Sizes.
        schema: The columns.

    Example:
        >>> schema = TableSchema(columns=(ColumnSchema(name="a"), ColumnSchema(name="c", kind="boolean")))
        >>> flow = MixedFlow(MixedConfig(hidden=(8,)), schema)
        >>> flow.sample((3,), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    base: ColumnDistribution
    preprocess: MixedPreprocess

    def __init__(self, config: MixedConfig, schema: TableSchema) -> None:
        columns, context = schema.columns, schema.context
        super().__init__(
            Flatten((len(columns), CHANNELS)),
            ColumnDistribution(columns, context, config),
            preprocess=MixedPreprocess(columns),
            context_preprocess=MixedPreprocess(context) if context else None,
        )

    def to_latent(
        self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Refuse: labels, gaps and atoms have no latent codes."""
        raise ValueError(
            "a mixed density has no latent codes: no bijection takes categories, gaps or point masses to a continuous "
            "latent. Leave such columns out, and fit a flow (nsf) to the others"
        )

    def from_latent(self, latent: Tensor, context: Tensor | None = None) -> Tensor:
        """Refuse, as ``to_latent`` does."""
        return self.to_latent(latent, context)

    def _sample_base(
        self,
        shape: tuple[int, ...],
        context: Tensor | None,
        temperature: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        refuse_temperature(temperature)
        context = self._enter_context(context)
        batch = (*shape, *(() if context is None else self._context_batch(context)))
        rows = prod(batch)
        given = (
            None
            if context is None
            else context.expand(*batch, *context.shape[-2:]).reshape(rows, -1, CHANNELS)
        )
        z, _ = self._drawn(torch.empty(rows, *self.event_shape, dtype=torch.float64), None, given, generator)
        return z.reshape(*batch, -1), context

    def fill(
        self,
        x: Tensor,
        known: Tensor,
        context: Tensor | None = None,
        *,
        candidates: int = 64,
        generator: torch.Generator | None = None,
    ) -> Filled:
        r"""Draw the unknown values of rows given the known ones.

        Candidates are drawn in the order of the columns with the known values in their places, and one of them is
        chosen by its weight :math:`\prod_j p(x_j \mid x_{<j})` over the known columns. Where these come first in the
        only order the weights are equal, and one candidate is an exact draw; otherwise the draw tends to the
        conditional law as the number of candidates grows.

        Args:
            x: Rows, ``(n, D)``; what stands in unknown places is ignored.
            known: Which columns are known, Boolean, ``(D,)``.
            context: Contexts, ``(n, *context_shape)``.
            candidates: Number of candidates for each row, where weights are needed.
            generator: Source of randomness.

        Raises:
            ValueError: Shapes that do not fit, or known values that cannot be.

        References:
            Rubin, The calculation of posterior distributions by data augmentation, JASA 82, 1987 (sampling and
            importance resampling).
        """
        check_event(self, "x", x, self.event_shape)
        if known.shape != self.event_shape or known.dtype != torch.bool:
            raise ValueError(
                f"known must be Boolean of shape {self.event_shape}, got {known.dtype} {tuple(known.shape)}"
            )
        order = self.base.networks[0].order
        exact = len(self.base.networks) == 1 and bool(
            (order[known] < int(known.sum())).all()  # type: ignore[index]
        )
        count = 1 if exact else candidates
        with torch.no_grad():
            given, drawn, effective = self._enter_context(context), [], []
            each = max(1, _DRAWN_AT_ONCE // count)
            for start in range(0, max(len(x), 1), each):
                rows = slice(start, start + each)
                part = None if given is None else given[rows]
                resampled = self._resampled(x[rows].double(), known, part, count, generator, before=start)
                drawn.append(resampled[0])
                effective.append(resampled[1])
        return Filled(torch.where(known, x.double(), torch.cat(drawn)), torch.cat(effective), exact)

    def _resampled(
        self,
        x: Tensor,
        known: Tensor,
        context: Tensor | None,
        count: int,
        generator: torch.Generator | None,
        *,
        before: int,
    ) -> tuple[Tensor, Tensor]:
        """Return for each row one of some candidates, ``(n, D)``, and how many of these counted, ``(n,)``."""
        spread = None if context is None else context.repeat_interleave(count, 0)
        z, weights = self._drawn(x.repeat_interleave(count, 0), known, spread, generator)
        logs = weights.reshape(len(x), count).double()
        if not bool(torch.isfinite(logs.amax(-1)).all()):
            row = before + int((~torch.isfinite(logs.amax(-1))).nonzero()[0])
            raise ValueError(f"x: the known values of row {row + 1} cannot be, under this density")
        share = torch.softmax(logs, -1)
        chosen = torch.multinomial(share, 1, generator=generator)[:, 0]
        rows = self.preprocess.decode(z.reshape(len(x) * count, -1, CHANNELS))
        return rows.reshape(len(x), count, -1)[torch.arange(len(x)), chosen], 1.0 / share.square().sum(-1)

    def _drawn(
        self, x: Tensor, known: Tensor | None, context: Tensor | None, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return drawn rows as channels ``(n, D, 3)``, known columns kept, and the log-density of these, ``(n,)``."""
        base, like = self.base, self.like
        z = like.new_zeros(len(x), *self.event_shape, CHANNELS)
        weights = like.new_zeros(len(x))
        columns = [(base.factors.alone(j).to(like), base.inputs.alone(j).to(like)) for j in range(z.shape[1])]
        networks = len(base.networks)
        member = torch.randint(networks, (len(x),), generator=generator) if networks > 1 else None
        for m, network in enumerate(base.networks):
            rows = slice(None) if member is None else (member == m).nonzero()[:, 0]
            given = None if context is None else context[rows]
            part = x[rows]
            if len(part):
                z[rows], weights[rows] = self._walk(
                    network,  # type: ignore[arg-type]
                    columns,
                    part,
                    known=known,
                    context=given,
                    generator=generator,
                )
        return z, weights

    def _walk(
        self,
        network: MaskedPerceptron,
        columns: Sequence[tuple[ColumnFactors, ColumnInputs]],
        x: Tensor,
        *,
        known: Tensor | None,
        context: Tensor | None,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Draw column after column in the order of a network; each has a factor and inputs of its own."""
        base, like = self.base, self.like
        seen = None if base.context_inputs is None or context is None else base.context_inputs(context)
        growing = Growing(network, len(x), seen)
        z = like.new_zeros(len(x), *self.event_shape, CHANNELS)
        weights = like.new_zeros(len(x))
        for position, j in enumerate(network.order.argsort().tolist()):
            outputs, (factor, inputs) = growing.outputs(position), columns[j]
            if known is not None and bool(known[j]):
                channels, log_weight = self.preprocess.column(j, x[:, j])
                weights += log_weight.to(like) + factor.log_prob(channels[:, None].to(like), outputs)
            else:
                value, code = factor.draw(outputs, generator)
                channels, _ = self.preprocess.column(j, self.preprocess.value(j, value, code))
            z[:, j] = channels.to(like)
            growing.learn(position, inputs(z[:, j : j + 1]))
        return z, weights
