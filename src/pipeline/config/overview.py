"""What ``--help`` shows: read from the files of the configuration, without composing them."""

from __future__ import annotations

from pathlib import Path

from pipeline.config.shipped import config_directory

# Groups whose options are shown with a line each, in this order; the others are listed by name.
_DESCRIBED = {
    "experiment": "Experiments (+experiment=NAME)",
    "task": "Tasks (task=NAME)",
    "sweep": "Sweeps (+sweep=NAME, beside an experiment)",
    "ladder": "Ladders (task=improve +ladder=NAME)",
    "recipe": "Recipes for data of your own (data=csv chooses one; recipe=NAME another)",
    "debug": "Debugging (debug=NAME)",
}
_HIDDEN = frozenset({"default"})

_EXAMPLES = """\
Examples
  python -m pipeline +experiment=mnist_cnn                     train, test and record
  python -m pipeline +experiment=mnist_mlp model.dropout=0.2 optimizer.lr=0.01 trainer.max_epochs=5
  python -m pipeline +experiment=mnist_cnn debug=fast          one batch through everything
  python -m pipeline -m +experiment=mnist_mlp seed=0,1,2       once for each seed
  python -m pipeline -m +experiment=mnist_mlp +sweep=mlp       search for better settings
  python -m pipeline +experiment=mnist_cnn +trainer.val_check_interval=0.5   any other flag of Lightning's Trainer
  python -m pipeline task=evaluate task.run_id=RUN_ID          test a finished run again
  python -m pipeline --config-dir my_conf +experiment=mine     with configurations of your own
"""

_FLAGS = """\
Flags
  -m, --multirun          one run for each value: key=a,b
  --cfg job|hydra|all     show the configuration instead of running (--resolve, --package PACKAGE)
  --config-dir DIR        a directory of your own configurations, searched beside the shipped ones
  --allow NAME            let the configuration name this class (my_package.MyClass), or read env:VARIABLE
  --schema                write JSON schemas beside your --config-dir, by which editors complete and check
  --info [WHAT]           how the configuration was put together: defaults, defaults-tree, searchpath, plugins
  --shell-completion      for bash: eval "$(python -m pipeline --shell-completion install=bash)"
  --hydra-help, --version
Exit codes: 0 done, 2 bad configuration or input, 3 diverged, 130 and 143 interrupted, 1 anything else
"""


def overview(config_dir: Path | None = None) -> str:
    """The text of ``--help``.

    Args:
        config_dir: Directory of a user's own configurations, which are listed too.
    """
    directories = [config_directory(), *([config_dir] if config_dir is not None else [])]
    parts = ["python -m pipeline [FLAGS] [key=value ...]\n", _EXAMPLES]
    for group, title in _DESCRIBED.items():
        options = _options(directories, group)
        if options:
            width = max(len(name) for name in options)
            lines = [f"  {name:<{width}}  {_first_comment(path)}".rstrip() for name, path in options.items()]
            parts.append("\n".join([title, *lines]) + "\n")
    parts.append(_other_groups(directories))
    parts.append(_FLAGS)
    return "\n".join(parts)


def _options(directories: list[Path], group: str) -> dict[str, Path]:
    """The options of a group by name; the first directory that has one wins, as it does for Hydra."""
    found: dict[str, Path] = {}
    for directory in directories:
        home = directory / group
        for path in sorted([*home.rglob("*.yaml"), *home.rglob("*.yml")]):
            name = path.relative_to(home).with_suffix("").as_posix()
            if name not in _HIDDEN:
                found.setdefault(name, path)
    return dict(sorted(found.items()))


def _first_comment(path: Path) -> str:
    """The first comment line that says something (package directives do not)."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            text = line.strip()
            if text.startswith("#") and not text.startswith("# @") and text.strip("# "):
                return text.lstrip("# ")
            if text and not text.startswith("#"):
                break
    return ""


def _other_groups(directories: list[Path]) -> str:
    names = sorted(
        {path.name for directory in directories for path in directory.iterdir() if path.is_dir()}
        - set(_DESCRIBED)
    )
    lines = ["Groups (NAME=OPTION)"]
    for name in names:
        options = [option for option in _options(directories, name) if "/" not in option]
        if options:
            lines.append(f"  {name:<10}  {', '.join(options)}")
    return "\n".join(lines) + "\n"
