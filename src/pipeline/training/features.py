"""Features of a frozen network: computed once for every sample, kept on disk, learnt from as often as wanted."""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.core.cache import cached
from pipeline.data.core.module import DataModule
from pipeline.data.core.splits import RaggedRows, Rows
from pipeline.data.core.waiting import shown
from pipeline.errors import UserError
from pipeline.models.foreign import Wrapped
from pipeline.models.linear import Linear
from pipeline.training.grown import Grown
from pipeline.training.solving import solve
from pipeline.training.stopping import seconds_of

_BATCH = 64
_ALPHAS = tuple(10 ** (power / 2) for power in range(9, -3, -1))
"""Finer than for other linear models: there are many features, and whole powers of ten step over the best."""
_HASHED = 256


class FeatureRows(Rows):
    """Samples as what a frozen network makes of them.

    Args:
        x: Features, (samples, features), float32.
        raw: The samples themselves.
    """

    def __init__(self, x: Tensor, raw: Rows) -> None:
        super().__init__(x, raw.y)
        self._raw = raw

    @property
    def raw(self) -> Rows:
        return self._raw


def learnt_from(data: DataModule, model: Any, trainer: Mapping[str, Any]) -> DataModule:
    """The data as ``model`` learns from it: as it is, or, of a frozen network, as the features that it makes."""
    return with_features(data, model, trainer) if is_frozen(model) else data


def solves_first(model: Any) -> bool:
    """Whether training begins with a solved last layer: see :func:`begin_solved`."""
    return isinstance(model, Wrapped) and model.solve_first


def is_frozen(model: Any) -> bool:
    """Whether only the last layer of a network learns."""
    return isinstance(model, Wrapped) and model.freeze


def with_features(data: DataModule, model: Wrapped, trainer: Mapping[str, Any]) -> DataModule:
    """The same data, each split with the features that ``model``'s last layer learns from.

    They are kept in the cache by the content of each sample and by the network's weights, so that other seeds, folds,
    rates and losses find them there.

    Args:
        data: The data, set up.
        model: A frozen network; its last layer gets the features' mean and deviation over the training split.
        trainer: The ``trainer`` settings, which say where it is computed.

    Raises:
        UserError: Training samples are to be changed at random, which leaves no features to keep.
    """
    for name in ("augment", "mix"):
        if (asked := getattr(data, name)) != "none":
            raise UserError(
                f"data.{name}={asked}: with model.freeze=true an image is looked at once; set data.{name}=none, "
                "or model.freeze=false model.unfreeze=0 to train the last layer on changed images"
            )
    return _featured(data, model, trainer, "freeze")


def begin_solved(data: DataModule, model: Any, trainer: Mapping[str, Any]) -> Grown:
    """Give a network that will be trained as a whole the last layer that ``model.freeze=true`` would end with.

    Linear probing, then fine-tuning: https://arxiv.org/abs/2202.10054. The features are those of the samples as they
    are, without random changes, and kept as a frozen network's; of the test split none are computed.

    Args:
        data: The data, set up.
        model: A network with ``solve_first``; its last layer is changed.
        trainer: The ``trainer`` settings: where it is computed, and ``max_time``, after which no penalty is tried.

    Returns:
        What it came to; its facts hold ``alpha``.

    Raises:
        UserError: Of this data, or with these settings, no last layer can be solved.
    """
    began, limit = time.monotonic(), seconds_of(trainer.get("max_time")) or math.inf
    if not are_kept(data, model):
        data = copy.copy(data)
        data.test = None
    found = _featured(data, model, trainer, "solve_first")
    # Rows that are learnt from as well would choose the weakest penalty.
    held_out = None if data.train_on_all else found.validation
    try:
        return solve_head(model, found.train, held_out, lambda: time.monotonic() - began > limit)
    except UserError as error:
        raise UserError(f"model.solve_first=true: {error}") from None


def _featured(data: DataModule, model: Wrapped, trainer: Mapping[str, Any], setting: str) -> DataModule:
    """The same data, each split with features."""
    if data.spec.input == "tokens" and not model.ignores_padding:
        raise UserError(
            f"model.{setting}=true: texts are as long as the longest beside them, so that no features can be kept; "
            f"set model.{setting}=false"
        )
    splits, hashes, name = _named(data, model)
    unique, first = np.unique(np.concatenate([*hashes.values()]), return_index=True)

    def build() -> tuple[dict[str, np.ndarray], Any]:
        return {
            "samples": unique.view(np.uint8),
            "features": _computed([*splits.values()], first, model, trainer),
        }, None

    found, _ = cached(data.data_dir, name, build)
    features = torch.from_numpy(found["features"])
    other = copy.copy(data)
    for part, split in splits.items():
        rows = torch.from_numpy(np.searchsorted(unique, hashes[part]))
        setattr(other, part, FeatureRows(features[rows], split))
    assert isinstance(other.train.x, Tensor)
    model.head_layer.fit(other.train.x)
    return other


def solve_head(model: Wrapped, train: Rows, held_out: Rows | None, stop: Callable[[], bool]) -> Grown:
    """Solve the last layer of a frozen network to its minimum.

    Args:
        model: The network, with ``solver=exact``.
        train: Features of the training split.
        held_out: Features of the validation split, which choose the penalty where ``alpha`` is ``auto``.
        stop: Asked between two penalties.

    Raises:
        UserError: A setting does not fit.
    """
    head, spec = model.head_layer, model.spec
    inner = Linear(
        {
            **spec.to_dict(),
            "input": "vector",
            "input_shape": [head.in_features],
            "pixel_mean": [],
            "pixel_std": [],
        },
        solver="exact",
        alpha=model.alpha,
        loss=model.objective.loss_name,
    )

    def standardised(split: Rows) -> Rows:
        assert isinstance(split.x, Tensor)
        return Rows(head.standardised(split.x), split.y)

    validated = None if held_out is None else standardised(held_out)
    # Features have 32 bits; a minimum in 64 would be one of what they were rounded to.
    found = solve(inner, standardised(train), validated, stop, among=_ALPHAS, precision=torch.float32)
    # What answers in the target's own units there has its mean and deviation beside the weights.
    std, mean = getattr(inner.output, "std", 1.0), getattr(inner.output, "mean", 0.0)
    with torch.no_grad():
        head.weight.copy_(inner.output.weight * std)
        head.bias.copy_(inner.output.bias * std + mean)
    return found


def are_kept(data: DataModule, model: Wrapped) -> bool:
    """Whether :func:`with_features` finds them in the cache."""
    return (data.data_dir / "cache" / _named(data, model)[-1] / "manifest.json").is_file()


def _named(data: DataModule, model: Wrapped) -> tuple[dict[str, Rows], dict[str, np.ndarray], str]:
    """The splits, a hash of each of their samples, and the name that their features have in the cache."""
    splits = {name: getattr(data, name) for name in ("train", "validation", "test") if getattr(data, name)}
    hashes = {name: _hashes(split) for name, split in splits.items()}
    key = hashlib.blake2b(np.unique(np.concatenate([*hashes.values()])).tobytes(), digest_size=12)
    key.update(_digest_of(model).encode())
    return splits, hashes, f"features-{key.hexdigest()}"


def _hashes(split: Rows) -> np.ndarray:
    """A hash of each sample's content, (samples,), 16 bytes each."""
    found = []
    for rows in torch.arange(len(split)).split(_HASHED):
        x = split.take(rows)[0].cpu().contiguous().numpy()
        # Of a text its own pieces: how much is filled up follows from those beside it.
        samples = [np.trim_zeros(sample, "b") for sample in x] if isinstance(split, RaggedRows) else x
        found += [hashlib.blake2b(sample.tobytes(), digest_size=16).digest() for sample in samples]
    return np.frombuffer(b"".join(found), dtype="V16") if found else np.zeros(0, "V16")


def _digest_of(model: Wrapped) -> str:
    """A hash of everything that features follow from beside the sample: the network and how images reach it."""
    state = hashlib.blake2b(digest_size=16)
    spec = model.spec
    built = {name: model.hyperparameters.get(name) for name in ("name", "options", "net")}
    described = (
        repr(model.net),
        built,
        spec.input_shape,
        spec.pixel_mean,
        spec.pixel_std,
        _source(model.net),
    )
    state.update(repr(described).encode())
    for name, tensor in model.net.state_dict().items():
        if name.rpartition(".")[0] != model.head:
            state.update(name.encode())
            state.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _source(net: Any) -> str:
    """The text of a network's own class: its forward is in no weight."""
    try:
        return inspect.getsource(type(net))
    except (OSError, TypeError):
        return ""


def _computed(
    splits: list[Rows], places: np.ndarray, model: Wrapped, trainer: Mapping[str, Any]
) -> np.ndarray:
    """Features of the samples at ``places``, counted through all splits, (samples, features)."""
    device = device_of(trainer)
    ends = np.cumsum([len(split) for split in splits])
    order = np.argsort(places)
    if texts := [split for split in splits if isinstance(split, RaggedRows)]:
        # Texts of one length beside each other, the longest first: what is left takes no longer than it is said to.
        lengths = np.concatenate([split.lengths().numpy() for split in texts])
        order = np.argsort(-lengths[places], kind="stable")
    features = np.empty((len(places), model.head_layer.in_features), dtype=np.float32)
    model.eval().to(device)
    try:
        with torch.inference_mode():
            batches = np.array_split(order, -(-len(order) // _BATCH))
            bar = trainer.get("enable_progress_bar", True)
            for some in shown(
                batches, len(batches), f"computing the features of {len(order):,} samples", bar
            ):
                # As they lie in the splits, which is how they are taken.
                some = some[np.argsort(places[some])]
                parts = []
                for number, split in enumerate(splits):
                    start = ends[number] - len(split)
                    here = places[some][(places[some] >= start) & (places[some] < ends[number])] - start
                    if len(here):
                        parts.append(split.take(torch.from_numpy(here))[0])
                x = joined(parts).to(device)
                # In float32, whatever the training precision: predictions are made in it.
                features[some] = model.features(x).float().cpu().numpy()
    finally:
        model.to("cpu").train()
    return features


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Batches as one; texts are filled up with 0 to the longest."""
    if len({part.shape[1:] for part in parts}) > 1:
        width = max(part.shape[1] for part in parts)
        parts = [nn.functional.pad(part, (0, width - part.shape[1])) for part in parts]
    return torch.cat([*parts])


def device_of(trainer: Mapping[str, Any]) -> torch.device:
    """Where Lightning trains with these settings; of several devices this process's own."""
    from lightning_fabric import Fabric

    return Fabric(
        accelerator=trainer.get("accelerator", "auto"), devices=trainer.get("devices", "auto")
    ).device
