"""Models on public tables: ``python -m benchmarks.tables [--only TABLE ...] [--what NAME ...]``.

The tables are directories ``tables/NAME`` with ``train.csv`` and ``test.csv``, looked for on PIPELINE_DATA_PATH. Each
figure (mean absolute error, or log loss and accuracy) is that of a whole command in a process of its own, or of
scikit-learn's untuned models on ordinal codes. What is measured is written to a file of JSON lines, and what stands
there is not measured again; the table at the end has medians over the seeds.

What can be measured: a model of ours (``default``, ``linear``, ``forest``, ``boosting``), ``improve-60`` (the ladder
within 60 seconds), ``sklearn-linear``, ``sklearn-boosting``, ``sklearn-forest``, and ``autogluon-60`` where
``--python PYTHON`` names a Python that has it. ``--against autogluon --budget 60s`` measures what that comparison
needs, see :mod:`benchmarks.against`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TARGETS = {
    "ames": "Sale_Price",
    "attrition": "Attrition",
    "mlc_churn": "churn",
    "cells": "class",
    "concrete": "compressive_strength",
    "cat_adoption": "event",
    "Sacramento": "price",
    "deliveries": "time_to_delivery",
    "hpc_data": "class",
    "scat": "Species",
    "biomass": "HHV",
    "leaf_id_flavia": "species",
    "hotel_rates": "avg_price_per_room",
    "penguins": "species",
}
NUMBERS = ("ames", "concrete", "Sacramento", "deliveries", "biomass", "hotel_rates")
OURS = {
    "linear": ["model=linear", "model.solver=exact"],
    "forest": ["model=forest"],
    "boosting": ["model=boosting"],
    "default": [],
}
REFERENCES = ("sklearn-linear", "sklearn-boosting", "sklearn-forest")


def directory() -> Path:
    """Where the tables are."""
    for place in os.environ.get("PIPELINE_DATA_PATH", "").split(os.pathsep):
        if place and (Path(place) / "tables").is_dir():
            return Path(place) / "tables"
    raise SystemExit("no directory of PIPELINE_DATA_PATH has tables/")


def measured(table: str, what: str, seed: int, autogluon: str | None) -> dict[str, Any]:
    """The test figures of one model on one table, and the seconds of its command."""
    began = time.time()
    if what in REFERENCES:
        found = reference(table, what, seed)
    elif what.startswith("autogluon-"):
        from benchmarks.against import by_autogluon

        found = by_autogluon(table, float(what.partition("-")[2]), str(autogluon))
    else:
        found = by_pipeline(table, what, seed)
    return {"seconds": time.time() - began, **found}


def by_pipeline(table: str, what: str, seed: int) -> dict[str, Any]:
    """A whole command."""
    folder = directory() / table
    with tempfile.TemporaryDirectory() as place:
        words = [
            *("data=csv", f"data.path={folder}/train.csv", f"data.test_path={folder}/test.csv"),
            *(f"data.target={TARGETS[table]}", "logger=none", f"hydra.run.dir={place}/run", f"seed={seed}"),
            f"paths.experiments_dir={place}",
        ]
        if what.startswith("improve-"):
            words += ["task=improve", f"task.budget={what.partition('-')[2]}s", f"data.seed={seed}"]
            # What the other side is given too.
            words += ["objective.metric=val/log_loss"] if table not in NUMBERS else []
        else:
            words += OURS[what]
        began = time.time()
        command(words)
        seconds = time.time() - began
        if what.startswith("improve-"):
            from benchmarks.against import losses_of

            return {**losses_of(table, Path(place) / "run"), "seconds": seconds}
        result = json.loads((Path(place) / "run/result.json").read_text())
    metrics = result["metrics"]
    names = {"mae": "test/mae", "log_loss": "test/log_loss", "accuracy": "test/accuracy"}
    return {
        key: metrics[name]
        for key, name in names.items()
        if name in metrics and (key == "mae") == (table in NUMBERS)
    }


def command(words: list[str]) -> None:
    """Run the pipeline and show what it says where it fails."""
    done = subprocess.run([sys.executable, "-m", "pipeline", *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def reference(table: str, what: str, seed: int) -> dict[str, float]:
    """scikit-learn's models as they are, on standardised and one-hot columns (linear) or ordinal codes (trees)."""
    import pandas as pd
    from sklearn import compose, ensemble, impute, linear_model, metrics, pipeline, preprocessing

    train, test = (pd.read_csv(directory() / table / f"{part}.csv") for part in ("train", "test"))
    target, number = TARGETS[table], table in NUMBERS
    y, held = train.pop(target), test.pop(target)
    words = [name for name in train if not pd.api.types.is_numeric_dtype(train[name])]
    numbers = [name for name in train if name not in words]
    if what == "sklearn-linear":
        ready: Any = pipeline.make_pipeline(impute.SimpleImputer(), preprocessing.StandardScaler())
        coded: Any = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        model: Any = (
            linear_model.RidgeCV([0.1, 1, 10, 100])
            if number
            else linear_model.LogisticRegression(max_iter=2000)
        )
    else:
        ready = impute.SimpleImputer(strategy="median")
        coded = preprocessing.OrdinalEncoder(
            handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2
        )
        kinds = {
            "sklearn-boosting": (
                ensemble.HistGradientBoostingRegressor,
                ensemble.HistGradientBoostingClassifier,
            ),
            "sklearn-forest": (ensemble.ExtraTreesRegressor, ensemble.ExtraTreesClassifier),
        }[what]
        many = {"n_estimators": 500, "n_jobs": 2} if what == "sklearn-forest" else {}
        model = kinds[not number](random_state=seed, **many)
    chain = pipeline.make_pipeline(
        compose.ColumnTransformer([("numbers", ready, numbers), ("words", coded, words)]), model
    ).fit(train, y)
    if number:
        return {"mae": float(metrics.mean_absolute_error(held, chain.predict(test)))}
    p = chain.predict_proba(test)
    return {
        "log_loss": float(metrics.log_loss(held, p, labels=chain.classes_)),
        "accuracy": float((chain.predict(test) == held).mean()),
    }


def report(rows: list[dict[str, Any]], tables: list[str], whats: list[str]) -> str:
    """Medians over the seeds, with the mean rank and the geometric mean of each against the best."""
    figures: dict[tuple[str, str], float] = {}
    for table in tables:
        key = "mae" if table in NUMBERS else "log_loss"
        for what in whats:
            found = [row[key] for row in rows if (row["table"], row["what"]) == (table, what)]
            if found:
                figures[table, what] = statistics.median(found)
    lines = ["| table | " + " | ".join(whats) + " |", "|---" * (len(whats) + 1) + "|"]
    for table in tables:
        cells = [f"{figures[table, what]:.4g}" if (table, what) in figures else "" for what in whats]
        lines.append(f"| {table} | " + " | ".join(cells) + " |")
    whole = [table for table in tables if all((table, what) in figures for what in whats)]
    ranks, behind = [], []
    for what in whats:
        each = [
            sorted(figures[table, other] for other in whats).index(figures[table, what]) + 1
            for table in whole
        ]
        best = [min(figures[table, other] for other in whats) for table in whole]
        ranks.append(f"{statistics.mean(each):.2f}" if whole else "")
        worst = max(
            (figures[table, what] / low - 1 for table, low in zip(whole, best, strict=True)), default=0
        )
        behind.append(f"{worst:.0%}" if whole else "")
    lines += [
        "| mean rank | " + " | ".join(ranks) + " |",
        "| furthest behind the best | " + " | ".join(behind) + " |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    from benchmarks import against

    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(TARGETS), choices=list(TARGETS), metavar="TABLE")
    parser.add_argument("--what", nargs="+", metavar="NAME", help="default: the references and default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--against", choices=["autogluon"], help="compare a ladder with it, row by row")
    parser.add_argument("--budget", default="60s", help="time for each side of --against: 60s, 3m")
    parser.add_argument("--file", type=Path, default=Path("tables.jsonl"), help="where figures are kept")
    parser.add_argument("--python", metavar="PYTHON", help="a Python that has autogluon.tabular")
    options = parser.parse_args()
    whats = options.what or [*REFERENCES, "default"]
    if options.against:
        if not options.python:
            raise SystemExit("--against autogluon needs --python: a Python that has autogluon.tabular")
        seconds = against.seconds_of(options.budget)
        whats = [*REFERENCES, f"improve-{seconds:g}", f"autogluon-{seconds:g}"]
    rows = (
        [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    )
    for table in options.only:
        for what in whats:
            for seed in options.seeds if not what.startswith("autogluon") else options.seeds[:1]:
                if any((row["table"], row["what"], row["seed"]) == (table, what, seed) for row in rows):
                    continue
                row = {"table": table, "what": what, "seed": seed}
                row |= measured(table, what, seed, options.python)
                rows.append(row)
                with options.file.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps({key: value for key, value in row.items() if key != "losses"}), flush=True)
    if options.against:
        print(against.report(rows, options.only, seconds))
        return
    print(report(rows, options.only, whats))


if __name__ == "__main__":
    main()
