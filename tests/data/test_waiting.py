"""What a log says of work that takes a while."""

from __future__ import annotations

import logging
import time

import pytest

from pipeline.data.core.waiting import shown


@pytest.mark.parametrize("bar", [True, False])
def test_a_log_is_told_now_and_then_how_far_it_is(
    bar: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    caplog.set_level(logging.INFO, "pipeline")
    seen = []
    for thing in shown(range(200), 200, "looking", bar):
        seen.append(thing)
        now += 1.0
    assert seen == list(range(200))
    lines = [record.getMessage() for record in caplog.records]
    told = [
        "15 %, about 3 min",
        "30 %, about 2 min",
        "45 %, about 2 min",
        "60 %, about 80 s",
        "75 %, about 50 s",
    ]
    told += ["90 %, about 20 s"]
    assert lines == ["looking", *([f"looking: {words} left" for words in told] if bar else [])]
