"""``task=explore``: what is in a data set, as an HTML report."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipeline.evaluation.outputs import result_directory
from pipeline.exploring.explore import explore, noted
from pipeline.exploring.report import write_report
from pipeline.runs.finished import data_of


def run(cfg: DictConfig) -> None:
    """The task behind ``task=explore``."""
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.recording import open_run, recorded

    directory = result_directory(cfg)
    with noted() as notes:
        data = data_of(cfg)
    findings = explore(data)
    findings.notes = notes
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
    print(f"report: {files[0]}")
