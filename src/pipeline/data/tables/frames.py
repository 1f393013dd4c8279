"""Rows in memory as a table: data frames of pandas, polars and Arrow, lists of dictionaries, dictionaries of lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.tables.delimited import GAPS
from pipeline.data.tables.values import Table, listed, number_text
from pipeline.errors import UserError
from pipeline.files import written

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def table_of(raw: Any, names: Sequence[str]) -> Table:
    """Rows in memory as a table of the columns ``names``: a data frame, a list of dictionaries, a dictionary of lists.

    A column is also found where the blanks around its name differ.

    Raises:
        UserError: The rows are none of these, or lack a column.
    """
    import pyarrow as pa

    if isinstance(raw, Table):
        raw = raw.arrow
    given = arrow_of(raw)
    if given is not None:
        frame_columns = [str(column) for column in given.column_names]
    else:
        raw = _frame(raw, names)
        frame_columns = [str(column) for column in raw.columns]
    place = {name.strip(): number for number, name in enumerate(frame_columns)}
    place |= {name: number for number, name in enumerate(frame_columns)}
    if doubled := sorted({name for name in frame_columns if frame_columns.count(name) > 1} & set(names)):
        raise UserError(f"the input has more than one column named {listed(doubled)}")
    called = {name: place.get(name, place.get(name.strip())) for name in names}
    if missing := [name for name, number in called.items() if number is None]:
        raise UserError(f"the input lacks the columns {listed(missing)}; expected {listed(names)}")
    if given is not None:
        columns = [given.column(number) for number in called.values()]
        return Table(pa.table(columns, names=list(names)), "the input")
    arrays = [_array(raw.iloc[:, number]) for number in called.values()]
    return Table(pa.Table.from_arrays(arrays, names=list(names)), "the input")


def arrow_of(raw: Any) -> pa.Table | None:
    """A table of Arrow, polars or another library that speaks Arrow, as Arrow's; None for what is something else."""
    import pandas as pd
    import pyarrow as pa

    if isinstance(raw, pa.Table):
        return raw
    # pandas speaks Arrow too, but not of columns of mixed objects.
    if isinstance(raw, pd.DataFrame | pd.Series) or not hasattr(raw, "__arrow_c_stream__"):
        return None
    found = pa.table(raw)
    # Strings of other layouts.
    fields = [
        field.with_type(pa.large_string()) if "string_view" in str(field.type) else field
        for field in found.schema
    ]
    return found.cast(pa.schema(fields))


def table_of_frame(frame: Any) -> pa.Table:
    """A whole data frame (pandas, polars, Arrow) as a table of Arrow; mixed columns become texts.

    Raises:
        UserError: It is no data frame.
    """
    import pandas as pd
    import pyarrow as pa

    if (given := arrow_of(frame)) is not None:
        return given
    if not isinstance(frame, pd.DataFrame):
        raise UserError(
            f"got {type(frame).__name__}; expected a data frame of pandas or polars, or an Arrow table"
        )
    columns = [_array(frame.iloc[:, number]) for number in range(frame.shape[1])]
    return pa.Table.from_arrays(columns, names=[str(name) for name in frame.columns])


def keep_frame(frame: Any, folder: Path) -> Path:
    """A data frame as a Parquet file that is named after its content.

    Args:
        frame: A frame of pandas or polars, or an Arrow table.
        folder: Directory to keep it in; made where it is not there.

    Raises:
        UserError: It is no data frame, or has no rows.
    """
    import io

    from pyarrow import parquet

    table = table_of_frame(frame)
    if not table.num_rows:
        raise UserError("the data frame has no rows")
    content = io.BytesIO()
    parquet.write_table(table, content)
    path = folder / f"frame-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.parquet"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with written(path) as draft:
            draft.write_bytes(content.getvalue())
    return path


def _frame(raw: Any, names: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    if isinstance(raw, pd.DataFrame):
        return raw
    if isinstance(raw, np.ndarray) and raw.ndim == 2 and raw.shape[1] == len(names):
        return pd.DataFrame(raw, columns=list(names))
    if isinstance(raw, dict):
        raw = (
            raw
            if any(isinstance(value, (list, tuple, np.ndarray, pd.Series)) for value in raw.values())
            else [raw]
        )
    try:
        if isinstance(raw, dict) or (
            isinstance(raw, list) and raw and all(isinstance(row, dict) for row in raw)
        ):
            return pd.DataFrame(raw)
    except ValueError as error:
        raise UserError(f"the input's columns do not fit together: {error}") from None
    raise UserError(
        f"got {type(raw).__name__}; expected a data frame or a list of dictionaries with the columns {listed(names)}"
    )


def _array(series: Any) -> pa.Array:
    import pandas as pd
    import pyarrow as pa

    if isinstance(series.dtype, pd.PeriodDtype):
        # A month of pandas is its first day, as a month in a file is.
        series = series.dt.start_time
    kind = series.dtype.categories.dtype if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
    if isinstance(kind, pd.IntervalDtype):
        # What pandas.cut makes: a category for each interval, by its name.
        series = series.astype(object).map(str, na_action="ignore")
    try:
        array = pa.array(series, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        # Numbers and text mixed in one column of Python objects.
        known = series.notna()
        array = pa.array(
            [_text(value) if there else None for value, there in zip(series, known, strict=True)], pa.string()
        )
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _text(value: Any) -> str:
    """A value as a file would hold it: what it is must not depend on the values beside it."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float | np.floating):
        return number_text(float(value)) if np.isfinite(value) else str(value)
    return str(value)


def with_numbers(arrow: pa.Table, texts: Iterable[str], decimal: str = ".") -> pa.Table:
    """The table with each column of text that holds numbers alone as numbers, except for those named in ``texts``."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = set(texts)
    for place, name in enumerate(arrow.column_names):
        column = arrow.column(place)
        if name in kept or not pa.types.is_string(column.type):
            continue
        words = pc.utf8_trim_whitespace(column)
        words = pc.if_else(pc.is_in(words, pa.array(GAPS)), pa.scalar(None, pa.string()), words)
        if decimal != ".":
            words = pc.replace_substring(words, decimal, ".")
        try:
            arrow = arrow.set_column(place, name, pc.cast(words, pa.float64()))
        except pa.ArrowInvalid:
            continue
    return arrow
