"""From files to checked matrices, and back."""

from .degenerate import degeneracies
from .readers import iter_table, read_table
from .schema import check_fittable, infer_schema, to_matrix
from .splits import split_rows
from .writers import TableWriter, as_output_error, atomic_path, check_writable

__all__ = [
    "TableWriter",
    "as_output_error",
    "atomic_path",
    "check_fittable",
    "check_writable",
    "degeneracies",
    "infer_schema",
    "iter_table",
    "read_table",
    "split_rows",
    "to_matrix",
]
