"""Settings and files that nobody meant: each ends in success or in one clear message with its exit code."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import build
from pipeline.config.arguments import arguments_of
from pipeline.config.keys import RULES
from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.evaluation.inputs import chunks
from pipeline.models.linear import Linear
from pipeline.runs.plan import plain
from pipeline.tracking import drain
from pipeline.tracking.queries import Store
from pipeline.training.checkpoints import AtomicCheckpointIO
from pipeline.training.fit import start_from

pytestmark = [pytest.mark.faults, pytest.mark.slow]

FaultRecorder = Callable[[str, int, int, int], None]
LONGEST = 30.0
"""Seconds after which something hangs."""

SECTIONS = [
    *(
        "x",
        "data",
        "model",
        "optimizer",
        "scheduler",
        "trainer",
        "callbacks",
        "logger",
        "task",
        "paths",
        "tags",
    ),
    *("experiment", "debug", "sweep", "ladder", "variants", "seeds", "success", "resume", "hydra", "data/x"),
    *(
        "hydra.run",
        "hydra.run.dir",
        "hydra.callbacks",
        "hydra.job_logging",
        "hydra.sweeper",
        "hydra.launcher",
    ),
    *(
        "hydra/sweeper",
        "hydra/launcher",
        "hydra.job.env_set.A",
        "hydra.job.name",
        "hydra.mode",
        "hydra.verbose",
    ),
    *("hydra.searchpath", "hydra.output_subdir", "trainer.devices", "trainer.strategy", "data._target_"),
    *("callbacks.early_stopping", "model._target_", "optimizer.betas", "trainer.profiler.x"),
]
TAKEN = {
    "data": ("images.published.Images", "tables.table.TableData", "text.imdb.Imdb", "teaching.systems.Echo"),
    "models": ("cnn.CNN", "mlp.MLP", "recurrent.Recurrent"),
}
KEYS = sorted(
    {
        *SECTIONS,
        *(key.replace("*", "train") for key in RULES),
        *(
            f"{room.removesuffix('s')}.{key}"
            for room, classes in TAKEN.items()
            for name in classes
            for key, argument in arguments_of(f"pipeline.{room}.{name}").items()
            if argument.rule
        ),
    }
)
VALUES = [
    *(
        "1",
        "-1",
        "0",
        "1.5",
        "0.5",
        "1e-3",
        "nan",
        "inf",
        "-inf",
        "null",
        "true",
        "abc",
        "[1,2]",
        "[]",
        "{}",
        "''",
    ),
    *(
        "{a:1}",
        "{_target_:os.system}",
        "{_target_:torch.optim.SGD,lr:1}",
        "{_args_:[1]}",
        "'a b'",
        "[[1],[2]]",
    ),
    *("${x}", "${seed}", "${model}", "${oc.env:HOME}", "${oc.select:q,3}", "${now:%Y}", "${hydra:job.num}"),
    *(
        "${data.batch_size}",
        "${name}",
        "${run_dir:}",
        "${unique:}",
        "${",
        "$",
        "???",
        "\\",
        "a\\,b",
        "%s",
        "~",
    ),
    *("mlp", "cnn", "lstm", "cosine", "none", "fast", "digits", "digits_mlp", "csv", "cpu", "sgd", "train"),
    *(
        "99999999999999999999",
        "1e400",
        "é",
        "日本",
        "[a,{b:c}]",
        "1,2",
        "choice(1,2)",
        "range(1,3)",
        "a=b",
        "/x",
    ),
    *(
        "..",
        "../../etc/passwd",
        "-",
        '"q"',
        "a" * 300,
        "1_000",
        "0x1f",
        "1:2",
        "@x",
        "x@y",
        "#",
        "\t",
        "0.1.2",
    ),
]


def overrides() -> st.SearchStrategy[list[str]]:
    """Sets of overrides: known keys with values of every kind, a few that are right, and a few of free text."""
    free = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n\r"), max_size=12)
    value = st.one_of(st.sampled_from(VALUES), st.sampled_from(VALUES), st.floats().map(repr), free)
    sign = st.sampled_from(["", "", "", "", "+", "++", "~"])
    equals = st.sampled_from(["=", "=", "=", "=", "=", ""])
    one = st.builds("{}{}{}{}".format, sign, st.sampled_from(KEYS), equals, value)
    right = st.sampled_from(
        ["seed=3", "name=x", "optimizer.lr=0.1", "trainer.threads=2", "model.dropout=0.5"]
    )
    return st.lists(st.one_of(one, one, one, right, free), min_size=1, max_size=4)


def examples(short: int, long: int, long_form: bool) -> Any:
    """How many, and whether always the same ones: the short form must not fail by chance."""
    return settings(
        max_examples=long if long_form else short,
        derandomize=not long_form,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def assert_clear(message: str, about: Any) -> None:
    """One message: not empty, not endless, no stack."""
    assert message.strip(), about
    assert "Traceback" not in message and 'File "' not in message, (about, message)
    assert message.count("\n") <= 8 and len(message) <= 1500, (about, message)


def refused_or_done(action: Callable[[], Any], about: Any) -> bool:
    """Whether it was refused; anything but success or a clear refusal fails."""
    began = time.monotonic()
    try:
        action()
        return False
    except UserError as error:
        assert_clear(str(error), about)
        return True
    finally:
        assert time.monotonic() - began < LONGEST, about


@pytest.mark.timeout(850)
def test_overrides_compose_or_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long_form: bool, record_fault: FaultRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = [0, 0]

    # A composition takes a seventh of a second of the processor: a minute and a half, other ones every time.
    @examples(60, 600, long_form)
    @given(overrides())
    def check(words: list[str]) -> None:
        seen[refused_or_done(lambda: compose(words), words)] += 1

    check()
    assert min(seen) > 0
    assert list(tmp_path.iterdir()) == []
    record_fault("random overrides composed and checked", sum(seen), sum(seen), 0)


# Mostly settings that a run could have, with some that it could not, over runs of a few steps.
RUN_VALUES: dict[str, list[str]] = {
    "model": ["mlp", "linear", "cnn", "resnet9", "lstm", "gru"],
    "optimizer": ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adm"],
    "scheduler": ["none", "cosine", "warmup_cosine", "one_cycle", "plateau", "step"],
    "data": ["digits", "line", "clusters", "echo", "points", "csv", "text_file"],
    "data.path": ["table.csv", "text.txt", "images", "nowhere", "."],
    "data.target": ["y", "a", "text", "nothing"],
    "data.batch_size": ["1", "7", "100000", "0"],
    "data.eval_batch_size": ["1", "33", "1000000"],
    "data.validation_fraction": ["0", "0.5", "0.999", "0.0001", "1"],
    "data.folds": ["2", "3", "100000"],
    "data.balance": ["oversample", "class_weights"],
    "data.augment": ["light", "strong", "trivial", "rand"],
    "data.mix": ["mixup", "cutmix", "both"],
    "data.label_smoothing": ["0", "0.1", "1"],
    "model.dropout": ["0", "0.99", "1"],
    "model.hidden_units": ["1", "[3,2]", "[]", "[1,0]", "null"],
    "model.activation": ["relu", "tanh", "gelu", "wrong"],
    "model.initializer": ["zeros", "he_normal", "wrong"],
    "model.l1": ["0.1", "1e30"],
    "model.loss": ["auto", "squared", "focal", "absolute", "wrong"],
    "optimizer.lr": ["1e-8", "1", "1e30", "1e-45"],
    "optimizer.weight_decay": ["0", "1e10"],
    "trainer.precision": ["auto", "32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"],
    "trainer.accumulate_grad_batches": ["1", "5", "1000"],
    "trainer.gradient_clip_val": ["0", "1e-9", "1"],
    "trainer.gradient_clip_algorithm": ["value", "norm"],
    "trainer.max_steps": ["1", "0", "-1"],
    "trainer.max_time": ["00:00:00:01", "00:00:00:00"],
    "trainer.limit_train_batches": ["0", "1", "0.01", "0.0"],
    "trainer.limit_val_batches": ["0", "1", "0.5"],
    "trainer.limit_test_batches": ["0", "1", "0.5"],
    "trainer.overfit_batches": ["1", "0.5"],
    "trainer.steps_per_call": ["1", "16", "1000"],
    "trainer.threads": ["1", "2", "auto"],
    "trainer.on_divergence": ["lower_lr", "stop"],
    "trainer.auto_batch_size": ["true"],
    "+trainer.val_check_interval": ["1", "0.5", "2.0"],
    "trainer.check_val_every_n_epoch": ["2", "null"],
    "trainer.num_sanity_val_steps": ["1", "-1"],
    "trainer.detect_anomaly": ["true"],
    "trainer.deterministic": ["true", "warn"],
    "callbacks.early_stopping.patience": ["0", "1"],
    "checkpoint.every_n_steps": ["1", "1000"],
    "checkpoint.monitor": ["val/loss", "train/loss", "val/nothing"],
    "objective.metric": ["val/loss", "val/nothing"],
    "ckpt_path": ["table.csv", "nowhere.ckpt"],
    "resume": ["auto", "nothing"],
    "seed": ["0", "4294967295", "-1"],
    "seeds": ["2", "[1,1]", "0"],
    "train": ["false"],
    "test": ["false"],
    "logger": ["none", "csv", "mlflow"],
    "debug": ["fast", "limit", "nan"],
}


def run_words() -> st.SearchStrategy[list[str]]:
    """Some of the settings above."""
    pair = st.sampled_from(sorted(RUN_VALUES)).flatmap(
        lambda key: st.sampled_from(RUN_VALUES[key]).map(lambda value: f"{key}={value}")
    )
    return st.lists(pair, min_size=1, max_size=3, unique_by=lambda word: word.split("=")[0])


def make_inputs(directory: Path) -> None:
    """A small table, a text and images of two kinds."""
    (directory / "table.csv").write_bytes(TABLE)
    (directory / "text.txt").write_bytes(PROSE)
    for name, image in (("dark", 40), ("light", 200)):
        (directory / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((8, 8), image + number, np.uint8)
            Image.fromarray(pixels).save(directory / "images" / name / f"{number}.png")


def digest(directory: Path) -> str:
    """Of the input files' names and contents."""
    files = [directory / "table.csv", directory / "text.txt", *sorted((directory / "images").rglob("*.png"))]
    return hashlib.sha256(b"".join(str(f).encode() + f.read_bytes() for f in files)).hexdigest()


def own_seconds() -> float:
    """Processor time of the commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.timeout(850)
def test_commands_end_well_or_with_one_message(
    tmp_path: Path, long_form: bool, record_fault: FaultRecorder
) -> None:
    if not long_form:
        pytest.skip("in the long form (--long); tests/scenarios/test_cli.py has a bad setting as a process")
    make_inputs(tmp_path)
    before = digest(tmp_path)
    codes: list[int] = []
    bad: list[Any] = []
    base = ["experiment=digits_mlp", "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=3"]

    def command(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *base, "model.hidden_units=[8]", *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=LONGEST * 4,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @settings(examples(50, 50, long_form), phases=[Phase.generate])
    @given(st.one_of(run_words(), run_words(), overrides()))
    def check(words: list[str]) -> None:
        if any(word.startswith(("hydra", "+hydra", "++hydra", "~", "-")) or "\0" in word for word in words):
            # Flags, and where Hydra puts its files: what they do is theirs.
            return
        # What a busy machine adds is not the command's doing: its own seconds on the processor count. One that hangs
        # without computing is ended by its time limit.
        began = own_seconds()
        done = command(words)
        said = done.stderr.split("Error: ", 1)
        in_time, expected = own_seconds() - began < LONGEST, done.returncode in (0, 2, 3)
        told = "Traceback" not in done.stdout + done.stderr and (not done.returncode or len(said) == 2)
        if not (in_time and expected and told):
            bad.append((words, done.returncode, done.stderr[-600:]))
        elif done.returncode:
            assert_clear(said[1], words)
        codes.append(done.returncode)

    check()
    assert not bad, bad
    assert drain(tmp_path / "experiments", 60)
    states = list(tmp_path.rglob("state.json"))
    assert not [path for path in states if '"running"' in path.read_text(encoding="utf-8")]
    if (tmp_path / "experiments/mlflow.db").exists():
        assert "RUNNING" not in {run.status for run in Store(None, tmp_path / "experiments").runs()}
    assert digest(tmp_path) == before
    record_fault("random commands as processes", len(codes), len(codes), 0)


TABLE = b"a,b,c,day,y\n" + b"".join(
    b"%d,%.2f,%s,2024-01-%02d,%s\n"
    % (i, i * 1.5 - 3, [b"red", b"blue", b""][i % 3], i % 28 + 1, [b"no", b"yes"][i % 2])
    for i in range(40)
)
PROSE = (
    "“Well,” said Gregor, “that was – öfter – not so bad.” He went home;\nnobody knew why.\n".encode() * 12
)
LABELLED = b"text,y\n" + b"".join(
    b'"a %s film, number %d",%s\n' % ([b"good", b"bad"][i % 2], i, [b"pos", b"neg"][i % 2]) for i in range(40)
)
PIECES = [
    *(
        b"\0",
        b'"',
        b"'",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"nan",
        b"1e400",
        b"-inf",
        b",,,,",
        b";",
        b"\r",
        b"\n\n\n",
    ),
    *(
        b"\x1a",
        b"9" * 400,
        "é".encode("latin-1"),
        b"=cmd|' /C calc'!A0",
        b"../../etc/passwd",
        b"\\",
        b"{}",
        b"\t",
    ),
    *("😀".encode(), b"\x80\x04\x95", b"PK\x03\x04", b"<script>", b"0x10", b"1,5", b"true", b"2024-13-45"),
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file's content with a few things done to it."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        how = draw(
            st.sampled_from(["cut", "flip", "insert", "delete", "double", "overwrite", "behead", "shuffle"])
        )
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 60))
        if how == "cut":
            del data[at:]
        elif how == "behead":
            del data[:at]
        elif how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif how == "delete":
            del data[at : at + length]
        elif how == "double":
            data[at:at] = data[at : at + 20 * length]
        elif how == "overwrite":
            data[at : at + 4] = draw(st.binary(max_size=8))
        elif how == "shuffle":
            lines = bytes(data).split(b"\n")
            data = bytearray(b"\n".join(draw(st.permutations(lines)) if len(lines) < 200 else lines[::-1]))
    return bytes(data)


def module_of(*words: str) -> Callable[[], Any]:
    """Reads the data of a configuration anew each time, as a run does."""
    node = plain(compose(["logger=none", *words]).data)

    def read() -> None:
        data = build(node, key="data")
        data.prepare_data()
        data.setup()
        x, y = data.train.take(next(iter(data.train.order(4))))
        if x.is_floating_point():
            assert bool(x.isfinite().all()), "numbers that no model can take"
        assert len(y) > 0

    return read


def image_bytes(kind: str, mode: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


class DamagedFile:
    """One file that is damaged, what reads it, and the whole content."""

    def __init__(self, path: Path, wholes: list[bytes], read: Callable[[], Any]) -> None:
        self.path, self.wholes, self.read = path, wholes, read

    def check(self, content: bytes) -> bool:
        self.path.write_bytes(content)
        refused = refused_or_done(self.read, content[:400])
        assert self.path.read_bytes() == content, "the input was changed"
        return refused


def damaged_file(kind: str, directory: Path) -> DamagedFile:
    """A file of a kind with what reads it."""
    if kind == "csv":
        path = directory / "table.csv"
        path.write_bytes(TABLE)
        return DamagedFile(path, [TABLE], module_of("data=csv", f"data.path={path}", "data.target=y"))
    if kind == "labelled":
        path = directory / "reviews.csv"
        path.write_bytes(LABELLED)
        return DamagedFile(path, [LABELLED], module_of("data=text_csv", f"data.path={path}", "data.target=y"))
    if kind == "text":
        path = directory / "text.txt"
        path.write_bytes(PROSE)
        return DamagedFile(path, [PROSE], module_of("data=text_file", f"data.path={path}"))
    if kind == "image":
        make_inputs(directory)
        path = directory / "images" / "dark" / "0.png"
        wholes = [
            image_bytes("PNG", "L"),
            image_bytes("PNG", "P"),
            image_bytes("GIF", "L"),
            image_bytes("BMP", "RGB"),
        ]
        read = module_of("data=image_folder", f"data.path={directory / 'images'}")
        return DamagedFile(path, [*wholes, image_bytes("JPEG", "L"), image_bytes("TIFF", "L")], read)
    if kind == "predicted":
        from pipeline.data.images.encoders import ImageEncoder

        path = directory / "image.png"
        encoder = ImageEncoder([1, 8, 8], [0.0], [1.0])

        def predicted() -> None:
            list(chunks(str(path), encoder, 8))

        return DamagedFile(path, [image_bytes("PNG", "L"), image_bytes("JPEG", "L")], predicted)
    from pipeline.data.core.spec import Spec

    path = directory / "last.ckpt"
    model = Linear(Spec("binary", "vector", (3,), 1, ("a", "b")))
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": model.state_dict(), "epoch": 3, "hyper": {"lr": 0.1}}, path
    )
    return DamagedFile(path, [path.read_bytes()], lambda: start_from(model, path))


@pytest.mark.timeout(850)
@pytest.mark.parametrize("kind", ["csv", "labelled", "text", "image", "predicted", "checkpoint"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, long_form: bool, record_fault: FaultRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    file = damaged_file(kind, tmp_path)
    assert not file.check(file.wholes[0])
    refused: list[bool] = []

    @examples(20, 250, long_form)
    @given(st.sampled_from(file.wholes).flatmap(damaged))
    def check(content: bytes) -> None:
        refused.append(file.check(content))

    check()
    record_fault(f"damaged files: {kind}", len(refused), len(refused), 0)


def test_every_flipped_bit_of_a_checkpoints_weights_is_noticed(tmp_path: Path) -> None:
    file = damaged_file("checkpoint", tmp_path)
    whole = file.wholes[0]
    with torch.no_grad():
        values = torch.load(file.path, weights_only=True)["state_dict"]["output.weight"].numpy().tobytes()
    at = whole.index(values)
    for position in range(at, at + len(values)):
        spoilt = bytearray(whole)
        spoilt[position] ^= 1
        assert file.check(bytes(spoilt))
