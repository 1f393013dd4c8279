"""The command line: ``python -m pipeline [FLAGS] [key=value ...]``; ``--help`` says what there is."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` looks for modules in the working directory first, where a torch.py or logging.py of the user's would
    # hide what is installed. What the user allows from there is found behind it (pipeline.config.allowing).
    first = sys.path.pop(0)
    if os.path.samefile(first, os.path.dirname(os.path.dirname(__file__))):  # noqa: PTH120, PTH121
        # A copy of this package that is not installed.
        sys.path.append(first)

import argparse
import logging
import signal
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import Diverged, Interrupted, UserError
from pipeline.jobs import hydra_of, is_submitted, refuse_lists_of_values, run_many, run_once, submit_once
from pipeline.process_life import run_process, terminable

if TYPE_CHECKING:
    from pipeline.config.hydra_inside import Hydra


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: Words after ``python -m pipeline``; those of this process by default.

    Returns:
        The exit code: 0 done, 2 bad configuration or input, 3 diverged, 130 and 143 interrupted, 1 anything else.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A log file that cannot be written (a full disk) is no reason for a traceback on the terminal.
    logging.raiseExceptions = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Where this is part of another program that answers SIGTERM, that is left to it. A fit, which saves its state
    # first, answers by a handler of its own.
    alone = signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    with terminable() if alone else nullcontext():
        return _main(words)


def _main(words: list[str]) -> int:
    try:
        if _asks_for_help(words):
            from pipeline.config.overview import overview

            print(overview(_user_directory(words)))
            return 0
        if words[:1] == ["new"]:
            from pipeline.projects import command

            return command(words[1:])
        return _command(words)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BrokenPipeError:
        # Whoever read our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, Interrupted, Exception) as error:
        return _report(error)


def _command(words: list[str]) -> int:
    arguments = _parser().parse_intermixed_args(words)
    if arguments.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun is refused: it unpickles a file, which can run anything; "
            "use task=reproduce task.run_id=RUN_ID"
        )
    if arguments.config_path is not None:
        raise UserError(
            "--config-path would replace the shipped configuration; "
            f"use --config-dir {arguments.config_path} to add to it"
        )
    if arguments.schema:
        from pipeline.config import schema

        return schema.command(arguments.config_dir)
    commands = [arguments.run, arguments.cfg, arguments.multirun, arguments.shell_completion, arguments.info]
    if sum(bool(command) for command in commands) > 1:
        raise UserError("only one of --run, --multirun, --cfg, --info and --shell-completion can be given")
    if arguments.resolve and not arguments.cfg:
        raise UserError("--resolve goes with --cfg: it shows the configuration with its references resolved")
    from pipeline.config.allowing import allowing

    # A configuration can be shown on a machine that could not run it.
    for_this_machine = not (arguments.cfg or arguments.info or arguments.shell_completion)
    with allowing(arguments.allow or []), hydra_of(arguments.config_dir, for_this_machine) as hydra:
        return _dispatch(hydra, arguments)


def _parser() -> argparse.ArgumentParser:
    from pipeline.config.hydra_inside import get_args_parser

    parser: argparse.ArgumentParser = get_args_parser()
    parser.prog = "python -m pipeline"
    parser.add_argument("--allow", action="append", metavar="NAME", help="Let the configuration name it")
    parser.add_argument("--schema", action="store_true", help="Write JSON schemas, for an editor to check by")
    parser.add_argument("--json", action="store_true", help="Print JSON (task=runs, task=clean)")
    return parser


def _dispatch(hydra: Hydra, arguments: argparse.Namespace) -> int:
    """One of Hydra's own commands, or a run."""
    from pipeline.config.quoting import understood

    name, overrides = arguments.config_name or "config", understood(arguments.overrides)
    if arguments.json:
        overrides.append("task.json=true")
    if arguments.hydra_help:
        hydra.hydra_help(config_name=name, args_parser=_parser(), args=arguments)
    elif arguments.cfg:
        _show(hydra, name, overrides, arguments)
    elif arguments.shell_completion:
        from pipeline.config.completion import complete

        complete(hydra, name, overrides)
    elif arguments.info:
        hydra.show_info(arguments.info, config_name=name, overrides=overrides)
    else:
        flags = [f"--config-dir={arguments.config_dir}"] if arguments.config_dir else []
        flags += [f"--config-name={arguments.config_name}"] if arguments.config_name else []
        flags += [f"--allow={entry}" for entry in arguments.allow or []]
        return _run(hydra, name, overrides, flags, multirun=arguments.multirun)
    return 0


def _show(hydra: Hydra, name: str, overrides: list[str], arguments: argparse.Namespace) -> None:
    from pipeline.config.masking import mask

    shown = StringIO()
    with redirect_stdout(shown):
        hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    print(mask(shown.getvalue()), end="")


def _run(hydra: Hydra, name: str, overrides: list[str], flags: list[str], *, multirun: bool) -> int:
    """Compose and check everything, then let Hydra make the directory, the log and the files beside it, and run."""
    from hydra.types import RunMode

    from pipeline.tasks import run_task

    if not multirun:
        # Sweeps set hydra.mode themselves, so the first look allows their overrides.
        cfg = hydra.config_loader.load_configuration(
            name, overrides, RunMode.RUN, validate_sweep_overrides=False
        )
        if cfg.hydra.mode != RunMode.MULTIRUN:
            refuse_lists_of_values(overrides)
            if is_submitted(cfg):
                return submit_once(cfg, [*flags, *overrides])
            returned = run_once(hydra, name, cfg, run_task)
            return returned if isinstance(returned, int) else 0
    overrides.append("hydra.mode=MULTIRUN")
    cfg = hydra.config_loader.load_configuration(name, overrides, RunMode.MULTIRUN)
    return run_many(hydra, name, cfg)


def _asks_for_help(words: list[str]) -> bool:
    return any(word in ("-h", "--help") for word in words)


def _user_directory(words: list[str]) -> Path | None:
    """The ``--config-dir`` among the words; help is shown before anything is parsed."""
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in ("--config-dir", "-cd"):
            following = words[position + 1] if position + 1 < len(words) else ""
            given = Path(value if equals else following).expanduser()
            if not given.is_dir():
                raise UserError(f"--config-dir {given}: there is no such directory")
            return given
    return None


def _report(error: BaseException) -> int:
    """One clear message on the terminal, and the exit code."""
    from pipeline.config.masking import mask

    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(mask("".join(traceback.format_exception(error))), file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        error = Interrupted(130)
    if isinstance(error, UserError | Diverged | Interrupted):
        print(f"{'' if isinstance(error, Interrupted) else 'Error: '}{mask(str(error))}", file=sys.stderr)
        return error.exit_code
    if _is_hydras_own(error):
        print(f"Error: {mask(str(error))}", file=sys.stderr)
        return UserError.exit_code
    where = getattr(error, "__notes__", None) or ["HYDRA_FULL_ERROR=1 shows the traceback"]
    said = str(error).strip().splitlines() or [_UNSAID.get(type(error), "")]
    print(f"Error: {type(error).__name__}: {mask(said[0])}\n{where[-1]}", file=sys.stderr)
    return 1


_UNSAID: dict[type[BaseException], str] = {MemoryError: "this machine's memory is too small for it"}
"""What errors mean that come without a word."""


def _is_hydras_own(error: BaseException) -> bool:
    """Whether an error is of Hydra or OmegaConf, which is about the configuration wherever it appears."""
    return type(error).__module__.split(".")[0] in ("hydra", "omegaconf")


if __name__ == "__main__":
    run_process(main)
