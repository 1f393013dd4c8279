"""SciPy writes no notes into its documentation in a process that runs one command, and computes what it computes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from pipeline import scipy_inside
from pipeline.process_life import run_process
def main():
    import scipy, scipy.stats
    module = sys.modules[scipy_inside.MODULE]
    wanted = tuple(map(int, scipy.__version__.split(".")[:2])) >= (1, 16)
    print(hasattr(module, scipy_inside.DECORATOR) or not wanted, module.__loader__ is module.__spec__.loader)
    print([finder for finder in sys.meta_path if isinstance(finder, scipy_inside._Finder)])
    test = scipy.stats.binomtest(7, 10, 0.5)
    print(round(test.pvalue, 6), round(float(scipy.stats.pearsonr([1, 2, 3], [1, 3, 2]).statistic), 6))
    print("Array API" in scipy.stats.pearsonr.__doc__, "correlation" in scipy.stats.pearsonr.__doc__)
    return 0
run_process(main)
"""


def test_its_functions_are_there_without_the_notes() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # 2 * (120 + 45 + 10 + 1) / 1024 of ten tosses are as uneven; of three pairs, one changes places with the next.
    assert done.stdout.splitlines() == ["True True", "[]", "0.34375 0.5", "False True"]
