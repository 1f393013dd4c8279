"""Delivering what earlier runs could not."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Summary:
    """What a `sync` did.

    Args:
        delivered: run directories whose records have now all arrived.
        failed: run directories with the reason why some of their records could not be delivered.
        running: run directories left to their own process, which still runs.
    """

    delivered: list[Path]
    failed: dict[Path, str]
    running: list[Path]


def sync(experiments_dir: Path, tracking_uri: str | None = None) -> Summary:
    """Deliver every journal that is not delivered yet, after marking runs whose process vanished.

    Args:
        experiments_dir: where the runs were recorded.
        tracking_uri: deliver there; None for where each run was meant to go (where that address has a password,
            MLFLOW_TRACKING_URI must give it).
    """
    raise NotImplementedError
