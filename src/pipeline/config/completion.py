"""Completion of overrides in bash: ``eval "$(python -m pipeline -sc install=bash)"``."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from pipeline.config.hydra_inside import Hydra

# Hydra's own script completes files that hold @hydra.main, which `python -m pipeline` is not.
_SCRIPT = """\
_pipeline_completion() {
    [[ "$COMP_LINE" == *"-m pipeline "* ]] || return
    local word="${COMP_WORDS[COMP_CWORD]}" choices
    choices=$(COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" \
"${COMP_WORDS[0]}" -m pipeline -sc query=bash 2>/dev/null)
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _pipeline_completion python python3"""


def complete(hydra: Hydra, name: str, words: list[str]) -> None:
    """Print the script to install, that to uninstall, or the completions of the line in ``COMP_LINE``.

    Args:
        hydra: Hydra with the loader of the configuration.
        name: Name of the primary configuration.
        words: One of ``install=bash``, ``uninstall=bash`` and ``query=bash``.

    Raises:
        UserError: The word is none of these.
    """
    if words == ["install=bash"]:
        print(_SCRIPT)
    elif words == ["uninstall=bash"]:
        print("complete -r python python3; unset -f _pipeline_completion")
    elif words == ["query=bash"]:
        line = os.environ.get("COMP_LINE", "")
        os.environ["COMP_LINE"] = re.sub(r"^.*?-m\s+pipeline\b", "pipeline", line)
        hydra.shell_completion(config_name=name, overrides=words)
    else:
        raise UserError(
            '--shell-completion: expected install=bash, like eval "$(python -m pipeline -sc install=bash)"'
        )
