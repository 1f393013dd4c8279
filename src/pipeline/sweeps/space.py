"""What a sweep may try: Hydra's override syntax as Optuna's distributions, and values back as overrides."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from pipeline.config.quoting import listed_choices, typed_again
from pipeline.errors import UserError
from pipeline.sweeps.optuna_inside import contains

Value = str | int | float | bool | None


@dataclass
class SearchSpace:
    """Keys that vary, with what they may become, and the overrides that all trials share.

    Args:
        distributions: What each key (`model.dropout`, `+experiment`, as typed) may become, in the order given.
        fixed: Overrides such as `+experiment=mnist_mlp`.
    """

    distributions: dict[str, BaseDistribution] = field(default_factory=dict)
    fixed: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, str]:
        """The varying keys as Optuna's JSON, for storing and comparing."""
        return {key: distribution_to_json(value) for key, value in self.distributions.items()}

    @classmethod
    def from_json(cls, content: Mapping[str, str], fixed: Sequence[str]) -> SearchSpace:
        """The inverse of `as_json`."""
        return cls({key: json_to_distribution(value) for key, value in content.items()}, list(fixed))

    def key(self, written: str) -> str:
        """A key as the space has it, however many plus signs it is written with."""
        return next((key for key in self.distributions if plain_key(key) == plain_key(written)), written)

    def require(self, keys: Iterable[str], where: str) -> None:
        """Refuse keys that the space does not have, naming the nearest ones.

        Raises:
            UserError: The space does not have one of the keys.
        """
        known = [plain_key(key) for key in self.distributions]
        for key in keys:
            if plain_key(key) not in known:
                near = difflib.get_close_matches(key, known, n=3, cutoff=0.4)
                hint = f" Did you mean {', '.join(near)}?" if near else ""
                raise UserError(
                    f"{where} names {key}, which the search space does not have"
                    f" (it has {', '.join(known) or 'nothing'}).{hint}"
                )


def read_space(
    params: Mapping[str, Any] | None, arguments: Sequence[str], loader: ConfigLoader | None = None
) -> SearchSpace:
    """Read `hydra.sweeper.params` and the command line's overrides.

    The command line wins: a sweep there replaces the one of the same key in `params`, a plain value fixes it.
    As in hydra-optuna-sweeper, `range(a,b)` includes `b` (Hydra's own multirun leaves it out).

    Args:
        params: Values by key, or sweeps in Hydra's syntax: `choice(a,b)`, `range(1,5)`, `interval(0,1)`,
            `int(interval(1,9))`, `tag(log, interval(1e-4,1e-1))`.
        arguments: Overrides as typed.
        loader: Hydra's loader, needed for `glob(*)` over a config group.

    Raises:
        UserError: An override cannot be read.
    """
    typed = [f"{key}={_typed(value)}" for key, value in (params or {}).items()]
    latest: dict[str, Override] = {}
    for override in parse([*typed, *arguments], loader):
        latest.pop(plain_key(override.get_key_element()), None)
        latest[plain_key(override.get_key_element())] = override
    space = SearchSpace()
    for override in latest.values():
        if override.is_sweep_override():
            space.distributions[override.get_key_element()] = distribution_of(override)
        else:
            assert override.input_line is not None
            space.fixed.append(override.input_line)
    return space


def parse(arguments: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    """Overrides as Hydra reads them.

    Raises:
        UserError: An override cannot be read.
    """
    parser = OverridesParser.create(config_loader=loader)
    found = []
    for argument in arguments:
        try:
            found += parser.parse_overrides([listed_choices(argument)])
        except HydraException as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise UserError(f"{argument}: cannot be read as an override of Hydra: {reason}") from error
    return found


def _typed_value(value: Any) -> str:
    # What stood in quotation marks in a function has lost them.
    return typed_again(value) if isinstance(value, str) else str(value)


def _typed(value: Any) -> str:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    return "null" if value is None else str(value)


def plain_key(key: str) -> str:
    """A key without Hydra's `+`, `++` and `~`."""
    return key.lstrip("+~")


def distribution_of(override: Override) -> BaseDistribution:
    """One sweep override as an Optuna distribution.

    Raises:
        UserError: Optuna does not take the bounds (an empty choice, a log scale that reaches zero).
    """
    try:
        with warnings.catch_warnings():
            # Optuna says that a range's end is not a multiple of its step: in Hydra's ranges it seldom is.
            warnings.simplefilter("ignore")
            return _distribution(override)
    except (ValueError, HydraException) as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    if isinstance(value, RangeSweep) and not value.shuffle:
        start, stop, step = value.start, value.stop, value.step
        assert start is not None and stop is not None
        if all(isinstance(bound, int) for bound in (start, stop, step)):
            return IntDistribution(int(start), int(stop), log="log" in value.tags, step=int(step))
        return FloatDistribution(float(start), float(stop), step=float(step))
    if isinstance(value, IntervalSweep):
        assert value.start is not None and value.end is not None
        log = "log" in value.tags
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log=log)
        return FloatDistribution(float(value.start), float(value.end), log=log)
    assert isinstance(value, ChoiceSweep | RangeSweep) or override.is_choice_sweep()
    return CategoricalDistribution([_encode(choice) for choice in override.sweep_iterator()])


def _encode(choice: Any) -> Value:
    """A choice as Optuna can store it: numbers and truth values as they are, the rest as it is typed."""
    if choice is None or isinstance(choice, bool | int | float):
        return choice
    return typed_again(choice) if isinstance(choice, str) else Transformer.str(choice)


def as_override(key: str, value: Value) -> str:
    """A suggested value as an override of the command line."""
    return f"{key}={'null' if value is None else value}"


def own_settings(space: SearchSpace, config: DictConfig) -> tuple[dict[str, Value], list[str]]:
    """The experiment's own values of the keys that vary.

    Args:
        space: The search space.
        config: Configuration of the experiment as composed without the sweep, Hydra's part included.

    Returns:
        The values, and for each key whose own value the space does not contain a sentence that says so.
    """
    values: dict[str, Value] = {}
    outside: list[str] = []
    for key, distribution in space.distributions.items():
        own = _own_value(config, plain_key(key))
        found, value = match(distribution, own)
        if found:
            values[key] = value
        else:
            outside.append(f"{key}={own} is not in {describe(distribution)}")
    return values, outside


def _own_value(config: DictConfig, key: str) -> Any:
    choices = OmegaConf.select(config, "hydra.runtime.choices", default={})
    if key in choices:
        return choices[key]
    value = OmegaConf.select(config, key)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def match(distribution: BaseDistribution, own: Any) -> tuple[bool, Value]:
    """Whether a distribution contains a value, and the value as Optuna keeps it."""
    if isinstance(distribution, CategoricalDistribution):
        for choice in distribution.choices:
            if _same(_meaning(choice), own):
                return True, choice
        return False, None
    if isinstance(own, bool) or not isinstance(own, int | float):
        return False, None
    if isinstance(distribution, IntDistribution) and own != int(own):
        return False, None
    value = int(own) if isinstance(distribution, IntDistribution) else float(own)
    return contains(distribution, value), value


def _meaning(choice: Value) -> Any:
    """What Hydra makes of a choice: `[64,32]` is a list, `'a b'` a string without its quotes."""
    if not isinstance(choice, str):
        return choice
    return OverridesParser.create().parse_override(f"x={choice}").value()


def _same(first: Any, second: Any) -> bool:
    return bool(isinstance(first, bool) == isinstance(second, bool) and first == second)


def describe(distribution: BaseDistribution) -> str:
    """A distribution in the words of a command line."""
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join('null' if choice is None else str(choice) for choice in distribution.choices)})"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if distribution.step not in (None, 1):
        return f"range({distribution.low}, {distribution.high}, step={distribution.step})"
    interval = f"interval({distribution.low}, {distribution.high})"
    if isinstance(distribution, IntDistribution):
        interval = f"int({interval})"
    return f"tag(log, {interval})" if distribution.log else interval


def grid(space: SearchSpace) -> list[dict[str, Value]]:
    """All combinations of a discrete space, the last key varying fastest.

    As in hydra-optuna-sweeper, a range's upper end is left out here.

    Raises:
        UserError: A key varies continuously.
    """
    rows: list[dict[str, Value]] = [{}]
    for key, distribution in space.distributions.items():
        rows = [{**row, key: value} for row in rows for value in _points(key, distribution)]
    return rows


def _points(key: str, distribution: BaseDistribution) -> list[Value]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high, distribution.step))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        count = round((distribution.high - distribution.low) / distribution.step)
        return [distribution.low + index * distribution.step for index in range(count)]
    raise UserError(
        f"A grid needs discrete values: {key}={describe(distribution)}; use choice(...) or range(...)."
    )


def jobs(arguments: Sequence[str], loader: ConfigLoader | None = None) -> list[dict[str, str]]:
    """The jobs of a plain multirun: every combination of the values given, as Hydra's own sweeper orders them.

    Returns:
        Per job the varying keys with their values as typed. One empty job where nothing varies.

    Raises:
        UserError: There is a continuous interval, which only an Optuna sweep can draw from.
    """
    rows: list[dict[str, str]] = [{}]
    for override in parse(arguments, loader):
        if not override.is_sweep_override():
            continue
        if override.is_interval_sweep():
            raise UserError(
                f"{override.input_line} is continuous: a plain multirun lists its values (choice(...), range(...));"
                " hydra/sweeper=optuna draws from intervals."
            )
        key = override.get_key_element()
        rows = [
            {**row, key: value}
            for row in rows
            for value in map(_typed_value, override.sweep_string_iterator())
        ]
    return rows
