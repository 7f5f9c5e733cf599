"""What should be known of a training, said as it happens."""

from __future__ import annotations

import warnings
from collections.abc import Callable


def tell(note: str, on_note: Callable[[str], None] | None, *, stacklevel: int = 3) -> None:
    """Give a note to who asked for notes, else warn.

    Args:
        note: What should be known.
        on_note: Called with the note.
        stacklevel: Without ``on_note``: whose line the warning names, counted from here.
    """
    if on_note is None:
        warnings.warn(note, stacklevel=stacklevel)
    else:
        on_note(note)
