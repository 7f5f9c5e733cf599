"""What the estimators share: their settings, and how they are pickled."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ..artifact import FittedFlow, load, save
from ..configs import MODELS, DataConfig, ModelConfig, TrainConfig, default_table_model, default_training
from ..training import EpochRecord, TableSplit, fit_split, split_table
from .inputs import FEWEST_ROWS

if TYPE_CHECKING:
    import polars as pl

_SETTINGS = ("epochs", "batch_size", "learning_rate", "max_seconds")
_FRACTIONS = (0.8, 0.1, 0.1)  # of rows to fit, to choose the epoch, and held out


class FlowEstimator(BaseEstimator):  # type: ignore[misc]
    """Settings, which mean what they do in ``pushforward.fit``; those left at None come from the size of the data."""

    def __init__(
        self,
        *,
        model: str | ModelConfig | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        max_seconds: float | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: bool = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_seconds = max_seconds
        self.random_state = random_state
        self.verbose = verbose

    def _split(
        self, table: pl.DataFrame, seed: int, fractions: tuple[float, float, float] = _FRACTIONS
    ) -> TableSplit:
        return split_table(
            table,
            DataConfig(),
            seed=seed,
            model=named_model(self.model),
            fractions=fractions,
            minimum_rows=FEWEST_ROWS,
        )

    def _fit_flow(self, split: TableSplit, seed: int) -> FittedFlow:
        rows = len(split.train)
        model = self._model(rows) or default_table_model(rows, split.schema)
        return fit_split(
            split,
            model=model,
            training=self._training(rows, seed, model),
            seed=seed,
            on_epoch=self._on_epoch(),
        )

    def _model(self, rows: int) -> ModelConfig | None:
        """Return the model for so many training rows; None: as ``pushforward.fit`` chooses it."""
        return named_model(self.model)

    def _training(self, rows: int, seed: int, model: ModelConfig | None) -> TrainConfig:
        return replace(default_training(rows, seed, model), **self._given())

    def _on_epoch(self) -> Callable[[EpochRecord], None] | None:
        return _tell if self.verbose else None

    def _given(self) -> dict[str, Any]:
        """Return the settings that are not left to be chosen."""
        return {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}

    def __getstate__(self) -> dict[str, Any]:
        return {name: _each(value, FittedFlow, _packed) for name, value in super().__getstate__().items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({name: _each(value, _Packed, _unpacked) for name, value in state.items()})


def seed_of(random_state: int | np.random.RandomState | None) -> int:
    """Return a seed for what scikit-learn calls a random state."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def named_model(model: str | ModelConfig | None) -> ModelConfig | None:
    """Return the configuration that a name, or the configuration itself, stands for.

    Raises:
        ValueError: A name that no model has.
    """
    if not isinstance(model, str):
        return model
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, got {model!r}")
    return MODELS[model]()


def _tell(record: EpochRecord) -> None:
    print(
        f"epoch {record.epoch} of {record.epochs}: training loss {record.train_loss:.4f}, validation loss "
        f"{record.valid_loss:.4f}, {record.seconds:.0f} s"
    )


@dataclass(frozen=True, slots=True)
class _Packed:
    """A fitted flow as the bytes of its file."""

    content: bytes


def _packed(fitted: FittedFlow) -> _Packed:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.flow"
        save(fitted, path)
        return _Packed(path.read_bytes())


def _unpacked(packed: _Packed) -> FittedFlow:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.flow"
        path.write_bytes(packed.content)
        return load(path)


def _each(value: Any, kind: type[Any], change: Callable[[Any], Any]) -> Any:
    """Return a value, or the values of a tuple, with those of a kind changed."""
    if isinstance(value, tuple):
        return tuple(_each(item, kind, change) for item in value)
    return change(value) if isinstance(value, kind) else value
