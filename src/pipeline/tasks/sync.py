"""Send what was recorded while the tracking server was away."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipeline.config.masking import mask
from pipeline.tracking import Summary, sync


def run(cfg: DictConfig) -> int:
    """The task behind ``task=sync``: deliver every journal and say what became of each.

    Returns:
        The exit code: 0 if nothing is left undelivered, 1 otherwise.
    """
    # Each run knows where it was meant to go; it is sent elsewhere only where that was asked for.
    summary = sync(Path(cfg.paths.experiments_dir), _typed_address(cfg))
    print("\n".join(in_words(summary)))
    return 1 if summary.failed else 0


def in_words(summary: Summary) -> list[str]:
    """A line for every run, and one that sums up."""
    lines = [f"delivered: {directory}" for directory in summary.delivered]
    lines += [f"still recording, left to its own process: {directory}" for directory in summary.running]
    lines += [f"NOT delivered: {directory}: {mask(reason)}" for directory, reason in summary.failed.items()]
    if not lines:
        return ["Nothing was waiting: everything recorded has been delivered."]
    counts = (
        f"{len(summary.delivered)} delivered, {len(summary.failed)} not, {len(summary.running)} still running"
    )
    return [*lines, counts + ("; try again when the server is back" if summary.failed else "")]


def _typed_address(cfg: DictConfig) -> str | None:
    from pipeline.config.typed import typed_overrides

    typed = any(word.lstrip("+").startswith("logger.tracking_uri=") for word in typed_overrides("logger"))
    return str(cfg.logger.tracking_uri) if typed else None
