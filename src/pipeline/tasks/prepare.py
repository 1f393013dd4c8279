"""Find or download a data set, check it, and write down what it is: what later steps depend on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from pipeline.evaluation.outputs import result_directory
from pipeline.files import write_json
from pipeline.runs.finished import data_of

if TYPE_CHECKING:
    from pipeline.data.core.module import DataModule


def run(cfg: DictConfig) -> None:
    """The task behind ``task=prepare``."""
    directory = result_directory(cfg)
    found = describe(data_of(cfg))
    path = write_json(directory / "data.json", found)
    sizes = ", ".join(f"{count:,} {name}" for name, count in found["samples"].items())
    print(f"{found['used']}: {sizes}; digest {found['digest']}")
    if found["used"] != found["requested"]:
        print(f"WARNING: {found['requested']} was not available: this is the stand-in {found['used']}")
    print(f"written: {path}")


def describe(data: DataModule) -> dict[str, Any]:
    """What a data set is, as JSON values; the same for the same data, split by the same seed.

    The digest is that of the training and validation samples: nothing but their number is known of the test split.
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "requested": data.requested,
        "used": data.used,
        "digest": data.digest,
        "task": data.spec.task,
        "input": data.spec.input,
        "shape": list(data.spec.input_shape),
        "classes": list(data.spec.classes),
        "samples": {name: split.samples for name, split in splits.items() if split is not None},
    }
