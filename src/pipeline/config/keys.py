"""Ranges of the settings that no class of ours takes: of a run, of a task, of PyTorch's and Lightning's classes.

The rules of our own classes stand on the arguments of their constructors (:mod:`pipeline.config.arguments`).
"""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from pipeline.config.arguments import arguments_of
from pipeline.config.rules import (
    BELOW_ONE,
    COUNT,
    COUNT_OR_NULL,
    NOT_NEGATIVE,
    PATH_OR_NULL,
    POSITIVE,
    SEED,
    Amounts,
    Batches,
    Flag,
    FlagOrNode,
    Number,
    Rule,
    Share,
    Text,
    Texts,
    Word,
)

FRACTION = Number(0, 1)
PATH = Text("a path", r"[^\0]+")
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp")

# The first pattern that fits a key decides; a key that is not there may be anything.
RULES: dict[str, Rule] = {
    "name": Text(
        "a name of letters, digits, spaces and . _ + - (not starting with a dot)", r"[\w+\-][\w.+\- ]{0,127}"
    ),
    "tags": Texts("a list of words, like [first,try]"),
    "seed": SEED,
    "train": Flag(),
    "test": Flag(),
    "ckpt_path": PATH_OR_NULL,
    "resume": Text("auto or a run id", null=True),
    "model.compile": Flag(),
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.alpha": BELOW_ONE,
    "optimizer.lr_decay": NOT_NEGATIVE,
    "optimizer.eps": POSITIVE,
    "optimizer.nesterov": Flag(),
    "scheduler.interval": Word(("epoch", "step")),
    "scheduler.frequency": COUNT,
    "scheduler.mode": Word(("min", "max")),
    "scheduler.factor": Number(0, 1, above=True, below=True),
    "scheduler.patience": Number(0, whole=True),
    "scheduler.gamma": POSITIVE,
    "scheduler.step_size": COUNT,
    "scheduler.T_max": Number(1, whole=True, words=("auto",)),
    "scheduler.total_steps": Number(1, whole=True, words=("auto",)),
    "scheduler.pct_start": Number(0, 1, above=True),
    "scheduler.max_lr": POSITIVE,
    "scheduler.*_lr": NOT_NEGATIVE,
    "scheduler.eta_min": NOT_NEGATIVE,
    "trainer.accelerator": Word(("auto", "cpu", "gpu", "cuda", "mps", "tpu")),
    "trainer.num_nodes": COUNT,
    "trainer.max_epochs": Number(-1, whole=True, null=True, words=("auto",)),
    "trainer.min_epochs": Number(0, whole=True, null=True),
    "trainer.max_steps": Number(-1, whole=True),
    "trainer.min_steps": Number(0, whole=True, null=True),
    "trainer.max_time": Text("DD:HH:MM:SS, at most 999999 days", r"\d{1,6}:\d\d:\d\d:\d\d", null=True),
    "trainer.precision": Word((*PRECISIONS, "32", "16", "bf16", "64", 32, 16, 64), null=True),
    "trainer.deterministic": Word((True, False, "warn"), null=True),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.gradient_clip_val": Number(0, null=True),
    "trainer.gradient_clip_algorithm": Word(("norm", "value"), null=True),
    "trainer.ema": Number(0, 1, above=True, below=True, null=True),
    "trainer.steps_per_call": Number(1, whole=True, words=("auto",)),
    "trainer.record_every_n_steps": Number(1, whole=True, null=True, words=("auto",)),
    "trainer.threads": Number(1, 1024, whole=True, words=("auto",)),
    "trainer.auto_batch_size": Flag(),
    "trainer.on_divergence": Word(("stop", "lower_lr")),
    "trainer.limit_*_batches": Batches(),
    "trainer.overfit_batches": Batches(),
    "trainer.val_check_interval": Batches(none=False, null=True),
    "trainer.check_val_every_n_epoch": COUNT_OR_NULL,
    "trainer.num_sanity_val_steps": Number(-1, whole=True, null=True),
    "trainer.log_every_n_steps": Number(0, whole=True, null=True),
    "trainer.fast_dev_run": Number(0, whole=True, null=True, flag=True),
    "trainer.reload_dataloaders_every_n_epochs": Number(0, whole=True),
    "trainer.enable_*": Flag(),
    "trainer.detect_anomaly": Flag(),
    "trainer.profiler": Word(("simple", "advanced", "pytorch"), null=True),
    "callbacks.early_stopping.patience": Number(0, whole=True, null=True),
    "callbacks.early_stopping.min_delta": NOT_NEGATIVE,
    "callbacks.progress.refresh_seconds": POSITIVE,
    "callbacks.progress.layers": Flag(),
    "checkpoint.monitor": Text("auto or a metric like val/loss", r"[\w./@-]+", null=True),
    "checkpoint.every_n_steps": COUNT_OR_NULL,
    "checkpoint.every_seconds": NOT_NEGATIVE,
    "objective.metric": Text("auto or a validation metric like val/accuracy", r"[\w./@-]+"),
    "objective.direction": Word(("auto", "maximize", "minimize")),
    "logger.mlflow": FlagOrNode(),
    "logger.csv": FlagOrNode(),
    "logger.tensorboard": FlagOrNode(),
    "logger.wandb": FlagOrNode(),
    "logger.trackio": FlagOrNode(),
    "logger.comet": FlagOrNode(),
    "logger.tracking_uri": Text("an address or a path", r"\S(.*\S)?"),
    "logger.experiment_name": Text("a name"),
    "paths.data_dir": PATH,
    "paths.experiments_dir": PATH,
    "task.name": Text("the name of a task", r"\w+"),
    "task.run_id": Text("a run id", r"[\w\-]+", null=True),
    "task.model_uri": Text("a model's address, like models:/mnist@champion", r"\S(.*\S)?", null=True),
    "task.input": PATH,
    "task.output": PATH_OR_NULL,
    "task.run_dir": PATH_OR_NULL,
    "task.sweep": Text("the name of a search space in conf/sweep", r"[\w\-]+", null=True),
    "task.runs": Texts("two or more run ids, like [A,B]", least=2, most=50),
    "task.where": Text("a condition, like 'val/accuracy > 0.9'", r"(?s).+", null=True),
    "task.tag": Text("a word", r".+", null=True),
    "task.nested": Flag(),
    "task.limit": COUNT,
    "task.json": Flag(),
    "task.what": Texts("a list of debug, caches, checkpoints and runs"),
    "task.older_than": Text("a time like 12h or 30d", r"\d+(\.\d+)?[smhd]"),
    "task.keep": Number(0, whole=True),
    "task.protected_too": Flag(),
    "task.free": Flag(),
    "task.experiment": Text("the name of an experiment", r".+", null=True),
    "task.port": Number(1, 65535, whole=True),
    "task.study": Text("the name of a study", r"[^\n]+", null=True),
    "task.storage": Text("the address of a sweep's storage", r"\S(.*\S)?", null=True),
    "task.explain": Flag(),
    "task.calibrate": Flag(),
    "task.batch_size": COUNT,
    "task.trials": COUNT,
    "task.bag_folds": Number(2, whole=True, null=True, words=("auto",)),
    "task.prefer": Word(("best", "simple")),
    "task.budget": Text("a time like 90s, 20m or 2h", r"\d+(\.\d+)?[smh]?", null=True),
    "task.steps": Number(2, whole=True),
    "task.prompt": Text("a text", r"(?s).*"),
    "task.length": COUNT,
    "task.temperature": NOT_NEGATIVE,
    "task.top_k": COUNT_OR_NULL,
    "task.min_lr": POSITIVE,
    "task.max_lr": POSITIVE,
    "task.tolerance": POSITIVE,
    "task.against": Text("a run id", r"[\w\-]+", null=True),
    "task.effect": Number(0, 1, above=True, below=True),
    "task.level": Number(0, 0.5, above=True, below=True),
    "task.power": Number(0.5, 1, above=True, below=True),
    "task.looks": Number(1, 50, whole=True),
    **{
        f"hydra.launcher.{name}": Text("a name as sbatch takes it", r"[\w.,:&|*()\[\]\-]+", null=True)
        for name in ("partition", "account", "qos", "constraint")
    },
    **{
        f"hydra.launcher.{name}": COUNT
        for name in ("timeout_min", "cpus_per_task", "nodes", "tasks_per_node", "signal_delay_s")
    },
    "hydra.launcher.gpus_per_node": COUNT_OR_NULL,
    "hydra.launcher.mem_gb": Number(0, above=True, null=True),
    "hydra.launcher.wait": Flag(),
    "hydra.launcher.address": Text("auto or the address of a Ray cluster, like HOST:6379", r"[\w.:/\-\[\]]+"),
    "hydra.launcher.num_cpus": POSITIVE,
    "hydra.launcher.num_gpus": Share(),
    "hydra.launcher.resources": Amounts(
        "positive numbers by the cluster's own names, like +hydra.launcher.resources.TPU=4 (cores and GPUs are "
        "num_cpus and num_gpus)",
        reserved=("CPU", "GPU"),
    ),
    "hydra.sweeper.n_trials": COUNT,
    "hydra.sweeper.n_jobs": COUNT,
    "hydra.sweeper.timeout": Number(0, above=True, null=True),
    "hydra.sweeper.retries": Number(0, whole=True),
    "hydra.sweeper.max_failure_rate": FRACTION,
}


def rules_for(plain: dict[str, Any]) -> Callable[[str], Rule | None]:
    """What decides on the values of a configuration, without importing any class that it names.

    Args:
        plain: Configuration as plain containers.

    Returns:
        A function that takes a dotted key, like ``model.dropout``, to its rule; None where it may be anything. Settings
        of a class of someone else's are never refused by our rules: the class decides (``checks.check_classes``).
    """
    taken: dict[str, dict[str, Rule]] = {}
    foreign: set[str] = set()
    for section in ("data", "model", "optimizer", "scheduler"):
        node = plain.get(section)
        target = node.get("_target_") if isinstance(node, dict) else None
        if isinstance(target, str):
            taken[section] = {name: it.rule for name, it in arguments_of(target).items() if it.rule}
            if not target.startswith(("pipeline.", "torch.optim.")):
                foreign.add(section)

    def rule_for(key: str) -> Rule | None:
        section, _, name = key.partition(".")
        if section in foreign:
            return None
        return taken.get(section, {}).get(name) or _listed(key)

    return rule_for


def _listed(key: str) -> Rule | None:
    if key in RULES:
        return RULES[key]
    return next(
        (rule for pattern, rule in RULES.items() if "*" in pattern and fnmatchcase(key, pattern)), None
    )
