"""What was typed on the command line of the command that is running."""

from __future__ import annotations


def key_of(override: str) -> str:
    """The key of an override, or a key, without Hydra's `+`, `++` and `~`."""
    return override.lstrip("+~").partition("=")[0]


def typed_overrides(*sections: str) -> list[str]:
    """What was typed on the command line for some sections of the configuration (``data=…``, ``data.seed=…``)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    words = [str(word) for word in HydraConfig.get().overrides.task]
    return [word for word in words if key_of(word).split(".")[0].split("@")[0] in sections]
