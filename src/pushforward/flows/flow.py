"""A density: an invertible transform of data to a simple base."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..distributions import Distribution
from ..networks.shapes import Shape, check_context, check_event
from ..surjections import Augment, Surjection
from ..transforms import Transform
from ..transforms.flat import Fixed, links_of
from .compiling import compiled, compiles_well
from .estimates import Estimate, log_of_mean, mean_of_logs
from .parts import inner_context_shape, outer_context_shape, outer_event_shape
from .preprocess import DataMap

_COMPILED = ("log_prob_preprocessed", "_to_model")


class Flow(nn.Module):
    r"""The density of ``x`` that an invertible transform :math:`f` gives with a base density :math:`p_0`,

    .. math:: \log p(x \mid c) = \log p_0(f(x; c) \mid c) + \log |\det \partial f(x; c)/\partial x|.

    Args:
        transform: Maps data (after ``preprocess``) to latent.
        base: Density of the latent, with ``event_shape`` the transform's ``latent_shape``.
        preprocess: Fixed map from the units of the data, in float64; its log-determinant is part of the density.
        context_preprocess: The same for contexts.
        embedding: A network from preprocessed contexts to what transform and base take.
        context_shape: Shape of one context as the user gives it; needed only where an ``embedding`` without
            ``context_preprocess`` leaves it open.
        surjection: Encodes discrete elements before ``preprocess``. The density is then known up to noise only, by
            ``estimate_log_prob``.
        augment: Adds elements in the model's units, after ``preprocess``; the density is then known up to noise only.

    Axes: ``log_prob(x, context)`` broadcasts the batch shapes of ``x (*batch, *event_shape)`` and ``context
    (*context_batch, *context_shape)``; ``sample(shape, context)`` gives ``(*shape, *context_batch, *event_shape)``.

    Raises:
        ValueError: Parts whose shapes do not fit.

    Example:
        >>> from pushforward.distributions import DiagonalNormal
        >>> from pushforward.transforms import LULinear
        >>> flow = Flow(LULinear(2), DiagonalNormal((2,)))
        >>> flow.log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
        >>> flow.sample((3,), generator=torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self,
        transform: Transform,
        base: Distribution,
        *,
        preprocess: DataMap | None = None,
        context_preprocess: DataMap | None = None,
        embedding: nn.Module | None = None,
        context_shape: Shape | None = None,
        surjection: Surjection | None = None,
        augment: Augment | None = None,
    ) -> None:
        super().__init__()
        self.transform, self.base = transform, base
        self.preprocess, self.context_preprocess = preprocess, context_preprocess
        self.embedding, self.surjection, self.augment = embedding, surjection, augment
        self.event_shape = outer_event_shape(transform, base, preprocess, surjection, augment)
        taken = inner_context_shape(transform, base)
        self._context_dims = 0 if taken is None else len(taken)
        self.context_shape = outer_context_shape(taken, context_preprocess, embedding, context_shape)

    @property
    def like(self) -> Tensor:
        """An empty tensor with the dtype and device that the model computes in."""
        return torch.empty(0, dtype=self.base.dtype, device=self.base.device)

    def compile(self) -> None:
        """Make densities and samples faster for many calls, each direction where that can be.

        What is one chain of a fused kernel is laid out once, so that Python does not go over the layers: couplings and
        masked networks with rectifiers and affine or spline maps, without contexts. What has more calls than
        arithmetic besides is compiled with ``torch.compile``: its first call of each shape takes seconds, and results
        differ by rounding. Other directions stay as they are.

        Weights may change afterwards; after a change of the layers or their hooks compile again. Copies of the flow
        are not compiled. Without a compiler there is one warning.

        Example:
            >>> from pushforward.configs import NICEConfig
            >>> from pushforward.flows import build_flow
            >>> flow = build_flow(NICEConfig(layers=2, hidden=(8,)), 2)
            >>> flow.compile()  # from here on densities and samples are compiled when they are first asked for
        """
        for name in _COMPILED:
            self.__dict__.pop(name, None)
        conditional = self.transform.context_shape is not None
        for name, inverse in zip(_COMPILED, (False, True), strict=True):
            if compiles_well(self.transform, inverse=inverse):
                setattr(self, name, compiled(getattr(self, name)))
            elif not conditional and links_of(self.transform, inverse=inverse) is not None:
                setattr(self, name, getattr(Flow(Fixed(self.transform), self.base), name))

    def __getstate__(self) -> dict[str, Any]:
        # What is compiled belongs to this flow and not to a copy of it.
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]
        return {name: value for name, value in state.items() if name not in _COMPILED}

    # --- the user's side: units of the data ---------------------------------------------------------------------

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the exact log-density.

        Args:
            x: Points, ``(*batch, *event_shape)``; floating, of the model's dtype unless there is a ``preprocess``.
            context: Contexts, ``(*context_batch, *context_shape)``.

        Returns:
            Log-densities in nats, of the broadcast batch shape; ``-inf`` outside the support.

        Raises:
            ValueError: Shapes or dtypes that do not fit, or a flow with discrete or added elements, or with an
                estimated log-determinant, whose density ``estimate_log_prob`` estimates.
        """
        self._must_be_exact("log_prob", "estimate_log_prob")
        z, log_abs_det, context = self._enter(x, context)
        return self.log_prob_preprocessed(z, context) + log_abs_det

    def estimate_log_prob(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        num_samples: int = 16,
    ) -> Estimate:
        r"""Return the log-density, estimated where it has no closed form.

        With a surjection or an ``augment``, :math:`\log \frac{1}{S}\sum_s p(z_s) e^{w_s}` over ``num_samples`` draws,
        the same draws for every point of the call; the standard error is by the delta method. With a log-determinant
        that is itself an estimate, the mean of the draws' log-densities: without bias, or, with a surjection, that of
        the evidence lower bound. With neither the value is exact.

        Args:
            x: Points, as in ``log_prob``.
            context: Contexts, as in ``log_prob``.
            generator: Source of the noise; the same state gives the same estimate, for any order or chunking of ``x``.
            num_samples: Number of draws ``S``; the standard error of a single one is unknown, NaN.

        References:
            Burda et al., Importance Weighted Autoencoders, 2016, eq. 8. https://arxiv.org/abs/1509.00519
        """
        noisy = self.surjection is not None or self.augment is not None
        if not noisy and self.transform.exact:
            value = self.log_prob(x, context)
            return Estimate(value, torch.zeros_like(value), "exact")
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        context = self._enter_context(context)
        draws = []
        for _ in range(num_samples):
            z, weights = self._enter_drawn(x, generator=generator, shared=True)
            z = self._expand("x", z, context)
            if self.transform.exact:
                log_prob = self.log_prob_preprocessed(z, context)
            else:
                solution = self.transform.solve(z, context, generator=generator, shared=True)
                log_prob = self.base.log_prob(solution.y, context) + solution.log_abs_det
            for weight in weights:
                log_prob = log_prob + weight.to(log_prob)
            draws.append(log_prob)
        logs = torch.stack(draws)
        if self.transform.exact:
            return log_of_mean(logs)
        # The noise of a log-determinant is that of the logarithm, whose mean it leaves as it is.
        return mean_of_logs(logs, "bound" if noisy else "estimate")

    def sample(
        self,
        shape: tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw samples, without gradient.

        Args:
            shape: Shape of the draws for each context.
            context: Contexts, ``(*context_batch, *context_shape)``.
            temperature: Spread of the base around its location; 1 samples the density itself.
            generator: Source of randomness.

        Returns:
            Samples, ``(*shape, *context_batch, *event_shape)``; float64 on the CPU where there is a ``preprocess``.

        Raises:
            ValueError: A context that does not fit, or a temperature for a base that has none.
        """
        with torch.no_grad():
            z, context = self._sample_base(shape, context, temperature, generator)
            return self._leave(self._decode(z, context))

    def sample_and_log_prob(
        self,
        shape: tuple[int, ...] = (),
        context: Tensor | None = None,
        *,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Draw samples with their exact log-densities (at temperature 1), in one pass; arguments as in ``sample``."""
        self._must_be_exact("sample_and_log_prob", "sample")
        with torch.no_grad():
            z, context = self._sample_base(shape, context, temperature, generator)
            x, log_abs_det = self._to_model(z, context)
            log_prob = self.base.log_prob(z, context) - log_abs_det
            if self.preprocess is None:
                return x, log_prob
            data, rest = self.preprocess.inverse(x)
            return data, log_prob - rest.to(x)

    def to_latent(
        self, x: Tensor, context: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the latent codes ``(*batch, *latent_shape)`` of ``x``; discrete elements are dequantised first."""
        z, _ = self._enter_drawn(x, generator=generator, shared=False)
        context = self._enter_context(context)
        latent: Tensor = self.transform.encode(self._expand("x", z, context), context)
        return latent

    def from_latent(self, latent: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the points ``(*batch, *event_shape)`` that latent codes stand for."""
        check_event(self, "latent", latent, self.transform.latent_shape)
        context = self._enter_context(context)
        latent = self._expand("latent", latent, context)
        return self._leave(self._decode(latent, context))

    # --- the model's side: preprocessed space, where objectives work -----------------------------------------------

    def log_prob_preprocessed(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density of preprocessed points under embedded contexts, in the model's units."""
        latent, log_abs_det = self.transform.forward(z, context)
        density: Tensor = self.base.log_prob(latent, context) + log_abs_det
        return density

    def embed(self, context: Tensor | None) -> Tensor | None:
        """Return what transform and base take for preprocessed contexts."""
        return context if self.embedding is None or context is None else self.embedding(context).to(context)

    def initialize(self, z: Tensor, context: Tensor | None = None) -> None:
        """Set data-dependent parameters from preprocessed training points and contexts."""
        with torch.no_grad():
            self.transform.initialize(z, self.embed(context))

    def _to_model(self, latent: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the preprocessed points that latents stand for, with the log-determinant."""
        result: tuple[Tensor, Tensor] = self.transform.inverse(latent, context)
        return result

    def _decode(self, latent: Tensor, context: Tensor | None) -> Tensor:
        """Return the preprocessed points that latents stand for."""
        if not self.transform.log_det_costs:
            return self._to_model(latent, context)[0]
        points: Tensor = self.transform.decode(latent, context)
        return points

    def _must_be_exact(self, name: str, instead: str) -> None:
        for part in (self.surjection, self.augment):
            if part is not None:
                raise ValueError(
                    f"{name} must be exact, but {type(part).__name__} makes it an integral over noise; "
                    f"use {instead}"
                )
        if not self.transform.exact:
            raise ValueError(
                f"{name} must be exact, but the log-determinant of the transform is estimated; use {instead}"
            )

    def _sample_base(
        self,
        shape: tuple[int, ...],
        context: Tensor | None,
        temperature: float,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Draw latents, one set of ``shape`` for each context also where the base ignores it."""
        context = self._enter_context(context)
        if self.base.context_shape is None and context is not None:
            shape = (*shape, *self._context_batch(context))
        return self.base.sample(shape, context, temperature=temperature, generator=generator), context

    def _enter_drawn(
        self, x: Tensor, *, generator: torch.Generator | None, shared: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """Bring points to the transform's space, with noise drawn where there is any; return the log-weights too."""
        weights: list[Tensor] = []
        if self.surjection is not None:
            check_event(self, "x", x, self.event_shape)
            x, weight = self.surjection.encode(x.to("cpu", torch.float64), generator=generator, shared=shared)
            weights.append(weight)
        z, log_abs_det = self._enter_points(x)
        weights.append(log_abs_det)
        if self.augment is not None:
            z, weight = self.augment.encode(z, generator=generator, shared=shared)
            weights.append(weight)
        return z, weights

    def _enter(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Bring points and contexts to the model's space, points expanded over contexts where there are more."""
        z, log_abs_det = self._enter_points(x)
        context = self._enter_context(context)
        return self._expand("x", z, context), log_abs_det, context

    def _enter_points(self, x: Tensor) -> tuple[Tensor, Tensor]:
        check_event(self, "x", x, self.event_shape)
        if self.preprocess is not None:
            result: tuple[Tensor, Tensor] = self.preprocess(x, self.like)
            return result
        dtype = self.base.dtype
        if x.dtype != dtype:
            raise ValueError(
                f"x must have the flow's dtype, {dtype}, got {x.dtype}; convert one of them with .to(dtype)"
            )
        return x, x.new_zeros(x.shape[: x.ndim - len(self.event_shape)])

    def _expand(self, name: str, z: Tensor, context: Tensor | None) -> Tensor:
        """Expand model points over the contexts."""
        if context is None:
            return z
        # A latent may have another number of dimensions than a point.
        event = len(self.transform.latent_shape if name == "latent" else self.transform.event_shape)
        batch, context_batch = z.shape[: z.ndim - event], self._context_batch(context)
        try:
            batch = torch.broadcast_shapes(batch, context_batch)
        except RuntimeError:
            raise ValueError(
                f"context batch shape {tuple(context_batch)} must broadcast with that of {name}, {tuple(batch)}"
            ) from None
        return z.expand(*batch, *z.shape[z.ndim - event :])

    def _context_batch(self, context: Tensor) -> torch.Size:
        """Return the batch shape of an embedded context."""
        return context.shape[: context.ndim - self._context_dims]

    def _enter_context(self, context: Tensor | None) -> Tensor | None:
        if self.context_shape is None:
            return None
        like = self.like
        if self.context_preprocess is not None and context is not None:
            check_event(self, "context", context, self.context_shape)
            context, log_abs_det = self.context_preprocess(context, like)
            # Nothing has a density given what cannot be.
            impossible = log_abs_det.isneginf().reshape(
                *log_abs_det.shape, *(1,) * (context.ndim - log_abs_det.ndim)
            )
            context = context.masked_fill(impossible, torch.nan)
        else:
            check_context(self, context, like.dtype, "that of the flow")
        return self.embed(context)

    def _leave(self, z: Tensor) -> Tensor:
        """Bring model points to the units of the data."""
        if self.augment is not None:
            z = self.augment.decode(z)
        if self.preprocess is None:
            return z
        x = self.preprocess.decode(z)
        return x if self.surjection is None else self.surjection.decode(x)
