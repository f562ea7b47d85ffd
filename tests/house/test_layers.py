"""The rules of docs/architecture.md, read from the imports and calls of the sources themselves."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import barlow

PACKAGE = Path(barlow.__file__).parent
ROOT = PACKAGE.parents[1]
SOURCES = sorted(PACKAGE.rglob("*.py"))
APART = [("train", "evaluation")]
"""Neighbours in a layer that never import each other."""


@cache
def layers() -> dict[str, int]:
    """Layer by module or folder, from the table in docs/architecture.md."""
    found = {}
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if row := re.match(r"\| (\d) \| ((?:`\w+` ?)+) \|", line):
            found |= {name: int(row[1]) for name in re.findall(r"`(\w+)`", row[2])}
    return found


def module(path: Path) -> str:
    return ".".join(("barlow", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module(path) for path in SOURCES}


def layered(name: str) -> str:
    """The word that stands in the table: `barlow.nets.building` is in `nets`."""
    return name.split(".")[1] if "." in name else ""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def imported(path: Path) -> list[tuple[int, str]]:
    """Every module that is imported anywhere in a file, in functions too, with its line."""
    return list(_imported(path))


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    here = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            whole = ".".join(part for part in (base, node.module or "") if part)
            for (
                alias
            ) in node.names:  # `from barlow import storage` imports a module, `from barlow.run import Run` does not
                inner = f"{whole}.{alias.name}"
                yield node.lineno, inner if is_module(inner) else whole


def is_module(name: str) -> bool:
    return name in MODULES


@cache
def called(path: Path) -> list[tuple[int, str]]:
    """Every dotted name that is used in a file, with its line: `torch.save`, `print`."""
    names = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Name | ast.Attribute))
    return [(node.lineno, ast.unparse(node)) for node in names]


def places(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_every_module_has_a_layer_and_every_layer_a_module() -> None:
    known = {layered(module(path)) for path in SOURCES} - {""}
    assert set(layers()) == known
    assert set(layers().values()) >= {0, 1, 2, 3, 4, 5, 7}


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_imports_from_its_own_or_lower_layers_only(path: Path) -> None:
    name = layered(module(path))
    if not name:  # barlow/__init__.py knows where the public names live, and imports them when asked
        assert [m for _, m in imported(path) if m == "barlow.torchvision_guard"], "the guard comes first"
        return
    wrong = [
        f"{places(path, line)} imports {other}"
        for line, other in imported(path)
        if other.startswith("barlow.") and layers()[layered(other)] > layers()[name]
    ]
    assert wrong == []


@pytest.mark.parametrize(("first", "second"), APART)
def test_train_and_evaluation_never_import_each_other(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        assert f"barlow.{other}" not in {m for _, m in imported(PACKAGE / f"{one}.py")}


def test_no_two_modules_need_each_other() -> None:
    needs = {module(path): {m for _, m in imported(path) if is_module(m)} for path in SOURCES}
    needs["barlow"] = set()  # it imports on demand
    done: set[str] = set()
    while ready := {name for name, others in needs.items() if name not in done and others - {name} <= done}:
        done |= ready
    assert set(needs) - done == set(), "these import each other in a circle"


def test_an_import_upwards_would_be_found(tmp_path: Path) -> None:
    assert layers()["linalg"] < layers()["objectives"] < layers()["train"] < layers()["cli"]
    names = dict(imported(PACKAGE / "train.py")).values()
    assert {"barlow.recipe", "barlow.storage", "barlow.nets.building", "torch"} <= set(names)
    assert "barlow.train" in {m for _, m in imported(PACKAGE / "cli.py")}, "imports inside functions count"


ONLY_IN = {
    r"torch\.distributed(\..*)?": {"distributed.py"},
    r"print|sys\.std(out|err)\.write": {"cli.py"},
    r"os\.(environ|getenv|putenv)(\..*)?": {"distributed.py", "machine.py", "cli.py"},
    r"argparse(\..*)?": {"cli.py"},
    r"torch\.(save|load)": set(),
    r"eval|exec|compile|__import__": set(),
    r"yaml\.(load|full_load|unsafe_load|Loader|UnsafeLoader|FullLoader)": set(),
    r"(np|numpy)\.random\.(seed|rand|randn|randint|random|shuffle|permutation|choice|normal|uniform)": set(),
    r"torch\.(manual_seed|seed|set_rng_state|random)(\..*)?": {"nets/seeding.py"},
    r"random\.(seed|random|randint|shuffle|choice|sample|uniform|gauss)": set(),
    r"(shutil\.copy|os\.(replace|rename|remove|unlink|makedirs|rmdir)).*": {"storage.py"},
    r".*\.(write_text|write_bytes|savez|save_file|dump|tofile)": {"storage.py"},
}
"""Names that occur only in certain files."""


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_a_name_occurs_only_where_it_belongs(pattern: str) -> None:
    wrong = [
        f"{places(path, line)} has {name}"
        for path in SOURCES
        if path.relative_to(PACKAGE).as_posix() not in ONLY_IN[pattern]
        for line, name in called(path)
        if re.fullmatch(pattern, name) and not name.startswith("storage.")
    ]
    assert wrong == []


def test_nothing_is_pickled_and_no_shell_is_used() -> None:
    for path in SOURCES:
        names = {name.split(".")[0] for _, name in imported(path)}
        assert not names & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}, path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert words.get("shell") != "True", places(path, node.lineno)
                assert "allow_pickle" not in words, places(path, node.lineno)
                assert ast.unparse(node.func) not in ("os.system", "os.popen"), places(path, node.lineno)


def test_modules_with_shapes_in_their_annotations_evaluate_them() -> None:
    for path in SOURCES:
        names = [name for _, name in imported(path)]
        assert not ("jaxtyping" in names and "__future__" in names), path


def test_no_module_or_class_is_named_for_nothing() -> None:
    empty = re.compile(r"(^|_)(utils?|helpers?|misc|managers?|factory|wrappers?|base|common)($|_)", re.IGNORECASE)
    for path in SOURCES:
        assert not empty.search(path.stem), path
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef):
                words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name)
                assert not empty.search(words), places(path, node.lineno)


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[\s<>=!~\[;]", requirement)[0] for requirement in project["dependencies"]]


def test_there_are_at_most_twelve_dependencies_each_with_its_reason() -> None:
    assert len(dependencies()) <= 12
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    for name in dependencies():
        assert re.search(rf"^\| `{re.escape(name)}` \| .{{20,}}", reasons, re.MULTILINE), name


OPTIONAL = {"cv2"}
"""Used where they are installed (extras of pyproject.toml); nothing needs them."""


def test_every_dependency_is_used_and_nothing_else_is_imported() -> None:
    called_in_python = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
    names = {called_in_python.get(name, name) for name in dependencies()}
    import sys

    used = {name.split(".")[0] for path in SOURCES for _, name in imported(path)}
    outside = used - set(sys.stdlib_module_names) - {"barlow"}
    assert outside == names | OPTIONAL
