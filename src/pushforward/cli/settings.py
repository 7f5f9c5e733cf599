"""Settings of a fit from a TOML file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..configs import IMAGE_MODELS, TABLE_MODELS, DataConfig, ImageModelConfig, ModelConfig, TrainConfig
from .options import UsageError, closest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_TABLES = ("model", "training", "data")
_Config = TypeVar("_Config", bound=ModelConfig | ImageModelConfig)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a settings file says, each table with only the fields that stand in it.

    Attributes:
        model: Name of the model, or None.
        model_fields: Fields of its configuration, not validated before the model is known.
        training: Fields of ``TrainConfig``.
        data: Fields of ``DataConfig``.
        path: The file.
    """

    model: str | None = None
    model_fields: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    path: Path | None = None

    def fields_of(self, model: type[ModelConfig | ImageModelConfig], name: str) -> dict[str, Any]:
        """Return the fields of the model, validated against its configuration.

        Raises:
            UsageError: A field that this model does not have, or a value that it cannot have.
        """
        return _validated(model, self.model_fields, f"{self.path}, [model] of {name}")


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model as far as it was chosen before the size of the data is known.

    Attributes:
        kind: Class of its configuration, or None.
        fields: Those of its fields that were chosen.
    """

    kind: type[ModelConfig | ImageModelConfig] | None
    fields: dict[str, Any]

    @classmethod
    def of(cls, flag: str | None, settings: Settings, *, images: bool = False) -> ModelChoice:
        """Return what the option ``--model`` and a settings file say.

        Raises:
            UsageError: No such model, no name, or fields that the model does not have.
        """
        known = _models(images)
        if flag is not None:
            check_model(flag, "--model", images=images)
        name = flag or settings.model
        if name is None:
            if settings.model_fields:
                raise UsageError(
                    f"{settings.path}, [model]: name is missing; it is one of {', '.join(known)}"
                )
            return cls(None, {})
        return cls(known[name], settings.fields_of(known[name], name))

    @property
    def example(self) -> Any:
        """A configuration of the model that was chosen, if one was."""
        return None if self.kind is None else self.kind(**self.fields)

    def config(self, default: _Config) -> _Config:
        """Return the configuration, with the default's fields where that is the model that was chosen."""
        if self.kind is None or self.kind is type(default):
            return replace(default, **self.fields)
        return self.kind(**self.fields)  # type: ignore[return-value]  # of the models for the same data


def read_settings(path: Path, *, images: bool = False) -> Settings:
    """Read a TOML file with tables [model], [training] and [data].

    Args:
        path: The file.
        images: They are for images, which have models of their own and no [data].

    Raises:
        UsageError: No such file, no TOML, an unknown table or field, or a value that a field cannot have.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not a TOML file: {error}") from error
    for name, table in content.items():
        if name not in _TABLES:
            known = ", ".join(f"[{table}]" for table in _TABLES)
            raise UsageError(f"{path}: unknown table [{name}]; known are {known}.{closest(name, _TABLES)}")
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} must be a table, [{name}], got {table!r}")
    model = dict(content.get("model", {}))
    model_name = model.pop("name", None)
    if model_name is not None:
        check_model(model_name, f"{path}, [model] name", images=images)
    if images and "data" in content:
        raise UsageError(
            f"{path}, [data]: is about the columns of a table. What is known of images is said by the options --given, "
            "--labels, --size and --pixels"
        )
    data = dict(content.get("data", {}))
    if isinstance(data.get("bounds"), dict):
        data["bounds"] = {name: _open_ends(pair) for name, pair in data["bounds"].items()}
    return Settings(
        model=model_name,
        model_fields=model,
        training=_validated(TrainConfig, content.get("training", {}), f"{path}, [training]"),
        data=_validated(DataConfig, data, f"{path}, [data]"),
        path=path,
    )


def check_model(name: object, place: str, *, images: bool = False) -> None:
    """Check that there is such a model, for tables or for images.

    Raises:
        UsageError: There is none.
    """
    known = list(_models(images))
    if name not in known:
        raise UsageError(
            f"{place}: there is no model {name!r} for {'images' if images else 'tables'}; there are "
            f"{', '.join(known)}.{closest(str(name), known)}"
        )


def _models(images: bool) -> Mapping[str, type[ModelConfig | ImageModelConfig]]:
    return IMAGE_MODELS if images else TABLE_MODELS


def _open_ends(pair: object) -> object:
    """Replace infinite ends, which is how TOML can write an open end, by None."""
    if not isinstance(pair, list):
        return pair
    return [None if isinstance(end, float) and math.isinf(end) else end for end in pair]


def _validated(kind: type[Any], given: Mapping[str, Any], place: str) -> dict[str, Any]:
    from pydantic import TypeAdapter, ValidationError

    try:
        whole = TypeAdapter(kind).validate_python(dict(given))
    except ValidationError as error:
        known = [f.name for f in fields(kind)]
        raise UsageError("\n".join(_problem(e, place, known) for e in error.errors())) from error
    return {name: getattr(whole, name) for name in given}


def _problem(error: ErrorDetails, place: str, known: list[str]) -> str:
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        return f"{place}: unknown field {where!r}; known are {', '.join(known)}.{closest(where, known)}"
    message = error["msg"].removeprefix("Value error, ")
    if not where:
        return f"{place}: {message}"
    return f"{place}, {where}: {message[:1].lower()}{message[1:]}, got {error['input']!r}"
