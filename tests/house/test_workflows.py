"""The workflows and the lock that releases are built with: nothing that can be changed from outside gets in."""

import re
import tomllib

import pytest
import yaml
from source_code import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
LOCK = ROOT / ".github" / "release-lock.txt"


def test_there_are_three() -> None:
    assert [path.stem for path in WORKFLOWS] == ["nightly", "release", "test"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit_and_rights_are_the_least(path: object) -> None:
    text = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    content = yaml.safe_load(text)
    assert content["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (\S+)(.*)", text)
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action), f"{action} is a name that can be moved"
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), f"{action}: say which version it is"
    assert "pull_request_target" not in text
    for job in content["jobs"].values():
        assert set(job.get("permissions", {})) <= {"id-token"}
        for step in job["steps"]:
            assert "${{" not in step.get("run", ""), "names of branches and tags are not put into a shell's text"
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_at_night_nothing_skips_for_want_of_an_extra_or_a_browser() -> None:
    jobs = yaml.safe_load((FOLDER / "nightly.yml").read_text(encoding="utf-8"))["jobs"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    in_dev = {re.split("[<>=]", each)[0] for each in extras["dev"]}
    others = {
        name
        for name, needs in extras.items()
        if name not in ("dev", "bench") and not {re.split("[<>=]", each)[0] for each in needs} <= in_dev
    }
    assert others >= {"docs", "tensorboard", "maps"}
    for called, job in jobs.items():
        commands = [step.get("run", "") for step in job["steps"]]
        installed = {
            name for run in commands for found in re.findall(r"\.\[([\w,]+)\]", run) for name in found.split(",")
        }
        needed = others if called == "long" else others - {"engines"}  # whose newest versions only prove exports
        assert needed <= installed, called
    long = [step.get("run", "") for step in jobs["long"]["steps"]]
    browser = next(i for i, run in enumerate(long) if "playwright install" in run)
    assert "chromium" in long[browser]
    assert any("pip install" in run and "playwright" in run for run in long[:browser])
    assert browser < long.index("make nightly")


def test_the_release_shares_no_cache_and_installs_from_the_lock_alone() -> None:
    text = (FOLDER / "release.yml").read_text(encoding="utf-8")
    assert not re.search(r"actions/cache|\bcache:|secrets\.|password:", text)
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert ".github/release-lock.txt" in installs[0]
    assert "--no-index --no-deps" in installs[1]
    jobs = yaml.safe_load(text)["jobs"]
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})] == ["publish"]
    assert jobs["publish"]["environment"] == "release"


def test_the_lock_has_a_hash_for_everything_names_no_host_and_is_used_by_the_release_alone() -> None:
    text = LOCK.read_text(encoding="utf-8")
    assert "://" not in text
    locked = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        name = re.match(r"([\w.-]+)==(\S+)", entry)
        assert name, entry
        assert "--hash=sha256:" in entry, f"{name[1]} has no hash"
        locked[name[1].lower()] = name[2]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"], "build"]
    names = {re.split(r"[\s<>=!~\[;]", requirement)[0].lower() for requirement in wanted}
    assert names <= locked.keys()
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    for name, version in re.findall(r"^(\w+)==(\S+)$", constraints, re.MULTILINE):
        assert locked[name] == version, "of the same versions as CI"
    others = [ROOT / "Makefile", ROOT / "requirements.txt", ROOT / ".ci" / "run", *WORKFLOWS]
    users = [path.name for path in others if LOCK.name in path.read_text(encoding="utf-8")]
    assert users == ["release.yml"]
