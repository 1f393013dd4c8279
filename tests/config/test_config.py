"""Composing and checking: what a person types becomes a configuration, or one message that says what to do."""

from __future__ import annotations

import copy
from itertools import zip_longest
from pathlib import Path

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from pipeline.config import check, compose, config_directory
from pipeline.config import devices as devices_module
from pipeline.config.arguments import arguments_of
from pipeline.config.devices import check_devices
from pipeline.config.keys import RULES
from pipeline.config.masking import holds_secret, mask
from pipeline.config.nearest import suggest
from pipeline.config.rules import Amounts, complaint
from pipeline.config.write_arguments import shipped_classes
from pipeline.errors import UserError

GROUPS = ("optimizer", "scheduler", "trainer", "callbacks", "logger", "debug", "model")


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_ALLOW", raising=False)


def refused(*overrides: str, config_dir: Path | None = None) -> str:
    """The message with which these overrides are refused."""
    with pytest.raises(UserError) as caught:
        compose(overrides, config_dir=config_dir)
    return str(caught.value)


@pytest.fixture(scope="module")
def _composed_once() -> DictConfig:
    return compose(["+experiment=digits_cnn"])


@pytest.fixture
def composed(_composed_once: DictConfig) -> DictConfig:
    """A configuration that may be changed: composing anew for each test would take its time."""
    return copy.deepcopy(_composed_once)


def own(tmp_path: Path, name: str, text: str) -> Path:
    """A configuration directory of the user's own with one file in it."""
    path = tmp_path / "mine" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return tmp_path / "mine"


def every_option() -> list[list[str]]:
    """Overrides that choose every option of every group once, several groups at a time."""
    shared = ("shared", "recurrent", "network")
    by_group = [
        [
            f"{group}={p.stem}"
            for p in sorted((config_directory() / group).glob("*.yaml"))
            if p.stem not in shared
        ]
        for group in GROUPS
    ]
    return [[option for option in options if option] for options in zip_longest(*by_group)]


@pytest.mark.parametrize("choices", every_option())
def test_every_shipped_option_composes_on_any_machine(choices: list[str]) -> None:
    compose(choices, for_this_machine=False)


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_directory() / "task").glob("*.yaml")))
def test_every_shipped_task_composes_once_it_has_what_it_needs(name: str) -> None:
    written = yaml.safe_load((config_directory() / f"task/{name}.yaml").read_text(encoding="utf-8"))
    given = {"input": "x.csv", "runs": "[a,b]", "run_id": "abc"}
    needed = [f"task.{key}={given[key]}" for key, value in written.items() if value == "???"]
    for override in needed:
        assert override.split("=")[0] in refused(*[f"task={name}", *(o for o in needed if o != override)])
    assert compose([f"task={name}", *needed]).task.name == name


def test_the_defaults_list_ends_with_what_wins_over_the_rest() -> None:
    written = yaml.safe_load((config_directory() / "config.yaml").read_text(encoding="utf-8"))
    last = [next(iter(entry)) for entry in written["defaults"][-4:]]
    assert last == ["experiment", "sweep", "ladder", "debug"]
    assert all(value is None for entry in written["defaults"][-4:] for value in entry.values())


def test_paths_start_where_the_command_is_typed(tmp_path: Path) -> None:
    cfg = compose(["paths.data_dir=there"])
    assert cfg.paths.data_dir == str(tmp_path / "there")
    assert cfg.paths.experiments_dir == str(tmp_path / "experiments")
    assert cfg.logger.tracking_uri == f"sqlite:///{tmp_path}/experiments/mlflow.db"
    assert Path(cfg.paths.run_dir).parent == tmp_path / "experiments/runs/mnist_mlp"


def test_the_tracking_server_is_that_of_the_environment_unless_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example.org")
    assert compose().logger.tracking_uri == "https://tracking.example.org"
    assert compose(["logger.tracking_uri=sqlite:///x.db"]).logger.tracking_uri == "sqlite:///x.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert compose().logger.tracking_uri.startswith("sqlite:///")


def test_a_configuration_has_one_unique_suffix_and_the_next_another() -> None:
    one, other = compose(), compose()
    assert one.paths.run_dir == one.paths.run_dir != other.paths.run_dir


def test_several_loggers_at_once() -> None:
    logger = compose(["logger=[mlflow,csv]"]).logger
    assert (logger.mlflow, logger.csv, logger.tensorboard) == (True, True, False)
    assert not any(compose(["logger=none"]).logger[name] for name in ("mlflow", "csv", "tensorboard"))


def test_a_run_without_experiment_is_named_after_its_parts() -> None:
    assert compose(["data=digits", "model=cnn"]).name == "digits_cnn"
    assert compose(["+experiment=digits_mlp", "name=my try"]).name == "my try"


def test_a_users_own_directory_adds_experiments(tmp_path: Path) -> None:
    mine = own(tmp_path, "experiment/gulls", "# @package _global_\nseed: 7\n")
    cfg = compose(["+experiment=gulls"], config_dir=mine)
    assert (cfg.name, cfg.seed) == ("gulls", 7)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.hiden_units=3", "Did you mean model.hidden_units?"),
        ("optimizer.learning_rate=0.1", "Did you mean optimizer.lr?"),
        ("trainer.max_epoch=3", "Did you mean trainer.max_epochs"),
        ("+model.dropuot=0.1", "Did you mean model.dropout?"),
        ("+data.batchsize=3", "Did you mean"),
        ("+task.runid=3", "task.runid: there is no such setting"),
        ("modle=mlp", "Did you mean model?"),
        ("epochs=3", "Did you mean trainer.max_epochs?"),
        ("lr=0.1", "Did you mean optimizer.lr?"),
        ("trainer.learning_rate=0.1", "Did you mean optimizer.lr?"),
        ("batch_size=32", "Did you mean data.batch_size?"),
        ("evaluate", "did you mean task=evaluate?"),
        ("model", "model: expected KEY=VALUE, without blanks around the ="),
        ("model.hidden_units=[64;32]", """a text with such signs is typed 'model.hidden_units="[64;32]"'"""),
        ("hydra.sweeper.n_trials=2", "A search has more: hydra/sweeper=optuna"),
        ("data=mnsit", "data=mnsit: there is no such data set. Did you mean mnist?"),
        ("+experiment=mnist_cn", "there is no such experiment. Did you mean mnist_cnn"),
        ("task=evalute", "Did you mean evaluate?"),
        ("debug=fst", "there is no such debug mode. Did you mean fast?"),
        ("+sweeep=mlp", "sweep"),
        ("scheduler.gamma=0.1", "choose one first: scheduler=NAME"),
        ("optimizer.eps=1e-7", "can be added: +optimizer.eps=1e-7"),
        ("trainer.strategy=dpp", "Did you mean ddp?"),
        ("trainer.precision=bf16-mix", "Did you mean bf16-mixed"),
        ("+callbacks.swa.swa_lrs=0.1", "callbacks.swa._target_"),
        ("seed=[", "seed=[: cannot be read"),
        ("task.name=fly", "there is no such task"),
        ("hydra/launcher=slrm", "hydra/launcher=slrm: there is no such launcher"),
        ("hydra/launcher=joblib", "use hydra.sweeper.n_jobs=N"),
        ("hydra.searchpath=[pkg://antigravity]", "expected the absolute path of a directory"),
    ],
)
def test_what_does_not_exist_is_met_with_the_nearest_names(override: str, said: str) -> None:
    message = refused(override)
    assert said in message


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.dropout=1.5", "a number from 0 to below 1"),
        ("model.dropout=1", "a number from 0 to below 1"),
        ("model.dropout=abc", "a number from 0 to below 1"),
        ("model.dropout=[0.1]", "a number from 0 to below 1"),
        ("model.dropout=nan", "a number from 0 to below 1"),
        ("model.dropout=true", "a number from 0 to below 1"),
        ("optimizer.lr=-1", "a number above 0"),
        ("optimizer.lr=0", "a number above 0"),
        ("optimizer.lr=inf", "a number above 0"),
        ("optimizer.lr=null", "a number above 0"),
        ("data.batch_size=0", "a whole number of at least 1"),
        ("data.batch_size=1.5", "a whole number of at least 1"),
        ("data.folds=1", "a whole number of at least 2, or null"),
        ("data.validation_fraction=1", "a number from 0 to below 1"),
        ("model.hidden_units=0", "a whole number of at least 1, or a list of such, or null"),
        ("model.hidden_units=[64,0]", "a whole number of at least 1, or a list of such, or null"),
        ("model.hidden_units=[]", "a whole number of at least 1, or a list of such, or null"),
        ("model.l1=-0.1", "a number of at least 0"),
        ("model.l2=-0.1", "a number of at least 0"),
        ("seed=-1", "a whole number from 0 to 4.29497e+09"),
        ("trainer.max_epochs=-2", "a whole number of at least -1, or auto, or null"),
        ("trainer.max_epochs=0", "at least 1"),
        ("trainer.max_epochs=-1", "never end"),
        ("trainer.precision=8", "one of auto"),
        ("trainer.limit_train_batches=-0.1", "a fraction from 0 to 1, or a whole number of batches"),
        ("trainer.limit_train_batches=1.5", "a fraction from 0 to 1, or a whole number of batches"),
        ("trainer.limit_train_batches=0", "train=false"),
        ("trainer.max_steps=0", "at least 1, or -1 for no limit"),
        ("trainer.limit_test_batches=0", "test=false"),
        ("variants=1", "names with lists of settings"),
        ("success=1", "null or its settings"),
        ("checkpoint=5", "its settings"),
        ("callbacks.early_stopping=1.5", "null or its settings"),
        ("trainer.accumulate_grad_batches=0", "a whole number of at least 1"),
        ("trainer.gradient_clip_val=-1", "a number of at least 0, or null"),
        ("trainer.gradient_clip_algorithm=norn", "Did you mean norm?"),
        ("trainer.steps_per_call=0", "a whole number of at least 1, or auto"),
        ("trainer.threads=0", "a whole number from 1 to 1024, or auto"),
        ("trainer.max_time=90", "DD:HH:MM:SS"),
        ("trainer.max_time=00:00:00:00", "a time above 0"),
        ("callbacks.early_stopping.patience=-1", "a whole number of at least 0, or null"),
        ("train=maybe", "true or false"),
        ("tags=abc", "a list of words"),
        ("name=../up", "a name of letters"),
        ("data.fold=1", "data.folds is not given"),
        ("objective.metric=test/accuracy", "the test split is read once"),
        ("checkpoint.monitor=test/loss", "the test split is read once"),
        ("objective.direction=up", "one of auto, maximize, minimize"),
    ],
)
def test_a_value_out_of_range_is_met_with_key_value_and_range(
    override: str, expected: str, composed: DictConfig
) -> None:
    key, value = override.split("=")
    OmegaConf.update(composed, key, yaml.safe_load(value.replace("nan", ".nan").replace("inf", ".inf")))
    with pytest.raises(UserError) as caught:
        check(composed)
    message = str(caught.value)
    assert message.startswith(f"{override}:")
    assert expected in message


@pytest.mark.parametrize("key", sorted(key for key in RULES if "*" not in key))
def test_no_rule_lets_a_mapping_pass(key: str) -> None:
    # Where a mapping is what is asked for, its values are held to be numbers.
    given = {"a": "x"} if isinstance(RULES[key], Amounts) else {"a": 1}
    assert complaint(key, given, RULES[key]) is not None


@pytest.mark.parametrize("target", shipped_classes())
def test_no_rule_on_an_argument_lets_a_mapping_pass(target: str) -> None:
    for name, argument in arguments_of(target).items():
        assert argument.rule is None or complaint(name, {"a": 1}, argument.rule) is not None


def test_a_fold_beyond_the_folds_is_refused() -> None:
    assert "from 0 to 3" in refused("data.folds=4", "data.fold=4")
    assert compose(["data.folds=4", "data.fold=3"]).data.fold == 3


def test_a_test_metric_may_not_steer_anything() -> None:
    message = refused("scheduler=plateau", "scheduler.monitor=test/loss")
    assert "the test split is read once" in message
    assert "val/loss" in message
    name = "callbacks.mine"
    message = refused(
        f"+{name}._target_=pytorch_lightning.callbacks.EarlyStopping", f"+{name}.monitor=test/accuracy"
    )
    assert "val/accuracy" in message


def test_any_argument_of_the_class_can_be_added() -> None:
    cfg = compose(
        ["+optimizer.betas=[0.8,0.9]", "+trainer.val_check_interval=0.5", "+data.train_on_all=true"]
    )
    assert (list(cfg.optimizer.betas), cfg.trainer.val_check_interval) == ([0.8, 0.9], 0.5)
    name = "callbacks.swa"
    cfg = compose(
        [f"+{name}._target_=pytorch_lightning.callbacks.StochasticWeightAveraging", f"+{name}.swa_lrs=0.1"]
    )
    assert cfg.callbacks.swa.swa_lrs == 0.1


def test_a_misspelt_section_of_an_experiment_is_noticed(tmp_path: Path) -> None:
    mine = own(tmp_path, "experiment/typo", "# @package _global_\noptimzer:\n  lr: 0.1\n")
    assert "optimzer: there is no such setting. Did you mean optimizer?" in refused(
        "+experiment=typo", config_dir=mine
    )


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    mine = own(tmp_path, "experiment/broken", "# @package _global_\nmodel: [1,\n")
    assert "broken" in refused("+experiment=broken", config_dir=mine)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "there is no such directory" in refused(config_dir=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@db/x",
        "https://me:hunter2@host/path",
        "https://:hunter2@host",
        "https://host/x?token=hunter2",
        "postgresql+psycopg://db/x?user=me&password=hunter2",
    ],
)
def test_a_secret_stands_in_no_configuration(address: str, tmp_path: Path) -> None:
    assert holds_secret(address)
    assert "hunter2" not in mask(address)
    message = refused(f"logger.tracking_uri='{address}'")
    assert "environment variable" in message
    assert "hunter2" not in message
    mine = own(tmp_path, "experiment/leaky", f"# @package _global_\nlogger:\n  tracking_uri: '{address}'\n")
    message = refused("+experiment=leaky", config_dir=mine)
    assert "logger.tracking_uri" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "address", ["sqlite:////tmp/x.db", "https://host:5000/x", "models:/mnist@champion", "a:b@c"]
)
def test_an_address_without_a_secret_is_none(address: str) -> None:
    assert not holds_secret(address)
    assert mask(address) == address


def test_only_listed_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    message = refused("name=${oc.env:SECRET_TOKEN}")
    assert "SECRET_TOKEN" in message
    assert "hunter2" not in message
    # However the name is put together, it is looked at when it is read.
    assert "SECRET_TOKEN" in refused("tags=[TOKEN]", "name='${oc.env:SECRET_${tags.0}}'")
    monkeypatch.setenv("PIPELINE_ALLOW", "env:SECRET_TOKEN")
    assert compose(["name=${oc.env:SECRET_TOKEN}"]).name == "hunter2"


@pytest.mark.parametrize("text", ["${oc.decode:1}", "${oc.create:{a:1}}"])
def test_text_is_not_turned_into_structure(text: str) -> None:
    assert "switched off" in refused(f"model.dropout='{text}'")


def test_an_unresolvable_reference_names_its_place() -> None:
    assert "model.dropout" in (message := refused("model.dropout=${nope.here}"))
    assert "nope.here" in message


def test_checking_changes_nothing(composed: DictConfig) -> None:
    before = OmegaConf.to_yaml(composed)
    check(composed)
    assert OmegaConf.to_yaml(composed) == before


def test_an_experiment_may_report_on_test_metrics(composed: DictConfig) -> None:
    composed.success = {"metric": "test/mae", "below": 9.0}
    check(composed)


def test_a_configuration_changed_by_code_is_checked_again(composed: DictConfig) -> None:
    composed.model.dropout = {"a": 1}
    with pytest.raises(UserError, match=r"model.dropout=.*: expected a number"):
        check(composed)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"accelerator": "cpu", "devices": 0}, "expected a whole number of at least 1"),
        ({"accelerator": "cpu", "devices": "many"}, "expected a whole number of at least 1"),
        ({"accelerator": "cpu", "devices": True}, "expected a whole number of at least 1"),
        ({"accelerator": "cpu", "devices": -1}, "a number of processes"),
        ({"accelerator": "cpu", "devices": [0, 1]}, "a number of processes"),
        ({"accelerator": "cpu", "devices": 5}, "at most trainer.devices=4"),
        ({"accelerator": "auto", "devices": 5}, "at most trainer.devices=4"),
        (
            {"accelerator": "gpu", "devices": 1},
            "no GPU was found on this machine; use trainer=cpu or trainer=auto",
        ),
        ({"accelerator": "mps", "devices": 1}, "trainer=mps"),
        ({"accelerator": "tpu", "devices": "auto"}, "torch_xla is not installed"),
    ],
)
def test_a_machine_without_accelerators_says_what_to_use_instead(
    trainer: dict[str, object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices_module, "_gpus", lambda: 0)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    with pytest.raises(UserError) as caught:
        check_devices(trainer)
    assert said in str(caught.value)


@pytest.mark.parametrize("devices", [1, 2, -1, "auto", "-1", [0, 1], "0,1", "1,"])
def test_two_gpus_serve_what_is_asked_of_two(devices: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "_gpus", lambda: 2)
    check_devices({"accelerator": "gpu", "devices": devices})
    check_devices({"accelerator": "auto", "devices": devices})


@pytest.mark.parametrize("devices", [3, [0, 2], "2,"])
def test_a_third_gpu_of_two_is_refused(devices: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices_module, "_gpus", lambda: 2)
    with pytest.raises(UserError, match=r"this machine has 2 GPUs; use trainer\.devices=2"):
        check_devices({"accelerator": "gpu", "devices": devices})
    with pytest.raises(UserError, match="twice"):
        check_devices({"accelerator": "gpu", "devices": [1, 1]})


def test_two_processes_are_possible_on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    check_devices({"accelerator": "cpu", "devices": 2})


def test_the_nearest_names_come_first() -> None:
    assert suggest("mnist_cn", ["mnist_cnn", "mnist_mlp", "digits"]) == "Did you mean mnist_cnn or mnist_mlp?"
    assert (
        suggest("acumulate", ["accumulate_grad_batches", "seed"]) == "Did you mean accumulate_grad_batches?"
    )
    assert suggest("zzz", ["a", "b"]) == "There are: a, b."
    assert suggest("zzz", []) == "There are none."
    assert suggest("zzz", map(str, range(100, 200))) == "There are 100, from 100 to 199."


def test_other_ways_to_start_the_same_processes_are_ddp() -> None:
    words = ["trainer=cpu", "trainer.devices=2"]
    assert (
        compose([*words, "trainer.strategy=ddp_spawn"]).trainer
        == compose([*words, "trainer.strategy=ddp"]).trainer
    )
