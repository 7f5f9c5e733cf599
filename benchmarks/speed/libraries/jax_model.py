"""What both libraries on JAX share: whole calls under one jit, the step with optax's Adam in it, state donated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from ..tasks import Task
from . import Call

Weights = Any
LEARNING_RATE = 1e-4


class JaxModel:
    """A flow on JAX.

    Args:
        task: What it was built for.
        weights: Its trained arrays, as a pytree.
        log_prob: ``(weights, x) -> (n,)``.
        sample: ``(weights, key, n) -> (n, D)``.
        note: How it differs from the task's architecture.
    """

    compiled = True

    def __init__(
        self,
        task: Task,
        weights: Weights,
        log_prob: Callable[[Weights, jax.Array], jax.Array],
        sample: Callable[[Weights, jax.Array, int], jax.Array],
        *,
        note: str = "",
    ) -> None:
        self.task, self.note, self.cannot = task, note, dict[str, str]()
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(weights))
        self._weights, self._log_prob, self._sample = weights, log_prob, sample

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the calls on ``batch`` rows of a standard normal."""
        x = jax.random.normal(jax.random.key(0), (batch, self.task.features))
        optimiser = optax.adam(LEARNING_RATE)

        def loss(weights: Weights, x: jax.Array) -> jax.Array:
            return -self._log_prob(weights, x).mean()

        def move(weights: Weights, state: Any, x: jax.Array) -> tuple[Weights, Any, jax.Array]:
            value, gradient = jax.value_and_grad(loss)(weights, x)
            updates, state = optimiser.update(gradient, state, weights)
            return optax.apply_updates(weights, updates), state, value

        step = jax.jit(move, donate_argnums=(0, 1))
        density = jax.jit(self._log_prob)

        def draw_next(weights: Weights, key: jax.Array) -> tuple[jax.Array, jax.Array]:
            following, key = jax.random.split(key)
            return following, self._sample(weights, key, batch)

        draw = jax.jit(draw_next)
        # A step gives its arguments away, and the other calls have theirs to keep.
        moving = jax.tree.map(lambda leaf: leaf.copy(), self._weights)
        trained, keys = [moving, optimiser.init(moving)], [jax.random.key(1)]

        def train() -> jax.Array:
            *trained[:], value = step(*trained, x)
            return value

        def sample() -> jax.Array:
            keys[0], x = draw(self._weights, keys[0])
            return x

        return {"train": train, "log_prob": lambda: density(self._weights, x), "sample": sample}

    def keep_gradients(self) -> None:
        """They live within a step only."""

    def wait(self, result: object) -> None:
        """Block until the device is done."""
        jax.block_until_ready(result)
