"""What ``${...}`` in a configuration may do.

A configuration can come from someone else and is recorded with every run. So ``oc.env`` reads only variables
that are named here (any other would carry secrets of the environment into recorded files). OmegaConf's own resolvers
are switched off unless they only point at another place of the configuration: ``oc.create`` and ``oc.decode``
could assemble a ``_target_`` that no check saw, ``oc.coerce`` (2.4) imports the module that it is given.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.omegaconf_inside import register_resolver, resolver_names
from pipeline.errors import UserError

READABLE_VARIABLES = frozenset(
    {
        "MLFLOW_TRACKING_URI",
        "PIPELINE_DATA_PATH",
        "PIPELINE_STORAGE",
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "PROJECT_ROOT",
    }
)


# What OmegaConf brings and a configuration may use: other places of the same configuration, and our own oc.env.
_KEPT = frozenset({"oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.env", "oc.select"})


def register() -> None:
    """Register ours and replace those of OmegaConf that do too much. Harmless when called again."""
    for name in resolver_names():
        if name.startswith("oc.") and name not in _KEPT:
            register_resolver(name, _switched_off(name))
    register_resolver("oc.env", _environment)
    # Cached with the configuration: one value for all who ask, another one for the next run.
    register_resolver("unique", lambda: secrets.token_hex(3), use_cache=True)
    register_resolver("run_dir", _run_directory)
    register_resolver("params", _parameter)
    # What follows from the data stays as it is written until the data is there: Spec.filled_in puts the number in.
    register_resolver("spec", lambda name: f"${{spec:{name}}}")


def allowed_names() -> frozenset[str]:
    """What the user allowed beyond the shipped lists, by ``--allow`` or in ``PIPELINE_ALLOW`` (comma-separated)."""
    return frozenset(name.strip() for name in os.environ.get("PIPELINE_ALLOW", "").split(",") if name.strip())


def refusal(error: BaseException) -> str | None:
    """The message of a :class:`UserError` behind an error of OmegaConf, which keeps only its text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        if told := re.search(r"UserError raised while resolving interpolation: (.*)", str(cause)):
            return told[1]
        cause = cause.__cause__
    return None


def _environment(name: str, default: Any = ...) -> Any:
    if name not in READABLE_VARIABLES and f"env:{name}" not in allowed_names():
        raise UserError(
            f"a configuration may not read the environment variable {name}: its value would be recorded with "
            f"the run. Readable are {', '.join(sorted(READABLE_VARIABLES))}; add it by --allow env:{name}"
        )
    value = os.environ.get(name, "")
    if value:
        return value
    if default is ...:
        raise UserError(f"the environment variable {name} is not set")
    return default


def _parameter(name: str) -> Any:
    """A value of the params.yaml beside the command: DVC puts words into a stage's command, but no lists."""
    from pipeline.config.allowing import working_directory

    file = working_directory() / "params.yaml"
    try:
        found = OmegaConf.select(OmegaConf.load(file), name)
    except (OSError, OmegaConfBaseException) as error:
        raise UserError(f"${{params:{name}}}: {file} cannot be read: {error}") from None
    if found is None:
        raise UserError(f"${{params:{name}}}: {file} has no {name}")
    return found


def _switched_off(name: str) -> Any:
    def refuse(*_: Any) -> Any:
        raise UserError(f"${{{name}:...}} is switched off: write the value itself")

    return refuse


def _run_directory(*, _root_: DictConfig) -> str | None:
    """This run's directory: as Hydra knows it once the job has started, before that where the job would go."""
    from hydra.core.hydra_config import HydraConfig

    whole: Any = _root_ if "hydra" in _root_ else HydraConfig.instance().cfg
    if whole is None:
        return None
    for key in ("hydra.runtime.output_dir", "hydra.run.dir"):
        directory = OmegaConf.select(whole, key, throw_on_missing=False)
        if directory is not None:
            return str(Path(directory).absolute())
    return None
