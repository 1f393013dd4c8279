"""An experiments directory that was moved: what is written down with whole paths is found where it is now."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlparse

log = logging.getLogger(__name__)

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's own that hold addresses of files."""


def found_again(directory: Path, experiments_dir: Path) -> Path:
    """A directory of an experiments directory, where that is now.

    Args:
        directory: The directory as it was written down.
        experiments_dir: The experiments directory as it is.

    Returns:
        ``directory`` where it is still there or nowhere to be found.
    """
    if directory.is_dir():
        return directory
    parts = directory.parts
    tails = (experiments_dir.joinpath(*parts[start:]) for start in range(1, len(parts)))
    return next((place for place in tails if place.is_dir()), directory)


def adopt(database: Path) -> None:
    """Have an embedded store's addresses follow the directory that it was moved with.

    Args:
        database: The store's SQLite file, with ``artifacts/`` beside it.
    """
    home = database.parent
    if not database.is_file() or not (home / "artifacts").is_dir():
        return
    with contextlib.closing(sqlite3.connect(database)) as connection, contextlib.suppress(sqlite3.Error):
        written = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        homes = {_home(str(address)) for (address,) in written} - {None, home}
        for old in homes:
            if old is None or (old / "artifacts").exists():
                continue
            before, after = f"{old.as_uri()}/", f"{home.as_uri()}/"
            for table, column in _ADDRESSES:
                _replace(connection, table, column, before, after)
            _replace(connection, "tags", "value", f"{old}/", f"{home}/", "AND key = 'pipeline.directory'")
            connection.commit()
            log.info("The runs of %s are in %s now.", old, home)


def _home(address: str) -> Path | None:
    """The directory that an experiment's files were kept below; None for an address of another kind."""
    path = unquote(urlparse(address).path)
    before, found, _ = path.rpartition("/artifacts/")
    return Path(before) if found and address.startswith("file:") else None


def _replace(
    connection: sqlite3.Connection, table: str, column: str, before: str, after: str, where: str = ""
) -> None:
    # A version of MLflow may lack one of the columns.
    with contextlib.suppress(sqlite3.OperationalError):
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ? {where}",
            (after, len(before) + 1, len(before), before),
        )
