"""Delivering what earlier runs could not."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.config.masking import holds_secret, mask
from pipeline.tracking import registry
from pipeline.tracking.addresses import absolute_uri


@dataclass
class Summary:
    """What a `sync` did.

    Args:
        delivered: Run directories whose records have now all arrived.
        failed: Run directories with the reason why some of their records could not be delivered.
        running: Run directories left to their own process, which still runs.
    """

    delivered: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    running: list[Path] = field(default_factory=list)


def sync(experiments_dir: Path, tracking_uri: str | None = None) -> Summary:
    """Deliver every journal that is not delivered yet, after marking runs whose process vanished.

    Args:
        experiments_dir: Directory in which the runs were recorded.
        tracking_uri: Address of the MLflow store to deliver to; None for where each run was meant to go (where that
            address has a password, MLFLOW_TRACKING_URI must give it).
    """
    experiments_dir = experiments_dir.absolute()
    registry.recover(experiments_dir)
    summary = Summary()
    for entry in registry.pending_runs(experiments_dir):
        if not entry.finished and registry.is_running(entry.directory, entry.owner):
            summary.running.append(entry.directory)
        elif not entry.directory.is_dir():
            summary.failed[entry.directory] = "the run directory is gone, and with it what was not delivered"
            registry.unregister(experiments_dir, entry.key)
        else:
            _deliver(experiments_dir, entry, tracking_uri, summary)
    return summary


def _deliver(
    experiments_dir: Path, entry: registry.Pending, tracking_uri: str | None, summary: Summary
) -> None:
    from pipeline.tracking.sender import hold

    uri = _address(entry, tracking_uri, experiments_dir)
    if uri is None:
        summary.failed[entry.directory] = f"the password of {entry.uri} is not kept; set MLFLOW_TRACKING_URI"
        return
    watched = hold(entry.directory, uri, experiments_dir, adopted=True)
    if watched is None:
        summary.running.append(entry.directory)
        return
    try:
        watched.delivery.deliver()
        summary.delivered.append(entry.directory)
    except Exception as error:
        summary.failed[entry.directory] = mask(str(error)) or type(error).__name__
    finally:
        watched.close()


def _address(entry: registry.Pending, tracking_uri: str | None, experiments_dir: Path) -> str | None:
    if tracking_uri is not None and entry.uri:
        return absolute_uri(tracking_uri, experiments_dir)
    if not holds_secret(entry.uri):
        return entry.uri
    from_environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    return from_environment if mask(from_environment) == entry.uri else None
