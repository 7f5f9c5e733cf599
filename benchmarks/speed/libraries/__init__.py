"""The libraries, and what each gives for a task. Standard library only: a library's own module imports it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from ..tasks import Task

Call = Callable[[], object]


class Cannot(Exception):  # noqa: N818 (an answer, no error)
    """A library cannot do a task; the text says why."""


class Model(Protocol):
    """A flow of one library.

    Attributes:
        parameters: Number of its trained weights.
        note: How it differs from the architecture of the task; may be empty.
        compiled: Whether the first call compiles.
        cannot: Reasons, by the name of a call that the library has not.
    """

    parameters: int
    note: str
    compiled: bool
    cannot: dict[str, str]

    def calls(self, batch: int) -> dict[str, Call]:
        """Return the calls to time, on ``batch`` rows; each returns its result."""
        ...

    def keep_gradients(self) -> None:
        """Let the gradients stay allocated from now on, where a library keeps them at all."""
        ...

    def wait(self, result: object) -> None:
        """Return when a result is there."""
        ...


@dataclass(frozen=True)
class Library:
    """Where a library lives: its environment, what to import for it, and whether it is a peer."""

    environment: str
    imports: str
    peer: bool = True
    distribution: str = ""


LIBRARIES: dict[str, Library] = {
    "ours": Library("torch", "pushforward", peer=False, distribution="pushforward"),
    "ours_constant": Library("torch", "pushforward", peer=False),
    "zuko": Library("torch", "zuko", distribution="zuko"),
    "nflows": Library("torch", "nflows.flows", distribution="nflows"),
    "normflows": Library("torch", "normflows", distribution="normflows"),
    "freia": Library("torch", "FrEIA.framework", distribution="FrEIA"),
    "flowjax": Library("jax", "flowjax.flows", distribution="flowjax"),
    "bijx": Library("jax", "bijx", distribution="bijx"),
    "floor": Library("torch", "torch", peer=False),
    "floor_once": Library("torch", "torch", peer=False),
}
NAMES = {
    "ours": "pushforward",
    "ours_constant": "pushforward, constant memory",
    "freia": "FrEIA",
    "flowjax": "FlowJAX",
    "floor": "matrix products",
    "floor_once": "products, each unit once",
}
PEERS = [name for name, library in LIBRARIES.items() if library.peer]


def build(name: str, task: Task) -> Model:
    """Build a task's flow in a library, or raise ``Cannot``."""
    model: Model = import_module(f".{name}_flows", __name__).build(task)
    return model
