"""Compile a kernel once for this processor, keep it in the user's cache, load it."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

_FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-fPIC", "-shared")
_SECONDS = 120
_warned: set[str] = set()


@functools.cache
def library(source: str, *definitions: str) -> ctypes.CDLL | None:
    """Return the compiled ``source`` beside this file; None where it cannot be compiled here.

    The compiler is ``$CC``, or the first of ``cc``, ``gcc`` and ``clang``. The result is kept in the folder
    ``$PUSHFORWARD_CACHE``, or ``pushforward`` in the user's cache folder, under a name that changes with the source,
    the flags, the compiler and the processor. ``PUSHFORWARD_KERNELS=0`` does without kernels. Without a compiler there
    is one warning, and everything is computed by torch.

    Args:
        source: File name of the C source.
        definitions: Names to define, such as ``BINS=8``.
    """
    if os.environ.get("PUSHFORWARD_KERNELS") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return None
    place = Path(__file__).parent
    code = b"".join(path.read_bytes() for path in [place / source, *sorted(place.glob("*.h"))])
    flags = [*_FLAGS, _native(), *(f"-D{d}" for d in definitions)]
    key = hashlib.sha256(code + "\n".join([*flags, compiler, _processor()]).encode()).hexdigest()[:20]
    try:
        built = _folder() / f"{Path(source).stem}-{key}.so"
        if not built.exists():
            _compile(compiler, flags, place / source, built)
        return ctypes.CDLL(str(built))
    except (OSError, subprocess.SubprocessError) as error:
        _warn(f"{compiler} did not compile {source}: {_words(error)}")
        return None


def _compile(compiler: str, flags: list[str], source: Path, built: Path) -> None:
    # Written beside its place and renamed, so that another process never loads half a library.
    with tempfile.TemporaryDirectory(dir=built.parent) as folder:
        fresh = Path(folder) / built.name
        subprocess.run(  # noqa: S603 (the compiler that the user's own environment names)
            [compiler, *flags, str(source), "-o", str(fresh)],
            check=True,
            capture_output=True,
            timeout=_SECONDS,
        )
        fresh.replace(built)


@functools.cache
def _compiler() -> str | None:
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    for name in names:
        if found := shutil.which(name):
            return found
    _warn(f"no C compiler was found (looked for {', '.join(names)})")
    return None


def _native() -> str:
    return "-mcpu=native" if platform.machine() in {"arm64", "aarch64"} else "-march=native"


def _processor() -> str:
    """Return what tells processors apart that do not run each other's code."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return " ".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def _folder() -> Path:
    named = os.environ.get("PUSHFORWARD_CACHE")
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(named) if named else root / "pushforward"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _warn(why: str) -> None:
    if _warned:
        return
    _warned.add(why)
    warnings.warn(
        f"{why}. Flows are computed without fused kernels, with the same results and more slowly. "
        "Install a C compiler, or set PUSHFORWARD_KERNELS=0 to be without them silently.",
        RuntimeWarning,
        stacklevel=2,
    )


def _words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return error.stderr.decode(errors="replace").strip()[-500:] or f"exit status {error.returncode}"
    return str(error)
