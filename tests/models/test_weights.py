"""Networks that begin with weights from elsewhere."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from pipeline.data.core.spec import Spec
from pipeline.data.images.decoding import Resizing, to_array
from pipeline.data.sources.archives import Damaged
from pipeline.data.sources.finding import DataUnavailable
from pipeline.errors import UserError
from pipeline.models import weights as weights_of
from pipeline.models.foreign import TorchvisionModel, Wrapped
from pipeline.models.packaged import EfficientNetLite
from pipeline.models.weights import find, give, prepared, published, read

COLOUR = Spec(
    "multiclass", "image", (3, 32, 32), 4, ("a", "b", "c", "d"), pixel_mean=(99.0,) * 3, pixel_std=(50.0,) * 3
)


def small(outputs: int = 4) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, outputs),
    )


def test_images_reach_published_weights_as_torchvision_prepares_them() -> None:
    """Held against torchvision's own transforms, for photographs of three shapes and both kinds of interpolation."""
    torch.manual_seed(0)
    for name in ("resnet18", "efficientnet_b0", "efficientnet_v2_l", "regnet_y_400mf"):
        how = prepared(name, "DEFAULT")
        assert how is not None and how.size is not None
        spec = how.spec(COLOUR)
        for size in ((500, 333), (300, 640), (400, 400)):
            pixels = torch.randint(0, 256, (size[1] // 20, size[0] // 20, 3), dtype=torch.uint8)
            photo = Image.fromarray(pixels.numpy()).resize(size, Image.Resampling.BICUBIC)
            array = to_array(photo, [3, how.size, how.size], how=Resizing.to(how.crop, how.interpolation))
            mean, std = (torch.tensor(of).view(3, 1, 1) for of in (spec.pixel_mean, spec.pixel_std))
            ours = (torch.tensor(array) - mean) / std
            theirs = published(name, "DEFAULT").transforms()(photo)
            # A step of 1 of 255, where torchvision rounds a half the other way.
            assert torch.allclose(ours, theirs, atol=1.01 / 255 / 0.2), (name, size)
            assert (ours - theirs).abs().mean() < 1e-3


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_published_weights_get_the_pixels_that_torchvision_gives_them(name: str) -> None:
    """Its two ported networks rescale their input where it loads their weights itself."""
    for weights, rescaled in (("DEFAULT", True), (None, False)):
        assert TorchvisionModel(COLOUR, name, weights=weights).net.transform_input is rescaled


def test_weights_of_a_file_are_taken_over_and_the_last_layer_begins_anew(tmp_path: Path, caplog: Any) -> None:
    source = small(1000)
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.state_dict().items()}}, tmp_path / "a.pth")
    save_file(source.state_dict(), str(tmp_path / "b.safetensors"))
    for file in ("a.pth", "b.safetensors"):
        model = Wrapped(COLOUR, small(), weights=str(tmp_path / file))
        fresh = model.net.state_dict()["7.weight"].clone()
        with caplog.at_level(logging.INFO):
            model.begin_with(model.find_weights(tmp_path))
        assert "new: 7" in caplog.text
        for name, value in model.net.state_dict().items():
            assert (
                torch.equal(value, fresh if name == "7.weight" else source.state_dict()[name])
                or name == "7.bias"
            )
    # As many outputs as there are classes: all of it.
    same = small(4)
    torch.save(same.state_dict(), tmp_path / "same.pt")
    model = Wrapped(COLOUR, small(), weights="same.pt")
    model.begin_with(model.find_weights(tmp_path))
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    same.eval(), model.eval()
    assert torch.equal(model(x), same((x - 99.0) * torch.tensor(1 / 50.0)))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = small(1000).state_dict()
    del state["0.weight"]
    state["extra"] = torch.ones(1)
    state["3.weight"] = torch.ones(9, 6, 3, 3)
    with pytest.raises(
        UserError,
        match=r"missing: 0.weight; unexpected: extra; of another shape: 3.weight \(there \(9, 6, 3, 3\), here \(8, 6",
    ):
        give(small(), state, "7", "w.pth")
    torch.save({"optimizer": [1, 2]}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match="expected weights by name"):
        read(tmp_path / "odd.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(UserError, match=r"cut\.pth holds no weights that can be read"):
        read(tmp_path / "cut.pth")
    torch.save(small(), tmp_path / "pickled.pth")
    with pytest.raises(UserError, match=r"pickled\.pth holds no weights that can be read"):
        read(tmp_path / "pickled.pth")
    with pytest.raises(UserError, match="there is no such file"):
        find(None, "nowhere.pth", tmp_path)
    with pytest.raises(UserError, match="the package nosuchpackage is not installed"):
        find(None, "package:nosuchpackage/a.pth", tmp_path)
    with pytest.raises(UserError, match="Did you mean IMAGENET1K_V1"):
        find("resnet18", "IMAGENET1K_V", tmp_path)
    with pytest.raises(UserError, match="numpy holds no weights"):
        find(None, "package:numpy/*.pth", tmp_path)


class Published:
    """torchvision's ResNet-18 with weights that a server of this machine publishes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import torchvision

        torch.manual_seed(1)
        self.net = torchvision.models.resnet18()
        torch.save(self.net.state_dict(), folder / "draft.pth")
        digest = hashlib.sha256((folder / "draft.pth").read_bytes()).hexdigest()
        self.file = (folder / "draft.pth").rename(folder / f"resnet18-{digest[:8]}.pth")
        entry = published("resnet18", "DEFAULT")

        class Entry:
            name, meta, transforms = entry.name, {"_file_size": 45}, entry.transforms
            url = ""

        self.entry = Entry()
        monkeypatch.setattr(weights_of, "published", lambda name, weights: self.entry)


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("PIPELINE_DATA_PATH", raising=False)
    monkeypatch.delenv("PIPELINE_OFFLINE", raising=False)
    folder = tmp_path / "server"
    folder.mkdir()
    made = Published(folder, monkeypatch)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made.entry.url = f"http://127.0.0.1:{server.server_port}/{made.file.name}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def test_published_weights_are_fetched_once_and_held_against_their_checksum(
    offered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data_dir = tmp_path / "data"
    found = find("resnet18", "DEFAULT", data_dir)
    assert found == data_dir / "weights" / offered.file.name
    spec = Spec(
        "multiclass",
        "image",
        (3, 32, 32),
        1000,
        tuple(map(str, range(1000))),
        pixel_mean=(0.0,) * 3,
        pixel_std=(1.0,) * 3,
    )
    model = TorchvisionModel(spec, "resnet18", weights="DEFAULT").eval()
    model.begin_with(found)
    x = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    theirs = offered.net.eval().to(memory_format=torch.channels_last)
    assert torch.allclose(model(x), theirs(x.float()), rtol=1e-4)
    # The second time there is no network, and none is needed.
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    assert find("resnet18", "DEFAULT", data_dir) == found
    found.write_bytes(found.read_bytes()[:-1])
    with pytest.raises(
        DataUnavailable, match=r"(?s)SHA-256 begins with.*Three ways.*PIPELINE_DATA_PATH.*run once with"
    ):
        find("resnet18", "DEFAULT", data_dir)
    monkeypatch.setenv("PIPELINE_DATA_PATH", str(offered.file.parent))
    assert find("resnet18", "DEFAULT", tmp_path / "other") == offered.file
    offered.file.write_bytes(b"something else")
    with pytest.raises(Damaged, match="SHA-256 begins with"):
        weights_of._check_prefix(offered.file)


def test_learning_rates_fall_from_the_last_layer_to_the_first_and_fixed_stages_stay() -> None:
    model = Wrapped(COLOUR, small(), layer_decay=0.5)
    groups = model.parameter_groups()
    # The network's parts with weights, from the last to the first: 7, 3, 1, 0.
    assert [group.rate for group in groups] == [1.0, 0.5, 0.25, 0.125]
    assert groups[0].parameters[0] is model.net.get_submodule("7").weight
    assert sum(len(group.parameters) for group in groups) == len([*model.parameters()])
    model = Wrapped(COLOUR, small(), unfreeze=1).train()
    learnt = {name for name, parameter in model.net.named_parameters() if parameter.requires_grad}
    assert learnt == {"3.weight", "3.bias", "7.weight", "7.bias"}
    assert not model.net[1].training and model.net[3].training  # type: ignore[index]
    model = Wrapped(COLOUR, small(), unfreeze_epoch=2)
    for epoch, expected in ((0, 2), (1, 2), (2, 8)):
        model.begin_epoch(epoch)
        model.train()
        assert sum(parameter.requires_grad for parameter in model.parameters()) == expected
        assert model.net[1].training == (epoch == 2)  # type: ignore[index]
    assert sum(len(group.parameters) for group in model.parameter_groups()) == 8
    with pytest.raises(UserError, match="has 3 stages before its head"):
        Wrapped(COLOUR, small(), unfreeze=9)
    for name in ("freeze", "solve_first"):
        with pytest.raises(
            UserError, match=rf"model\.{name}=true: SqueezeNet does not end in a linear layer"
        ):
            TorchvisionModel(COLOUR, "squeezenet1_1", **{name: True})
    with pytest.raises(
        UserError, match=r"model\.solve_first=true: with model\.freeze=true .* leave one of them out"
    ):
        Wrapped(COLOUR, small(), freeze=True, solve_first=True)
    with pytest.raises(UserError, match=r"model\.freeze_norm=true: SqueezeNet has no batch normalisation"):
        TorchvisionModel(COLOUR, "squeezenet1_1", freeze_norm=True)


def test_features_are_what_the_last_layer_gets_and_its_answer_follows_from_them() -> None:
    torch.manual_seed(0)
    model = Wrapped(COLOUR, small(), freeze=True).eval()
    nn.init.normal_(model.head_layer.weight)
    x = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    features = model.features(x)
    assert features.shape == (5, 8)
    model.head_layer.fit(features)
    assert torch.allclose(
        model.head_layer.standardised(features).std(0, unbiased=False), torch.ones(8), atol=1e-4
    )
    by_hand = (features - features.mean(0)) / features.std(0, unbiased=False) @ model.head_layer.weight.T
    assert torch.allclose(model(x), by_hand, atol=1e-4)
    assert torch.equal(model(features), model(x))
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["net.7.weight", "net.7.bias"]
    assert not any(
        module.training for name, module in model.train().net.named_modules() if name and name != "7"
    )


@pytest.mark.parametrize("size", [(24, 24), (24, 40), (60, 50)])
def test_pictures_of_the_size_asked_for_are_scaled_and_cropped_like_all_others(size: tuple[int, int]) -> None:
    from torchvision import transforms

    from pipeline.data.images.encoders import ResizingImageEncoder

    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    photo = Image.fromarray(pixels)
    # As torchvision's own preprocessing of a network for 24 pixels whose weights were made with crops of 24 / 28.
    usual = transforms.Compose([transforms.Resize(28), transforms.CenterCrop(24)])
    how = Resizing.to(24 / 28)
    assert (to_array(photo, [3, 24, 24], how=how) == np.asarray(usual(photo)).transpose(2, 0, 1)).all()
    # Models of earlier versions took them as they are, and go on doing so.
    before = ResizingImageEncoder([3, 24, 24], [0.0] * 3, [1.0] * 3, 24 / 28)
    assert "always" not in before.state()
    if size == (24, 24):
        assert (before.encode([photo])[0].numpy() == pixels.transpose(2, 0, 1)).all()
    now = ResizingImageEncoder(
        **{"mean": [0.0] * 3, "std": [1.0] * 3, "shape": [3, 24, 24], **how.settings()}
    )
    assert (now.encode([photo])[0].numpy() == to_array(photo, [3, 24, 24], how=how)).all()
    assert now.state()["always"] is True


def test_weights_that_timm_publishes_are_looked_for_like_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = pytest.importorskip("timm")
    from pipeline.models.packaged import TimmModel

    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("PIPELINE_DATA_PATH", raising=False)
    model = TimmModel(COLOUR, "resnet10t", weights="DEFAULT")
    repository = timm.get_pretrained_cfg("resnet10t").hf_hub_id
    with pytest.raises(
        DataUnavailable, match=r"(?s)resnet10t.*Three ways.*PIPELINE_DATA_PATH.*run once with"
    ):
        model.find_weights(tmp_path)
    torch.manual_seed(2)
    theirs = timm.create_model("resnet10t").state_dict()
    file = tmp_path / "shared" / repository / "model.safetensors"
    file.parent.mkdir(parents=True)
    save_file(theirs, str(file))
    monkeypatch.setenv("PIPELINE_DATA_PATH", str(tmp_path / "shared"))
    assert model.find_weights(tmp_path) == file
    model.begin_with(file)
    stem = "conv1.0.weight"
    assert torch.equal(model.net.state_dict()[stem], theirs[stem])
    own = tmp_path / "weights" / repository / "model.safetensors"
    own.parent.mkdir(parents=True)
    own.write_bytes(file.read_bytes()[:-9])
    # A damaged one is moved aside, and said.
    assert model.find_weights(tmp_path) == file
    assert own.with_name("model.safetensors.damaged").is_file()


def test_efficientnet_lite_takes_smaller_images_in_training_and_pads_others_as_it_always_did() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    for side in (32, 90):
        spec = replace(COLOUR, input_shape=(3, side, side))
        model = EfficientNetLite(spec, weights=None).eval()
        fixed = package.EfficientNet.from_name("efficientnet-lite0", num_classes=4, image_size=side).eval()
        fixed.load_state_dict(model.net.state_dict())
        x = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
        assert torch.equal(model(x), fixed(model.normalised(x)))
        assert model(x[:, :, :26, :26]).shape == (2, 4)
