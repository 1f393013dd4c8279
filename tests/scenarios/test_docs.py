"""The pages of docs/ as a site, and the container: what they name is there. test_readme.py runs their commands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_every_page_is_in_the_sites_contents() -> None:
    named = [page if isinstance(page, str) else next(iter(page.values())) for page in SITE["nav"]]
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.skipif(find_spec("material") is None, reason="needs the extra docs: pip install mkdocs-material")
def test_the_site_is_built_without_a_complaint(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/asked/index.html").is_file()


def test_what_the_container_is_made_of_is_in_the_repository_and_gets_there() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line[0] == "!"
    }
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    assert sources and all((ROOT / source).exists() for source in sources) and set(sources) == let_in
    extras = set(re.findall(r'"/pipeline\[([\w,]+)\]"', text)[0].split(","))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert extras <= set(re.findall(r"^(\w+) = \[", project, re.MULTILINE))
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    assert settings["postCreateCommand"].startswith("make install")
    assert shutil.which("make") is None or "install:" in (ROOT / "Makefile").read_text(encoding="utf-8")
