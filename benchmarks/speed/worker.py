"""A library's process: builds a task's flow, and calls it as often as it is asked to.

Requests and answers are JSON objects, one a line. What a library prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .libraries import LIBRARIES, Call, Cannot, Model, build
from .processes import as_task, settle


class Answers:
    """The requests that a worker knows."""

    def __init__(self, library: str) -> None:
        self._library = library
        self._model: Model | None = None
        self._calls: dict[str, Call] = {}

    def versions(self) -> dict[str, Any]:
        """Versions of the library and of what computes for it."""
        below = {"torch": ["torch"], "jax": ["jax", "jaxlib"]}[LIBRARIES[self._library].environment]
        own = LIBRARIES[self._library].distribution
        return {name: version(name) for name in ([own] if own else []) + below}

    def build(self, task: dict[str, Any]) -> dict[str, Any]:
        """Build a task's flow and its calls."""
        self._model, self._calls = None, {}
        try:
            self._model = build(self._library, as_task(task))
        except Cannot as why:
            return {"cannot_any": str(why)}
        self._calls = self._model.calls(task["batch"])
        model = self._model
        return {
            "parameters": model.parameters,
            "note": model.note,
            "compiled": model.compiled,
            "cannot": model.cannot,
        }

    def time(self, call: str, times: int) -> dict[str, Any]:
        """Seconds of one of ``times`` calls in a row."""
        assert self._model is not None
        function = self._calls[call]
        start = time.perf_counter()
        for _ in range(times):
            result = function()
        self._model.wait(result)
        return {"seconds": (time.perf_counter() - start) / times}


def main() -> None:
    """Answer until standard input ends."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        threads, library = sys.argv[1:]
        settle(int(threads), library)
        import_module(LIBRARIES[library].imports)
        known = Answers(library)
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(known, request.pop("do"))(**request)
            except Exception:
                answer = {"error": traceback.format_exc()}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
