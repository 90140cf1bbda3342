"""The file of a run's scored test images, with the label, the prediction and its score for each.

Runs are compared on paired images (`comparisons.py`), so each run with labels keeps these rows; they also tell which
images are predicted wrongly, and every metric of `result.json` can be computed from them.
"""
# r rows, n images of one task, K classes

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.data.pool import Pool

FILE = "test_instances.parquet"
TEXT = ("task", "method", "identity", "true", "said")
COLUMNS = (*TEXT, "fraction", "cluster", "value")
TYPES = {
    **dict.fromkeys(TEXT, pa.string()),
    "fraction": pa.float64(),
    "cluster": pa.int64(),
    "value": pa.float64(),
    # of some kinds of label (`LabelKind.instance_columns`), else null
    "true_number": pa.float64(),
    "said_number": pa.float64(),
    "true_classes": pa.list_(pa.string()),
    "said_classes": pa.list_(pa.string()),
    "probabilities": pa.list_(pa.float64()),
    "true_pixels": pa.list_(pa.int64()),
    "said_pixels": pa.list_(pa.int64()),
    "right_pixels": pa.list_(pa.int64()),
}
CLASS_NAMES = "class_names"  # key of the file's metadata: JSON, task -> its K classes in the order of the lists
MOST_NUMBERS = 20_000_000  # n * K of one method; longer lists are left out, because the file would exceed 160 MB


@dataclass(frozen=True)
class InstanceScores:
    """One method's predictions of one task for the pool's images `indices` (n,), learned from `fraction` of the labels.

    `value` (n,) scores each prediction (`predictions.instance_values`); their mean is the score. `true` and `said` (n,)
    are the true and predicted classes of a single-label task, None for other kinds. `columns` are those of the task's
    kind (`LabelKind.instance_columns`).
    """

    task: str
    method: str
    fraction: float
    indices: np.ndarray
    value: np.ndarray
    true: np.ndarray | None = None
    said: np.ndarray | None = None
    columns: Mapping[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class InstanceTable:
    """The rows of a file: arrays (r,) by column name."""

    columns: dict[str, np.ndarray]

    def of(self, task: str, method: str, fraction: float) -> InstanceTable:
        """Return the rows of one task, method and requested label fraction, sorted by identity."""
        rows = (self.columns["task"] == task) & (self.columns["method"] == method)
        rows &= np.isclose(self.columns["fraction"], fraction)
        order = np.argsort(self.columns["identity"][rows], kind="stable")
        return InstanceTable({name: values[rows][order] for name, values in self.columns.items()})

    def __len__(self) -> int:
        return len(self.columns["value"])


def write_instances(folder: Path, pool: Pool, scores: Sequence[InstanceScores]) -> None:
    """Write `test_instances.parquet` to the run's folder atomically; without scores, write nothing."""
    if not scores:
        return
    names = {one.task: pool.class_names.get(one.task, []) for one in scores}
    schema = pa.schema(list(TYPES.items()), metadata={CLASS_NAMES: json.dumps(names)})
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for one in scores:
            own = _columns(pool, one)
            arrays = [_array(own.get(name), kind, len(one.indices)) for name, kind in TYPES.items()]
            writer.write_table(pa.table(arrays, schema=schema))
    atomic_write_bytes(folder / FILE, buffer.getvalue())


def read_instances(folder: Path) -> InstanceTable:
    """Return the scored images of a run. Raises `UserError` if the file is missing or cannot be read."""
    try:
        table = pq.read_table(folder / FILE, columns=list(COLUMNS))
        return InstanceTable({name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS})
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(
            f"{str(folder / FILE)!r} cannot be read ({error}): delete its folder to run it again."
        ) from error


def _array(values: Sequence[Any] | np.ndarray | None, kind: pa.DataType, count: int) -> pa.Array:
    """Return a column of `count` rows from (n,), (n, K) or a list; null without values, and for too many numbers."""
    if values is None or (isinstance(values, np.ndarray) and values.size > MOST_NUMBERS):
        return pa.nulls(count, kind)
    if isinstance(values, np.ndarray) and values.ndim == 2:
        ends = np.arange(count + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(ends, pa.array(values.ravel(), kind.value_type))
    return pa.array(values, kind)


def _columns(pool: Pool, scores: InstanceScores) -> dict[str, Sequence[Any] | np.ndarray]:
    """Return the columns (n,) of one method and task."""
    count, classes = len(scores.indices), pool.class_names.get(scores.task, [])
    class_columns = {
        name: np.full(count, None, object) if values is None else np.array([classes[k] for k in values], object)
        for name, values in (("true", scores.true), ("said", scores.said))
    }
    return {
        "task": np.full(count, scores.task, object),
        "method": np.full(count, scores.method, object),
        "fraction": np.full(count, scores.fraction, np.float64),
        "identity": np.array([pool.identities[i] for i in scores.indices.tolist()], object),
        "cluster": pool.cluster[scores.indices].astype(np.int64),
        "value": scores.value.astype(np.float64),
        **class_columns,
        **scores.columns,
    }
