"""Whether verdicts and intervals hold: ``python -m benchmarks.verdicts [--only TABLE …] [--repetitions 200]``.

For each repetition a table is dealt out anew into training, validation and test. Once with its targets shuffled, so
that no model can beat the baseline: how often is "beats" said all the same? And once as it is, where the target is a
number: which share of the test rows lies in the model's 90 % intervals? ``noise`` is a table of random numbers. What is
measured is appended to a file of JSON lines, and what stands there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import tables

NOISE = "noise"
MODELS = {
    "linear": ["model=linear", "model.solver=exact"],
    "boosting": ["model=boosting", "model.n_estimators=200"],
}


def frame_of(name: str, seed: int) -> tuple[pd.DataFrame, str]:
    """The rows of a table and its target; of ``noise``, new numbers for each seed."""
    if name == NOISE:
        draw = np.random.default_rng(seed)
        made = pd.DataFrame(draw.normal(size=(600, 8)), columns=[f"x{number}" for number in range(8)])
        return made.assign(y=draw.normal(size=600)), "y"
    folder = tables.directory() / name
    return pd.concat([pd.read_csv(folder / f"{part}.csv") for part in ("train", "test")]), tables.TARGETS[
        name
    ]


def measured(name: str, model: str, shuffled: bool, seed: int) -> dict[str, Any]:
    """What one fit says: its verdict, and the share of test rows within its intervals."""
    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    frame, target = frame_of(name, seed)
    if shuffled:
        frame[target] = np.random.default_rng(seed).permutation(frame[target].to_numpy())
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{name}.csv"
        frame.to_csv(path, index=False)
        words = [
            "data=csv",
            f"data.path={path}",
            f"data.target={target}",
            "logger=none",
            "callbacks.progress=null",
        ]
        words += [f"seed={seed}", f"data.seed={seed}", f"paths.experiments_dir={place}", *MODELS[model]]
        words += ["data.test_fraction=0.3"]
        result = train(compose(words), Hooks(directory=Path(place) / "run", reports=False))
    return {"verdict": result.verdicts[0]["verdict"], "coverage": result.metrics.get("test/coverage")}


def report(rows: list[dict[str, Any]]) -> str:
    """The share of wrong verdicts and the mean coverage of each table and model."""
    lines = [
        "| table | model | repetitions | wrong “beats” (at most 5 %) | rows in 90 % intervals (87 to 93 %) |"
    ]
    lines.append("|---|---|---|---|---|")
    for name, model in sorted({(row["table"], row["model"]) for row in rows}):
        some = [row for row in rows if (row["table"], row["model"]) == (name, model)]
        wrong = [row["verdict"] == "beats" for row in some if row["shuffled"]]
        held = [row["coverage"] for row in some if row["coverage"] is not None and not row["shuffled"]]
        said = f"{statistics.mean(wrong):.1%}" if wrong else ""
        lines.append(
            f"| {name} | {model} | {len(wrong)} | {said} | {f'{statistics.mean(held):.1%}' if held else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", default=["concrete", "biomass", "attrition", NOISE], metavar="TABLE"
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--file", type=Path, default=Path("verdicts.jsonl"), help="where figures are kept")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = (
        [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    )
    done = {(row["table"], row["model"], row["shuffled"], row["seed"]) for row in rows}
    for seed in range(options.repetitions):
        for name in options.only:
            for model in options.models:
                for shuffled in (True, False):
                    # Noise is no less noise where it is not shuffled, and classes have no intervals.
                    if (name, model, shuffled, seed) in done or (name not in tables.NUMBERS and not shuffled):
                        continue
                    row = {"table": name, "model": model, "shuffled": shuffled, "seed": seed}
                    row |= measured(name, model, shuffled, seed)
                    rows.append(row)
                    with options.file.open("a") as file:
                        file.write(json.dumps(row) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
