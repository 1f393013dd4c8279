"""What of Optuna's private side the sweeps rely on: each by name, with what it must do."""

from __future__ import annotations

import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import orm

from pipeline.sweeps import optuna_inside as inside
from pipeline.sweeps.storage import SweepStorage


def broken(name: str, what: str) -> str:
    return (
        f"Optuna {optuna.__version__}: {name} {what}. pipeline/sweeps/optuna_inside.py says what it is for."
    )


def test_a_database_that_is_away_is_waited_for_in_every_way_that_a_study_asks_it(
    storage: SweepStorage,
) -> None:
    """A study asks a cache, which asks the storage: everything that it calls there has to be listed."""
    asked: set[str] = set()

    class Noting(SweepStorage):
        def __getattribute__(self, name: str) -> object:
            found = super().__getattribute__(name)
            if callable(found) and sys._getframe(1).f_code.co_filename.endswith("_cached_storage.py"):
                asked.add(name)
            return found

    storage.__class__ = Noting
    study = optuna.create_study(storage=storage, study_name="s")
    assert optuna.load_study(study_name="s", storage=storage).study_name == "s"
    storage.claim(1, 1)
    trial = inside.trial_of(study, 1)
    trial.suggest_float("x", 0, 1)
    trial.report(1.0, 0)
    trial.set_user_attr("a", 1)
    assert len(study.get_trials()) == 1
    assert {"_get_trials", "_set_trial_param", "get_trial"} <= asked, broken(
        "_CachedStorage", "asks otherwise"
    )
    assert asked <= set(inside.CALLED), broken("_CachedStorage", f"also calls {asked - set(inside.CALLED)}")


@pytest.fixture
def storage(tmp_path: Path) -> SweepStorage:
    return SweepStorage(f"sqlite:///{tmp_path / 'study.db'}")


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("StudyModel", {"study_id"}),
        ("TrialModel", {"trial_id", "number", "study_id", "state", "datetime_start", "datetime_complete"}),
        ("TrialHeartbeatModel", {"trial_id", "heartbeat"}),
        ("TrialIntermediateValueModel", {"trial_id"}),
        ("TrialParamModel", {"trial_id"}),
        ("TrialSystemAttributeModel", {"trial_id", "key", "value_json"}),
        ("TrialUserAttributeModel", {"trial_id", "key", "value_json"}),
        ("TrialValueModel", {"trial_id"}),
    ],
)
def test_a_table_is_there_with_the_columns_that_are_written(table: str, columns: set[str]) -> None:
    model = getattr(inside.models, table, None)
    assert model is not None, broken(f"storages._rdb.models.{table}", "is gone")
    missing = {name for name in columns if not hasattr(model, name)}
    assert not missing, broken(f"models.{table}", f"has no {missing}")


def test_a_new_table_of_trials_is_emptied_when_a_trial_is_queued_again() -> None:
    """`_to_waiting` forgets what an attempt left in the tables that this knows."""
    known = {"Param", "Value", "IntermediateValue", "UserAttribute", "SystemAttribute", "Heartbeat"}
    tables = {
        mapper.class_.__name__
        for mapper in inside.models.BaseModel.registry.mappers
        if "trial_id" in mapper.columns and mapper.class_ is not inside.models.TrialModel
    }
    assert tables == {f"Trial{name}Model" for name in known}, broken(
        "storages._rdb.models", "has other tables"
    )


def test_the_constructor_sets_the_engine_once_and_uses_that(tmp_path: Path) -> None:
    class Watched(RDBStorage):
        seen: list[sqlalchemy.Engine] = []

        @property
        def engine(self) -> sqlalchemy.Engine:
            return self.seen[-1]

        @engine.setter
        def engine(self, engine: sqlalchemy.Engine) -> None:
            self.seen.append(engine)

    optuna.create_study(storage=Watched(f"sqlite:///{tmp_path / 'x.db'}"))
    assert len(Watched.seen) == 1, broken("RDBStorage.engine", "is not set once by the constructor")


def test_rows_are_found_by_id_and_kept_from_others(storage: SweepStorage) -> None:
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    with orm.Session(storage.engine) as session:
        study_id = storage.get_study_id_from_name(study.study_name)
        found = inside.models.StudyModel.find_or_raise_by_id(study_id, session, for_update=True)
        assert found.study_id == study_id, broken("StudyModel.find_or_raise_by_id", "finds another")
        row = inside.models.TrialModel.find_or_raise_by_id(trial._trial_id, session, for_update=True)
        assert row.number == trial.number, broken("TrialModel.find_or_raise_by_id", "finds another")


def test_a_queued_trial_takes_the_values_that_are_fixed(storage: SweepStorage) -> None:
    study = optuna.create_study(storage=storage)
    study.enqueue_trial({"x": 0.25})
    (queued,) = study.get_trials()
    assert queued.system_attrs.get(inside.FIXED) == {"x": 0.25}, broken(inside.FIXED, "has another name")
    study_id = storage.get_study_id_from_name(study.study_name)
    claims = [storage.claim(study_id, 2, lambda number: {inside.FIXED: {"x": 0.75}}) for _ in range(2)]
    trials = [inside.trial_of(study, claim.trial_id) for claim in claims if claim is not None]
    given = [inside.suggest(trial, "x", FloatDistribution(0, 1)) for trial in trials]
    assert given == [0.25, 0.75], broken("Trial._suggest", f"ignores {inside.FIXED}")


@pytest.mark.parametrize(
    "distribution",
    [
        CategoricalDistribution(["a", "b"]),
        IntDistribution(1, 9, step=2),
        FloatDistribution(1e-4, 1, log=True),
    ],
    ids=["choice", "whole numbers", "numbers"],
)
def test_a_suggestion_is_remembered_with_its_distribution(
    storage: SweepStorage, distribution: optuna.distributions.BaseDistribution
) -> None:
    study = optuna.create_study(storage=storage)
    value = inside.suggest(study.ask(), "x", distribution)
    (trial,) = study.get_trials()
    assert trial.params == {"x": value} and trial.distributions == {"x": distribution}, broken(
        "Trial._suggest", "keeps something else"
    )


def test_a_distribution_contains_what_it_can_give() -> None:
    steps = FloatDistribution(0.1, 0.7, step=0.2)
    assert [inside.contains(steps, value) for value in (0.1, 0.1 + 0.2, 0.7, 0.2, 0.9)] == [
        *(True, True, True),
        *(False, False),
    ], broken("BaseDistribution._contains", "answers otherwise")
    whole = IntDistribution(1, 9, step=4)
    assert [inside.contains(whole, value) for value in (1, 5, 9, 3, 13)] == [True, True, True, False, False]


def test_hyperband_sees_the_trials_of_one_bracket() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.report(0.0, 1)
        trial.should_prune()
        return trial.suggest_float("x", 0, 1)

    study = optuna.create_study(pruner=optuna.pruners.HyperbandPruner(1, 9, 3))
    study.optimize(objective, 20)
    last = study.get_trials()[-1]
    seen = inside.filter_study(study, last).get_trials()
    assert 0 < len(seen) < 20 and last in seen, broken("pruners._filter_study", "does not part the brackets")
    other = optuna.create_study()
    assert inside.filter_study(other, last) is other


def test_a_study_looks_again_when_it_forgot_what_it_knew(storage: SweepStorage) -> None:
    study = optuna.create_study(storage=storage)
    study.ask()
    # As samplers and pruners look: what is known is kept for as long as a trial runs.
    assert len(study._get_trials(use_cache=True)) == 1
    optuna.load_study(study_name=study.study_name, storage=storage).ask()
    assert len(study._get_trials(use_cache=True)) == 1, broken(
        "Study._get_trials", "keeps nothing: nothing to forget"
    )
    inside.trial_of(study, 1)
    assert len(study._get_trials(use_cache=True)) == 2, broken(
        "Study._thread_local.cached_all_trials", "is not it"
    )


def test_values_are_written_as_the_public_way_writes_them(storage: SweepStorage) -> None:
    study = optuna.create_study(storage=storage, directions=["minimize", "maximize"])
    values = [float("inf"), 0.1]
    public, ours = study.ask(), study.ask()
    study.tell(public, values)
    with orm.Session(storage.engine) as session, session.begin():
        row = inside.models.TrialModel.find_or_raise_by_id(ours._trial_id, session)
        for objective, value in enumerate(values):
            inside.write_value(storage, session, row, objective, value)
        row.state = TrialState.COMPLETE
    assert [trial.values for trial in study.get_trials()] == [values, values], broken(
        "RDBStorage._set_trial_value_without_commit", "writes something else"
    )
