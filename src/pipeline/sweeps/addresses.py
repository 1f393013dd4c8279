"""The address of a sweep's storage: read, refused, and how it is connected to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy

from pipeline.config.masking import holds_secret, mask
from pipeline.errors import UserError

# How long a process waits for SQLite's write lock: far longer than eight workers ever need.
BUSY_SECONDS = 120

# A server that is gone without a word (its machine was switched off) is noticed within half a minute, not after the
# two hours that TCP takes by itself.
_POSTGRESQL = {
    "connect_timeout": 10,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


def storage_url(configured: str | None, experiments_dir: Path) -> str:
    """The address to use: SQLite in the experiments directory unless another is configured.

    Relative SQLite files become absolute, so that worker processes find the same file.

    Raises:
        UserError: It is no address, or one that no other process could find.
    """
    if configured is None:
        return f"sqlite:///{(experiments_dir / 'optuna.db').absolute()}"
    try:
        url = sqlalchemy.make_url(configured)
    except sqlalchemy.exc.ArgumentError as error:
        raise UserError(
            f"hydra.sweeper.storage={mask(configured)} is no address. Expected sqlite:///FILE or"
            " postgresql+psycopg://USER@HOST/DATABASE."
        ) from error
    if url.drivername == "sqlite":
        if not url.database or url.database == ":memory:":
            raise UserError(
                "hydra.sweeper.storage: a study in memory cannot be resumed or shared; name a file."
            )
        return f"sqlite:///{Path(url.database).absolute()}"
    if url.drivername == "postgresql":
        # SQLAlchemy's default driver is psycopg2, this project's psycopg 3.
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def refuse_written_password(raw: Any) -> None:
    """Refuse a password typed into the configuration, which would land in files; the environment may give one.

    Args:
        raw: `hydra.sweeper.storage` as written, interpolations unresolved.

    Raises:
        UserError: The setting holds a password.
    """
    if isinstance(raw, str) and "${" not in raw and holds_secret(raw):
        raise UserError(
            f"hydra.sweeper.storage={mask(raw)} holds a password, and configurations are written to files."
            " Leave it out and set PGPASSWORD, or name a variable: hydra.sweeper.storage='${oc.env:PIPELINE_STORAGE}'."
        )


def engine_arguments(url: str) -> dict[str, Any]:
    """What SQLAlchemy's engine is made with."""
    if url.startswith("sqlite"):
        return {"connect_args": {"timeout": BUSY_SECONDS}}
    # A thread that works and one that gives signs of life: a server has room for so many connections, and a sweep may
    # have hundreds of workers. A connection that broke while it lay idle is replaced before it is used.
    arguments: dict[str, Any] = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 0}
    if url.startswith("postgresql"):
        given = sqlalchemy.make_url(url).query
        arguments["connect_args"] = {key: value for key, value in _POSTGRESQL.items() if key not in given}
    return arguments
