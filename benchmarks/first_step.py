"""A callback that notes when the first optimiser step of the process is done (see commands.py)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.optim.optimizer import register_optimizer_step_post_hook


class FirstStep(pl.Callback):
    """Writes the time (seconds since 1970) into ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = Path(path)
        self._handle = register_optimizer_step_post_hook(self._stepped)

    def _stepped(self, *_: Any) -> None:
        self._path.write_text(str(time.time()))
        self._handle.remove()
