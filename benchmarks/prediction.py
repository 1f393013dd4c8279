"""``task=predict`` on 10,000 images against a hand-written batched loop, from a file to a file."""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path

from benchmarks.rows import Row, alternate

BATCH = 512


def measure(repetitions: int) -> list[Row]:
    """Models trained for a moment: what they answer does not matter here."""
    return [_row(experiment, repetitions) for experiment in ("mnist_mlp", "mnist_cnn")]


def _row(experiment: str, repetitions: int) -> Row:
    import numpy as np
    import torch

    from pipeline.config import compose
    from pipeline.models.saved import load, save
    from pipeline.runs.plan import plan_of
    from pipeline.tasks.predict import predict
    from pipeline.training.building import build_data, build_model

    cfg = compose([f"+experiment={experiment}"])
    plan = plan_of(cfg)
    data = build_data(plan.data)
    assert data.test is not None
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "images.npy", Path(folder) / "predictions.csv"
        images = data.test.take(torch.arange(len(data.test)))[0].numpy()
        np.save(source, images, allow_pickle=False)
        model = build_model(plan.model, data, plan.fit)
        predictor = load(save(model, data.encoder, Path(folder) / "model"))
        model, classes = predictor.module.eval(), predictor.spec.classes

        def pipelines() -> float:
            began = time.perf_counter()
            predict(predictor, str(source), str(target), batch_size=BATCH)
            return len(images) / (time.perf_counter() - began)

        def by_hand() -> float:
            began = time.perf_counter()
            x = torch.from_numpy(np.load(source))
            with torch.no_grad(), target.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["label", *classes])
                for batch in x.split(BATCH):
                    p = model(batch).softmax(1)
                    labels = [classes[i] for i in p.argmax(1).tolist()]
                    writer.writerows([label, *row] for label, row in zip(labels, p.tolist(), strict=True))
            return len(x) / (time.perf_counter() - began)

        ours, theirs = alternate(pipelines, by_hand, repetitions)
    return Row(
        f"`task=predict`, {len(images):,} images, {experiment}",
        f"{ours:,.0f} images/s",
        f"loop: {theirs:,.0f} images/s",
        ours / theirs,
        ">= 0.9",
    )
