"""The gradient of a batch, in pieces where a whole one does not fit into memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .memory import available_bytes, bytes_per_row, is_out_of_memory, pieces_that_fit
from .points import Batch


class Pieces:
    """What computes the gradients of batches, cut into pieces where they need it.

    Args:
        step: The ``TrainStep``.
        backward: Computes the gradient of a loss.
        rows: How many rows a batch has.
        note: Called with what should be known.

    Attributes:
        count: Into how many pieces a batch is cut.
    """

    def __init__(
        self,
        step: nn.Module,
        backward: Callable[[Tensor], None],
        *,
        rows: int,
        note: Callable[[str], None],
    ) -> None:
        self._step, self._backward, self._rows, self._note = step, backward, rows, note
        self.count = 1

    def gradient(self, batch: Batch, clear: Callable[[], None], seed: int) -> Tensor:
        """Compute the gradient of a batch and return its loss.

        Args:
            batch: The batch.
            clear: Sets the gradients to 0; called before each try.
            seed: That of the noise of the first piece; those that follow have the next ones.

        Raises:
            TrainingError: Not even one row fits into memory.
        """
        while True:
            try:
                clear()
                return self._tried(batch, seed)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Only here is what the failed try has held let go.
            self._cut(2 * self.count)

    def _tried(self, batch: Batch, seed: int) -> Tensor:
        if self.count == 1:
            loss: Tensor = self._step(batch.z, batch.context, batch.weights, seed % 2**63)
            self._backward(loss)
            return loss.detach()
        total = torch.zeros((), device=batch.z.device)
        for i, (piece, share) in enumerate(batch.pieces(self.count)):
            if share == 0.0:
                continue
            loss = self._step(piece.z, piece.context, piece.weights, (seed + i) % 2**63) * share
            self._backward(loss)
            total += loss.detach()
        return total

    def fit(self, some: Batch) -> None:
        """Cut the batches if their gradients would not fit into the memory that there is.

        Args:
            some: Points to measure it on.
        """
        if len(some) < 2:
            return
        try:
            each = bytes_per_row(self._step, some.z, some.context, some.weights)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            return  # the first step will find out by itself
        pieces = pieces_that_fit(self._rows * each, available_bytes(some.z.device))
        if pieces > 1 and self._rows > 1:
            self._cut(min(pieces, self._rows))

    def _cut(self, count: int) -> None:
        if count > self._rows:
            raise TrainingError(
                "not even one row of a batch fits into memory. Choose a smaller model: fewer layers, bins or "
                "hidden units."
            )
        self.count = count
        self._note(
            f"A batch of {self._rows} rows does not fit into memory: it is computed in {count} pieces, with the "
            f"same result. A batch size of {max(1, self._rows // count)} or a smaller model would fit at once."
        )
