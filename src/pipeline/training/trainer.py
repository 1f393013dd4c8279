"""Building Lightning's Trainer from the ``trainer`` config."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException

from pipeline.dynamo_inside import telling_nobody
from pipeline.errors import UserError
from pipeline.models.base import BaseModule
from pipeline.process_life import note_main_process
from pipeline.training.checkpoints import AtomicCheckpointIO
from pipeline.training.lightning_inside import QuickTrainer, search_for_gpus_once

OURS = ("steps_per_call", "accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "ema")
"""Settings that the training step itself takes, since it optimises manually."""

FIT_ONLY = ("auto_batch_size", "on_divergence", "threads", "record_every_n_steps", "_target_")
"""Settings of a fit that Lightning's Trainer knows nothing of."""
_COUNTS_BATCHES = ("limit_train_batches", "overfit_batches", "fast_dev_run", "val_check_interval")


def build_trainer(
    settings: Mapping[str, Any], model: BaseModule, directory: Path, **given: Any
) -> pl.Trainer:
    """A trainer for ``model``.

    Args:
        settings: The ``trainer`` settings: any arguments of Lightning's Trainer.
        model: Model to train; it decides what ``precision=auto`` is.
        directory: Directory that receives what Lightning writes by itself.
        **given: Arguments that the settings do not decide (callbacks, loggers).

    Raises:
        UserError: This machine or Lightning cannot do what was asked for.
    """
    quieten()
    search_for_gpus_once()
    arguments = {key: value for key, value in settings.items() if key not in (*OURS, *FIT_ONLY)}
    arguments["precision"] = precision(
        str(arguments.get("precision", "auto")), model, str(arguments["accelerator"])
    )
    if arguments.get("strategy") == "ddp" and arguments["accelerator"] == "cpu":
        from pytorch_lightning.strategies import DDPStrategy

        arguments["strategy"] = DDPStrategy(process_group_backend="gloo")
    elif arguments.get("strategy") == "fsdp":
        from pipeline.training.sharding import Sharded

        if settings.get("auto_batch_size") or settings.get("on_divergence") == "lower_lr":
            raise UserError(
                "trainer.strategy=fsdp: a fit of a model in parts cannot begin again; leave out "
                "trainer.auto_batch_size and trainer.on_divergence=lower_lr"
            )
        arguments["strategy"] = Sharded()
    note_main_process()
    try:
        arguments |= {"enable_progress_bar": False, "enable_checkpointing": True, **given}
        checkpoints = AtomicCheckpointIO()
        if arguments["accelerator"] == "tpu":
            from pipeline.training.tpu import TpuCheckpointIO, for_tpu

            arguments, checkpoints = for_tpu(arguments), TpuCheckpointIO()
        with telling_nobody():
            return QuickTrainer(
                default_root_dir=str(directory),
                plugins=[checkpoints, *environment_plugins()],
                enable_model_summary=False,
                **arguments,
            )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"Lightning's Trainer refuses these settings: {error}") from None


def environment_plugins(library: str = "pytorch_lightning") -> list[Any]:
    """Under SLURM, its environment without Lightning's own way of going on after a time limit.

    That leaves a checkpoint which Lightning then loads before everything else: the test would not be the best epoch's.
    Going on is ours: the state is saved, the job is queued again, and `resume=auto` finds it.

    Args:
        library: Package of the Trainer.
    """
    slurm = import_module(f"{library}.plugins.environments").SLURMEnvironment
    return [slurm(auto_requeue=False)] if slurm.detect() else []


def quieten() -> None:
    """Keep Lightning from telling about hardware it did not find and advice that does not apply here."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*sync_dist=True.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*GPU available but not used.*",
        ".*no `val_dataloader`.*|.*You defined a `validation_step`.*|.*`val_dataloader` hook.*",
        ".*Total length of `.*` across ranks is zero.*",
        ".*Checkpoint directory.*exists and is not empty.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        # The loader knows its place: the order of an epoch follows from its number.
        ".*resuming from a checkpoint that ended before the epoch ended.*",
        ".*Deterministic behavior was enabled.*",
        # Stages that are not learnt, and statistics that stay as they are.
        r".*module\(s\) in eval mode at the start of training.*",
        # On a cluster's login node.
        ".*`srun` command is available on your system but is not used.*",
    ):
        warnings.filterwarnings("ignore", message)


def precision(asked: str, model: BaseModule, accelerator: str) -> str:
    """``auto`` becomes bfloat16 where the model gains from it and the hardware computes it fast, else float32."""
    if asked != "auto":
        return asked
    pays = model.prefers_bfloat16 and fast_bfloat16(accelerator, _is_depthwise(model))
    return "bf16-mixed" if pays else "32-true"


def _is_depthwise(model: BaseModule) -> bool:
    """Whether a network has convolutions of single channels, as EfficientNets and MobileNets do."""
    convolutions = (layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d))
    return any(layer.groups == layer.in_channels > 1 for layer in convolutions)


def fast_bfloat16(accelerator: str, depthwise: bool = False) -> bool:
    """Whether this machine computes with bfloat16 faster than with float32 (AMX, AVX-512 BF16, recent GPUs).

    Args:
        accelerator: Lightning's name of the hardware.
        depthwise: Whether the network convolves single channels, for which AVX-512 BF16 alone does not pay: a step of
            EfficientNet-Lite0 took 0.96 s with it and 0.56 s without, one of ResNet-9 0.12 and 0.21 s (a core of an
            AMD EPYC).
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if accelerator in ("auto", "cpu") and not torch.backends.mps.is_available():
        flags = Path("/proc/cpuinfo")
        if not flags.exists():
            return False
        text = flags.read_text(errors="replace")
        return "amx_bf16" in text or ("avx512_bf16" in text and not depthwise)
    return False


def steps_per_call(settings: Mapping[str, Any], model: torch.nn.Module, every_n_steps: int | None) -> int:
    """How many optimiser steps one Lightning step runs.

    More than one pays for models whose step costs about as much as Lightning's own work on it (0.3 ms). Flags that
    count batches keep their meaning: with them it is one.
    """
    # As a fraction 1.0 is every batch; as a whole number 1 is one batch.
    if any(flag in settings and settings[flag] and repr(settings[flag]) != "1.0" for flag in _COUNTS_BATCHES):
        return 1
    if str(settings.get("strategy", "auto")) not in ("auto", "single_device"):
        return 1
    asked = settings.get("steps_per_call", "auto")
    steps = (
        int(asked) if asked != "auto" else 16 if sum(p.numel() for p in model.parameters()) < 1_000_000 else 1
    )
    if every_n_steps:
        # A checkpoint is written between two Lightning steps.
        steps = min(steps, every_n_steps)
    return steps
