"""How a flow is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of one maximum-likelihood training run.

    Attributes:
        epochs: Most passes over the training rows.
        batch_size: Rows in a step; never more than there are training rows.
        learning_rate: Peak of the schedule.
        weight_decay: Decoupled weight decay (AdamW); 0 is Adam.
        warmup: Share of the run in which the learning rate rises linearly; then it falls as a cosine to 0.
        clip_norm: Largest norm of the gradient of a step.
        noise: Standard deviation of Gaussian noise that is added to the preprocessed training points, anew in each
            step, and not to those of validation: it smooths the density where rows are few (Rothfuss et al., Noise
            Regularization for Conditional Density Estimation, 2019, eq. 4).
        ema: Decay of an exponential moving average of the weights, or 0 for none. With it validation, selection and
            the saved flow use the averaged weights.
        patience: Epochs without a better validation loss after which training stops.
        max_seconds: Time budget, or None. The schedule then falls with whichever of steps and time is further on.
        seed: Seed of initial weights, order of rows and noise.
        memory: ``"ordinary"``, or ``"constant"`` for memory that hardly grows with the number of layers, at 1.4 times
            the time where networks are large, twice where they are small: what the backward pass needs is computed
            again. The saved flow is the same.
        precision: ``"float32"``, or ``"bf16-mixed"``: the networks compute in bfloat16 while training, the maps, their
            log-determinants and the density in float32. Faster on accelerators. Validation and the saved flow are in
            float32.
    """

    epochs: int = 500
    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    warmup: float = 0.02
    clip_norm: float = 5.0
    noise: float = 0.0
    ema: float = 0.0
    patience: int = 50
    max_seconds: float | None = None
    seed: int = 0
    memory: str = "ordinary"
    precision: str = "float32"
    compile: str = "auto"

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"TrainConfig: {name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "max_seconds"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"TrainConfig: {name} must be positive and finite, got {value}")
        for name in ("ema", "warmup"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"TrainConfig: {name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "noise"):
            if not 0.0 <= getattr(self, name) < math.inf:
                raise ValueError(f"TrainConfig: {name} must not be negative, got {getattr(self, name)}")
        if self.memory not in ("ordinary", "constant"):
            raise ValueError(f"TrainConfig: memory must be 'ordinary' or 'constant', got {self.memory!r}")
        if self.compile not in ("auto", "always", "never"):
            raise ValueError(
                f"TrainConfig: compile must be 'auto', 'always' or 'never', got {self.compile!r}"
            )
        if self.compile == "always" and (self.memory, self.precision) != ("ordinary", "float32"):
            raise ValueError(
                "TrainConfig: compile='always' needs memory='ordinary' and precision='float32', got "
                f"{self.memory!r} and {self.precision!r}"
            )
        if self.precision not in ("float32", "bf16-mixed"):
            raise ValueError(
                f"TrainConfig: precision must be 'float32' or 'bf16-mixed', got {self.precision!r}"
            )
        if self.memory == "constant" and self.precision != "float32":
            raise ValueError(
                "TrainConfig: memory='constant' needs precision='float32': a network in bfloat16 does not give the "
                "same for an input that comes back with a rounding"
            )
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"TrainConfig: seed must lie in 0..2**63-1, got {self.seed}")
