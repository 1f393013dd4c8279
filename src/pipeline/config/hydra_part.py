"""Refuse what Hydra's own part of a configuration may not do: Hydra acts on it before any code of ours runs again."""

from __future__ import annotations

from typing import Any

from pipeline.config.allowlist import resolve
from pipeline.config.plain import MISSING, Path, dotted, leaves
from pipeline.config.resolvers import READABLE_VARIABLES, allowed_names
from pipeline.errors import UserError

# Names of a mapping in logging's own configuration that lead to something callable.
LOGGING_CLASSES = frozenset({"class", "()"})
_LOGGING_ALLOWED = frozenset(
    {
        "logging.StreamHandler",
        "logging.FileHandler",
        "logging.NullHandler",
        "logging.Formatter",
        "logging.handlers.RotatingFileHandler",
        "logging.handlers.TimedRotatingFileHandler",
    }
)
# Variables that a job may set or copy: any other could load code into what it starts, or carry a secret into files.
_JOB_VARIABLES = READABLE_VARIABLES | {"MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TOKENIZERS_PARALLELISM"}


def check_hydra(hydra: dict[str, Any], sweep: bool) -> None:
    """Refuse what Hydra would act on before any code of ours runs again, decided on the objects themselves."""
    acted_on = {"callbacks": hydra.get("callbacks")}
    if sweep:
        acted_on |= {"launcher": hydra.get("launcher"), "sweeper": hydra.get("sweeper")}
    for path, name in leaves(acted_on, ("hydra",)):
        if path[-1] == "_target_":
            resolve(name, dotted(path))
    for section in ("job_logging", "hydra_logging"):
        _check_logging(hydra.get(section), ("hydra", section))
    job = hydra.get("job") or {}
    for key in ("env_set", "env_copy"):
        for name in job.get(key) or ():
            if name not in _JOB_VARIABLES and f"env:{name}" not in allowed_names():
                raise UserError(
                    f"hydra.job.{key}: the variable {name} may not be set or copied by a configuration; "
                    f"set it in the shell, or allow it: --allow env:{name}"
                )


def _check_logging(value: Any, path: Path) -> None:
    """Refuse handlers of logging that do something else than write to the terminal or to a log file."""
    if isinstance(value, list):
        for position, inner in enumerate(value):
            _check_logging(inner, (*path, position))
    elif isinstance(value, dict):
        for key, inner in value.items():
            here = (*path, key)
            if key in LOGGING_CLASSES and inner not in _LOGGING_ALLOWED and inner not in allowed_names():
                raise UserError(
                    f"{dotted(here)}={inner}: not a handler or formatter that a configuration may name; "
                    f"there are {', '.join(sorted(_LOGGING_ALLOWED))}"
                )
            if key == "filename" and not str(inner).endswith(".log") and inner != MISSING:
                raise UserError(f"{dotted(here)}={inner}: a log file's name ends in .log")
            _check_logging(inner, here)
    elif isinstance(value, str) and "://" in value:
        protocol = value.split("://")[0]
        if protocol in ("ext", "cfg") and value not in ("ext://sys.stdout", "ext://sys.stderr"):
            raise UserError(f"{dotted(path)}={value}: expected ext://sys.stdout or ext://sys.stderr")
