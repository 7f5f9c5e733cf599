"""What the libraries raise over a bad file, as an error that names it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError

import polars as pl

from ..errors import DataError
from .delimited import parsing_error

# What NumPy, ZIP archives and Arrow raise besides over headers that make no sense.
_DAMAGE = (ArithmeticError, LookupError, RuntimeError, SyntaxError, TypeError, TokenError)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns what the libraries raise over a bad file into an error that names it."""
    try:
        yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(
            "needs more memory than there is, or is damaged",
            source=path,
            remedy="Copy it again, or split it.",
        ) from error
    except PermissionError as error:
        raise DataError("may not be read", source=path, remedy="Check its permissions.") from error
    except (
        pl.exceptions.PolarsError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
        zipfile.BadZipFile,
        *_DAMAGE,
    ) as error:
        if isinstance(error, pl.exceptions.PolarsError) and path.suffix.lower() != ".parquet":
            raise parsing_error(path, error) from error
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(
            f"cut short or damaged ({reason})", source=path, remedy="Copy or download it again."
        ) from error
