"""Memory and time of `fit`, `score` and `sample` on tables of several sizes, which need not fit into memory.

Writes Parquet data sets of mixed rows (whole numbers, real numbers, categories, gaps, dates; ten columns in eight
files) into a temporary folder, and runs the commands in processes of their own: a fit that streams the table for one
pass, scores of all rows, and a draw of as many. Prints a Markdown table with the wall time and the largest resident
memory of each process; the first line, a score of 3,000 rows, is what Python and its libraries take.

    python benchmarks/streaming.py --rows 500000 2000000 5000000 --threads 1
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = 8
GROUP_ROWS = 65_536
_FEW = 3000
# Small, so that reading and not arithmetic decides how long a pass takes.
SETTINGS = """
[model]
name = "mixed"
hidden = [32]
bins = 8

[training]
batch_size = 1024
"""


def write(folder: Path, rows: int) -> None:
    """Write the files of a data set, each in parts of one row group."""
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq

    def part(rng: np.random.Generator, size: int) -> pl.DataFrame:
        a, kind = rng.normal(size=size), rng.integers(0, 5, size)
        gap = rng.random(size) < 0.1
        return pl.DataFrame(
            {
                "income": np.exp(10 + 0.5 * a),
                "height": 170 + 8 * a + 5 * rng.normal(size=size),
                "balance": pl.Series(a * rng.gamma(2.0, size=size)).set(pl.Series(gap), None),
                "spend": np.where(rng.random(size) < 0.3, 0.0, rng.gamma(2.0, 50.0, size)),
                "age": rng.integers(18, 90, size),
                "visits": rng.poisson(2 + kind),
                "score": rng.integers(1, 6, size),
                "region": pl.Series(np.array(["north", "east", "south", "west", "abroad"])[kind]),
                "member": pl.Series(rng.random(size) < 0.4).set(pl.Series(~gap & (a > 2)), None),
                "since": pl.Series(rng.integers(14_000, 20_000, size)).cast(pl.Int32).cast(pl.Date),
            }
        )

    folder.mkdir()
    for number in range(FILES):
        left = rows * (number + 1) // FILES - rows * number // FILES
        rng, writer = np.random.default_rng(number), None
        while left:
            table = part(rng, min(left, GROUP_ROWS)).to_arrow()
            writer = writer or pq.ParquetWriter(folder / f"part-{number}.parquet", table.schema)
            writer.write_table(table)
            left -= len(table)
        if writer is not None:
            writer.close()


def measured(words: list[str], threads: int) -> tuple[float, float]:
    """Run a process and return its seconds and its largest resident memory in MB; this one stays small itself."""
    names = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **dict.fromkeys(names, str(threads))}
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rows", type=int, nargs="+", default=[500_000, 5_000_000], help="rows of each table"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--config", type=Path, help="settings of the fit; a small model by default")
    parser.add_argument("--write", nargs=2, metavar=("FOLDER", "ROWS"), help="only write a data set")
    arguments = parser.parse_args()
    if arguments.write:
        write(Path(arguments.write[0]), int(arguments.write[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = arguments.config or folder / "settings.toml"
        if arguments.config is None:
            config.write_text(SETTINGS)
        print("| command | rows | seconds | peak memory, MB |")
        print("|---|--:|--:|--:|", flush=True)
        for rows in (_FEW, *arguments.rows):
            table, model = folder / f"table-{rows}", folder / f"{rows}.flow"
            measured([__file__, "--write", str(table), str(rows)], arguments.threads)
            commands = {
                "fit": ["fit", table, "-o", model, "--config", config, "--stream", "--epochs", 1],
                "score": ["score", model, table, "-o", folder / "scores.parquet"],
                "sample": ["sample", model, "-n", rows, "-o", folder / "drawn.parquet"],
            }
            for command, words in commands.items():
                seconds, peak = measured(["-m", "pushforward", *map(str, words)], arguments.threads)
                if rows > _FEW or command == "score":
                    print(f"| `{command}` | {rows:,} | {seconds:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
