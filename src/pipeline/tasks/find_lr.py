"""``task=find_lr``: a learning rate to start with, from a range test."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipeline.runs.find_lr import draw, find_lr


def run(cfg: DictConfig) -> None:
    """The task behind ``task=find_lr``."""
    from pipeline.evaluation.outputs import result_directory
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.recording import open_run, recorded

    result = find_lr(cfg)
    directory = result_directory(cfg)
    path = draw(result, directory / "find_lr.png")
    tracked = open_run(cfg, Path(cfg.paths.run_dir), Hooks(), f"{cfg.name}-find_lr")
    with recorded(tracked):
        for step, (rate, loss) in enumerate(zip(result.rates, result.losses, strict=True)):
            tracked.log_metrics({"find_lr/rate": rate, "find_lr/loss": loss}, step=step)
        tracked.log_artifact(path, "plots")
        if result.suggestion is not None:
            tracked.log_metrics({"find_lr/suggestion": result.suggestion})
    tracked.finish("FINISHED")
    tracked.wait(60.0)
    print(f"plot: {path}")
    if result.suggestion is None:
        print(
            "The loss fell at no rate: look at the data, the model, or another range (task.min_lr, task.max_lr)."
        )
    else:
        print(f"suggestion: optimizer.lr={result.suggestion:g}")
