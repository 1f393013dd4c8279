"""What is measured: directions are those that scikit-learn and torchmetrics give their own metrics."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from sklearn.metrics import get_scorer_names

from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.metrics import (
    REGISTRY,
    direction,
    find,
    four_digits,
    four_places,
    headline,
    in_order,
    in_words,
    judged_by,
    unit_of,
)
from pipeline.runs.finished import data_of
from pipeline.training.judging import metric_of


@pytest.mark.parametrize(
    ("name", "better"),
    {
        "val/acc_best": "max",
        "val_loss": "min",
        "valid_acc": "max",
        "train/loss_epoch": "min",
        "train_loss_step": "min",
        "train/smooth_loss": "min",
        "val/hit_rate_at_5": "max",
        "best/val/f1_macro": "max",
        "baseline/linear_regression/test_mae": "min",
        "loss/val": "min",
        "val/loss/dataloader_idx_0": "min",
        "val/mAP": "max",
        "val_map_50": "max",
        "val/mIoU": "max",
        "val_acc@5": "max",
        "val/error_top5": "min",
        "val/rouge2_fmeasure": "max",
        "val/rougeL": "max",
        "val/bits_per_char": "min",
        "val/pixel_accuracy": "max",
        "val/reconstruction_loss": "min",
        "eval_wer": "min",
        "val_nll": "min",
        "val/log_likelihood": "max",
        "val_perplexity": "min",
        "val_PSNR": "max",
        "val/nDCG@10": "max",
        "val/iou_class_3": "max",
        "parameters": "min",
        "fit_seconds": "min",
        # Of the spread over folds less is better, whatever is spread.
        "val/accuracy_std": "min",
    }.items(),
)
def test_a_name_as_people_log_it_tells_which_way_is_better(name: str, better: str) -> None:
    assert direction(name) == better


@pytest.mark.parametrize("name", get_scorer_names())
def test_more_of_every_score_of_scikit_learn_is_better(name: str) -> None:
    assert direction(f"val/{name}") == "max"


def torchmetrics_classes() -> dict[str, bool]:
    import torchmetrics

    found = {}
    for module in pkgutil.walk_packages(torchmetrics.__path__, "torchmetrics."):
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:
            # Of an optional package.
            continue
        for name, kind in names.items():
            if (
                name[0] != "_"
                and inspect.isclass(kind)
                and isinstance(getattr(kind, "higher_is_better", None), bool)
            ):
                found[name] = kind.higher_is_better
    return found


# Its documentation says the opposite of its own attribute.
WRONG_THERE = {
    "DaviesBouldinScore": "min",
    "PerceptualPathLength": "min",
    "SpectralDistortionIndex": "min",
    "WordInfoPreserved": "max",
}


def test_the_classes_of_torchmetrics_are_known_by_name_with_their_own_direction() -> None:
    pytest.importorskip("torchmetrics")
    classes = torchmetrics_classes()
    known = {name: direction(name) for name in classes if find(name)}
    expected = {name: WRONG_THERE.get(name, "max" if classes[name] else "min") for name in known}
    assert known == expected
    assert len(known) > 0.85 * len(classes) > 80


@pytest.mark.parametrize(
    ("name", "said"),
    {
        "val/akkuracy": "Did you mean accuracy?",
        "val/loss_weight": "objective.direction=maximize|minimize",
        "val/foo": "accuracy, f1",
        "train/lr": "objective.direction",
        # The recall of what is negative, or the negative of a recall?
        "val/neg_recall": "objective.direction",
        "val/neg_loss": "objective.direction",
    }.items(),
)
def test_a_name_that_says_nothing_known_is_an_error(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        direction(name)
    assert name in str(error.value)
    assert said in str(error.value)


def test_no_name_stands_for_two_metrics() -> None:
    names = [name for metric in REGISTRY for name in (metric.name, *metric.also)]
    assert len(names) == len(set(names))


def test_tables_begin_with_the_loss_and_what_a_model_is_judged_by() -> None:
    assert in_order(["zeal", "roc_auc", "f1", "accuracy", "loss", "hit_rate_at_5"]) == [
        "loss",
        "hit_rate_at_5",
        "accuracy",
        "f1",
        "roc_auc",
        "zeal",
    ]
    assert judged_by(["loss", "f1", "accuracy", "hit_rate_at_5"]) == "hit_rate_at_5"
    assert judged_by(["loss", "rmse", "mae"]) == "mae"
    assert judged_by(["loss", "zeal"]) == "loss"
    assert judged_by(["zeal"]) is None


def test_where_there_is_room_for_few_others_stand_in_for_the_usual_ones() -> None:
    assert headline(["val/rmse", "val/mae", "val/mae_std", "val/mse", "val/loss", "train/lr"]) == [
        "val/loss",
        "val/mae",
    ]
    assert headline(["val_iou", "val_dice", "train_iou", "val_loss"]) == ["val_loss", "train_iou", "val_iou"]
    assert headline(["zeal", "lr"]) == ["zeal"]


def test_shares_are_shown_in_percent_and_errors_have_the_unit_of_what_is_predicted() -> None:
    assert in_words("test/accuracy", 0.98765) == "98.8 %"
    assert in_words("mae", 2.3456) == "2.35" and in_words("mae", 14535.67) == "14,536"
    units = [unit_of(name, "cm") for name in ("val/rmse", "mse", "bits_per_char", "accuracy")]
    assert units == ["cm", "cm²", "bits per character", ""]
    assert unit_of("mse") == ""


@pytest.mark.parametrize(
    "words", [["data=digits"], ["data=boston_housing"], ["data=kafka"], ["data=food_orders"]]
)
def test_what_models_are_compared_by_is_a_mean_over_predictions_and_what_tables_say_they_are_judged_by(
    words: list[str],
) -> None:
    data = data_of(compose(words))
    assert data.validation is not None
    metric = metric_of(data.spec)
    assert (found := find(metric)) is not None
    assert found.per_prediction
    baseline = next(iter(data.baselines().values()))
    assert judged_by(baseline(data.train, data.validation, data.spec)) == metric
    assert direction(data.spec.monitor[0]) == data.spec.monitor[1]


@pytest.mark.parametrize(
    ("value", "places", "digits"),
    [
        (0.0, "0.0000", "0"),
        (0.97312, "0.9731", "0.9731"),
        (-0.00004, "-4e-05", "-4e-05"),
        (12.3456, "12.3456", "12.35"),
        (1234.56, "1,234.6", "1,235"),
        (14535.6747, "14,536", "14,536"),
        (2e12, "2e+12", "2e+12"),
        (float("nan"), "nan", "nan"),
    ],
)
def test_figures_are_shown_as_people_read_them(value: float, places: str, digits: str) -> None:
    assert (four_places(value), four_digits(value)) == (places, digits)


def test_a_gain_has_its_sign() -> None:
    assert [four_places(gain, "+") for gain in (0.02, -14535.6, 20000)] == ["+0.0200", "-14,536", "+20,000"]
