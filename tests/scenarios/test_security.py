"""What comes from outside runs nothing, and what is secret goes nowhere."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline
from pipeline.__main__ import main
from pipeline.config.allowlist import ALLOWED_MODULES, resolve
from pipeline.config.loading import compose
from pipeline.config.masking import holds_secret, mask
from pipeline.data.core.cache import cached
from pipeline.data.images.encoders import ImageEncoder
from pipeline.data.tables.memmap import open_table, write_table
from pipeline.data.text.files import TextFolder
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks
from pipeline.models.saved import load
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.state import RunState
from pipeline.runs.train import train
from pipeline.tracking.queries import Store

SMALL = ["experiment=digits_linear", "callbacks.progress=null", "trainer=cpu", "trainer.max_epochs=1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A small run with its saved model; tests work on copies of its directory."""
    directory = tmp_path_factory.mktemp("run")
    return train(compose([*SMALL, "logger=none"]), Hooks(directory=directory, reports=True, baseline=False))


class Planted:
    """Pickles that would leave a mark, and whether one was left."""

    def __init__(self, directory: Path) -> None:
        self.mark = directory / "it-ran"

    def __call__(self) -> Any:
        mark = str(self.mark)

        class Harmful:
            def __reduce__(self) -> Any:
                return os.mkdir, (mark,)

        return Harmful()

    @property
    def bytes(self) -> bytes:
        return pickle.dumps(self())

    def array(self, path: Path) -> None:
        np.save(path, np.array([self()], dtype=object), allow_pickle=True)

    @property
    def ran(self) -> bool:
        return self.mark.exists()


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    return Planted(tmp_path)


def test_the_mark_is_left_where_somebody_unpickles(planted: Planted) -> None:
    pickle.loads(planted.bytes)
    assert planted.ran


@pytest.mark.parametrize("form", ["torch", "old torch", "pickle"])
def test_a_pickle_in_the_place_of_a_checkpoint(tmp_path: Path, planted: Planted, form: str) -> None:
    directory = tmp_path / "experiments/runs/digits_linear/one"
    path = directory / "checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    if form == "pickle":
        path.write_bytes(planted.bytes)
    else:
        content = {"state_dict": {"output.weight": planted()}, "callbacks": planted(), "loops": planted()}
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(UserError, match="loaded safely"):
        train(
            compose([*SMALL, "logger=none", f"ckpt_path={path}"]),
            Hooks(directory=tmp_path / "a", reports=False),
        )
    # As the state that an interrupted run left behind.
    words = [*SMALL, "logger=none", f"paths.experiments_dir={tmp_path / 'experiments'}", "resume=one"]
    RunState(directory).begin(compose(words))
    with pytest.raises(UserError, match="loaded safely"):
        train(compose(words), Hooks(directory=directory, reports=False))
    assert not planted.ran


def test_a_pickle_in_a_cache_is_built_anew(tmp_path: Path, planted: Planted) -> None:
    built: list[int] = []

    def build() -> tuple[dict[str, np.ndarray], Any]:
        built.append(1)
        return {"x": np.arange(3)}, {"names": ["a"]}

    cached(tmp_path, "entry", build)
    planted.array(tmp_path / "cache/entry/x.npy")
    arrays, value = cached(tmp_path, "entry", build)
    assert arrays["x"].tolist() == [0, 1, 2] and value == {"names": ["a"]} and len(built) == 2
    (tmp_path / "cache/entry/manifest.json").write_bytes(planted.bytes)
    cached(tmp_path, "entry", build)
    assert len(built) == 3 and not planted.ran


def test_a_pickle_in_arrays_from_outside(tmp_path: Path, planted: Planted) -> None:
    planted.array(tmp_path / "in.npy")
    np.savez(tmp_path / "in.npz", x=np.array([planted()], dtype=object))
    (tmp_path / "raw.npy").write_bytes(planted.bytes)
    for name in ("in.npy", "in.npz", "raw.npy"):
        with pytest.raises(UserError, match=name):
            list(chunks(str(tmp_path / name), ImageEncoder([1, 8, 8], [0.0], [1.0]), 8, "npy"))
    write_table(tmp_path / "table", [(np.ones((4, 2), np.float32), np.arange(4.0))], ["a", "b"])
    shutil.copy(tmp_path / "in.npy", tmp_path / "table/x.npy")
    with pytest.raises(UserError, match="no table of memory-mapped arrays"):
        open_table(tmp_path / "table")
    assert not planted.ran


def test_texts_are_not_read_through_links_out_of_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    for name in ("good", "bad"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            (folder / name / f"{number}.txt").write_text(f"a {name} film, number {number}", encoding="utf-8")
    (folder / "good/again.txt").symlink_to(folder / "good/0.txt")
    data = TextFolder(path=str(folder), data_dir=tmp_path / "data")
    data.setup()
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    for place, target in ((folder / "bad/link.txt", secret), (folder / "third", tmp_path)):
        place.symlink_to(target)
        with pytest.raises(UserError, match="is a link out of"):
            TextFolder(path=str(folder), data_dir=tmp_path / "data").setup()
        place.unlink()


@pytest.mark.parametrize("name", ["weights.safetensors", "encoder.json", "model.json"])
def test_a_pickle_in_a_models_directory(
    finished: RunResult, tmp_path: Path, planted: Planted, name: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(finished.directory / "model", folder)
    (folder / name).write_bytes(planted.bytes)
    with pytest.raises(UserError, match="damaged"):
        load(folder)
    # Also where whoever planted it made the checksums right.
    description = json.loads((finished.directory / "model/model.json").read_text(encoding="utf-8"))
    del description["sha256"]
    if name != "model.json":
        (folder / "model.json").write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        load(folder)
    (folder / "model.json").write_text(json.dumps({**description, "class": "os.system"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"os\.system"):
        load(folder)
    assert not planted.ran


def test_a_pickle_behind_a_models_address(
    tmp_path: Path, planted: Planted, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    (folder / "artifacts/bundle").mkdir(parents=True)
    flavour = {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl"}
    text = json.dumps({"flavors": {"python_function": flavour}})
    (folder / "MLmodel").write_text(text, encoding="utf-8")
    (folder / "python_model.pkl").write_bytes(planted.bytes)
    description = {"class": "pipeline.models.linear.Linear", "hyperparameters": {}, "format": 1}
    (folder / "artifacts/bundle/model.json").write_text(json.dumps(description), encoding="utf-8")
    for name in ("weights.safetensors", "encoder.json"):
        (folder / "artifacts/bundle" / name).write_bytes(planted.bytes)
    np.save(tmp_path / "in.npy", np.zeros((2, 8, 8), np.uint8))
    (tmp_path / "experiments").mkdir()
    words = [
        "task=predict",
        "task.input=in.npy",
        "task.output=out.csv",
        "logger.tracking_uri=sqlite:///made.db",
    ]
    _make_store(tmp_path / "made.db")
    assert main([*words, f"task.model_uri={folder.as_uri()}"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and "Error: " in error
    assert not planted.ran and not (tmp_path / "out.csv").exists()


def _make_store(path: Path) -> None:
    from pipeline.tracking.store import open_client

    open_client(f"sqlite:///{path}")


NEVER_CALLED = {
    *(
        "eval",
        "exec",
        "compile",
        "__import__",
        "os.system",
        "os.popen",
        "pandas.read_pickle",
        "pd.read_pickle",
    ),
    *("torch.jit.load", "torch.export.load", "torch.hub.load", "yaml.unsafe_load", "yaml.full_load"),
}
NEVER_IMPORTED = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def test_no_code_of_ours_unpickles_or_evaluates() -> None:
    """Every call that could run what it reads, found in the source itself."""
    found = []
    for path in Path(pipeline.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{path.name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                found += [f"{where} imports {name}" for name in names if name.split(".")[0] in NEVER_IMPORTED]
            elif isinstance(node, ast.Call):
                found += [f"{path.name} calls {what}" for what in _unsafe(node)]
    # The export reads back what it wrote a line before, to compare it with the original.
    assert found == ["export.py calls torch.export.load"]


def _unsafe(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    found = [called] if called in NEVER_CALLED or keywords.get("shell") == "True" else []
    if called == "torch.load" and keywords.get("weights_only") != "True":
        found.append(f"{called} without weights_only=True")
    if called == "np.load" and keywords.get("allow_pickle") != "False":
        found.append(f"{called} without allow_pickle=False")
    if called == "yaml.load" and "Safe" not in keywords.get("Loader", ""):
        found.append(f"{called} without a safe loader")
    return found


def test_the_search_for_unsafe_calls_would_find_them() -> None:
    for text in (
        "eval(x)",
        "torch.load(p)",
        "np.load(p, allow_pickle=True)",
        "run(c, shell=True)",
        "yaml.load(t)",
    ):
        call = ast.parse(text).body[0].value  # type: ignore[attr-defined]
        assert _unsafe(call), text


def test_nothing_that_an_allowed_module_has_imported_can_be_named() -> None:
    """Whatever spelling leads through a module on the list to something beyond it."""
    import importlib
    import inspect
    from importlib.util import find_spec

    tried = reached = 0
    for allowed in ALLOWED_MODULES:
        if find_spec(allowed.split(".")[0]) is None:
            # Lightning comes in two packages, of which one is enough.
            continue
        module = importlib.import_module(allowed)
        places = [
            module,
            *(m for n, m in sys.modules.items() if n.startswith(allowed + ".") and m is not None),
        ]
        for place in places:
            for name, value in list(vars(place).items()):
                dangerous = inspect.ismodule(value) or inspect.isroutine(value)
                if not dangerous or not name.isidentifier():
                    continue
                names = [f"{place.__name__}.{name}"]
                if inspect.ismodule(value) and value.__name__ in (
                    "os",
                    "sys",
                    "subprocess",
                    "shutil",
                    "builtins",
                ):
                    names += [
                        f"{names[0]}.{inner}" for inner in ("system", "run", "rmtree", "eval", "modules")
                    ]
                for spelling in names:
                    tried += 1
                    try:
                        resolve(spelling, "callbacks.x._target_")
                        reached += 1
                    except UserError:
                        pass
    assert tried > 1000
    assert reached == 0


@pytest.mark.parametrize(
    "name",
    [
        "torch.optim.Adam.__init__.__globals__",
        "torch.optim.Adam.__mro__",
        "torch.nn.Module.__subclasses__",
        "pipeline.models.mlp.MLP.load_from_checkpoint",
        "pytorch_lightning.callbacks.Callback.__class__",
        "torch.nn.modules.module.__builtins__.eval",
        "ｏｓ.system",
        "torch.ｏptim.os.system",
        " os.system",
        "os.system ",
        "os .system",
        "torch.optim.\u200bAdam",
    ],
)
def test_odd_spellings_lead_nowhere(name: str) -> None:
    with pytest.raises(UserError):
        resolve(name, "callbacks.x._target_")


HYDRAS_OWN = {
    "callbacks": "callbacks: {x: {_target_: os.system, command: touch MARK}}",
    "a plugin's callback": "callbacks: {x: {_target_: hydra.experimental.callbacks.PickleJobInfoCallback}}",
    "launcher": "launcher: {_target_: os.system, command: touch MARK}",
    "sweeper": "sweeper: {_target_: os.system, command: touch MARK}",
    "job_logging": "job_logging: {version: 1, handlers: {x: {class: os.system, command: touch MARK}}}",
    "hydra_logging": "hydra_logging: {version: 1, formatters: {x: {(): os.system, command: touch MARK}}}",
    "log file": "job_logging: {handlers: {file: {class: logging.FileHandler, filename: /etc/profile}}}",
    "environment": "job: {env_set: {LD_PRELOAD: MARK.so}}",
    "secrets": "job: {env_copy: [AWS_SECRET_ACCESS_KEY]}",
    "search path": "searchpath: ['pkg://evil']",
}


@pytest.mark.parametrize("part", HYDRAS_OWN)
@pytest.mark.parametrize("flags", [[], ["-m", "seed=1,2"]], ids=["run", "multirun"])
def test_what_hydra_would_act_on_is_refused_in_a_configuration_from_someone_else(
    part: str,
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs/experiment").mkdir(parents=True)
    text = HYDRAS_OWN[part].replace("MARK", str(tmp_path / "it-ran"))
    experiment = f"# @package _global_\nhydra:\n  {text}\n"
    (tmp_path / "theirs/experiment/x.yaml").write_text(experiment, encoding="utf-8")
    assert main(["--config-dir", "theirs", "+experiment=x", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


SECRETS = ["hunter2-Pa55", "hunter2-T0ken", "hunter2-5torage"]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("db://me:hunter2@host/x", "db://me:***@host/x"),
        ("db://me:hun@ter2@host", "db://me:***@host"),
        ("db://me:hun/ter2@host", "db://me:***@host"),
        ("db://me:$hunter2@host", "db://me:***@host"),
        ("db://:hunter2@host and db://a:b@c", "db://:***@host and db://a:***@c"),
        ("https://h/x?a=1&token=hunter2&b=2", "https://h/x?a=1&token=***&b=2"),
        ("db://h/x?sslpassword=hunter2;api_key=hunter2", "db://h/x?sslpassword=***;api_key=***"),
    ],
)
def test_every_form_of_a_secret_is_masked(text: str, masked: str) -> None:
    assert holds_secret(text)
    assert mask(text) == masked
    assert mask(masked) == masked


@pytest.mark.parametrize(
    "text",
    ["db://me:${oc.env:PW}@host", "http://127.0.0.1:5000/#/models/a@champion", "models:/a@b", "12:30 a@b"],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert not holds_secret(text)
    assert mask(text) == text


def test_what_the_environment_keeps_secret_is_masked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRETS[1])
    assert mask(f"Bearer {SECRETS[1]} refused") == "Bearer *** refused"


@pytest.mark.parametrize(
    "override",
    [
        "logger.tracking_uri=http://me:hunter2-Pa55@127.0.0.1:5000",
        "hydra.sweeper.storage=postgresql+psycopg://me:hunter2-Pa55@127.0.0.1/x",
        "tags=[db://me:hunter2-Pa55@h]",
        "+model.x=http://h/?token=hunter2-Pa55",
    ],
)
def test_a_secret_on_the_command_line_is_refused_and_written_nowhere(
    override: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([override]) == main(["-m", override, "seed=1,2"]) == 2
    output, error = capsys.readouterr()
    assert "environment variable" in error
    assert SECRETS[0] not in output + error
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def server(tmp_path: Path, serve_mlflow: Callable[[Path], Any]) -> Iterator[str]:
    """A tracking server on loopback; its files lie below ``tmp_path``, where secrets are looked for."""
    (tmp_path / "server").mkdir()
    with serve_mlflow(tmp_path / "server") as address:
        yield address.removeprefix("http://")


def _command(directory: Path, environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=directory,
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _files_with(secret: str, directory: Path) -> list[str]:
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.faults
def test_secrets_of_the_environment_reach_no_file_no_store_and_no_terminal(
    server: str, tmp_path: Path, long_form: bool
) -> None:
    secrets = {
        "MLFLOW_TRACKING_URI": f"http://me:{SECRETS[0]}@{server}",
        "MLFLOW_TRACKING_TOKEN": SECRETS[1],
        "PIPELINE_STORAGE": f"postgresql+psycopg://me:{SECRETS[2]}@127.0.0.1:1/none",
    }
    place = tmp_path / "work"
    place.mkdir()
    done = _command(place, secrets, *SMALL, "tags=[full]")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    storage = "hydra.sweeper.storage=${oc.env:PIPELINE_STORAGE}"
    swept = _command(place, secrets, "-m", *SMALL, "+sweep=linear", storage)
    assert swept.returncode == 2, swept.stderr
    said += swept.stdout + swept.stderr
    statuses = ["FINISHED"]
    if long_form:
        # One that fails has its error recorded, one that cannot reach the store says so.
        words = [*SMALL, "optimizer=sgd", "optimizer.lr=1e38", "trainer.max_epochs=5"]
        broken = _command(place, secrets, *words)
        assert broken.returncode == 3, broken.stderr
        away = _command(
            place, {**secrets, "MLFLOW_TRACKING_URI": f"http://me:{SECRETS[0]}@127.0.0.1:9"}, *SMALL
        )
        assert away.returncode == 0, away.stderr
        said += broken.stdout + broken.stderr + away.stdout + away.stderr
        statuses.insert(0, "FAILED")
    os.environ["MLFLOW_TRACKING_URI"] = f"http://{server}"
    try:
        records = Store(None, place / "experiments").runs()
    finally:
        del os.environ["MLFLOW_TRACKING_URI"]
    assert sorted(record.status for record in records) == statuses
    assert list(place.rglob("result.json")) and list((tmp_path / "server/kept").rglob("*.png"))
    for secret in SECRETS:
        assert secret not in said
        assert _files_with(secret, tmp_path) == []


def test_the_search_for_secrets_would_find_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/b.log").write_text(f"x {SECRETS[0]} y", encoding="utf-8")
    assert _files_with(SECRETS[0], tmp_path) == [str(tmp_path / "a/b.log")]
