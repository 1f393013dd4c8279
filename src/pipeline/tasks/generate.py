"""Write a text with a trained character model: a prompt in, how it goes on out."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from pipeline.errors import UserError
from pipeline.files import written


def run(cfg: DictConfig) -> None:
    """The task behind ``task=generate``."""
    from pipeline.runs.finished import asked_model, find_run, load_predictor, open_store
    from pipeline.runs.own_model import own_module

    output = str(cfg.task.output)
    target = Path(output).expanduser()
    if output != "-" and (target.is_dir() or not target.parent.is_dir()):
        raise UserError(f"task.output={output}: expected a file in a directory that is there")
    store = open_store(cfg)
    model = asked_model(store, cfg)
    if not cfg.task.get("model_uri") and own_module(find_run(store, str(cfg.task.run_id), cfg)) is not None:
        raise UserError(
            f"run {cfg.task.run_id} trained a LightningModule of its own, which alone knows how it writes; expected a "
            "model that was trained with data=kafka, data=text_file or data=help"
        )
    text = load_predictor(store, model).generate(
        str(cfg.task.prompt),
        int(cfg.task.length),
        float(cfg.task.temperature),
        seed=int(cfg.seed),
        top_k=cfg.task.top_k,
    )
    if output == "-":
        print(text)
        return
    with written(target) as draft:
        draft.write_text(text, encoding="utf-8")
    print(f"{len(text):,} characters in {output}")
