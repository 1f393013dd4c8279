"""``task=explore``: what is in a data set, as an HTML report."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipeline.evaluation.outputs import result_directory
from pipeline.exploring.explore import explore, noted
from pipeline.exploring.findings import Findings
from pipeline.exploring.orders import in_short as orders_in_short
from pipeline.exploring.report import write_report
from pipeline.exploring.tables import METRICS
from pipeline.runs.finished import data_of


def run(cfg: DictConfig) -> None:
    """The task behind ``task=explore``."""
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.recording import open_run, recorded

    directory = result_directory(cfg)
    with noted() as notes:
        data = data_of(cfg)
    findings = explore(data)
    # What was guessed stands in the report already.
    findings.notes = [
        note for note in notes if not any(note.startswith(guess["what"]) for guess in findings.guesses)
    ]
    files = write_report(data, findings, directory)
    tracked = open_run(cfg, Path(cfg.paths.run_dir), Hooks(), f"{data.used}-explore")
    with recorded(tracked):
        tracked.set_tags({"data.requested": data.requested, "data.used": data.used})
        tracked.log_metrics({f"explore/{name}": count for name, count in findings.sizes.items()})
        for file in files:
            tracked.log_artifact(file, "explore")
    tracked.finish("FINISHED")
    tracked.wait(60.0)
    sizes = ", ".join(f"{count:,} {name}" for name, count in findings.sizes.items())
    print("\n".join([f"{data.used}: {sizes}", *(f"WARNING: {warning}" for warning in findings.warnings)]))
    for line in in_short(findings):
        print(line)
    print(f"report: {files[0]}")


def in_short(findings: Findings, most: int = 5) -> list[str]:
    """What was seen in orders, or the columns of a table that tell most and those that differ in the test rows."""
    lines = orders_in_short(findings.orders) if findings.orders else []
    if findings.columns:
        metric = METRICS[findings.baseline["metric"]]
        lines.append(
            f"alone, by {metric} on rows not learnt from (without any column {findings.baseline['value']:.3f}):"
        )
        lines += [f"  {row['column']}: {row['score']:.3f}" for row in findings.columns[:most]]
        gappy = sorted((row for row in findings.columns if row["missing"]), key=lambda row: -row["missing"])
        if gappy:
            lines.append(
                "missing: " + ", ".join(f"{row['column']} {row['missing']:.1%}" for row in gappy[:most])
            )
    if findings.drift_auc is not None:
        drifted = [row["column"] for row in findings.drift if row["drifted"]]
        what = f"differ in {', '.join(drifted[:most])}" if drifted else "do not differ in any single column"
        lines.append(
            f"test rows {what}; told apart with an area under the ROC curve of {findings.drift_auc:.3f}"
        )
    return lines
