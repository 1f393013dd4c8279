"""Sheets of workbooks: .xlsx and .ods, through the optional packages openpyxl and odfpy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.tables.formats import TableFormat, in_short
from pipeline.data.tables.frames import table_of_frame
from pipeline.data.tables.values import listed
from pipeline.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

ENGINES = {"xlsx": "openpyxl", "ods": "odf"}


def first_rows(path: Path, kind: str, count: int) -> dict[str, list[tuple[object, ...]]]:
    """The first rows of each sheet of a workbook, by the sheet's name.

    Args:
        path: The file.
        kind: ``xlsx`` or ``ods``.
        count: Number of rows.
    """
    import pandas as pd

    with pd.ExcelFile(path, engine=ENGINES[kind]) as book:  # type: ignore[arg-type]
        frames = {
            str(name): book.parse(name, header=None, nrows=count, dtype=object) for name in book.sheet_names
        }
    return {name: list(frame.itertuples(index=False, name=None)) for name, frame in frames.items()}


def read_sheet(path: Path, how: TableFormat, kind: str) -> pa.Table:
    """The rows of one sheet; its first row names the columns unless ``how`` says that it does not.

    Raises:
        UserError: The package that reads it is missing, there is no such sheet, or the file is damaged.
    """
    import pandas as pd

    try:
        with pd.ExcelFile(path, engine=ENGINES[kind]) as book:  # type: ignore[arg-type]
            names = [str(name) for name in book.sheet_names]
            sheet = names[0] if how.sheet is None else how.sheet
            if isinstance(sheet, int) and str(sheet) not in names:
                sheet = names[sheet] if 0 <= sheet < len(names) else str(sheet)
            if str(sheet) not in names:
                raise UserError(f"data.sheet={how.sheet}: {path} has the sheets {listed(names)}")
            header = None if how.header is False else 0
            frame = book.parse(str(sheet), header=header, dtype=object, keep_default_na=False, na_values=[""])
    except ImportError:
        raise UserError(
            f"{path}: reading .{kind} needs a package that is not here: "
            "pip install 'hydra-lightning-pipeline[tables]', or save the sheet as CSV"
        ) from None
    except UserError:
        raise
    except Exception as error:
        # Each reader has its own errors for a damaged file.
        raise UserError(f"{path} cannot be read as {kind}: {in_short(error)}") from None
    # What pandas calls columns without a name.
    unnamed = [header is None or str(name).startswith("Unnamed: ") for name in frame.columns]
    frame.columns = pd.Index(
        [
            f"f{place}" if header is None else "" if blank else str(name)
            for place, (name, blank) in enumerate(zip(frame.columns, unnamed, strict=True))
        ]
    )
    return table_of_frame(frame.dropna(how="all"))
