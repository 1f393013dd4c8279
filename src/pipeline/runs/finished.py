"""A finished run and its model, as the tasks that come after training take them up."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from pipeline.errors import UserError
from pipeline.runs.plan import plain
from pipeline.runs.settings import taken_up

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule
    from pipeline.models.saved import Predictor
    from pipeline.tracking.queries import RunRecord, Store


@dataclass(frozen=True)
class FinishedRun:
    """A run that the tracking store knows.

    Args:
        record: What the store has of it.
        cfg: Configuration that it ran with, checked; paths and logger are those of this command.
    """

    record: RunRecord
    cfg: DictConfig

    @property
    def title(self) -> str:
        """Name and id, for messages."""
        return f"{self.record.name} ({self.record.run_id})"


def delivered_run(directory: Path, cfg: DictConfig) -> FinishedRun:
    """The run that wrote ``directory`` (``task=train task.output=…``), without a tracking store.

    Raises:
        UserError: Some of its files are missing.
    """
    from pipeline.runs.handover import read_delivered
    from pipeline.tracking.queries import RunRecord

    found = read_delivered(directory)
    record = RunRecord(
        run_id=str(found.run.get("run_id") or ""),
        key="",
        name=str(found.cfg.get("name")),
        experiment=str(found.cfg.get("name")),
        status="FINISHED",
        params={},
        metrics=found.metrics,
        tags={},
        directory=None,
        config_path=None,
    )
    text = OmegaConf.to_yaml(found.cfg)
    return FinishedRun(record, _recorded_config(text, cfg, record))


def open_store(cfg: DictConfig) -> Store:
    """The tracking store of this command.

    Raises:
        UserError: There is no store yet, or it does not answer.
    """
    from pipeline.tracking.queries import Store

    return Store(cfg.logger.get("tracking_uri"), Path(cfg.paths.experiments_dir))


def find_run(store: Store, run: str, cfg: DictConfig) -> FinishedRun:
    """A run by id, key or name, with its configuration.

    Raises:
        UserError: There is no such run, it has not finished, or it recorded no usable configuration.
    """
    record = store.run(run)
    if record.status != "FINISHED":
        raise UserError(
            f"run {record.run_id} ({record.name}) has the status {record.status}; expected a finished run. "
            f"A run that was interrupted goes on with resume={record.run_id}"
        )
    with tempfile.TemporaryDirectory() as folder:
        text = store.download_artifact(record.run_id, "config.yaml", Path(folder)).read_text(encoding="utf-8")
    return FinishedRun(record, _recorded_config(text, cfg, record))


def asked_model(store: Store, cfg: DictConfig) -> str:
    """The model that ``task.run_id`` or ``task.model_uri`` names, as the store's methods take it.

    Raises:
        UserError: Neither is given, or both.
    """
    given = _one_given(cfg)
    return given if cfg.task.get("model_uri") else store.model_uri(given)


def _one_given(cfg: DictConfig) -> str:
    given = [str(cfg.task[key]) for key in ("run_id", "model_uri") if cfg.task.get(key)]
    if len(given) != 1:
        raise UserError(
            f"task={cfg.task.name} needs one model and got {len(given)}: pass task.run_id=RUN_ID, or "
            "task.model_uri=models:/NAME@champion"
        )
    return given[0]


def asked_run(store: Store, cfg: DictConfig) -> FinishedRun:
    """The run that ``task.run_id`` names, or that made the model of ``task.model_uri``.

    Raises:
        UserError: There is no such run.
    """
    uri = cfg.task.get("model_uri")
    _one_given(cfg)
    return find_run(store, run_of_model(store, str(uri)) if uri else str(cfg.task.run_id), cfg)


def run_of_model(store: Store, uri: str) -> str:
    """The id of the run that made a registered model.

    Raises:
        UserError: There is no such version, or it does not say which run made it.
    """
    scheme, _, rest = uri.partition(":/")
    name, alias, number = rest.strip("/").partition("@")[0], rest.partition("@")[2], rest.partition("/")[2]
    if scheme == "runs":
        return rest.strip("/").split("/")[0]
    if not alias and number:
        name = rest.split("/")[0]
    version = store.version(name, alias or number) if scheme == "models" and (alias or number) else None
    if version is None or version.run_id is None:
        raise UserError(
            f"task.model_uri={uri} does not lead to the run that made it; expected models:/NAME@ALIAS or "
            "models:/NAME/VERSION of a registered model, or pass task.run_id=RUN_ID"
        )
    return version.run_id


def load_predictor(store: Store, model: str) -> Predictor:
    """The model of a run (id) or of an address (``models:/…``) with its encoder, on the accelerator if there is one.

    Raises:
        UserError: There is no such model, or this project did not log it.
    """
    import torch

    from pipeline.models.saved import load

    with tempfile.TemporaryDirectory() as folder:
        predictor = load(store.bundle(model, Path(folder)))
    if torch.cuda.is_available():
        predictor.module.to("cuda")
    return predictor


def data_of(cfg: DictConfig) -> DataModule:
    """The data set of a configuration, with the seeds set as a run sets them before it builds its data."""
    import pytorch_lightning as pl

    from pipeline.training.building import build_data
    from pipeline.training.trainer import quieten

    quieten()
    pl.seed_everything(int(cfg.seed), verbose=False)
    return build_data(plain(cfg.data), plain(cfg.get("model")))


def data_for(cfg: DictConfig, predictor: Predictor) -> DataModule:
    """The data set of a configuration as a model's own encoder makes it (earlier versions fitted others)."""
    from pipeline.data.tables.encoder import TableEncoder
    from pipeline.data.tables.table import TableData

    data, encoder = data_of(cfg), predictor.encoder
    if isinstance(data, TableData) and isinstance(encoder, TableEncoder):
        return data if encoder.state() == data.encoder.state() else data.encoded_by(encoder)
    return data


def _recorded_config(text: str, cfg: DictConfig, record: RunRecord) -> DictConfig:
    import yaml

    from pipeline.config import check

    try:
        found = OmegaConf.create(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(
            f"the configuration that run {record.run_id} recorded cannot be read: {error}"
        ) from None
    if not isinstance(found, DictConfig) or "data" not in found or "model" not in found:
        raise UserError(f"run {record.run_id} ({record.name}) recorded no configuration of a training run")
    taken_up(found, cfg)
    # It may come from someone else's store: what it names is checked as if it had been typed.
    check(found)
    return found
