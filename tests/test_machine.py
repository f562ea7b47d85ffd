"""What a run notes of the machine that it ran on."""

import json
import subprocess
from pathlib import Path

import pytest
import torch

from barlow import machine


def test_a_package_without_metadata_is_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As barlow itself is when it runs from a source tree that was not installed."""

    def version(name: str) -> str:
        raise machine.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.importlib.metadata, "version", version)
    assert machine.environment("cpu")["versions"]["barlow"] == "not installed"


def test_the_environment_names_versions_hardware_and_command_and_is_json() -> None:
    found = json.loads(json.dumps(machine.environment("cpu")))
    assert found["versions"]["torch"] == torch.__version__
    assert found["hardware"]["cores"] >= 1
    assert found["hardware"]["processor"]
    assert isinstance(found["command"], list)
    assert machine.available_memory() > 2**20


def test_the_commit_is_of_barlows_own_checkout_and_not_of_a_project_that_it_is_installed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True, capture_output=True)

    def commit_seen_from(file: Path) -> str | None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        monkeypatch.setattr(machine, "__file__", str(file))
        return machine.source_commit()

    git("init", "-q")
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    git(*identity, "commit", "-q", "--allow-empty", "-m", "of a user's project")
    assert commit_seen_from(tmp_path / ".venv" / "lib" / "python3" / "site-packages" / "barlow" / "machine.py") is None
    own = commit_seen_from(tmp_path / "src" / "barlow" / "machine.py")
    assert own is not None
    assert len(own.removesuffix("+changes")) == 40
