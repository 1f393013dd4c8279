"""What values a setting may have: one table."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, runtime_checkable

from pipeline.config.nearest import suggest


@runtime_checkable
class Rule(Protocol):
    """What a setting may be."""

    def expected(self) -> str:
        """In words, for a message."""

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is one."""


@dataclass(frozen=True)
class Number:
    """A finite number in a range.

    Args:
        low, high: Ends of the range, included unless said otherwise.
        above: Whether ``low`` is excluded.
        below: Whether ``high`` is excluded.
        whole: Whether the number has to be whole.
        null: Whether null is a value too.
        many: Whether a list of such numbers is a value too.
        flag: Whether true and false are values too.
        words: Words that stand for a value, like ``auto``.
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False
    null: bool = False
    many: bool = False
    flag: bool = False
    words: tuple[str, ...] = ()

    def expected(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        low = "" if self.low == -math.inf else f"{'above' if self.above else 'from'} {self.low:g}"
        high = "" if self.high == math.inf else f"{'below' if self.below else 'to'} {self.high:g}"
        if low and high:
            kind += f" {low} to {high.removeprefix('to ')}"
        elif low:
            kind += f" above {self.low:g}" if self.above else f" of at least {self.low:g}"
        elif high:
            kind += f" {high}"
        others = ["a list of such"] * self.many + ["true or false"] * self.flag
        others += [*self.words, *["null"] * self.null]
        return ", or ".join([kind, *others])

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool):
            return self.flag
        if isinstance(value, str):
            return value in self.words
        if isinstance(value, list):
            return self.many and bool(value) and all(self._in_range(element) for element in value)
        return self._in_range(value)

    def _in_range(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        if self.whole and not isinstance(value, int):
            return False
        above = value > self.low if self.above else value >= self.low
        return above and (value < self.high if self.below else value <= self.high)


@dataclass(frozen=True)
class Batches:
    """A share of the batches, as a fraction up to 1, or a number of them.

    Args:
        none: Whether 0 is a value too.
        null: Whether null is a value too.
    """

    none: bool = True
    null: bool = False

    def expected(self) -> str:
        low = "from 0" if self.none else "above 0"
        return f"a fraction {low} to 1, or a whole number of batches" + ", or null" * self.null

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return (value > 0 or (self.none and value == 0)) and (value <= 1 or value == int(value))


@dataclass(frozen=True)
class Word:
    """One of a few words (numbers and true or false may be among them)."""

    words: tuple[Any, ...]
    null: bool = False

    def expected(self) -> str:
        words = dict.fromkeys(_shown(word) for word in self.words)
        return "one of " + ", ".join([*words, *["null"] * self.null])

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        return any(type(value) is type(word) and value == word for word in self.words)


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def expected(self) -> str:
        return "true or false"

    def holds(self, value: Any) -> bool:
        return isinstance(value, bool)


@dataclass(frozen=True)
class FlagOrNull(Flag):
    """True, false or null."""

    def expected(self) -> str:
        return "true, false or null"

    def holds(self, value: Any) -> bool:
        return value is None or super().holds(value)


@dataclass(frozen=True)
class FlagOrNode(Flag):
    """True or false, or a class with its settings."""

    def expected(self) -> str:
        return "true or false, or a mapping with _target_"

    def holds(self, value: Any) -> bool:
        return super().holds(value) or (isinstance(value, dict) and "_target_" in value)


@dataclass(frozen=True)
class Text:
    """A text, matching ``pattern`` as a whole."""

    what: str
    pattern: str = r"(?s).+"
    null: bool = False

    def expected(self) -> str:
        return self.what + ", or null" * self.null

    def holds(self, value: Any) -> bool:
        if value is None:
            return self.null
        return isinstance(value, str) and re.fullmatch(self.pattern, value) is not None


@dataclass(frozen=True)
class Texts:
    """A list of texts (numbers count as texts); ``alone``: one of them need not be in a list."""

    what: str
    least: int = 0
    most: int | None = None
    alone: bool = False

    def expected(self) -> str:
        return self.what

    def holds(self, value: Any) -> bool:
        if self.alone and isinstance(value, str | int | float):
            return value != ""
        if not isinstance(value, list) or len(value) < self.least:
            return False
        simple = all(isinstance(element, str | int | float) and element != "" for element in value)
        return simple and (self.most is None or len(value) <= self.most)


@dataclass(frozen=True)
class Layers:
    """A number of layers, or the layers themselves: names, and names with their arguments."""

    def expected(self) -> str:
        return "a whole number of at least 1, or null, or a list of layers like [{linear: 20}, relu]"

    def holds(self, value: Any) -> bool:
        if isinstance(value, list):
            return all(isinstance(layer, str | dict) and layer for layer in value)
        return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 1)


@dataclass(frozen=True)
class WordOrNode(Word):
    """One of a few words, or a class with its settings."""

    def expected(self) -> str:
        return super().expected() + ", or a mapping with _target_"

    def holds(self, value: Any) -> bool:
        return super().holds(value) or (isinstance(value, dict) and "_target_" in value)


POSITIVE = Number(0, above=True)
NOT_NEGATIVE = Number(0)
FRACTION = Number(0, 1)
BELOW_ONE = Number(0, 1, below=True)
COUNT = Number(1, whole=True)
COUNT_OR_NULL = Number(1, whole=True, null=True)
SEED = Number(0, 2**32 - 1, whole=True)
COLUMNS = Texts("names of columns, like [first,second]", alone=True)
COLUMN = Text("a column's name", null=True)
PATH = Text("a path", r"[^\0]+")
PATH_OR_NULL = Text("a path", r"[^\0]+", null=True)
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false", "fsdp")

# The first pattern that fits a key decides. A key that is not there is not checked, so one table serves all classes.
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
    "data.batch_size": COUNT,
    "data.eval_batch_size": COUNT,
    "data.seed": SEED,
    "data.validation_fraction": BELOW_ONE,
    "data.test_fraction": BELOW_ONE,
    "data.folds": Number(2, whole=True, null=True),
    "data.fold": Number(0, whole=True, null=True),
    "data.shuffle": Flag(),
    "data.train_on_all": Flag(),
    "data.fallback": Text("the name of a stand-in", null=True),
    "data.stand_in_steps": COUNT_OR_NULL,
    "data.balance": Word(("none", "oversample", "class_weights")),
    "data.augment": Word(("none", "light", "strong")),
    "data.scaling": Word(("standard", "robust", "none")),
    "data.drop": COLUMNS,
    "data.keep": COLUMNS,
    "data.categorical": COLUMNS,
    "data.numeric": COLUMNS,
    "data.fold_case": Flag(),
    "data.header": FlagOrNull(),
    "data.duplicates": Word(("keep", "drop")),
    "data.path": PATH_OR_NULL,
    "data.test_path": PATH_OR_NULL,
    "data.target": COLUMN,
    "data.image": COLUMN,
    "data.split_column": COLUMN,
    "data.samples": COUNT_OR_NULL,
    "data.streams": COUNT_OR_NULL,
    "data.vocabulary_size": COUNT_OR_NULL,
    "data.calibrate": Flag(),
    "data.interval": Number(0, 1, above=True, below=True, null=True),
    "data.max_length": COUNT_OR_NULL,
    "data.ngrams": COUNT,
    "data.weights": Word(("none", "nb")),
    "data.words": Word(("auto", "blanks", "characters")),
    "data.steps": COUNT_OR_NULL,
    "model.hidden_units": Number(1, whole=True, many=True, null=True),
    "model.channels": Number(1, whole=True, many=True),
    "model.layers": Layers(),
    "model.loss": WordOrNode(("auto", "squared", "absolute", "huber", "focal", "judged")),
    "model.embedding": COUNT_OR_NULL,
    "model.vectors": PATH_OR_NULL,
    "model.buckets": COUNT,
    "model.kernel_size": Number(1, whole=True, many=True),
    "model.*dropout": BELOW_ONE,
    "model.l1": NOT_NEGATIVE,
    "model.l2": NOT_NEGATIVE,
    "model.compile": Flag(),
    "model.batch_norm": Flag(),
    "model.bidirectional": Flag(),
    "data.fresh": Flag(),
    "model.activation": Text("the name of an activation, like relu"),
    "model.initializer": Text("the name of an initializer, like he_normal", null=True),
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
    "logger.tracking_uri": Text("an address or a path", r"\S+"),
    "logger.experiment_name": Text("a name"),
    "paths.data_dir": PATH,
    "paths.experiments_dir": PATH,
    "task.name": Text("the name of a task", r"\w+"),
    "task.run_id": Text("a run id", r"[\w\-]+", null=True),
    "task.model_uri": Text("a model's address, like models:/mnist@champion", r"\S+", null=True),
    "task.input": PATH,
    "task.output": PATH_OR_NULL,
    "task.run_dir": PATH_OR_NULL,
    "task.sweep": Text("the name of a search space in conf/sweep", r"[\w\-]+", null=True),
    "task.experiment": Text("the name of an experiment", r".+", null=True),
    "task.port": Number(1, 65535, whole=True),
    "task.runs": Texts("two run ids, like [A,B]", least=2, most=2),
    "task.explain": Flag(),
    "task.calibrate": Flag(),
    "task.batch_size": COUNT,
    "task.trials": COUNT,
    "task.study": Text("the name of a study", r"[^\n]+", null=True),
    "task.storage": Text("the address of a sweep's storage", r"\S+", null=True),
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
    "hydra.sweeper.n_trials": COUNT,
    "hydra.sweeper.n_jobs": COUNT,
    "hydra.sweeper.timeout": Number(0, above=True, null=True),
    "hydra.sweeper.retries": Number(0, whole=True),
    "hydra.sweeper.max_failure_rate": FRACTION,
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
}


def complaint(key: str, value: Any, rule: Rule | None = None) -> str | None:
    """What is wrong with a value, or None.

    Args:
        key: Dotted key, like ``model.dropout``.
        value: Value, with interpolations resolved.
        rule: Rule that the value has to keep; by default the table's rule for the key.

    Example:
        >>> complaint("model.dropout", 1.5)
        'model.dropout=1.5: expected a number from 0 to below 1'
    """
    rule = rule or rule_for(key)
    if rule is None or rule.holds(value):
        return None
    message = f"{key}={_shown(value)}: expected {rule.expected()}"
    if isinstance(rule, Word) and isinstance(value, str):
        near = suggest(value, [str(word) for word in rule.words], limit=0)
        message += f". {near}" if near.startswith("Did") else ""
    return message


def rule_for(key: str) -> Rule | None:
    """The rule of a key; None where it may be anything."""
    if key in RULES:
        return RULES[key]
    return next(
        (rule for pattern, rule in RULES.items() if "*" in pattern and fnmatchcase(key, pattern)), None
    )


def _shown(value: Any) -> str:
    """A value as it would be typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(_shown(element) for element in value) + "]"
    return str(value)
