"""What a run notes of the machine that it ran on."""

import json

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
