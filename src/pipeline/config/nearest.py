"""The names nearest to one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggest(wrong: str, names: Iterable[str], limit: int = 12) -> str:
    """A sentence for an error message: the nearest names, or all of them where they are few.

    Args:
        wrong: What was typed.
        names: What could have been meant.
        limit: Largest number of names that are all listed.

    Example:
        >>> suggest("mnist_cn", ["mnist_cnn", "mnist_mlp"])
        'Did you mean mnist_cnn or mnist_mlp?'
    """
    known = sorted(set(names))
    near = get_close_matches(wrong, known, n=3, cutoff=0.6)
    if not near and wrong:
        # The beginning of a long name: acumulate is near accumulate_grad_batches.
        beginnings = {name[: len(wrong)]: name for name in reversed(known)}
        near = [beginnings[name] for name in get_close_matches(wrong, beginnings, n=3, cutoff=0.7)]
    if near:
        return f"Did you mean {_either(near)}?"
    if not known:
        return "There are none."
    if len(known) <= limit:
        return f"There are: {', '.join(known)}."
    return f"There are {len(known)}, from {known[0]} to {known[-1]}."


_ALSO = {
    "learning_rate": "lr",
    "gpus": "devices",
    "n_epochs": "max_epochs",
    "num_epochs": "max_epochs",
    "file": "path",
}
"""What other programs call settings."""


def elsewhere(name: str, keys: Iterable[str]) -> str:
    """A sentence with the settings of other sections that are called so; empty where there are none.

    Args:
        name: The last part of what was typed.
        keys: Settings with their sections.

    Example:
        >>> elsewhere("epochs", ["trainer.max_epochs", "seed"])
        'Did you mean trainer.max_epochs?'
    """
    wanted = _ALSO.get(name, name)
    last = {key: key.rpartition(".")[2] for key in keys if "." in key}
    near = [key for key, own in last.items() if own == wanted] or [
        key for key, own in last.items() if own == f"max_{wanted}"
    ]
    return f"Did you mean {_either(near[:3])}?" if near else ""


def _either(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " or " + names[-1]
