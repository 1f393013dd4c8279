"""What a configuration may name: decided on what a name leads to, however it is spelt and wherever it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.__main__ import main
from pipeline.config import build, check, compose, resolve
from pipeline.config.allowlist import check_name
from pipeline.errors import UserError

# Every one leads to something that a configuration must not reach: by its name alone,
FORBIDDEN = [
    "os.system",
    "logging.os.system",
    "posix.system",
    "subprocess.Popen",
    "builtins.eval",
    "builtins.exec",
    "eval",
    "shutil.rmtree",
    "pickle.loads",
    "torch.load",
    "torch.hub.load",
    "torch.os.system",
    "torch.optim.os.system",
    "torch.nn.modules.module.os.system",
    "torch.nn.functional.relu",
    "torch.nn.modules.module.torch.load",
    "torch.optim.lr_scheduler.warnings.warn",
    "torch.utils.cpp_extension.load",
    "pytorch_lightning.Trainer",
    "pytorch_lightning.callbacks.model_checkpoint.os.system",
    "pytorch_lightning.callbacks.model_checkpoint.shutil.rmtree",
    "optuna.samplers",
    "optuna.create_study",
    "pipeline.data.core.module.os.system",
    "pipeline.data.sources.finding.os.system",
    "pipeline.config.allowlist.import_module",
    "pipeline.config.resolvers.os.system",
    "pipeline.models.saved.load",
    "pipeline.models",
    "pipeline.errors.UserError",
    "pipeline.__main__.main",
    "hydra.utils.get_class",
    "hydra._internal.utils._locate",
    "hydra.experimental.callbacks.PickleJobInfoCallback",
    "hydra_plugins.other.Launcher",
    "unittest.mock.patch",
    "functools.partial",
    "no_such_module.Anything",
    "torchvision.datasets.CIFAR10",
    "lightning.pytorch.trainer.Trainer",
    "torchvision.transforms.functional.F.adjust_hue",
]
# and by the object alone.
FORBIDDEN_OBJECTS = [
    "pytorch_lightning.callbacks.model_checkpoint.Path",
    "hydra._internal.core_plugins.basic_launcher.Path",
    "torch.nn.modules.module.OrderedDict",
    "torch.optim.Adam.__init__.__globals__.Any",
    "torchvision.models.get_weight",
    "torchvision.models.Weights",
    "torchvision.models.ResNet18_Weights",
    "torchvision.models.WeightsEnum",
    "torchvision.models.load_state_dict_from_url",
    "torchvision.models._api.importlib.import_module",
    "torchvision.models.resnet.os.system",
    "torchvision.models.resnet.handle_legacy_interface",
    "torchvision.models.feature_extraction.create_feature_extractor",
    "torchvision.models.ResNet.load_state_dict",
    "torchvision.models",
    "lightning.pytorch.callbacks.model_checkpoint.Path",
]
ALLOWED = [
    "torch.optim.Adam",
    "torch.optim.adam.Adam",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.swa_utils.SWALR",
    "torch.nn.ReLU",
    "torch.nn.modules.activation.ReLU",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.loggers.CSVLogger",
    "pytorch_lightning.strategies.DDPStrategy",
    "pytorch_lightning.profilers.SimpleProfiler",
    "pytorch_lightning.plugins.TorchCheckpointIO",
    "optuna.samplers.TPESampler",
    "optuna.pruners.HyperbandPruner",
    "lightning.pytorch.callbacks.EarlyStopping",
    "lightning.pytorch.loggers.csv_logs.CSVLogger",
    "lightning.fabric.plugins.environments.LightningEnvironment",
    "torchvision.models.resnet18",
    "torchvision.models.resnet.resnet18",
    "torchvision.models.get_model",
    "torchvision.models.ResNet",
    "torchvision.models.detection.fasterrcnn_resnet50_fpn",
    "torchvision.transforms.Compose",
    "torchvision.transforms.v2.Normalize",
    "torch.nn.Sequential",
    "pipeline.data.core.module.DataModule",
    "pipeline.models.mlp.MLP",
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
]


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_ALLOW", raising=False)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_forbidden_name_is_refused_early_and_late(name: str) -> None:
    for decide in (check_name, resolve):
        with pytest.raises(UserError, match=r"callbacks\.x\._target_="):
            decide(name, "callbacks.x._target_")


@pytest.mark.parametrize("name", FORBIDDEN_OBJECTS)
def test_a_name_that_begins_well_is_refused_for_what_it_leads_to(name: str) -> None:
    with pytest.raises(UserError, match=r"callbacks\.x\._target_="):
        resolve(name, "callbacks.x._target_")


@pytest.mark.parametrize("name", ALLOWED)
def test_an_allowed_name_leads_to_its_class(name: str) -> None:
    check_name(name, "callbacks.x._target_")
    assert resolve(name).__name__ == name.rpartition(".")[2]


def test_the_object_decides_also_where_the_source_reads_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    import torch

    # What the early look takes for an allowed class is something else by the time it is built.
    monkeypatch.setattr(torch.nn, "ReLU", os.system)
    check_name("torch.nn.ReLU", "x._target_")
    with pytest.raises(UserError, match="system"):
        resolve("torch.nn.ReLU")
    monkeypatch.setattr(torch.nn, "ReLU", Path)
    with pytest.raises(UserError, match=r"is pathlib\.Path, which is not on the list"):
        resolve("torch.nn.ReLU")


@pytest.mark.parametrize(
    "name", [None, 3, ["torch.optim.Adam"], "", "torch..optim", "torch.optim.Adam()", "a b", ".x"]
)
def test_what_is_no_dotted_name_is_refused(name: object) -> None:
    with pytest.raises(UserError, match="expected the dotted name of a class"):
        check_name(name, "optimizer._target_")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optimizer._target_=torch.nn.Linear", "expected an optimiser of torch.optim"),
        ("optimizer._target_=pipeline.models.mlp.MLP", "expected an optimiser of torch.optim"),
        ("+trainer._target_=pytorch_lightning.callbacks.Timer", "expected Lightning's Trainer"),
        ("optimizer._target_='${name}'", "plain name"),
        ("+optimizer._args_=[1]", "takes arguments by name only"),
        ("+optimizer._partial_=true", "takes arguments by name only"),
        (
            "+model.net={_target_:torch.nn.Linear,_partial_:3}",
            "model.net._partial_=3: expected true or false",
        ),
        ("+model.net={_target_:torch.nn.Sequential,_args_:3}", "model.net._args_=3: expected a list"),
        ("+model.net={_target_:os.system,_partial_:true}", "model.net._target_=os.system"),
        ("+callbacks.x.deep.er.list=[{_target_:os.system}]", "callbacks.x"),
        ("+trainer.plugins=[{_target_:os.system}]", "trainer.plugins[0]._target_=os.system"),
        ("+hydra.callbacks.x._target_=logging.os.system", "logging.os.system is not on the list"),
        ("+hydra.callbacks.x._target_=hydra.experimental.callbacks.PickleJobInfoCallback", "not on the list"),
        ("hydra.launcher._target_=os.system", "hydra.launcher._target_"),
        ("hydra.sweeper._target_=os.system", "hydra.sweeper._target_"),
        ("+hydra.sweeper.sampler={_target_:os.system}", "hydra.sweeper.sampler._target_"),
        ("hydra.job_logging.handlers.console.class=os.system", "not a handler"),
        (
            "+hydra.job_logging.handlers.x={class:logging.handlers.SocketHandler,host:h,port:1}",
            "not a handler",
        ),
        ("hydra.job_logging.handlers.console.stream='ext://os.system'", "expected ext://sys.stdout"),
        ("hydra.job_logging.handlers.file.filename=/root/.bashrc", "ends in .log"),
        ("hydra.hydra_logging.handlers.console.class=os.system", "not a handler"),
        ("+hydra.job.env_set.LD_PRELOAD=/tmp/x.so", "LD_PRELOAD may not be set"),
        ("hydra.job.env_copy=[PATH]", "PATH may not be set or copied"),
    ],
)
def test_it_is_refused_wherever_it_stands(
    override: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([override]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_an_experiment_from_someone_else_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "theirs/experiment"
    home.mkdir(parents=True)
    marker = tmp_path / "ran"
    attacks = {
        "callbacks": f"hydra:\n  callbacks:\n    x:\n      _target_: os.system\n      command: touch {marker}\n",
        "reference": f"tags: [os.system]\noptimizer:\n  _target_: ${{tags.0}}\n  command: touch {marker}\n",
        "default": "hydra:\n  callbacks:\n    x: ${oc.select:nothing,{_target_:os.system,command:true}}\n",
        "logging": "hydra:\n  job_logging:\n    handlers:\n      console:\n        (): os.system\n",
        "formatter": "hydra:\n  hydra_logging:\n    formatters:\n      x:\n        (): os.system\n",
        "nested": f"model:\n  activation:\n    _target_: builtins.eval\n    source: open('{marker}','w')\n",
    }
    for name, text in attacks.items():
        (home / f"{name}.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
        assert main(["--config-dir", "theirs", f"+experiment={name}"]) == 2
        assert main(["--config-dir", "theirs", "-m", f"+experiment={name}", "seed=1,2"]) == 2
    assert not marker.exists()
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_is_imported_to_refuse_a_name(tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w').close()\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "+hydra.callbacks.x._target_=evil.Callback"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert not (tmp_path / "ran").exists()


def test_the_user_allows_a_class_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gulls.py").write_text(
        "class Count:\n    def __init__(self, n=0):\n        self.n = n\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "gulls.Count", "n": 3}
    with pytest.raises(UserError, match=r"--allow gulls\.Count"):
        build(node)
    monkeypatch.setenv("PIPELINE_ALLOW", "gulls.Count")
    assert build(node).n == 3


def test_a_function_of_the_users_own_is_allowed_like_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "terns.py").write_text("def space(config, trial): ...\n", encoding="utf-8")
    monkeypatch.setenv("PIPELINE_ALLOW", "terns.space")
    assert resolve("terns.space").__name__ == "space"
    monkeypatch.delenv("PIPELINE_ALLOW")
    with pytest.raises(UserError):
        resolve("terns.space")


def test_a_configuration_cannot_allow_anything(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="PIPELINE_ALLOW may not be set"):
        compose(["+hydra.job.env_set.PIPELINE_ALLOW=os.system"])


def test_built_objects_have_the_settings_of_their_node() -> None:
    import torch

    parameter = torch.nn.Parameter(torch.zeros(2))
    node = OmegaConf.create({"_target_": "torch.optim.SGD", "lr": 0.5, "momentum": "${m}", "m": 0.9})
    del node["m"]
    node["momentum"] = 0.9
    optimizer = build(node, [parameter], key="optimizer")
    assert isinstance(optimizer, torch.optim.SGD)
    assert (optimizer.defaults["lr"], optimizer.defaults["momentum"]) == (0.5, 0.9)
    assert build(node, [parameter], lr=0.25).defaults["lr"] == 0.25


def test_nested_nodes_are_built_first() -> None:
    import torch

    layer = {"_target_": "torch.nn.Linear", "in_features": 3, "out_features": 2}
    sequence = build({"_target_": "torch.nn.ModuleList", "modules": [layer, layer]})
    assert [type(part) for part in sequence] == [torch.nn.Linear] * 2
    with pytest.raises(UserError, match=r"modules\[0\]\._target_=os\.system"):
        build({"_target_": "torch.nn.ModuleList", "modules": [{"_target_": "os.system", "command": "true"}]})


def test_settings_that_a_constructor_refuses_are_the_users_business() -> None:
    with pytest.raises(
        UserError, match=r"callbacks\.x: torch\.nn\.Dropout refused its settings: .*between 0 and 1"
    ):
        build({"_target_": "torch.nn.Dropout", "p": 7.0}, key="callbacks.x")
    with pytest.raises(UserError, match="expected a mapping with _target_"):
        build({"p": 7.0}, key="model")


def test_a_checked_configuration_still_cannot_be_changed_into_an_attack() -> None:
    cfg = compose(["+experiment=digits_mlp"])
    cfg.optimizer._target_ = "os.system"
    with pytest.raises(UserError, match=r"optimizer\._target_=os\.system"):
        check(cfg)
    with pytest.raises(UserError, match=r"optimizer\._target_=os\.system"):
        build(cfg.optimizer, key="optimizer")


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ("pipeline.data.images.Images", "pipeline.data.images.published.Images"),
        ("pipeline.data.tables.TableData", "pipeline.data.tables.table.TableData"),
        ("pipeline.data.sequences.Echo", "pipeline.data.teaching.systems.Echo"),
    ],
)
def test_names_that_earlier_versions_recorded_lead_to_the_same_classes(then: str, now: str) -> None:
    found = resolve(then, "data._target_")
    assert f"{found.__module__}.{found.__qualname__}" == now
