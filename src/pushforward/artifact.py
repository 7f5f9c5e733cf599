"""A fitted flow as one file that cannot lie about what it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from . import sealed
from .configs import (
    IMAGE_MODELS,
    TABLE_MODELS,
    ImageModelConfig,
    ImageSchema,
    ModelConfig,
    TableSchema,
    TrainingFacts,
    model_name,
)
from .errors import ArtifactError
from .flows import Flow, image_flow, table_flow

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT = 3
_HELD_OUT = "held_out"  # beside the flow's own tensors, whose names begin with those of its parts
# A flow is built before its tensors are loaded. Measured on all models, that takes at most 2.1 times their bytes; a
# description that needs this many times as many, and more than the small change of a tiny flow, is a lie.
_BUDGET_TIMES = 8
_BUDGET = 64_000_000
_FEW = 1000
_SIZED = {
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.arange,
    torch.randperm,
}


@dataclass(frozen=True, slots=True)
class FittedFlow:
    """A flow with all that is needed to use it on a table, or on images.

    Attributes:
        flow: The density, in the units of the table, or of pixels.
        model: The configuration that it was built from.
        schema: The columns, in the order of the flow's elements; or the images.
        facts: How it was trained.
        held_out: Log-densities of rows that had no part in the fit, in rising order, float64; None where there are
            none. They say how unusual a row's log-density is.
    """

    flow: Flow
    model: ModelConfig | ImageModelConfig
    schema: TableSchema | ImageSchema
    facts: TrainingFacts
    held_out: torch.Tensor | None = None

    @property
    def table(self) -> TableSchema:
        """The columns; raises a ``ValueError`` for a flow of images."""
        if not isinstance(self.schema, TableSchema):
            raise ValueError("this is a flow of images, which has no columns")
        return self.schema

    @property
    def images(self) -> ImageSchema:
        """The images; raises a ``ValueError`` for the flow of a table."""
        if not isinstance(self.schema, ImageSchema):
            raise ValueError("this is the flow of a table, not of images")
        return self.schema


def save(fitted: FittedFlow, path: str | Path) -> None:
    """Write a fitted flow as one safetensors file, replacing an existing one in one step or not at all.

    The metadata hold, as JSON under the key ``pushforward``: the format version, model, schema (or images), training
    facts, and a SHA-256 over the whole file with the digest's own digits set to zero.

    Args:
        fitted: What to write.
        path: Where to.

    Raises:
        OutputError: A place that cannot be written.
    """
    of_images = isinstance(fitted.schema, ImageSchema)
    metadata = {
        "format": FORMAT,
        "model": {"name": model_name(fitted.model), **asdict(fitted.model)},
        "images" if of_images else "schema": asdict(fitted.schema),
        "facts": asdict(fitted.facts),
    }
    tensors = dict(fitted.flow.state_dict())
    if fitted.held_out is not None:
        tensors[_HELD_OUT] = fitted.held_out
    sealed.write(Path(path), tensors, metadata, kind=sealed.FLOW)


def load(path: str | Path) -> FittedFlow:
    """Read a fitted flow; no code in the file is run.

    Args:
        path: A file written by ``save``.

    Returns:
        The fitted flow, on the CPU.

    Raises:
        DataError: No such file.
        ArtifactError: Not a saved flow, cut short, changed, or of a later format.
    """
    path = Path(path)
    file = sealed.read(path, kind=sealed.FLOW, latest=FORMAT)
    try:
        fitted = _rebuild(file)
        _check_tensors(fitted, file)
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise ArtifactError(f"{path}: the saved flow does not fit its own description: {error}") from error
    tensors = file.load()
    held_out = tensors.pop(_HELD_OUT, None)
    fitted.flow.load_state_dict(tensors)
    return replace(fitted, held_out=held_out)


class _Budget(TorchFunctionMode):
    """Lets tensors be made up to a number of bytes, and refuses an operation before it would need more.

    Small arguments make a large tensor by a size or a broadcast; these are known before the operation runs. What grows
    for another reason is counted after it.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._left = size

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        self._check(_elements(func, args))
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result._base is None:
            self._check(result.nbytes)
            if all(result is not arg for arg in args):
                self._left -= result.nbytes
        return result

    def _check(self, size: int) -> None:
        if size > self._left:
            raise ValueError("it describes far more numbers than the file holds")


def _elements(func: Callable[..., Any], args: tuple[Any, ...]) -> int:
    """How many elements an operation may make out of smaller arguments."""
    if func in _SIZED:
        sizes = args[0] if args and isinstance(args[0], list | tuple) else args
        return math.prod(max(n, 1) for n in sizes if isinstance(n, int))
    if func is torch.Tensor.repeat_interleave:
        return int(args[0].numel() * args[1])
    shapes = {arg.shape for arg in args if isinstance(arg, torch.Tensor)}
    if len(shapes) < 2:
        return 0
    try:
        return math.prod(torch.broadcast_shapes(*shapes))
    except RuntimeError:  # a product, or an index: not larger than they are
        return 0


def _rebuild(file: sealed.Sealed) -> FittedFlow:
    """Build the flow that the metadata describe, with weights still to be loaded."""
    found = file.metadata
    unknown = sorted(found.keys() - {"format", "model", "schema", "images", "facts", "sha256"})
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}")
    if ("schema" in found) == ("images" in found):
        raise ValueError("it must have either a schema or images")
    fields = dict(found["model"])
    name = fields.pop("name")
    known: dict[str, Any] = (
        TABLE_MODELS if "schema" in found else {model_name(c): c for c in IMAGE_MODELS.values()}
    )
    if name not in known:
        raise ValueError(f"there is no model {name!r}")
    model = _validated(known[name], fields, "model")
    facts: TrainingFacts = _validated(TrainingFacts, found["facts"], "facts")
    size = sum(math.prod(shape) * file.dtypes[name].itemsize for name, shape in file.shapes.items())
    if "images" in found:
        images: ImageSchema = _validated(ImageSchema, found["images"], "images")
        columns, build = 1, partial(image_flow, model, images)
    else:
        schema: TableSchema = _validated(TableSchema, found["schema"], "schema")
        columns, build = len(schema.columns), partial(table_flow, model, schema)
    # The builders' own lists grow with these; every layer has tensors, and in them a number for every column.
    layers = max(getattr(model, name, 1) for name in ("layers", "steps", "blocks", "scales", "orders"))
    layers = max(layers, len(getattr(model, "hidden", ())))
    if layers > max(len(file.shapes), _FEW) or layers * columns > max(size, _FEW):
        raise ValueError("it describes far more layers or columns than the file holds")
    with torch.random.fork_rng(devices=[]), _Budget(_BUDGET_TIMES * size + _BUDGET):
        return FittedFlow(build(), model, images if "images" in found else schema, facts)


def _validated(kind: type[Any], fields: object, place: str) -> Any:
    """Make an object of a configuration's class from JSON.

    Raises:
        ValueError: A field that it does not have, or a value that a field cannot have; the text names it.
    """
    from pydantic import ValidationError

    try:
        return _adapter(kind).validate_python(fields)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in (place, *first["loc"]))
        raise ValueError(f"{where}: {first['msg']}") from error


@lru_cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _check_tensors(fitted: FittedFlow, file: sealed.Sealed) -> None:
    """Check that a file has the tensors of a flow, no more and no others.

    Raises:
        ValueError: It has not; the text names the first that differs.
    """
    expected = {name: (tuple(t.shape), t.dtype) for name, t in fitted.flow.state_dict().items()}
    if _HELD_OUT in file.shapes:
        expected[_HELD_OUT] = (
            (min(math.prod(file.shapes[_HELD_OUT]), fitted.facts.test_rows),),
            torch.float64,
        )
    found = {name: (file.shapes[name], file.dtypes[name]) for name in file.shapes}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"tensor {name!r}: expected {_described(expected.get(name))}, got {_described(found.get(name))}"
            )


def _described(tensor: tuple[tuple[int, ...], torch.dtype] | None) -> str:
    return "none" if tensor is None else f"shape {tensor[0]} and {tensor[1]}"
