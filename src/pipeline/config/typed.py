"""What was typed on the command line of the command that is running."""

from __future__ import annotations


def typed_overrides(*sections: str) -> list[str]:
    """What was typed on the command line for some sections of the configuration (``data=…``, ``data.seed=…``)."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    keys = [(str(word), str(word).lstrip("+~").split("=")[0]) for word in HydraConfig.get().overrides.task]
    return [word for word, key in keys if key.split(".")[0].split("@")[0] in sections]
