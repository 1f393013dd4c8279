"""task=generate: a trained character model goes on with a text, from the command line, in Python and through MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
from mlflow.exceptions import MlflowException
from omegaconf import DictConfig

from pipeline.__main__ import main
from pipeline.config.loading import compose
from pipeline.errors import UserError
from pipeline.models.saved import Predictor, load
from pipeline.runs.hooks import Hooks
from pipeline.runs.result import RunResult
from pipeline.runs.train import train
from pipeline.tasks import generate as task
from pipeline.tracking.queries import Store
from pipeline.tracking.store import as_default

Command = Callable[..., DictConfig]
TEXT = "As Gregor Samsa awoke one morning from uneasy dreams he found himself changed. " * 20


@pytest.fixture(scope="module")
def word(experiments: Path) -> RunResult:
    """The LSTM that has learnt HELP by heart."""
    cfg = compose(["+experiment=help_lstm", f"paths.experiments_dir={experiments}"])
    return train(cfg, Hooks(directory=experiments / "runs/help"))


@pytest.fixture(scope="module")
def story(experiments: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A small character RNN of a text of one's own."""
    path = tmp_path_factory.mktemp("story") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    words = ["data=text_file", f"data.path={path}", "model=rnn", "model.hidden_units=16", "data.batch_size=4"]
    words += ["trainer.max_epochs=3", f"paths.experiments_dir={experiments}"]
    return train(compose(words), Hooks(directory=experiments / "runs/story"))


def test_h_is_followed_by_elp(
    word: RunResult, command: Command, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    typed = ["task=generate", f"task.run_id={word.run_id}", "task.prompt=H", "task.length=3"]
    task.run(command(*typed, "task.temperature=0"))
    assert capsys.readouterr().out == "ELP\n"
    task.run(command(*typed, "task.temperature=0", f"task.output={tmp_path / 'text.txt'}"))
    assert (tmp_path / "text.txt").read_text(encoding="utf-8") == "ELP"
    assert load(word.directory / "model").generate("H", length=3, temperature=0) == "ELP"


def test_the_command_of_the_readme_writes_what_a_plain_loop_draws(
    story: RunResult, experiments: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    place = [f"paths.experiments_dir={experiments}", f"hydra.run.dir={tmp_path / 'run'}"]
    typed = ["task=generate", f"task.run_id={story.run_id}", "task.prompt=As Gregor", "task.length=300"]
    assert main([*typed, "task.temperature=0.8", *place]) == 0
    written = capsys.readouterr().out
    predictor = load(story.directory / "model")
    classes, draw = predictor.spec.classes, torch.Generator().manual_seed(0)
    ids = [classes.index(c) for c in "As Gregor"]
    with torch.no_grad():
        for _ in range(300):
            # The whole text again for each character: no state is carried here.
            logits = predictor.module(torch.tensor([ids]))[0, -1].double()
            # Nothing is unknown in what it writes.
            logits[0] = -torch.inf
            ids.append(int(torch.multinomial((logits / 0.8).softmax(0), 1, generator=draw)))
    assert written == "".join(classes[i] for i in ids[9:]) + "\n"
    assert written == predictor.generate("As Gregor", 300, 0.8, 0) + "\n"
    assert main([*typed, "task.temperature=0.8", "seed=1", *place]) == 0
    assert capsys.readouterr().out != written


def test_what_the_training_text_does_not_hold_is_named(
    word: RunResult, command: Command, experiments: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["task=generate", f"task.run_id={word.run_id}", "task.prompt=HEY YOU"]
    words += [f"paths.experiments_dir={experiments}", f"hydra.run.dir={tmp_path}"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "' ', 'O', 'U', 'Y'" in said
    assert "'EHLP'" in said
    assert "Traceback" not in said
    with pytest.raises(UserError, match=r"task\.length"):
        command("task=generate", f"task.run_id={word.run_id}", "task.length=0")


def test_a_model_of_something_else_is_refused(finished: dict[str, RunResult], command: Command) -> None:
    with pytest.raises(UserError, match="does not predict characters"):
        task.run(command("task=generate", f"task.run_id={finished['mlp'].run_id}", "task.prompt=a"))


def test_predict_says_that_generate_is_there(
    word: RunResult, experiments: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "in.txt").write_text("HEL\n", encoding="utf-8")
    words = ["task=predict", f"task.run_id={word.run_id}", f"task.input={tmp_path / 'in.txt'}"]
    words += ["task.input_format=text", f"task.output={tmp_path / 'out.csv'}"]
    assert main([*words, f"paths.experiments_dir={experiments}", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    captured = capfd.readouterr()
    assert f"task=generate task.run_id={word.run_id}" in captured.out + captured.err
    assert '""E"", ""L"", ""P""' in (tmp_path / "out.csv").read_text(encoding="utf-8")


def test_mlflow_goes_on_with_texts_where_a_length_is_passed(word: RunResult, experiments: Path) -> None:
    store = Store(None, experiments)
    client = mlflow.MlflowClient(store.uri)
    (logged,) = client.search_logged_models(
        [client.get_run(str(word.run_id)).info.experiment_id],
        filter_string=f"source_run_id = '{word.run_id}'",
    )
    with as_default(store.uri):
        model: Any = mlflow.pyfunc.load_model(logged.model_uri)
    written = model.predict(["H", "HE"], params={"length": 2, "temperature": 0.0})
    assert written.to_dict("list") == {"text": ["EL", "LP"]}
    assert model.predict(["HEL"])["label"].tolist() == [["E", "L", "P"]]
    for wrong in ({"length": 10**7}, {"length": 3, "temperature": -1.0}):
        with pytest.raises(MlflowException, match=r"at most 100,000|temperature"):
            model.predict(["H"], params=wrong)
    with pytest.raises(MlflowException, match="does not"):
        model.predict(["xyz"], params={"length": 1})


def test_a_network_without_a_state_reads_the_whole_text_again(word: RunResult) -> None:
    from pipeline.models.foreign import Wrapped

    class Last(torch.nn.Module):
        """What comes next is the first character of all."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = torch.nn.functional.one_hot(x[:, :1], 5).float()
            return first.expand(-1, x.shape[1], -1)

    encoder = load(word.directory / "model").encoder
    spec = load(word.directory / "model").spec
    assert Predictor(Wrapped(spec, Last()), encoder).generate("LEP", 4, temperature=0) == "LLLL"
