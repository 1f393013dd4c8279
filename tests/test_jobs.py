"""What every command begins with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_the_first_start_of_an_installation_does_not_speak_of_fonts(tmp_path: Path) -> None:
    code = (
        "import logging; from pipeline.jobs import hydra_of\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "with hydra_of(None, False): import matplotlib.font_manager\n"
    )
    environment = {**os.environ, "MPLCONFIGDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=True)
    # The list of fonts was made, which is what Matplotlib tells at its first start.
    assert list(tmp_path.glob("fontlist-*.json")) and done.stderr == ""
