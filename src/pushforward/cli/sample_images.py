"""``pushforward sample`` for flows of images: a sheet of pictures, an array, or a folder of PNG files."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs import ImageSchema
from ..errors import OutputError
from .files import check_output
from .image_files import images_for
from .image_text import given_to, modelled
from .options import UsageError, closest, names, sides
from .text import clock, counted, listing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ..artifact import FittedFlow

_GRID, _COUNT = (8, 8), 100
_MOST_IN_GRID = 10_000
_LABELS = "labels.csv"


@dataclass(frozen=True, slots=True)
class ImageWishes:
    """The options of ``sample`` that only flows of images have, as the user wrote them."""

    grid: str | None
    classes: Sequence[str] | None
    given_images: Path | None

    def refuse(self, model: Path) -> None:
        """Refuse all of them for the flow of a table.

        Raises:
            UsageError: One was given.
        """
        for option, value in (
            ("--grid", self.grid),
            ("--class", self.classes),
            ("--given-images", self.given_images),
        ):
            if value is not None:
                raise UsageError(f"{option}: is for flows of images, and {model} is the flow of a table")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is drawn.

    Attributes:
        kind: Of the output: ``"grid"``, ``"array"`` or ``"folder"``.
        shape: Rows and columns of the sheet; of an array or a folder the images and 1.
        draws: How many; what they leave of the last row of a sheet stays white.
        context: What each draw is given, or None.
        classes: The class of each draw, or none.
        before: Images that stand first in the rows of the sheet, or None.
    """

    kind: str
    shape: tuple[int, int]
    draws: int
    context: Tensor | None = None
    classes: tuple[int, ...] = ()
    before: NDArray[np.uint8] | None = None


def draw_images(
    fitted: FittedFlow,
    model: Path,
    output: Path,
    wishes: ImageWishes,
    *,
    count: int | None,
    temperature: float,
    seed: int,
) -> str:
    """Draw images and write them.

    Args:
        fitted: The flow.
        model: Its file.
        output: A .png file for a sheet, an .npy file, or a folder that is absent or empty.
        wishes: What only flows of images have.
        count: How many; None: as many as the sheet has room for, or 100.
        temperature: Spread of the base.
        seed: Seed of the draws.

    Returns:
        What was done, for the terminal.

    Raises:
        OutputError: An output that cannot be written.
        UsageError: Options that do not fit the flow or the output.
        DataError: Images to condition on that do not fit the flow.
        ArtifactError: Draws that are not finite.
    """
    kind = _kind(output)
    _check_place(output, kind, [model, wishes.given_images])
    plan = _plan(fitted, model, kind, wishes, count)
    started = time.monotonic()
    drawn = _draw(fitted, model, plan, temperature, seed)
    said = f"{counted(len(drawn), 'image')} drawn in {clock(time.monotonic() - started)}. "
    return f"{said}Saved {output}: {_write(drawn, output, plan, fitted.images)}."


def _kind(output: Path) -> str:
    """Return which kind of output a path means."""
    if output.is_dir():
        return "folder"
    kinds = {".png": "grid", ".npy": "array", "": "folder"}
    if str(output) == "-" or output.suffix.lower() not in kinds:
        raise OutputError(
            f"{output}: images are not written like this. End the name in .png for one sheet of them, in .npy for an "
            "array, or give a new folder for PNG files."
        )
    return kinds[output.suffix.lower()]


def _check_place(output: Path, kind: str, inputs: Sequence[Path | None]) -> None:
    """Check that the output can be written, before the work."""
    if kind != "folder":
        check_output(output, inputs)
    elif not output.exists():
        check_output(output, [])  # whether a folder can be made there
    elif any(output.iterdir()):
        raise OutputError(f"{output}: is a folder with something in it. Give a new or an empty one.")
    else:
        check_output(output / _LABELS, [])


def _plan(fitted: FittedFlow, model: Path, kind: str, wishes: ImageWishes, count: int | None) -> _Plan:
    schema = fitted.images
    if wishes.classes is not None and schema.given != "class":
        raise UsageError(f"--class: {model} is the density of {modelled(schema)}, so no class is given to it")
    if wishes.given_images is not None and schema.given in ("", "class"):
        what = "; name classes with --class" if schema.given else ""
        raise UsageError(
            f"--given-images: {model} is the density of {modelled(schema)}, so no images are given to it{what}"
        )
    shape = _shape(kind, wishes.grid, count)
    draws = shape[0] * shape[1] if count is None else count
    if schema.given == "":
        return _Plan(kind, shape, draws)
    if schema.given == "class":
        return _of_classes(schema, model, kind, wishes.classes, shape, draws=draws)
    if wishes.given_images is None:
        raise UsageError(
            f"{model}: is the density of {modelled(schema)}. Give --given-images IMAGES, whole ones, of which it takes "
            f"{given_to(schema)}"
        )
    return _of_images(fitted, kind, wishes.given_images, shape, count)


def _shape(kind: str, grid: str | None, count: int | None) -> tuple[int, int]:
    if kind != "grid":
        if grid is not None:
            raise UsageError("--grid: is for one sheet of pictures; end the output in .png")
        return count or _COUNT, 1
    if grid is not None and count is not None:
        raise UsageError("give --grid or -n, not both")
    if count is not None:
        _check_room(count, "-n", f"{count:,}")
        columns = math.ceil(math.sqrt(count))
        return math.ceil(count / columns), columns
    shape = _GRID if grid is None else sides(grid, "--grid", "rows x columns", "8x8")
    _check_room(shape[0] * shape[1], "--grid", f"{shape[0]} x {shape[1]}")
    return shape


def _check_room(pictures: int, option: str, got: str) -> None:
    """Check that a sheet is not too large, before anything is drawn."""
    if pictures > _MOST_IN_GRID:
        raise UsageError(
            f"{option}: a sheet has at most {_MOST_IN_GRID:,} pictures, got {got}; for more, end the output in .npy or "
            "give a folder"
        )


def _of_classes(
    schema: ImageSchema,
    model: Path,
    kind: str,
    chosen: Sequence[str] | None,
    shape: tuple[int, int],
    *,
    draws: int,
) -> _Plan:
    """Return a plan with a class for each row of a sheet, or for each image in turn."""
    import torch
    from torch.nn.functional import one_hot

    known = schema.classes
    for name in wanted if (wanted := names(chosen or [])) else ():
        if name not in known:
            raise UsageError(
                f"--class: {model} does not know {name!r}; it knows {listing(known, 30)}.{closest(name, known)}"
            )
    numbers = [known.index(name) for name in wanted] or list(range(len(known)))
    classes = [numbers[i // shape[1] % len(numbers)] for i in range(draws)]
    return _Plan(kind, shape, draws, one_hot(torch.tensor(classes), len(known)).float(), tuple(classes))


def _of_images(fitted: FittedFlow, kind: str, path: Path, shape: tuple[int, int], count: int | None) -> _Plan:
    """Return a plan with an image for each row of a sheet, before the draws that are counted, or for each in turn."""
    import torch

    from ..training.images import condition_of_pixels

    if kind == "grid" and count is None and shape[1] < 2:
        raise UsageError(
            f"--grid: each row is an image and draws given a part of it, so that 2 columns are needed, got {shape[1]}"
        )
    images = images_for(fitted, path)
    rows = min(shape[0], len(images)) if kind == "grid" or count is None else shape[0]
    if kind != "grid":
        pixels = images.pixels[[i % len(images) for i in range(rows)]]
        return _Plan(kind, (rows, 1), rows, condition_of_pixels(torch.from_numpy(pixels), fitted.images))
    if count is None:
        each = shape[1] - 1
        draws = rows * each
    else:
        draws, each = count, math.ceil(count / rows)
        rows = math.ceil(count / each)
        _check_room(
            rows + draws, "-n", f"{draws:,} and {counted(rows, 'image')} that they are given a part of"
        )
    pixels = images.pixels[:rows]
    given = condition_of_pixels(torch.from_numpy(pixels), fitted.images)
    return _Plan(kind, (rows, each + 1), draws, given.repeat_interleave(each, 0)[:draws], before=pixels)


def _draw(fitted: FittedFlow, model: Path, plan: _Plan, temperature: float, seed: int) -> NDArray[np.uint8]:
    """Return the draws as whole images, ``(n, channels, height, width)``."""
    import numpy as np
    import torch

    from ..flows import chunk_rows
    from ..training.images import whole_images
    from .picked_images import check_finite

    flow, schema = fitted.flow, fitted.images
    generator = torch.Generator().manual_seed(seed)
    result = np.empty((plan.draws, *schema.image_shape), np.uint8)
    step = chunk_rows(flow)
    for start in range(0, plan.draws, step):
        part = result[start : start + step]
        given = None if plan.context is None else plan.context[start : start + step]
        shape = (len(part),) if given is None else ()
        x = flow.sample(shape, given, temperature=temperature, generator=generator)
        check_finite(model, x, "pictures drawn from it")
        part[:] = whole_images(x, given, schema).numpy()
    return result


def _write(drawn: NDArray[np.uint8], output: Path, plan: _Plan, schema: ImageSchema) -> str:
    """Write the images, and return what the output is."""
    import numpy as np

    from ..data import atomic_path, write_grid

    if plan.kind == "folder":
        _write_folder(drawn, output, plan, schema)
        where = f", with their classes in {_LABELS}" if plan.classes else ""
        return f"{counted(len(drawn), 'PNG file')}{where}"
    named = [schema.classes[i] for i in dict.fromkeys(plan.classes)]
    if plan.kind == "array":
        with atomic_path(output) as temporary:
            np.save(temporary, drawn)
        turn = f"; of the classes {listing(named)} in turn" if named else ""
        return f"an array {drawn.shape} of whole numbers 0 to {schema.levels - 1}{turn}"
    rows, columns = plan.shape
    if plan.before is not None:
        drawn = np.insert(drawn, np.arange(rows) * (columns - 1), plan.before, axis=0)
    write_grid(drawn, rows, columns, output, levels=schema.levels)
    sheet = f"{counted(rows, 'row')} of {'' if len(drawn) == rows * columns else 'up to '}{columns}"
    if plan.before is not None:
        return f"{sheet}: an image, then draws given {given_to(schema)}"
    return f"{sheet}; a class a row: {listing(named)}" if named else sheet


def _write_folder(drawn: NDArray[np.uint8], folder: Path, plan: _Plan, schema: ImageSchema) -> None:
    """Write PNG files and, where there are classes, a file of labels; all or nothing."""
    from ..data import atomic_path, write_pictures

    made = not folder.exists()
    digits = max(5, len(str(len(drawn))))
    files = [f"{i:0{digits}}.png" for i in range(1, len(drawn) + 1)]
    try:
        write_pictures(drawn, folder, names=files, levels=schema.levels)
        if plan.classes:
            with atomic_path(folder / _LABELS) as temporary, temporary.open("w", newline="") as file:
                lines = csv.writer(file)
                lines.writerow(("file", "label"))
                lines.writerows(zip(files, (schema.classes[i] for i in plan.classes), strict=True))
    except BaseException:
        for name in (*files, _LABELS):
            (folder / name).unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise
