"""Private names of Trackio: its log() takes neither the time of a record nor an id by which it counts once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trackio
from trackio.sqlite_storage import SQLiteStorage


def write(
    project: str,
    name: str,
    key: str,
    rows: Sequence[tuple[str, str, int, Mapping[str, Any]]],
    config: Mapping[str, Any],
) -> None:
    """Write rows of metrics and the configuration of a run into the local database.

    Args:
        project: Project that the run belongs to.
        name: Name of the run.
        key: Id of the run, the same whenever something is written of it.
        rows: Id, time (ISO 8601), step and values of each row; one whose id is there already is left out.
        config: All settings of the run that are known.
    """
    # The configuration comes with rows alone.
    kept = rows or [(f"{key}-config", _EARLIEST, 0, {})]
    SQLiteStorage.bulk_log(
        project=project,
        run=name,
        run_id=key,
        metrics_list=[dict(values) for _, _, _, values in kept],
        steps=[step for _, _, step, _ in kept],
        timestamps=[moment for _, moment, _, _ in kept],
        log_ids=[row for row, _, _, _ in kept],
        config=dict(config),
    )


def image(path: Path, project: str, name: str, step: int) -> dict[str, Any]:
    """An image among the project's own files, as a value of a row.

    Args:
        path: File of the image.
        project: Project that the run belongs to.
        name: Name of the run.
        step: Epoch that it is of.
    """
    found = trackio.Image(str(path))
    found._save(project, name, step)
    described: dict[str, Any] = found._to_dict()
    return described


_EARLIEST = "1970-01-01T00:00:00+00:00"
