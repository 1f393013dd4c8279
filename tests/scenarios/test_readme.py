"""Every command of the README and of docs/ works as written, on embedded data and cut to one batch."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from pipeline.__main__ import main
from pipeline.config.masking import holds_secret
from pipeline.sweeps.engines.environment import names_to_carry
from pipeline.sweeps.worker import _parser as worker_arguments

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = "".join(page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs").glob("*.md")))
EVERYTHING = README + PAGES

# What cannot run here, and why. Each is tested in another way, below or where the reason says.
NOT_RUN = {
    "make run": "installs; its target is looked up below",
    "make test": "is what runs this test",
    "python -m pipeline task=ui": "serves until Ctrl-C; tests/tasks/test_ui.py looks at what it prints",
    "make ui": "starts a server; its target is looked up below",
    "MLFLOW_TRACKING_URI=sqlite:///experiments/mlflow.db mlflow models serve -m models:/digits@champion "
    "--env-manager local --port 5001": "tests/scenarios/test_serving.py starts it",
    "curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' -d @digit.json": (
        "tests/scenarios/test_serving.py asks the same"
    ),
    "export PIPELINE_STORAGE=postgresql+psycopg://me@db.example/sweeps": "is set for the commands below it",
    "export MLFLOW_TRACKING_URI=http://mlflow.example:5000": "is set for the commands below it",
    "python -m pipeline.sweeps.worker --study wide": "tests/sweeps/test_workers.py starts workers",
    "srun -N4 --ntasks-per-node=8 python -m pipeline +experiment=mnist_cnn trainer=ddp trainer.devices=8 "
    "trainer.num_nodes=4 resume=auto": "needs four nodes",
    "torchrun --nnodes=4 --nproc-per-node=8 --rdzv-backend=c10d --rdzv-id=mine --rdzv-endpoint=HOST:29500 -m pipeline "
    "+experiment=mnist_cnn trainer=ddp trainer.devices=8 trainer.num_nodes=4 resume=auto": "needs four nodes",
    "python -m build --wheel": "tests/scenarios/test_packaging.py builds the wheel",
    "pip install dist/hydra_lightning_pipeline-*.whl": "tests/scenarios/test_packaging.py looks into the wheel",
}
# These need a server, or processes of their own: their configuration is composed and checked instead.
COMPOSED = ("postgresql+psycopg://", "MLFLOW_TRACKING_URI=", "n_jobs=2", "hydra/launcher=")
# tests/tasks runs these, which take longer.
COMPOSED += ("task=generate", "task=compare", "task=export", "task=reproduce", "task=improve", "task.shift=")
# A run that recommends dishes: tests/scenarios/test_business_case.py has one.
COMPOSED += ("task=ab_test", "RUN_ID data=food_orders")


def commands() -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", EVERYTHING, re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = [shlex.join(words) for line in lines if (words := shlex.split(line, comments=True))]
    return list(dict.fromkeys(found))


def pipeline_commands() -> list[str]:
    # tests/scenarios/test_dvc.py gives DVC's.
    ours = [command for command in commands() if not command.startswith("dvc ")]
    return [command for command in ours if shlex.join(shlex.split(command)) not in _not_run()]


def _not_run() -> set[str]:
    return {shlex.join(shlex.split(command)) for command in NOT_RUN}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files that the commands name."""
    place = tmp_path_factory.mktemp("readme")
    sizes = [40 + 3 * (i * 7 % 30) for i in range(60)]
    rows = [
        f"{size},{('north', 'south', 'west')[i % 3]},{2000 + 30 * size},{'yes' if size > 80 else 'no'},"
        f"2024-{1 + i // 28:02}-{1 + i % 28:02}"
        for i, size in enumerate(sizes)
    ]
    (place / "houses.csv").write_text("\n".join(["size,area,price,sold,listed", *rows]), encoding="utf-8")
    days = [str(np.datetime64("2024-01-01") + i) for i in range(120)]
    lines = [f"{day},{100 + i + 20 * (i % 7)}" for i, day in enumerate(days)]
    (place / "sales.csv").write_text("\n".join(["date,units", *lines]), encoding="utf-8")
    orders = [
        f"{('ada', 'bob', 'eve')[i % 3]},{('soup', 'pie', 'rice', 'tea')[i * i % 4]},{('north', 'south')[i % 2]},"
        f"{np.datetime64('2024-01-01T08:00') + np.timedelta64(5 * i, 'h')}"
        for i in range(90)
    ]
    (place / "orders.csv").write_text("\n".join(["customer,dish,area,time", *orders]), encoding="utf-8")
    opinions = [f"{'warm and bright' if i % 2 else 'cold and dull'} day {i},{i % 2}" for i in range(60)]
    text = "\n".join(
        ["review,opinion", *(line.replace(",1", ",good").replace(",0", ",bad") for line in opinions)]
    )
    (place / "reviews.csv").write_text(text, encoding="utf-8")
    for kind in ("thanks", "complaints"):
        (place / "letters" / kind).mkdir(parents=True)
        for i in range(20):
            (place / "letters" / kind / f"{i}.txt").write_text(
                f"{kind} for order number {i}", encoding="utf-8"
            )
    for kind in ("cats", "dogs"):
        (place / "photos" / kind).mkdir(parents=True)
        for i in range(20):
            colour = (200 if kind == "cats" else 40, 9 * i, 80)
            Image.new("RGB", (30 + i, 40), colour).save(place / "photos" / kind / f"{i}.jpg")
    np.save(place / "images.npy", np.arange(3 * 64, dtype=np.uint8).reshape(3, 8, 8) % 17)
    story = "It was a bright cold day, and the clocks were striking thirteen. "
    (place / "book.txt").write_text(story * 200, encoding="utf-8")
    for name, content in re.findall(
        r"`(\w+\.py)`[^\n]*\n\n```python\n(.*?)^```", EVERYTHING, re.DOTALL | re.MULTILINE
    ):
        (place / name).write_text(content, encoding="utf-8")
    for name, content in re.findall(
        r"`(my_conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)^```", EVERYTHING, re.DOTALL | re.MULTILINE
    ):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(content, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def run_id(place: Path) -> str:
    """A tracked run, for the tasks that look one up."""
    here = Path.cwd()
    os.chdir(place)
    try:
        assert main(["+experiment=digits_mlp", "trainer.max_epochs=1", "hydra.run.dir=tracked"]) == 0
    finally:
        os.chdir(here)
    return str(json.loads((place / "tracked/result.json").read_text(encoding="utf-8"))["run_id"])


@pytest.fixture(autouse=True)
def _here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands run in that directory; their log handlers are gone afterwards."""
    monkeypatch.chdir(place)
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in before]:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("command", pipeline_commands())
def test_the_command_works(
    command: str,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = shlex.split(command.replace("RUN_ID", run_id))
    monkeypatch.setenv("PIPELINE_STORAGE", "postgresql+psycopg://me@db.example/sweeps")
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    assert words[:3] == ["python", "-m", "pipeline"], "put it on the list of commands that are not run"
    arguments = words[3:]
    if any(part in command for part in COMPOSED):
        arguments = ["--cfg", "all", *(word for word in arguments if word != "-m")]
    elif "+sweep=" in command or "sweeper=" in command:
        arguments += ["debug=fast", "hydra.sweeper.n_trials=2"]
    elif not {
        "--help",
        "--cfg",
        "task=sync",
        "task=runs",
        "task=clean",
        "task=predict",
        "task=evaluate",
    } & set(arguments):
        arguments.append("debug=fast")
        if "food_orders" in command:
            arguments += ["data.orders=2000", "data.customers=50"]
    assert main(arguments) == 0, capsys.readouterr().err


def test_what_is_not_run_is_still_said() -> None:
    assert _not_run() <= set(commands())


def test_the_make_targets_exist() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    targets = set(re.findall(r"^  make ([a-z-]+) ", done.stdout, re.MULTILINE))
    code = [*re.findall(r"`([^`\n]+)`", README), *commands()]
    named = {line.split()[1] for line in code if line.startswith("make ")}
    assert {"run", "test", "ui", "help"} <= named <= {*targets, "help"}


def test_the_saved_model_is_used_as_shown(place: Path) -> None:
    from sklearn.datasets import load_digits

    assert (
        main(["+experiment=digits_mlp", "trainer.max_epochs=3", "logger=none", "hydra.run.dir=trained"]) == 0
    )
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if "load(" in block)
    code = block.replace("experiments/runs/digits_mlp/TIME", "trained").replace("print(", "shown = (")
    names = {"images": (load_digits().images * 255 / 16).round().astype("uint8")[:500]}
    exec(code, names)  # noqa: S102 - it is ours
    assert list(names["shown"].columns[:2]) == ["label", "probability"]
    assert (names["shown"].label.astype(int) == load_digits().target[:500]).mean() > 0.6
    for name in re.findall(r"^\| `([\w./]+)`", README.split("## Experiments")[0], re.MULTILINE):
        assert (place / "trained" / name).exists(), name
    assert (
        json.loads((place / "trained/result.json").read_text(encoding="utf-8"))["baseline"]["name"]
        == "majority"
    )


def test_the_table_lists_every_experiment() -> None:
    listed = re.findall(
        r"^\| `(\w+)`", (ROOT / "docs/catalogue.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")}


def test_the_groups_that_are_listed_exist() -> None:
    section = README.split("## Settings")[1].split("\n## ")[0]
    for group, options in re.findall(r"^\| `(\w+)` \| (.*) \|$", section, re.MULTILINE):
        for option in re.findall(r"`(\w+)`", options):
            assert (ROOT / "conf" / group / f"{option}.yaml").is_file(), (group, option)


def test_links_and_pictures_are_there() -> None:
    # tests/scenarios/test_docs.py looks at those of docs/.
    for page in (ROOT / "README.md", ROOT / "experiments/README.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


def test_the_kubernetes_job_starts_a_worker_that_finds_what_it_mounts() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    [block] = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    job = yaml.safe_load(block)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    python, *words = container["command"]
    assert (python, words[:2]) == ("python", ["-m", "pipeline.sweeps.worker"])
    assert worker_arguments().parse_args(words[2:]).study == "wide"
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert sorted(names_to_carry(environment, alike=False)) == sorted(environment)
    assert "PIPELINE_STORAGE" in environment and not any(map(holds_secret, environment.values()))
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert str(Path(environment["PGPASSFILE"]).parent) == mounts["pgpass"]
    assert f"paths.experiments_dir={mounts['experiments']}" in page
    # A worker that is told to end saves its trial, which Kubernetes has to wait for.
    assert pod["terminationGracePeriodSeconds"] >= 60
