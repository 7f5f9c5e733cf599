"""Whether a step fits into memory, found out before the operating system ends the program."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn

_SHARE = 0.8
# Beside what the backward pass needs, a step holds gradients and the temporaries of one operation.
_OVERHEAD = 1.5
_PROBE_ROWS = 64


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory was refused."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def bytes_per_row(step: nn.Module, z: Tensor, context: Tensor | None, weights: Tensor | None) -> float:
    """Return how many bytes each row of a batch adds to the most that a step keeps at once for its backward pass.

    Measured on a small batch, less whatever has the size of something that a still smaller one keeps: such are weights,
    which are kept once. On the way back too, where a step with constant memory keeps the most.

    Args:
        step: Module ``(z, context, weights) -> loss``.
        z: At least 2 rows of a batch.
        context: Their contexts.
        weights: Their weights.
    """
    few = max(1, min(_PROBE_ROWS, len(z) // 2))
    ledger = _Ledger(frozenset())
    for rows in (few, max(2, 2 * few - 1)):  # 64 and 127, which rarely have sizes in common
        ledger = _Ledger(frozenset(ledger.sizes))
        with torch.autograd.graph.saved_tensors_hooks(ledger.keep, lambda kept: kept.tensor):
            loss = step(*(t if t is None else t[:rows].clone() for t in (z, context, weights)))
            torch.autograd.grad(loss, [p for p in step.parameters() if p.requires_grad], allow_unused=True)
    return ledger.most / rows


class _Ledger:
    """The memory of tensors that are kept, each storage counted once, but for some sizes, and the most of it so far."""

    def __init__(self, ignored: frozenset[int]) -> None:
        self.most, self._now = 0, 0
        self.sizes: set[int] = set()
        self._ignored = ignored
        self._users: Counter[int] = Counter()

    def keep(self, tensor: Tensor) -> _Kept:
        return _Kept(tensor, self)

    def count(self, tensor: Tensor, change: int) -> None:
        if tensor._is_zerotensor():  # of a derivative that is 0, which has no numbers
            return
        storage = tensor.untyped_storage()
        self.sizes.add(storage.nbytes())
        if storage.nbytes() in self._ignored:
            return
        before = self._users[storage.data_ptr()]
        self._users[storage.data_ptr()] = before + change
        self._now += storage.nbytes() * ((before + change > 0) - (before > 0))
        self.most = max(self.most, self._now)


class _Kept:
    """A tensor that is kept as long as this lives."""

    def __init__(self, tensor: Tensor, ledger: _Ledger) -> None:
        self.tensor, self._ledger = tensor, ledger
        ledger.count(tensor, 1)

    def __del__(self) -> None:
        self._ledger.count(self.tensor, -1)


def pieces_that_fit(needed: float, available: float | None) -> int:
    """Return into how many pieces (1, 2, 4, ...) a batch must be cut to fit.

    Args:
        needed: Bytes that its backward pass needs.
        available: Bytes that there are; None: not known.

    Example:
        >>> pieces_that_fit(1e9, 16e9), pieces_that_fit(40e9, 16e9), pieces_that_fit(1e9, None)
        (1, 8, 1)
    """
    if available is None:
        return 1
    ratio = needed * _OVERHEAD / max(available * _SHARE, 1.0)
    return 1 if ratio <= 1 else 2 ** math.ceil(math.log2(ratio))


def available_bytes(device: torch.device) -> float | None:
    """Return how much memory a device has left for us, or None where that is not known."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = [_meminfo(), _cgroup(), _address_space()]
    known = [value for value in found if value is not None]
    return min(known) if known else None


def _meminfo() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> float | None:
    """Return what the containers that we run in may still take, of either version of control groups."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, names = Path("/sys/fs/cgroup"), ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root = Path("/sys/fs/cgroup/memory")
            names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        else:
            continue
        own = root / path.lstrip("/")
        left += [_left_in_group(group, *names) for group in (own, *own.parents) if group.is_relative_to(root)]
    known = [value for value in left if value is not None]
    return min(known) if known else None


def _left_in_group(folder: Path, most: str, used: str, cached: str) -> float | None:
    try:
        limit = (folder / most).read_text(encoding="ascii").strip()
        taken = int((folder / used).read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    # What the system keeps of files that were read counts as used, but is given back when it is needed.
    spare = next((int(line.split()[1]) for line in lines if line.startswith(f"{cached} ")), 0)
    return float(int(limit) - taken + spare) if limit.isdigit() else None


def _address_space() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return float(limit - pages * resource.getpagesize())
