"""What every test relies on: a machine that looks the same everywhere, and the real data where it is."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

# Where nobody may write byte code, each of the suite's some hundred processes compiles the package anew, and pytest the
# tests. What is written is where Python puts it anyhow; git ignores it, `make clean` removes it.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Before any test module imports a library that reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
# Servers that tests start are as the pipeline's own: without processes for jobs of language models.
os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
os.environ.pop("MLFLOW_TRACKING_URI", None)
# No test depends on a network; those of downloading talk to a server of their own.
os.environ["PIPELINE_OFFLINE"] = "1"
# All cores are busy with tests: a sender that always gave way would not deliver before they look.
os.environ["PIPELINE_SENDER_NICE"] = "0"

# The published data is for tests marked `real_data` alone, so that all others behave the same everywhere: it
# is moved aside (in the environment, which worker processes inherit) and put back for those.
if "PIPELINE_DATA_PATH" in os.environ:
    os.environ["PIPELINE_TEST_DATA_PATH"] = os.environ.pop("PIPELINE_DATA_PATH")
REAL_DATA = os.environ.get("PIPELINE_TEST_DATA_PATH", "")

# Runs that tests of many rooms look at.
RUNS = {"linear": ["+experiment=digits_linear"], "mlp": ["+experiment=digits_mlp", "model.hidden_units=[32]"]}

FaultRecorder = Callable[[str, int, int, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="the long form of tests that have one")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests wait for processes come first, so that others keep the cores busy meanwhile.

    Tests that this machine cannot run say why.
    """
    waiting = {item.path for item in items if item.get_closest_marker("faults")}
    items.sort(key=lambda item: item.path not in waiting)
    for item in items:
        if item.get_closest_marker("real_data") and not REAL_DATA:
            item.add_marker(pytest.mark.skip(reason="PIPELINE_DATA_PATH is not set: no published data here"))
        if item.get_closest_marker("gpu") and not _has_gpu():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Python's collector of cycles would look through all tests that have come, again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        _set_aside()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """What a file's tests have loaded stays as well."""
    outcome = yield
    if nextitem is not None and nextitem.path != item.path:
        _set_aside()
    return outcome


def pytest_sessionfinish() -> None:
    """Compiled libraries complain at the end of a process about what is never collected."""
    gc.unfreeze()


def _set_aside() -> None:
    """Libraries and tests are a million objects: a collection that went through them would take half a second.

    Some commands ask for one after every trial.
    """
    gc.collect()
    gc.freeze()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(autouse=True, scope="session")
def _libraries_untraced() -> Iterator[None]:
    """Hydra composes and Matplotlib draws hundreds of times: coverage, which traces every line, stays out of them.

    Nothing of ours runs inside. Drawing takes more of a short run than its training: a figure is drawn where figures
    are looked at (of each kind one in a test, or in a file of whole commands), and is an empty picture elsewhere.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from matplotlib.figure import Figure
    from PIL import Image

    drawn = _untraced(Figure.savefig)
    seen = set()

    def savefig(figure: Any, path: Path, **settings: Any) -> None:
        kind = (_DRAWING["once_in"], Path(path).name, len(figure.axes))
        if _DRAWING["now"] or (_DRAWING["once_in"] and kind not in seen) or Path(path).suffix != ".png":
            seen.add(kind)
            drawn(figure, path, **settings)
        else:
            Image.new("L", (1, 1)).save(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_configuration", _untraced(ConfigLoaderImpl.load_configuration))
        patch.setattr(Figure, "savefig", savefig)
        yield


@pytest.fixture(autouse=True, scope="session")
def _parsed_once() -> Iterator[None]:
    """Of composing, a third is to parse the files of conf/, which no test changes, and their references."""
    import omegaconf
    from omegaconf import OmegaConf

    from pipeline.config import config_directory

    load, shipped = OmegaConf.load, f"{config_directory()}{os.sep}"
    parsed: dict[str, Any] = {}

    def load_shipped(file: Any) -> Any:
        name = str(getattr(file, "name", file))
        if not name.startswith(shipped):
            return load(file)
        if name not in parsed:
            parsed[name] = load(file)
        return copy.deepcopy(parsed[name])

    parse = functools.cache(omegaconf.grammar_parser.parse)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", staticmethod(load_shipped))
        patch.setattr(omegaconf.base, "parse", parse)
        patch.setattr(omegaconf._utils, "parse", parse)
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_power_cuts() -> Iterator[None]:
    """No test cuts the power: nothing waits for the disk itself."""
    from pipeline import files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "sync", lambda path: None)
        yield


_DRAWING: dict[str, Any] = {"now": True, "once_in": None}
_DELIVERING = {"now": True}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the test's fixtures, which train too: whether figures are drawn, and journals are delivered to MLflow."""
    room = item.path.relative_to(Path(__file__).parent).parts[0]
    _DRAWING["now"] = room in ("reports", "exploring")
    within = str(item.path) if room == "scenarios" else None
    _DRAWING["once_in"] = item.nodeid if item.get_closest_marker("drawn") else within
    _DELIVERING["now"] = room in ("tracking", "sweeps", "scenarios") or bool(
        item.get_closest_marker("delivered")
    )


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Gives an embedded store to copy, its tables made already: that takes MLflow two seconds."""

    @functools.cache
    def made() -> Path:
        from pipeline.tracking.store import open_client

        path = tmp_path_factory.mktemp("store") / "mlflow.db"
        open_client(f"sqlite:///{path}")
        return path

    return made


@pytest.fixture(scope="session")
def with_store(new_store: Callable[[], Path]) -> Callable[[Path], Path]:
    """Puts such a store where commands that a test starts will look for it; gives the directory."""

    def put(experiments: Path) -> Path:
        experiments.mkdir(parents=True, exist_ok=True)
        shutil.copy(new_store(), experiments / "mlflow.db")
        return experiments

    return put


@pytest.fixture(autouse=True, scope="session")
def _senders_where_they_matter(new_store: Callable[[], Path]) -> Iterator[None]:
    """A journal is delivered where MLflow is looked at: its sender takes as much of a short run as all the rest."""
    from pipeline.tracking.sender_link import MOST_STARTS, SenderLink

    start = SenderLink.start

    def start_where_it_matters(link: SenderLink) -> None:
        if not _DELIVERING["now"]:
            # Nobody waits for what will not be sent.
            link._starts = MOST_STARTS
            return
        store = link.experiments_dir / "mlflow.db"
        if not store.exists() and link.experiments_dir.is_dir():
            with contextlib.suppress(OSError):
                shutil.copy(new_store(), store)
        start(link)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SenderLink, "start", start_where_it_matters)
        yield


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **named)
        finally:
            sys.settrace(tracer)

    return call


@pytest.fixture(autouse=True)
def _with_real_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests marked `real_data` see PIPELINE_DATA_PATH as given (fixtures of a wider scope: `real_data`)."""
    if request.node.get_closest_marker("real_data"):
        monkeypatch.setenv("PIPELINE_DATA_PATH", REAL_DATA)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The first directory of PIPELINE_DATA_PATH (for tests marked `real_data` and their fixtures)."""
    return Path(REAL_DATA.split(os.pathsep)[0])


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """True with `--long`: repeat a fault as often as the documentation promises."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def record_fault(record_property: Callable[[str, object], None]) -> FaultRecorder:
    """Call with (fault, times caused, survived, lost records): a line of the table at the end."""

    def record(fault: str, caused: int, survived: int, lost: int) -> None:
        record_property("fault", (fault, caused, survived, lost))

    return record


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The table of faults: properties travel from worker processes with the reports."""
    rows = [
        tuple(value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(f"{'fault':<56} {'caused':>7} {'survived':>9} {'lost':>5}")
    for fault, caused, survived, lost in sorted(rows):
        terminalreporter.write_line(f"{fault:<56} {caused:>7} {survived:>9} {lost:>5}")


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the runs are recorded in."""
    return tmp_path_factory.mktemp("experiments")


@pytest.fixture(scope="session")
def finished(experiments: Path) -> dict[str, Any]:
    """A linear model and an MLP, trained for three epochs each and delivered to the tracking store."""
    from pipeline.config.loading import compose
    from pipeline.runs.hooks import Hooks
    from pipeline.runs.train import train

    results = {}
    # Whichever test is the first to ask for them.
    _DELIVERING["now"] = True
    for name, overrides in RUNS.items():
        small = ["trainer.max_epochs=3", "trainer.accelerator=cpu", f"paths.experiments_dir={experiments}"]
        cfg = compose([*overrides, *small])
        results[name] = train(cfg, Hooks(directory=experiments / "runs" / name))
    return results


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Names a port of loopback that nothing listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture(scope="session")
def serve_mlflow(
    free_port: Callable[[], int], new_store: Callable[[], Path]
) -> Callable[[Path], contextlib.AbstractContextManager[str]]:
    """Runs a real tracking server on a SQLite store in a folder; gives its address."""

    @contextlib.contextmanager
    def serve(folder: Path) -> Iterator[str]:
        shutil.copy(new_store(), folder / "server.db")
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        stores = ["--backend-store-uri", f"sqlite:///{folder}/server.db"]
        stores += ["--artifacts-destination", str(folder / "kept")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *options, *stores],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        address = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 90
            while not _answers(address):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield address
        finally:
            process.terminate()
            process.wait(20)

    return serve


@pytest.fixture(scope="session")
def answers() -> Callable[[str], bool]:
    """Whether MLflow's server at an address answers."""
    return _answers


def _answers(address: str) -> bool:
    try:
        return bool(urllib.request.urlopen(address + "/health", timeout=1).status == 200)
    except OSError:
        return False


@pytest.fixture
def command(experiments: Path) -> Callable[..., Any]:
    """The configuration of a command that looks at those runs."""
    from pipeline.config.loading import compose

    def composed(*overrides: str) -> Any:
        return compose([*overrides, f"paths.experiments_dir={experiments}"])

    return composed


@pytest.fixture
def no_study_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps inside of other commands draw nothing: it takes seconds each, and tests/sweeps looks at the plots."""
    from pipeline.sweeps import engine

    monkeypatch.setattr(engine, "write_plots", lambda *_: [])
