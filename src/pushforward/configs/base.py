"""What all configurations of models share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

Hidden = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A configuration that refuses values that no model can have."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}
    _may_be_zero: ClassVar[tuple[str, ...]] = ()
    _choices: ClassVar[dict[str, tuple[str, ...]]] = {}

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        name = type(self).__name__
        for field in fields(self):
            value = getattr(self, field.name)
            may_be_zero = field.name in self._may_be_zero
            if field.name == "hidden":
                if not value or any(not isinstance(h, int) or h < 1 for h in value):
                    raise ValueError(f"{name}: hidden must hold widths of at least 1, got {value}")
            elif field.name in self._choices:
                if value not in self._choices[field.name]:
                    raise ValueError(
                        f"{name}: {field.name} must be one of {', '.join(self._choices[field.name])}, got {value!r}"
                    )
            elif isinstance(value, bool):
                continue
            elif isinstance(value, int) and value < (least := int(not may_be_zero)):
                raise ValueError(f"{name}: {field.name} must be at least {least}, got {value}")
            elif isinstance(value, float) and not (0 < value < float("inf") or (may_be_zero and value == 0)):
                raise ValueError(f"{name}: {field.name} must be positive and finite, got {value}")
