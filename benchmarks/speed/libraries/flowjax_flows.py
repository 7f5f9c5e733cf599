"""FlowJAX."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal, Transformed
from flowjax.flows import coupling_flow, masked_autoregressive_flow

from ..tasks import Task
from . import Cannot
from .jax_model import JaxModel, Weights


def build(task: Task) -> JaxModel:
    """Build a task's flow."""
    flow = make(task)
    weights, static = eqx.partition(
        flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
    )

    def log_prob(weights: Weights, x: jax.Array) -> jax.Array:
        return eqx.combine(weights, static).log_prob(x)

    def sample(weights: Weights, key: jax.Array, n: int) -> jax.Array:
        return eqx.combine(weights, static).sample(key, (n,))

    note = "permutations between layers"
    if task.spline:
        note += "; the slopes at both ends are free"
    return JaxModel(task, weights, log_prob, sample, note=note)


def make(task: Task) -> Transformed:
    """Return the flow alone."""
    if not task.layers:
        raise Cannot("no such model, or not the same")
    # ``knots`` counts the inner ones, of which there is one fewer than bins; None is an affine map.
    transformer = RationalQuadraticSpline(knots=task.bins - 1, interval=5) if task.spline else None
    flow = masked_autoregressive_flow if task.autoregressive else coupling_flow
    return flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(task.features)),
        transformer=transformer,
        flow_layers=task.layers,
        nn_width=task.hidden[0],
        nn_depth=len(task.hidden),
        invert=task.family != "iaf",
    )
