"""Everything that speaks MLflow: a local journal for each run, and a background process that delivers it.

`Run` is what tasks use while training; it imports nothing heavy. `pipeline.tracking.queries` looks runs and
models up in the tracking store.
"""

from pipeline.tracking.addresses import absolute_uri
from pipeline.tracking.registry import find_directory, known_runs, life, recover, take_over
from pipeline.tracking.run import Reference, Run
from pipeline.tracking.sender_link import drain, start_sender
from pipeline.tracking.syncing import Summary, sync

__all__ = [
    "Reference",
    "Run",
    "Summary",
    "absolute_uri",
    "drain",
    "find_directory",
    "known_runs",
    "life",
    "recover",
    "start_sender",
    "sync",
    "take_over",
]
