"""Work on many columns at once."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def for_each(work: Callable[..., T], arguments: Sequence[tuple[Any, ...]], rows: int) -> list[T]:
    """``work`` for every column, on several threads where there are enough rows (NumPy lets them run at once)."""
    if rows < 50_000:
        return [work(*some) for some in arguments]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(lambda some: work(*some), arguments))
