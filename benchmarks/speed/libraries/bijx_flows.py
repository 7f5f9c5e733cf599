"""bijx."""

from __future__ import annotations

import bijx
import jax
import jax.numpy as jnp
from flax import nnx

from ..tasks import Task
from . import Cannot
from .jax_model import JaxModel, Weights


def build(task: Task) -> JaxModel:
    """Build a task's flow."""
    if task.family not in ("realnvp", "spline-coupling"):
        raise Cannot("couplings only" if task.layers else "no such model, or not the same")
    rngs = nnx.Rngs(0)
    layers = [_coupling(task, layer, rngs) for layer in range(task.layers)]
    flow = bijx.Transformed(bijx.IndependentNormal((task.features,), rngs=rngs), bijx.Chain(*layers))
    graph, weights, others = nnx.split(flow, nnx.Param, ...)

    def log_prob(weights: Weights, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights, others).log_density(x)

    def sample(weights: Weights, key: jax.Array, n: int) -> jax.Array:
        return nnx.merge(graph, weights, others).sample((n,), rng=key)[0]

    note = "splines on [0, 1]" if task.spline else ""
    return JaxModel(task, weights, log_prob, sample, note=note)


def _coupling(task: Task, layer: int, rngs: nnx.Rngs) -> bijx.GeneralCouplingLayer:
    mask = bijx.checker_mask((task.features,), parity=layer % 2 == 0)
    moving, known = mask.counts
    scalar = bijx.MonotoneRQSpline(task.bins, (), rngs=rngs) if task.spline else bijx.AffineLinear(rngs=rngs)
    template = bijx.ModuleReconstructor(scalar)
    each = template.params_total_size
    network = bijx.nn.nets.MLP(
        known,
        moving * each,
        list(task.hidden),
        activation=nnx.relu,
        final_kernel_init=nnx.initializers.normal(1e-3),
        rngs=rngs,
    )

    def by_element(parameters: jax.Array) -> jax.Array:
        return jnp.reshape(parameters, (*parameters.shape[:-1], moving, each))

    return bijx.GeneralCouplingLayer(
        nnx.Sequential(network, by_element), mask, template, bijection_event_rank=0, split=True
    )
