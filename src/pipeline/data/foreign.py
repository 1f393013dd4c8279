"""Any LightningDataModule, as it is: what can be known of it, and the rest left to its own loaders."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.data.core.encoder import Encoder, TensorEncoder
from pipeline.data.core.inference import class_names, spec_of
from pipeline.data.core.loader import Loader
from pipeline.data.core.module import DataModule
from pipeline.data.core.spec import Spec
from pipeline.data.core.splits import Rows
from pipeline.errors import UserError


class LoaderSplit:
    """A split that only its loader knows.

    Args:
        loader: The person's own loader.
    """

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    @property
    def samples(self) -> int:
        """Number of its samples, 0 where it does not say."""
        dataset = getattr(self.loader, "dataset", None)
        try:
            return len(cast(Any, dataset))
        except TypeError:
            return 0

    def __len__(self) -> int:
        return self.samples

    def batches(self, batch_size: int) -> int:
        """Number of batches that its loader gives (at least 1 where it does not say)."""
        try:
            return len(self.loader)
        except TypeError:
            return 1

    @cached_property
    def y(self) -> Tensor:
        """All targets, from the data set where it holds them, else by going through the loader once."""
        dataset = getattr(self.loader, "dataset", None)
        for name in ("targets", "labels", "y"):
            if (found := getattr(dataset, name, None)) is not None and len(found) == self.samples:
                return torch.as_tensor(found)
        state = torch.get_rng_state()
        targets = torch.cat([torch.as_tensor(pair(batch)[1]) for batch in self.loader])
        torch.set_rng_state(state)
        return targets


class OwnLoaders:
    """In the place of a data module: the LightningModule brings its loaders itself."""

    def prepare_data(self) -> None:
        """Do nothing: the module prepares its data."""

    def setup(self, stage: str) -> None:
        """Do nothing: the module sets its data up."""


class LightningData(DataModule):
    """A person's own LightningDataModule.

    Args:
        inner: The data module, which stays as it is.
        name: Name of the data set.
        spec: Fields of the Spec, as far as they are said; the others are inferred from a batch when a model asks.
        batch_size: Batch size, for messages alone.
    """

    def __init__(
        self, inner: Any, name: str, spec: Mapping[str, Any] | Spec | None = None, batch_size: int = 1
    ) -> None:
        super().__init__(name, batch_size=batch_size, eval_batch_size=batch_size)
        self.inner = inner
        said = spec if spec is not None else getattr(inner, "spec", None)
        self._said = said.to_dict() if isinstance(said, Spec) else dict(said or {})
        self._ready = False
        self.train = self.validation = self.test = None  # type: ignore[assignment]

    def prepare_data(self) -> None:
        """Do nothing yet: Lightning prepares the data when the fit begins."""

    def setup(self, stage: str | None = None) -> None:
        """Do nothing yet: Lightning sets the data up when the fit begins."""

    def look(self) -> None:
        """Prepare the data now, for a model that has to know what it looks like.

        Raises:
            UserError: The loaders are the model's own, which is yet to be built.
        """
        if self._ready:
            return
        if isinstance(self.inner, OwnLoaders):
            raise UserError(
                f"{self.name} brings its own loaders, which cannot be asked before it is built: write the number where "
                "${spec:...} stands, or choose data (data=NAME, data._target_=CLASS)"
            )
        self.inner.prepare_data()
        self.inner.setup("fit")
        self.train = cast(Rows, LoaderSplit(_loader(self.inner, "train_dataloader")))
        held_out = _loader(self.inner, "val_dataloader")
        self.validation = None if held_out is None else cast(Rows, LoaderSplit(held_out))
        self.inner.setup("test")
        tested = _loader(self.inner, "test_dataloader")
        self.test = None if tested is None else cast(Rows, LoaderSplit(tested))
        self._ready = True

    @cached_property
    def spec(self) -> Spec:  # type: ignore[override]
        """What a model may know of the data: as it was said, the rest from a batch of the training loader."""
        self.look()
        training = cast(LoaderSplit, self.train)
        state = torch.get_rng_state()
        x, y = pair(next(iter(training.loader)))
        torch.set_rng_state(state)
        known = (self.inner, getattr(training.loader, "dataset", None))
        return spec_of(
            torch.as_tensor(x),
            torch.as_tensor(y),
            self._said,
            lambda: class_names(known, lambda: training.y),
            str(self.name),
        )

    @property
    def known_spec(self) -> Spec | None:
        return self.spec if "spec" in self.__dict__ else None

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]
        """Takes what the person's own loaders give: how raw input becomes that is known to them alone."""
        return TensorEncoder(list(self.spec.input_shape), whole=self.spec.input == "tokens")

    @property
    def digest(self) -> str:
        """A short hash of the data module's class and sizes: its samples are its own affair."""
        sizes = [0 if split is None else split.samples for split in (self.train, self.validation, self.test)]
        kind = f"{type(self.inner).__module__}.{type(self.inner).__qualname__}"
        return hashlib.sha256(f"{kind} {sizes}".encode()).hexdigest()[:16]

    def training_loader(self, seed: int, chunk: int = 1, rank: int = 0, world_size: int = 1) -> Loader:
        """The person's own training loader."""
        self.look()
        return cast(Loader, cast(LoaderSplit, self.train).loader)

    def loader_of(self, split: Rows, batch_size: int | None = None) -> Loader:
        """The person's own loader of a split."""
        return cast(Loader, cast(Any, split).loader)


def pair(batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch.

    Raises:
        UserError: The batch is no pair.
    """
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    if isinstance(batch, dict):
        shown = f"a dictionary of {sorted(map(str, batch))}"
    elif isinstance(batch, list | tuple):
        shown = f"of {len(batch)} parts"
    else:
        shown = f"one {type(batch).__name__}"
    raise UserError(
        f"data: a batch is {shown}; the models of this project take pairs (inputs, targets). Give pairs, or train a "
        "LightningModule of your own, which takes any batch"
    )


def overrides(found: Any, hook: str) -> bool:
    """Whether a class of a person's own (or an object's class) has a hook that Lightning's base classes leave empty."""
    kind = found if inspect.isclass(found) else type(found)
    for base in kind.__mro__:
        if hook in base.__dict__:
            # The function's own place: a class that was made to fit the other package holds that one's empty hooks.
            written: str = getattr(base.__dict__[hook], "__module__", base.__module__)
            return not written.startswith(("pytorch_lightning.", "lightning."))
    return False


def _loader(inner: Any, hook: str) -> Any:
    """What a hook of the data module gives, None where it has none; of several loaders the first."""
    if not overrides(inner, hook):
        return None
    found = getattr(inner, hook)()
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list | tuple):
        return found[0] if found else None
    return found
