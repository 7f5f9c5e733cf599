"""From files to checked matrices, and back."""

from pushforward.data.readers import iter_table as iter_table
from pushforward.data.readers import read_table as read_table
from pushforward.data.schema import check_fittable as check_fittable
from pushforward.data.schema import infer_schema as infer_schema
from pushforward.data.schema import to_matrix as to_matrix
from pushforward.data.splits import split_rows as split_rows
from pushforward.data.writers import TableWriter as TableWriter
from pushforward.data.writers import atomic_path as atomic_path
from pushforward.data.writers import check_writable as check_writable
