"""task=improve: the ladder ends where it should, and the test split is read at its end alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.types import RunMode
from omegaconf import DictConfig

from pipeline.__main__ import main
from pipeline.config import config_directory
from pipeline.config.loading import compose, loader
from pipeline.data.core.splits import Batch, Rows
from pipeline.data.images.published import Images
from pipeline.evaluation.outputs import loader_of, outputs_on
from pipeline.ladder import improve as task
from pipeline.ladder.registering import alias_of
from pipeline.ladder.report import conclusion, in_words
from pipeline.ladder.rungs import Climb, Rung, common_sense, judge
from pipeline.runs.finished import data_of, find_run, load_predictor, open_store
from pipeline.runs.result import RunResult
from pipeline.tracking.queries import Store
from pipeline.training import building
from pipeline.training.judging import metric_by, metric_of

pytestmark = [pytest.mark.usefixtures("no_study_plots"), pytest.mark.delivered]

Command = Callable[..., DictConfig]
SMALL = ["logger=none", "callbacks=none", "trainer.accelerator=cpu"]


def test_data_without_signal_ends_with_keep_the_baseline(
    tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(300, 3)), columns=["a", "b", "c"])
    frame["answer"] = np.where(generator.random(300) < 0.6, "yes", "no")
    frame.to_csv(tmp_path / "noise.csv", index=False)
    typed = ["data=csv", f"data.path={tmp_path}/noise.csv", "data.target=answer", "trainer.max_epochs=3"]
    settings = ["task.trials=2", "task.seeds=[0]", f"paths.experiments_dir={tmp_path}/experiments"]
    # The exit code says that the question was answered, whatever the answer.
    done = main(["task=improve", *typed, *settings, *SMALL, f"hydra.run.dir={tmp_path}/out"])
    assert done == 0
    said = capsys.readouterr().out
    assert "Keep the baseline (always the most frequent class): no model predicts better" in said
    assert "Nothing was registered" in said
    assert "Keep the baseline" in (tmp_path / "out" / "ladder.html").read_text()
    result = RunResult.read(tmp_path / "out")
    assert result.metrics["test/accuracy"] == result.baseline["test/accuracy"]
    assert not (tmp_path / "out" / "final-seed-0").exists()


@pytest.mark.parametrize(("objective", "metric"), [("val/log_loss", "log_loss"), ("val/roc_auc", "accuracy")])
def test_rungs_are_compared_by_the_objective_where_each_sample_has_a_value_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], objective: str, metric: str
) -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame(generator.normal(size=(400, 2)), columns=["a", "b"])
    frame["answer"] = np.where(frame["a"] + generator.normal(size=400) > 0, "yes", "no")
    frame.to_csv(tmp_path / "table.csv", index=False)
    typed = [
        "data=csv",
        f"data.path={tmp_path}/table.csv",
        "data.target=answer",
        "logger=none",
        "task.seeds=[0]",
    ]
    typed += ["+ladder.base=[]", '+ladder.rungs.linear=["model=linear"]', '+ladder.tuned=["model=linear"]']
    typed += ["+ladder.sweep=null", "trainer.max_epochs=30", f"paths.experiments_dir={tmp_path}/experiments"]
    typed += [f"objective.metric={objective}", f"hydra.run.dir={tmp_path}/out"]
    assert main(["task=improve", *typed]) == 0
    # The mean over samples, with its interval, is the metric that a run has, which is scikit-learn's.
    metrics = RunResult.read(tmp_path / "out").metrics
    assert metrics[f"test/{metric}_low"] < metrics[f"test/{metric}"] < metrics[f"test/{metric}_high"]
    said = capsys.readouterr().out
    assert f"validation {metric.replace('_', ' ')}" in said
    warned = (tmp_path / "out" / "pipeline.log").read_text()
    assert ("compared by accuracy, since single samples have no roc_auc" in warned) == (metric == "accuracy")


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[task.Climb, Path, list[str]]:
    """A short ladder of the digits, tracked, with a record of when the test split was read."""
    folder, events = tmp_path_factory.mktemp("climbed"), []

    class Watched(Rows):
        def take(self, rows: torch.Tensor) -> Batch:
            events.append("the test split is read")
            return super().take(rows)

    plain_setup, plain_read = Images.setup, task.read_test

    def setup(self: Images, stage: str | None = None) -> None:
        plain_setup(self, stage)
        assert self.test is not None
        self.test = Watched(self.test.x, self.test.y)

    def read_test(*arguments: Any) -> Any:
        events.append("the choice is final")
        return plain_read(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_prepared", {})
        patch.setattr(Images, "setup", setup)
        patch.setattr(task, "read_test", read_test)
        cfg = compose(
            [
                "task=improve",
                "+ladder=digits",
                "task.trials=2",
                "task.seeds=[3,4]",
                f"task.output={folder / 'run'}",
                f"paths.experiments_dir={folder / 'experiments'}",
            ]
        )
        climb = task.improve(cfg, ["trainer.max_epochs=2", "trainer.accelerator=cpu"])
    return climb, folder, events


Climbed = tuple[task.Climb, Path, list[str]]


def test_the_test_split_is_read_in_the_last_step_alone(climbed: Climbed) -> None:
    events = climbed[2]
    assert events[0] == "the choice is final"
    assert set(events[1:]) == {"the test split is read"}


def test_the_best_rung_on_validation_data_is_trained_again_on_all_of_it(climbed: Climbed) -> None:
    climb = climbed[0]
    assert [rung.name for rung in climb.rungs] == ["baseline", "linear", "small", "overfitting", "tuned"]
    assert all(rung.test is not None and 0 <= rung.test.value <= 1 for rung in [*climb.rungs, *climb.final])
    assert climb.chosen is max(climb.rungs, key=lambda rung: rung.validation)
    # The common answer is right on a tenth of ten equally frequent digits.
    assert climb.rungs[0].validation == pytest.approx(0.1, abs=0.03)
    assert [rung.result.seed for rung in climb.final if rung.result] == [3, 4]
    for rung in climb.final:
        assert rung.result is not None
        assert rung.result.data["train"] == 1437
        assert not any(name.startswith("val/") for name in rung.result.history)
    said = "\n".join(in_words(climb))
    assert "the inputs do predict the target" in said
    assert climb.length in conclusion(climb)
    assert all(f"{rung.test.value:.4f}" in conclusion(climb) for rung in climb.final if rung.test)


def test_every_step_is_a_run_under_one_parent_with_its_test_figures(climbed: Climbed) -> None:
    climb, folder, _ = climbed
    result = RunResult.read(folder / "run")
    store = Store(None, folder / "experiments")
    parent = store.run(str(result.run_id))
    assert (parent.status, parent.tags["chosen"]) == ("FINISHED", climb.chosen.name)
    assert "data.name" not in parent.params
    nested = {run.tags.get("rung", run.tags["task"]): run for run in store.children(parent.run_id)}
    assert set(nested) == {rung.name for rung in [*climb.rungs, *climb.final]} | {"sweep"}
    for rung in [*climb.rungs, *climb.final]:
        assert rung.test is not None
        logged = nested[rung.name]
        assert logged.status == "FINISHED"
        assert logged.metrics["test/accuracy"] == pytest.approx(rung.test.value, abs=1e-12)
    assert len(store.children(nested["sweep"].run_id)) == 2
    table = store.download_artifact(parent.run_id, "ladder.json", folder / "downloaded")
    assert len(json.loads(table.read_text())["data"]) == len(climb.rungs) + len(climb.final)
    page = store.download_artifact(parent.run_id, "report/ladder.html", folder / "downloaded").read_text()
    # Nothing beside the page is needed to read it.
    assert "data:image/png;base64," in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_the_winner_is_registered_with_a_card(climbed: Climbed) -> None:
    climb, folder, _ = climbed
    version = Store(None, folder / "experiments").version("digits", "champion")
    assert version is not None
    winner = climb.final[0]
    assert winner.test is not None
    assert str(winner.test) in version.description
    for part in ("**Data**", "**Intended use**", "**Limits**", f"task.run_id={version.run_id}"):
        assert part in version.description
    assert "champion: there was none before" in climb.registered


def test_a_users_own_configuration_reaches_every_rung(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    conf = tmp_path / "conf"
    (conf / "experiment").mkdir(parents=True)
    (conf / "ladder").mkdir()
    (conf / "experiment" / "mine.yaml").write_text(
        "# @package _global_\n# Mine.\ndefaults:\n  - override /data: digits\n  - override /model: mlp\n"
        "name: mine\nmodel:\n  hidden_units: [7]\ntrainer:\n  max_epochs: 1\n"
    )
    (conf / "ladder" / "mine.yaml").write_text(
        "# @package _global_\n# Mine.\nname: mine_ladder\nladder:\n  base: [+experiment=mine]\n"
        "  rungs:\n    small: ['model.hidden_units=[5]']\n  tuned: []\n  sweep: mlp\n"
    )
    words = ["--config-dir", str(conf), "task=improve", "+ladder=mine", "task.trials=1", "task.seeds=[0]"]
    words += ["model.dropout=0.25", f"hydra.run.dir={tmp_path}/out", f"paths.experiments_dir={tmp_path}/e"]
    assert main([*words, *SMALL]) == 0, capsys.readouterr().err
    tuned = RunResult.read(tmp_path / "out" / "tuned")
    assert tuned.experiment == "mine"
    # What was typed is not searched.
    assert tuned.model["dropout"] == 0.25


def test_a_rung_that_diverges_is_left_out(tmp_path: Path, command: Command) -> None:
    cfg = command(
        "task=improve", "+ladder=digits", "ladder.sweep=null", f"task.output={tmp_path}", "logger=none"
    )
    cfg.ladder.rungs = {
        "linear": ["model=linear"],
        "wild": ["model=mlp", "optimizer=sgd", "optimizer.lr=1e30"],
    }
    cfg.task.seeds = [0]
    climb = task.improve(cfg, ["trainer.max_epochs=1", *SMALL])
    wild = climb.rungs[2]
    assert wild.showed.startswith("left out, since it diverged")
    assert wild.test is None
    assert climb.confirmed


def rung(name: str, values: list[float] | np.ndarray, history: dict[str, list[float]] | None = None) -> Rung:
    curves = {key: list(enumerate(points, 1)) for key, points in (history or {}).items()}
    result = RunResult(Path(), None, name, {}, {"parameters": 1}, {}, {}, {}, 0.0, 0, None, history=curves)
    judged = np.asarray(values)
    return Rung(name, Path(), result=result, validation=float(judged.mean()), judged=judged)


def test_what_a_step_showed_is_said() -> None:
    baseline = rung("baseline", np.arange(200) % 10 == 0)
    baseline.result = None
    climb = Climb("accuracy", [baseline], baseline, "majority", tried=4)
    good = rung("linear", np.arange(200) % 10 != 0)
    assert judge(climb, good, 0.0125)
    assert good.showed.startswith("beats the baseline by 80.0 points")
    climb.chosen = good
    large = rung("overfitting", good.judged, {"train/accuracy": [0.9, 1.0], "val/accuracy": [0.95, 0.9]})
    assert not judge(climb, large, 0.0125)
    assert "kept linear" in large.showed
    assert "in epoch 2 training accuracy 1.0000, validation 0.9000 after 0.9500 in epoch 1: it overfits" in (
        large.showed
    )
    tuned = rung("tuned", good.judged)
    assert not judge(climb, tuned, 0.0125)
    assert tuned.result is not None
    assert good.result is not None
    good.result.model["parameters"] = 2
    assert judge(climb, tuned, 0.0125)
    assert "with fewer parameters" in tuned.showed
    # Better by one sample of 200: not enough to say that the inputs predict anything.
    climb.chosen, lucky = baseline, rung("small", np.arange(200) % 10 == 0)
    lucky.judged[1] = True
    assert not judge(climb, lucky, 0.0125)
    assert lucky.showed.startswith("cannot be told apart from the baseline")


def test_a_smaller_error_is_a_gain() -> None:
    baseline = rung("baseline", np.linspace(1, 3, 50))
    baseline.result = None
    climb = Climb("mae", [baseline], baseline, "mean", tried=1)
    better = rung("linear", np.linspace(1, 3, 50) - 0.5)
    assert judge(climb, better, 0.05)
    assert better.showed.startswith("beats the baseline by 0.5 (mae 1.5000 against 2.0000")


@pytest.mark.parametrize(
    ("words", "metric"),
    [
        (["data=digits"], "accuracy"),
        (["data=boston_housing"], "mae"),
        (["data=kafka", "model=rnn"], "bits_per_char"),
        (["data=food_orders", "data.orders=2000", "data.customers=40"], "hit_rate_at_5"),
    ],
)
def test_the_baselines_value_of_each_sample_comes_to_its_metric(words: list[str], metric: str) -> None:
    data = data_of(compose(words))
    assert data.validation is not None
    name, baseline = next(iter(data.baselines().items()))
    expected = baseline(data.train, data.validation, data.spec)[metric]
    assert float(data.baseline_values(data.validation).double().mean()) == pytest.approx(expected), name
    assert metric_of(data.spec) == metric


@pytest.mark.parametrize(
    ("words", "objective", "metric"),
    [(["data=digits"], "val/log_loss", "log_loss"), (["data=boston_housing"], "val/rmse", "mse")],
)
def test_what_the_baseline_loses_on_each_sample_comes_to_the_objective(
    words: list[str], objective: str, metric: str
) -> None:
    data = data_of(compose(words))
    assert data.validation is not None
    _, baseline = next(iter(data.baselines().items()))
    assert metric_by(data.spec, objective) == metric
    expected = baseline(data.train, data.validation, data.spec)[metric]
    assert common_sense(data, data.validation, metric).mean() == pytest.approx(expected)


LADDERS = sorted(path.stem for path in (config_directory() / "ladder").glob("*.yaml"))


@pytest.mark.parametrize("name", LADDERS)
def test_every_ladder_composes(name: str) -> None:
    cfg = compose(["task=improve", f"+ladder={name}"])
    data = {
        "default": "data=digits",
        "sequences": "data=kafka",
        "table": "data=boston_housing",
        "text": "data=imdb",
        "images": "data=image_folder",
    }.get(name)
    base, ladder = [*cfg.ladder.base, *([data] if data else [])], cfg.ladder
    kinds = {rung: compose([*base, *words]).data.name for rung, words in ladder.rungs.items()}
    searched = {ladder.sweep: ladder.tuned}
    if ladder.tuned == "leader":
        searched = {sweep: ladder.rungs[rung] for rung, sweep in ladder.sweep.items()}
    for sweep, words in searched.items():
        tuned = [*base, *words]
        kinds[f"tuned by {sweep}"] = compose(tuned).data.name
        # The search is made for the model that is tuned.
        words = [*tuned, *ladder.get("trial", []), f"sweep={sweep}"]
        found = loader().load_configuration("config", words, RunMode.MULTIRUN)
        model = found.model
        fits = found.hydra.sweeper.fits_model
        assert fits in (model.get("cell"), model._target_.rpartition(".")[2].lower())
    # Every rung sees the same data.
    assert len(set(kinds.values())) == 1


def test_only_a_significantly_better_model_becomes_champion(
    finished: dict[str, RunResult], command: Command
) -> None:
    cfg = command("task=improve", "+ladder=digits")
    store = open_store(cfg)
    versions = {name: store.register(str(run.run_id), "ladder-test") for name, run in finished.items()}
    for champion, newcomer, expected in (("linear", "mlp", "champion"), ("mlp", "linear", "challenger")):
        run = find_run(store, str(finished[newcomer].run_id), cfg)
        data = data_of(run.cfg)
        assert data.test is not None
        model = load_predictor(store, run.record.run_id).module
        outputs = outputs_on(model, loader_of(data, data.test), run.cfg)
        store.set_alias("ladder-test", "champion", versions[champion].version)
        alias, why = alias_of(store, versions[newcomer], outputs, cfg)
        assert alias == expected, why
        # A champion that takes an hour to ask is not asked where there is a minute.
        slow = {"milliseconds_for_1000_rows": "1e7"}
        store.describe("ladder-test", versions[champion].version, slow)
        alias, why = alias_of(store, versions[newcomer], outputs, cfg, left=60.0)
        assert alias == "challenger"
        assert why == (
            f"it was not compared with champion version {versions[champion].version}, whose answers would have taken "
            f"{10_000 * len(outputs.targets) / 1000:.0f} s: task.budget was over"
        )
        store.describe("ladder-test", versions[champion].version, {"milliseconds_for_1000_rows": "1"})
