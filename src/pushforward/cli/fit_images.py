"""``pushforward fit`` where the data are images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs import (
    SMALL,
    ImageGlowConfig,
    ImageModelConfig,
    ImageRealNVPConfig,
    ImageSchema,
    TrainConfig,
    default_image_model,
    default_image_training,
)
from ..configs.images import GIVEN, PIXELS
from ..errors import DataError
from .files import check_output
from .image_text import bits, given_to, kind_of, modelled
from .options import UsageError, closest, sides
from .progress import TrainingProgress
from .runs import Places, fit_and_save, note, report_end
from .settings import ModelChoice, Settings, read_settings
from .text import clock, counted, listing, model_line

if TYPE_CHECKING:
    from rich.console import Console

    from ..artifact import FittedFlow
    from ..data import Images, ImageSet
    from ..training import Checkpoints, ImageSplit

_INSTEAD = {
    "condition": "--given says what is given of an image: its class, a half, or a small version of it",
    "drop": "to leave pictures out, move them out of the folder",
    "valid": "a tenth of the images chooses the best epoch; a sub-folder test beside train holds test images",
    "group": "images are split at random, but sub-folders train and test keep images apart",
    "weights": "each image counts once",
    "stream": "images are read whole",
    "bounds": "the bounds of pixels are known; --pixels says how they come to the line",
    "periodic": "--pixels says how pixels come to the line",
    "schema": "their size, classes and pixels are seen in them",
}


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The options of ``fit`` that only images have, as the user wrote them."""

    given: str | None
    labels: Path | None
    size: str | None
    pixels: str | None

    def check(self) -> tuple[int, int] | None:
        """Check the words, and return the size.

        Raises:
            UsageError: A word that is not known, or no size.
        """
        for option, word, known in (("--given", self.given, GIVEN[1:]), ("--pixels", self.pixels, PIXELS)):
            if word is not None and word not in known:
                raise UsageError(
                    f"{option}: expected one of {', '.join(known)}, got {word!r}.{closest(word, known)}"
                )
        return None if self.size is None else sides(self.size, "--size", "height x width", "28x28")

    def refuse(self, table: Path) -> None:
        """Refuse all of them for a table.

        Raises:
            UsageError: One was given.
        """
        for name, instead in (
            ("given", "--condition COL says what is given of a row"),
            ("labels", "labels are a column like others"),
            ("size", "--drop COL leaves columns out"),
            ("pixels", "--bounds COL=LOW:HIGH says where a column lives"),
        ):
            if getattr(self, name) is not None:
                raise UsageError(
                    f"--{name}: is for images, and {table} is no image file or folder; {instead}"
                )


def is_of_images(path: Path) -> bool:
    """Return whether ``fit`` is to take a path for images: also one that is nowhere and does not look like a table."""
    from ..data import holds_images
    from ..data.parquet import is_pattern
    from ..data.readers import SUFFIXES, suffix_of

    nowhere = not path.exists() and suffix_of(path, SUFFIXES) is None
    return holds_images(path) or (nowhere and not is_pattern(path))


def refuse_table_options(images: Path, options: Mapping[str, Any]) -> None:
    """Refuse the options of ``fit`` that only tables have, unless there are no such images, which is said later.

    Raises:
        UsageError: One was given.
    """
    from ..data import holds_images

    for name in options if holds_images(images) else ():
        raise UsageError(f"--{name}: is for tables, and {images} holds images; {_INSTEAD[name]}")


def fit_images(
    images: Path,
    places: Places,
    options: ImageOptions,
    *,
    model: str | None,
    run: dict[str, Any],
    config: Path | None,
) -> None:
    """Fit a flow to images, and save it.

    Args:
        images: The images.
        places: Where the model goes.
        options: What only images have.
        model: Name of the model, or None.
        run: Fields of ``TrainConfig`` from the command line.
        config: A settings file, or None.
    """
    check_output(places.output, [images, options.labels, config])
    size = options.check()
    settings = Settings() if config is None else read_settings(config, images=True)
    training = settings.training | run
    TrainConfig(**training)
    job = _Job(images, options, size, ModelChoice.of(model, settings, images=True), training)
    fit_and_save(
        places,
        lambda checkpoints, out: _fit(job, checkpoints, out),
        lambda fitted, out: _report(job, fitted, places.output, out),
    )


@dataclass(frozen=True, slots=True)
class _Job:
    path: Path
    options: ImageOptions
    size: tuple[int, int] | None
    choice: ModelChoice
    training: Mapping[str, Any]


def _fit(job: _Job, checkpoints: Checkpoints, out: Console) -> FittedFlow:
    with out.status(f"Reading {job.path}"):
        from ..data import check_enough, read_images
        from ..training import fit_image_split, split_images

        images = read_images(job.path, labels=job.options.labels, size=job.size)
        check_enough(images.train, job.path)
        given = job.options.given or ""
        _check_given(given, images.train, job.path)
        seed = int(job.training.get("seed", 0))
        split = split_images(images, given=given, pixels=job.options.pixels or PIXELS[0], seed=seed)
    rows = len(split.train)
    model = job.choice.config(default_image_model(rows))
    training = replace(default_image_training(rows, seed, model), **job.training)
    _check_sides(model, split.schema, job.path)
    for line in _found(job, images, split):
        out.print(line, soft_wrap=True)
    out.print(f"Model: {model_line(model, images=True)}", soft_wrap=True)
    limit = "" if training.max_seconds is None else f" or {clock(training.max_seconds)}"
    out.print(
        f"Training: at most {counted(training.epochs, 'epoch')}{limit}, batches of {training.batch_size}"
    )
    with TrainingProgress(out, training.epochs, images=split.schema) as progress:
        return fit_image_split(
            split,
            model=model,
            training=training,
            seed=seed,
            source=images.name,
            checkpoints=checkpoints,
            on_epoch=progress.epoch,
            on_note=lambda text: note(out, text),
            on_trained=progress.trained,
        )


def _check_given(given: str, images: Images, path: Path) -> None:
    """Check that images have what is to be given of them.

    Raises:
        DataError: They do not.
    """
    height, width = images.size
    if given == "class" and images.labels is None:
        raise DataError(
            "the images have no labels, which --given class needs",
            source=path,
            remedy="Sort them into a sub-folder for each class, or give --labels FILE.",
        )
    if given == "class" and len(images.classes) < 2:
        raise DataError(
            f"all images are of the class {images.classes[0]!r}, and --given class needs two or more",
            source=path,
            remedy="Leave --given class out.",
        )
    if given == "small" and (height % SMALL or width % SMALL):
        better = "x".join(str(SMALL * max(1, round(side / SMALL))) for side in (height, width))
        raise DataError(
            f"the images are {height} x {width}, and --given small needs height and width that {SMALL} divides",
            source=path,
            remedy=f"Bring them to such a size, with --size {better} for one.",
        )


def _check_sides(model: ImageModelConfig, schema: ImageSchema, path: Path) -> None:
    """Check that a model of several scales can halve what is modelled.

    Raises:
        DataError: It cannot.
    """
    _, rows, columns = schema.event_shape
    if isinstance(model, ImageGlowConfig | ImageRealNVPConfig) and rows % 2 and columns % 2:
        whole = "images are" if schema.given_box is None else f"{schema.given} halves leave parts that are"
        better = f"{schema.height + schema.height % 2}x{schema.width + schema.width % 2}"
        raise DataError(
            f"the {whole} {rows} x {columns}, and a model of several scales halves height or width",
            source=path,
            remedy=f"Bring them to an even size, with --size {better} for one, or choose --model pixel-nsf or nsf.",
        )


def _found(job: _Job, images: ImageSet, split: ImageSplit) -> list[str]:
    """Say what images there are and what becomes of them."""
    schema = split.schema
    official = "" if images.test is None else f", and {len(images.test):,} to test"
    lines = [
        f"{job.path}: {counted(len(images.train), 'image')}{official}",
        f"  size         {kind_of(schema)}",
    ]
    if schema.classes:
        lines.append(f"  classes      {len(schema.classes)}: {listing(schema.classes)}")
    if schema.given:
        lines.append(f"  given        {given_to(schema)}")
    train, valid, test = len(split.train), len(split.valid), len(split.test)
    unused = len(images.train) - train - valid - (test if images.test is None else 0)
    more = f"; {unused:,} left out" if unused else ""
    lines.append(f"Images: {train:,} to train, {valid:,} to validate, {test:,} to test{more}")
    return lines


def _report(job: _Job, fitted: FittedFlow, output: Path, out: Console) -> None:
    from ..training.images import MOST_ESTIMATED, MOST_SCORED

    facts, schema = fitted.facts, fitted.images
    parts = ("train", "validation", "test")
    most = {"train": MOST_SCORED} if fitted.flow.transform.exact else dict.fromkeys(parts, MOST_ESTIMATED)
    out.print(
        f"\nBits per dimension of {modelled(schema)}, a bound, by one draw of dequantisation noise:",
        soft_wrap=True,
    )
    for name, rows, value in (
        ("train", facts.train_rows, facts.train_log_prob),
        ("validation", facts.valid_rows, facts.valid_log_prob),
        ("test", facts.test_rows, facts.test_log_prob),
    ):
        nats = f", {value:.2f} nats each" if name == "test" else ""
        limit = most.get(name, rows)
        some = f", by {limit:,} of them" if rows > limit else ""
        out.print(f"  {name:<11}{bits(schema, value):>10.4f}   {counted(rows, 'image')}{some}{nats}")
    if facts.stopped == "time" and "max_seconds" not in job.training:
        out.print(
            f"The time budget of {clock(facts.config.max_seconds or 0.0)} is the default; --max-time gives another."
        )
    if schema.given in ("", "class"):
        grid = f"{len(schema.classes)}x8" if schema.given and len(schema.classes) <= 20 else "8x8"
        following = f"pushforward sample {output} --grid {grid} -o grid.png"
    else:
        following = f"pushforward sample {output} --given-images {job.path} --grid 8x8 -o grid.png"
    report_end(fitted, output, out, following=following)
