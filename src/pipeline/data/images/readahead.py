"""Rows of a file that are wanted in any order, from a disk that is best read in its own.

The order in which rows are taken stays as it was drawn; what changes is when the disk is told of it. A file that fits
into the memory that is free is read once from its beginning to its end, after which the system has its pages. Of a
larger one the rows of the next batches are asked for ahead, many at once: no row is waited for by itself.
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np

from pipeline.data.core.memory import free_memory
from pipeline.data.core.waiting import shown

log = logging.getLogger(__name__)

AHEAD_BYTES = 64 << 20
"""Bytes of rows that the disk is asked for ahead."""
_PROBED = 64
"""Rows that are looked at to say whether the system has a file's pages."""
_WORTH_IT = 0.25
"""Share of a file's rows that have to be wanted, for reading all of it in order to be the faster way."""
_PIECE = 8 << 20
_GAP = 64 << 10
"""Bytes between two rows that are read along with them: they take less time than another request."""


class FileRows:
    """Rows of the same size in an open file.

    Args:
        path: The file, for messages.
        descriptor: The open file.
        offset: Where the first row begins, in bytes.
        size: Bytes of a row.
        count: Number of rows.
    """

    def __init__(self, path: Path, descriptor: int, offset: int, size: int, count: int) -> None:
        self.path, self.descriptor, self.offset, self.size, self.count = path, descriptor, offset, size, count

    def missing(self, rows: np.ndarray) -> float:
        """About which share of ``rows`` the disk would have to be asked for; 0 where that cannot be told."""
        if not hasattr(os, "RWF_NOWAIT") or not len(rows):
            return 0.0
        # Of every so many-th one: pages that are there are copied at once, and nothing is waited for.
        probed, buffer, away = rows[:: max(1, len(rows) // _PROBED)], bytearray(1), 0
        for row in probed.tolist():
            # Its end: what was read ahead of a neighbour ends before it.
            place = self.offset + (row + 1) * self.size - 1
            try:
                os.preadv(self.descriptor, [buffer], place, os.RWF_NOWAIT)
            except BlockingIOError:
                away += 1
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                # Not every file system can say so.
                return 0.0
        return away / len(probed)

    def prepare(self, rows: np.ndarray) -> bool:
        """Read the file in order where its pages are not there and have room; gives whether rows are to be asked for.

        Args:
            rows: All rows that are wanted, in any order.
        """
        if (away := self.missing(rows)) <= 0.05:
            return False
        total = self.count * self.size
        if len(rows) < _WORTH_IT * self.count or total > free_memory() / 2:
            return True
        ends = range(0, self.offset + total, _PIECE)
        buffer = bytearray(_PIECE)
        what = f"reading {total / 1e9:.1f} GB of decoded images from the disk ({away:.0%} of them are not in memory)"
        for place in shown(ends, len(ends), what):
            os.preadv(self.descriptor, [buffer], place)
        return False

    def ask_for(self, rows: np.ndarray) -> None:
        """Tell the disk that ``rows`` are wanted soon, with what lies between near ones; nothing is waited for."""
        if not len(rows):
            return
        places = np.unique(rows)
        ends = np.flatnonzero((np.diff(places) - 1) * self.size > _GAP)
        firsts, lasts = places[np.append(0, ends + 1)], places[np.append(ends, len(places) - 1)]
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
            start, stop = self.offset + first * self.size, self.offset + (last + 1) * self.size
            for place in range(start, stop, _PIECE):
                length = min(_PIECE, stop - place)
                os.posix_fadvise(self.descriptor, place, length, os.POSIX_FADV_WILLNEED)
