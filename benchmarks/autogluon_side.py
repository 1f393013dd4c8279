"""AutoGluon's side of a comparison, run by a Python that has it: it knows nothing of this package.

``PYTHON benchmarks/autogluon_side.py FOLDER TARGET SECONDS number|class CORES PLACE OUT`` fits ``FOLDER/train.csv``
within SECONDS and writes to OUT, as JSON, what each row of ``FOLDER/test.csv`` adds to the metric: its absolute error,
or minus the logarithm of its true class's probability.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

LEAST = 1e-15
"""Smallest probability, as scikit-learn's log_loss clips it for float64."""


def main() -> None:
    """Fit, predict, write."""
    from autogluon.tabular import TabularPredictor

    folder, target, seconds, kind, cores, place, out = sys.argv[1:]
    train, test = (pd.read_csv(Path(folder) / f"{part}.csv") for part in ("train", "test"))
    metric = "mean_absolute_error" if kind == "number" else "log_loss"
    began = time.time()
    predictor = TabularPredictor(target, eval_metric=metric, path=place, verbosity=0).fit(
        train, time_limit=float(seconds), presets="high_quality", num_cpus=int(cores)
    )
    fit = time.time() - began
    if kind == "number":
        losses = np.abs(predictor.predict(test).to_numpy() - test[target].to_numpy())
        right = None
    else:
        p = predictor.predict_proba(test)
        places = p.columns.get_indexer(test[target])
        losses = -np.log(np.clip(p.to_numpy()[np.arange(len(p)), places], LEAST, 1.0))
        right = float((p.to_numpy().argmax(1) == places).mean())
    Path(out).write_text(
        json.dumps({"losses": [round(float(loss), 7) for loss in losses], "accuracy": right, "fit": fit})
    )


if __name__ == "__main__":
    main()
