"""Peak memory of ``imdb_mlp`` above what the imports of its run take, in fresh processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from benchmarks.rows import Row

# Not `ru_maxrss`: a new process begins with what the process that started it had.
PEAK = """
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(line for line in lines if line.startswith("VmHWM")).split()[1]
"""

RUN = (
    PEAK
    + """
import sys
from pipeline.__main__ import main
before = set(sys.modules)
assert main(["+experiment=imdb_mlp", "trainer.max_epochs=2", "paths.experiments_dir=" + sys.argv[1]]) == 0
print("RESULT", peak(), *(name for name in sys.modules if name not in before and name != "__main__"))
"""
)

IMPORTS = (
    PEAK
    + """
import importlib, sys, warnings
warnings.simplefilter("ignore")
from pipeline.__main__ import main
for name in sys.stdin.read().split():
    try:
        importlib.import_module(name)
    except BaseException:
        pass
print("RESULT", peak())
"""
)


def measure(repetitions: int) -> list[Row]:
    """Megabytes; the run's own list of modules decides what is imported."""
    found = []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory() as folder:
            peak, *modules = _result([RUN, folder], "")
        [imports] = _result([IMPORTS], "\n".join(modules))
        found.append((int(peak) / 1024, int(imports) / 1024))
    peak_mb, imports_mb = (statistics.median(side) for side in zip(*found, strict=True))
    above = peak_mb - imports_mb
    return [
        Row(
            "peak memory of `imdb_mlp`",
            f"{peak_mb:.0f} MB",
            f"imports: {imports_mb:.0f} MB",
            above,
            "<= 400 MB",
        )
    ]


def _result(words: list[str], text: str) -> list[str]:
    command = [sys.executable, "-c", *words]
    output = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return next(line for line in output.splitlines() if line.startswith("RESULT")).split()[1:]
