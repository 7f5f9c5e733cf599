"""From files to checked matrices, and back."""

from .degenerate import degeneracies
from .image_readers import holds_images, read_images
from .images import Images, ImageSet, check_enough
from .matrix import check_fittable, to_frame, to_matrix
from .pictures import read_picture, write_grid, write_pictures
from .readers import iter_table, read_table
from .schema import infer_schema
from .splits import split_rows
from .writers import TableWriter, as_output_error, atomic_path, check_writable

__all__ = [
    "ImageSet",
    "Images",
    "TableWriter",
    "as_output_error",
    "atomic_path",
    "check_enough",
    "check_fittable",
    "check_writable",
    "degeneracies",
    "holds_images",
    "infer_schema",
    "iter_table",
    "read_images",
    "read_picture",
    "read_table",
    "split_rows",
    "to_frame",
    "to_matrix",
    "write_grid",
    "write_pictures",
]
