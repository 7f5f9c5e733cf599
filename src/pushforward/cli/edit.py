"""``pushforward edit``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError
from .files import check_output
from .image_files import images_for, load_image_model
from .options import UsageError, closest, names
from .text import console, counted, listing

if TYPE_CHECKING:
    from torch import Tensor

    from ..artifact import FittedFlow
    from ..data import Images
    from ..evaluate.attributes import Attribute
    from ..evaluate.editing import Classifier, Direction
    from ..training.points import Points

_CLASS = "class="
_MOST_FITTED, _MOST_MEASURED = 5_000, 1_000


def edit(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A saved flow of images.", show_default=False)
    ],
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="Half of them show what the attribute is; others of them are edited.",
            show_default=False,
        ),
    ],
    *,
    attribute: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="thickness, slant, width, height, brightness; class=NAME; or a column of --values.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="A picture: .png.", show_default=False)
    ],
    strengths: Annotated[
        str,
        typer.Option(
            metavar="S,...", help="How far, in standard deviations of the attribute: --strengths=-1,1."
        ),
    ] = "-2,-1,0,1,2",
    count: Annotated[int, typer.Option("-n", "--count", min=1, metavar="N", help="Rows of the picture.")] = 8,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Attributes held fixed; by default the other shapes of ink, for one of the pixels; none for none.",
        ),
    ] = None,
    values: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE",
            help="A column of file names or image numbers, and one of numbers named like the attribute.",
        ),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labels, for images without folders of classes.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Equal seeds give equal results.")] = 0,
) -> None:
    """Change an attribute of images in latent space, and measure what else changes.

    Half of the images show, by a linear regression, how latents change with the attribute while others are held fixed.
    Up to 1,000 of the rest are edited and measured, and the first of these drawn: a row for each image, a column for
    each strength.
    """
    check_output(output, [model, images, values, labels], suffixes=(".png",))
    wanted = _strengths(strengths)
    out = console(stderr=True)
    with out.status(f"Reading {model}") as status:
        fitted = load_image_model(model)
        found = images_for(fitted, images, labels=labels)
        import torch

        from ..evaluate.editing import measure_edit
        from .picked_images import points_for

        points = points_for(fitted, found, images)
        if len(found) < 4:
            raise DataError(
                f"holds {counted(len(found), 'image')}, and half of them have to show what the attribute is",
                source=images,
                remedy="Give at least 4; hundreds show it better.",
            )
        order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
        fit, rest = order[: len(order) // 2][:_MOST_FITTED], order[len(order) // 2 :][:_MOST_MEASURED]
        status.update("Learning what the attribute is")
        job = _Job(fitted, model, images, found, points)
        target = job.target(attribute, values, fit, rest)
        classifier = job.classifier(attribute, fit)
        direction = job.direction(target, against, fit)
        status.update(f"Editing {counted(len(rest), 'image')}")
        given = None if points.context is None else points.context[rest]
        report = measure_edit(
            fitted.flow,
            points.x[rest],
            direction,
            target.attributes,
            wanted,
            context=given,
            classifier=classifier,
        )
        job.draw(output, direction, wanted, rest[:count])
    typer.echo(report.text())
    for note in target.notes:
        typer.echo(note)
    if fitted.images.given_box is not None:
        typer.echo(
            f"The flow is given the {fitted.images.given} half, so these are attributes of the other one."
        )
    out.print(f"Saved {output}: {_meaning(direction)}.", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class _Target:
    """An attribute to edit.

    Attributes:
        name: Its name.
        values: Its numbers ``(n,)``; None where they are measured on the pixels.
        attributes: All that is measured, this one among them.
        notes: What to know of how it is measured.
    """

    name: str
    values: Tensor | None
    attributes: Mapping[str, Attribute]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Job:
    """A flow and the images to edit."""

    fitted: FittedFlow
    model: Path
    source: Path
    images: Images
    points: Points

    def target(self, name: str, table: Path | None, fit: Tensor, rest: Tensor) -> _Target:
        """Return the attribute of a name, where need be with a way to read it off images, learned on some of them."""
        from ..evaluate.attributes import ATTRIBUTES
        from ..evaluate.classifier import fit_classifier
        from ..evaluate.regression import fit_regression

        x, levels = self.points.x, self.fitted.images.levels
        if table is not None:
            numbers = _numbers(table, name, self.images)
            try:
                regression = fit_regression(x[fit], numbers[fit], levels=levels)
            except DataError as error:
                raise DataError(error.problem, source=table, column=name) from error
            share = regression.explained(x[rest], numbers[rest], levels)
            note = (
                f"{name} is read off images by a regression, right about {100 * share:.0f} % of its variance."
            )
            return _Target(name, numbers, {**ATTRIBUTES, name: regression}, (note,))
        if not name.startswith(_CLASS):
            if name not in ATTRIBUTES:
                raise UsageError(
                    f"--attribute: there is no {name!r}, but {', '.join(ATTRIBUTES)}, class=NAME, and columns of "
                    f"--values.{closest(name, list(ATTRIBUTES))}"
                )
            return _Target(name, None, ATTRIBUTES)
        number, known = self._class(name.removeprefix(_CLASS))
        classifier = fit_classifier(x[fit], known[fit])

        def shows(pixels: Tensor, levels: int) -> Tensor:
            return (classifier(pixels) == number).double()

        right = float((classifier(x[rest]) == known[rest]).double().mean())
        note = f"{name} is read off images by a classifier, which is right on {100 * right:.1f} % of these images."
        return _Target(name, (known == number).double(), {**ATTRIBUTES, name: shows}, (note,))

    def classifier(self, name: str, fit: Tensor) -> Classifier | None:
        """Return what tells whether an edited image keeps its class, where images have some."""
        if self.images.labels is None or name.startswith(_CLASS):
            return None
        import torch

        from ..evaluate.classifier import fit_classifier

        known = torch.from_numpy(self.images.labels)[fit]
        return fit_classifier(self.points.x[fit], known) if len(known.unique()) > 1 else None

    def direction(self, target: _Target, against: str | None, fit: Tensor) -> Direction:
        """Return the direction of latent space in which the attribute changes."""
        from ..evaluate.attributes import ATTRIBUTES
        from ..evaluate.editing import fit_direction

        held = None if against is None else () if against.strip() == "none" else names([against])
        for name in held or ():
            if name not in ATTRIBUTES:
                raise UsageError(
                    f"--against: there is no {name!r}, but {', '.join(ATTRIBUTES)}.{closest(name, list(ATTRIBUTES))}"
                )
        context = self.points.context
        try:
            return fit_direction(
                self.fitted.flow,
                self.points.x[fit],
                target.name if target.values is None else target.values[fit],
                name=target.name,
                held=held,
                levels=self.fitted.images.levels,
                context=None if context is None else context[fit],
            )
        except DataError as error:
            raise DataError(error.problem, source=self.source, remedy=error.remedy) from error

    def draw(self, output: Path, direction: Direction, strengths: tuple[float, ...], places: Tensor) -> None:
        """Draw the edits of some images."""
        import numpy as np

        from ..evaluate.editing import edit as edited
        from ..report.picture_sheets import write_sheet
        from ..training.images import whole_images
        from .picked_images import name_of, shown

        schema, some = self.fitted.images, self.points.take(places)
        columns = [
            shown(
                whole_images(
                    edited(self.fitted.flow, some.x, direction, s, some.context), some.context, schema
                ),
                schema.levels,
            )
            for s in strengths
        ]
        write_sheet(
            output,
            np.stack(columns, 1),
            columns=[f"{s:+g}" if s else "0" for s in strengths],
            rows=[name_of(self.images, i, self.source, i + 1) for i in places.tolist()],
        )

    def _class(self, name: str) -> tuple[int, Tensor]:
        """Return the number of a class among the images, and the labels."""
        import torch

        if self.fitted.images.given == "class":
            raise UsageError(
                f"--attribute: {self.model} is given the class, so its latents do not tell classes apart. Draw other "
                "classes with pushforward sample --class, or fit a flow without --given class"
            )
        if self.images.labels is None:
            raise DataError(
                "the images have no labels, and the attribute is a class",
                source=self.source,
                remedy="Sort them into a folder for each class, or give --labels FILE.",
            )
        if name not in self.images.classes:
            raise DataError(
                f"there is no class {name!r}, but {listing(self.images.classes)}",
                source=self.source,
                remedy="Give --attribute class=NAME with one of these.",
            )
        return self.images.classes.index(name), torch.from_numpy(self.images.labels)


def _strengths(text: str) -> tuple[float, ...]:
    try:
        result = tuple(float(part) for part in text.split(","))
    except ValueError:
        result = ()
    if not result or not all(map(math.isfinite, result)):
        raise UsageError(
            f"--strengths: expected numbers with commas between, such as -2,-1,0,1,2, got {text!r}"
        )
    return result


def _numbers(table: Path, column: str, images: Images) -> Tensor:
    """Read a number for each image, NaN for one that the table leaves out.

    Raises:
        DataError: No such column, or none besides; what is no number; an image that is not there, or twice.
    """
    import polars as pl
    import torch

    from ..data import read_table

    frame = read_table(table)
    others = [name for name in frame.columns if name != column]
    if column not in frame.columns:
        raise DataError(
            f"there is no column {column!r}, but {listing(frame.columns)}",
            source=table,
            remedy="Name the column of numbers with --attribute.",
        )
    if not others:
        raise DataError(
            "there is no column that says which image each row is about",
            source=table,
            remedy="Add one of file names, or of image numbers, counted from 1.",
        )
    if not (frame[column].dtype.is_numeric() or frame[column].dtype == pl.Boolean):
        raise DataError(
            "not a column of numbers", source=table, column=column, remedy="Give one number a row."
        )
    places = {name: i for i, name in enumerate(images.names)}
    result = torch.full((len(images),), torch.nan, dtype=torch.float64)
    seen: set[int] = set()
    for row, (which, number) in enumerate(
        zip(frame[others[0]], frame[column].cast(pl.Float64), strict=True), 1
    ):
        # A column of whole numbers with gaps may be read as one of floats.
        image = int(which) if isinstance(which, float) and which.is_integer() else which
        place = image - 1 if isinstance(image, int) else places.get(image)
        if place is None or not 0 <= place < len(images):
            wanted = f"a number from 1 to {len(images):,}" + (" or a file name" if places else "")
            raise DataError(
                f"there is no image {image!r}",
                source=table,
                row=row,
                column=others[0],
                remedy=f"Give {wanted}.",
            )
        if place in seen:
            raise DataError(f"image {image!r} stands twice", source=table, row=row, column=others[0])
        seen.add(place)
        result[place] = math.nan if number is None else number
    return result


def _meaning(direction: Direction) -> str:
    """Return what a strength of 1 is."""
    from ..evaluate.attributes import UNITS

    if direction.scale == 1.0 and direction.name not in UNITS:
        return f"a strength of 1 is the step from images without to those with {direction.name}"
    unit = f" {UNITS[direction.name]}" if direction.name in UNITS else ""
    return f"a strength of 1 is a standard deviation of {direction.name}, {direction.scale:.3g}{unit}"
