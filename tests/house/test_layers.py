"""The rules of docs/architecture.md, read from the imports and calls of the sources themselves."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from source_code import ARCHITECTURE, PACKAGE, ROOT, SOURCES, broken, module, place, tree

APART = [("pretraining", "evaluation")]
"""Neighbours in a layer that never import each other."""


@cache
def layers() -> dict[str, int]:
    """Layer by module or folder, from the table in docs/architecture.md."""
    found = {}
    for line in ARCHITECTURE.read_text(encoding="utf-8").splitlines():
        if row := re.match(r"\| (\d) \| ((?:`\w+` ?)+) \|", line):
            found |= {name: int(row[1]) for name in re.findall(r"`(\w+)`", row[2])}
    return found


MODULES = {module(path) for path in SOURCES}


def layered(name: str) -> str:
    """The word that stands in the table: `barlow.nets.building` is in `nets`."""
    return name.split(".")[1] if "." in name else ""


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
            for alias in node.names:
                # `from barlow import storage` imports a module, `from barlow.runs.run import Run` does not.
                inner = f"{whole}.{alias.name}"
                yield node.lineno, inner if is_module(inner) else whole


def is_module(name: str) -> bool:
    return name in MODULES


@cache
def called(path: Path) -> list[tuple[int, str]]:
    """Every dotted name that is used in a file, with its line: `torch.save`, `print`."""
    names = (node for node in ast.walk(tree(path)) if isinstance(node, ast.Name | ast.Attribute))
    return [(node.lineno, ast.unparse(node)) for node in names]


def test_every_module_has_a_layer_and_every_layer_a_module() -> None:
    known = {layered(module(path)) for path in SOURCES} - {""}
    rows = set(layers())
    wrong = [f"{name} has no row in the table" for name in known - rows]
    wrong += [f"{name} is in the table, and there is no such module" for name in rows - known]
    assert not wrong, broken("Layers", wrong)
    assert set(layers().values()) >= {0, 1, 2, 3, 4, 5, 7}, "the table of docs/architecture.md is not read whole"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_imports_from_its_own_or_lower_layers_only(path: Path) -> None:
    name = layered(module(path))
    if not name:  # barlow/__init__.py knows where the public names live, and imports them when asked
        guarded = any(m == "barlow.torchvision_guard" for _, m in imported(path))
        assert guarded, "barlow/__init__.py installs the guard before anything else; torchvision_guard.py says why"
        return
    assert name in layers(), broken("Layers", [f"{name} has no row in the table"])
    wrong = [
        f"{place(path, line)} imports {other}, of layer {layers()[layered(other)]}, into layer {layers()[name]}"
        for line, other in imported(path)
        if other.startswith("barlow.") and layers().get(layered(other), 0) > layers()[name]
    ]
    assert not wrong, broken("Layers", wrong)


@pytest.mark.parametrize(("first", "second"), APART)
def test_pretraining_and_evaluation_never_import_each_other(first: str, second: str) -> None:
    for one, other in ((first, second), (second, first)):
        path = PACKAGE / f"{one}.py"
        wrong = [f"{place(path, line)} imports {name}" for line, name in imported(path) if name == f"barlow.{other}"]
        assert not wrong, broken("Circles", wrong)


def test_no_two_modules_need_each_other() -> None:
    needs = {module(path): {m for _, m in imported(path) if is_module(m)} for path in SOURCES}
    needs["barlow"] = set()  # it imports on demand
    done: set[str] = set()
    while ready := {name for name, others in needs.items() if name not in done and others - {name} <= done}:
        done |= ready
    assert set(needs) <= done, broken("Circles", sorted(set(needs) - done))


def test_an_import_upwards_would_be_found(tmp_path: Path) -> None:
    assert layers()["linalg"] < layers()["objectives"] < layers()["pretraining"] < layers()["cli"]
    names = {name for _, name in imported(PACKAGE / "pretraining.py")}
    assert {"barlow.recipe.schema", "barlow.storage", "barlow.nets.weights", "torch"} <= names
    inside = {m for _, m in imported(PACKAGE / "commands" / "pretrain.py")}
    assert "barlow.pretraining" in inside, "imports inside functions count"


COMMANDS = {"cli.py", "commands/"}
ONLY_IN = {
    r"torch\.distributed(\..*)?": ("Processes", {"distributed.py"}),
    r"print|sys\.std(out|err)\.write": ("Terminal", {"commands/terminal.py"}),
    r"argparse(\..*)?": ("Terminal", COMMANDS),
    r"os\.(environ|getenv|putenv)(\..*)?": ("Environment", {"distributed.py", "launching.py", "machine.py", *COMMANDS}),
    r"torch\.(save|load)": ("No code from files", set()),
    r"pickletools(\..*)?": ("No code from files", {"nets/pickle_format.py"}),
    r"eval|exec|compile|__import__": ("No code from files", set()),
    r"yaml\.(load|full_load|unsafe_load|Loader|UnsafeLoader|FullLoader)": ("No code from files", set()),
    r"(np|numpy)\.random\.(seed|rand\w*|shuffle|permutation|choice|normal|uniform)": ("Randomness", set()),
    r"torch\.(manual_seed|seed|set_rng_state|random)(\..*)?": ("Randomness", {"nets/seeding.py"}),
    r"random\.(seed|random|randint|shuffle|choice|sample|uniform|gauss)": ("Randomness", set()),
    r"(shutil\.copy|os\.(replace|rename|remove|unlink|makedirs|rmdir)).*": ("Files", {"storage.py"}),
    r".*\.(write_text|write_bytes|savez|save_file|dump|tofile)": ("Files", {"storage.py"}),
}
"""Names that occur in certain files only: the rule that says so, and the files, or folders of them."""


def _belongs(path: Path, files: set[str]) -> bool:
    name = path.relative_to(PACKAGE).as_posix()
    return name in files or any(name.startswith(folder) for folder in files if folder.endswith("/"))


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_a_name_occurs_only_where_it_belongs(pattern: str) -> None:
    name_of_rule, files = ONLY_IN[pattern]
    wrong = [
        f"{place(path, line)} has {name}"
        for path in SOURCES
        if not _belongs(path, files)
        for line, name in called(path)
        if re.fullmatch(pattern, name) and not name.startswith("storage.")
    ]
    assert not wrong, broken(name_of_rule, wrong)


def test_nothing_is_pickled_and_no_shell_is_used() -> None:
    pickling = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = []
    for path in SOURCES:
        wrong += [
            f"{place(path, line)} imports {name}"
            for line, name in imported(path)
            if name.split(".")[0] in pickling and path.relative_to(PACKAGE).as_posix() != "exports/detectron2.py"
        ]
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                if words.get("shell") == "True" or ast.unparse(node.func) in ("os.system", "os.popen"):
                    wrong.append(f"{place(path, node.lineno)} uses a shell")
                if "allow_pickle" in words:
                    wrong.append(f"{place(path, node.lineno)} has allow_pickle")
    assert not wrong, broken("No code from files", wrong)


def test_modules_with_shapes_in_their_annotations_evaluate_them() -> None:
    names = {path: [name for _, name in imported(path)] for path in SOURCES}
    wrong = [path.relative_to(ROOT) for path, found in names.items() if "jaxtyping" in found and "__future__" in found]
    assert not wrong, broken("Shapes", wrong)


def test_no_module_or_class_is_named_for_nothing() -> None:
    empty = re.compile(r"(^|_)(utils?|helpers?|misc|managers?|factory|wrappers?|base|common)($|_)", re.IGNORECASE)
    wrong = [path.relative_to(ROOT) for path in SOURCES if empty.search(path.stem)]
    for path in SOURCES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and empty.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", node.name)):
                wrong.append(f"{place(path, node.lineno)} has a class {node.name}")
    assert not wrong, broken("Names", wrong)


def dependencies() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[\s<>=!~\[;]", requirement)[0] for requirement in project["dependencies"]]


def test_there_are_at_most_twelve_dependencies_each_with_its_reason() -> None:
    assert len(dependencies()) <= 12, broken("Dependencies", [f"{len(dependencies())} in pyproject.toml"])
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    without = [
        f"{name} has no row in docs/dependencies.md"
        for name in dependencies()
        if not re.search(rf"^\| `{re.escape(name)}` \| .{{20,}}", reasons, re.MULTILINE)
    ]
    assert not without, broken("Dependencies", without)


OPTIONAL = {"cv2", "pycocotools", "tensorboard", "pacmap", "pyarrow"}
"""Used where they are installed (extras of pyproject.toml); nothing needs them."""

BROUGHT = {"threadpoolctl"}
"""What scikit-learn itself needs, and so brings along in every version that is allowed."""


def test_every_dependency_is_used_and_nothing_else_is_imported() -> None:
    called_in_python = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
    names = {called_in_python.get(name, name) for name in dependencies()} | OPTIONAL | BROUGHT
    used = {name.split(".")[0] for path in SOURCES for _, name in imported(path)}
    outside = used - set(sys.stdlib_module_names) - {"barlow"}
    wrong = [f"{name} is imported and no dependency" for name in sorted(outside - names)]
    wrong += [f"{name} is a dependency and not imported" for name in sorted(names - outside)]
    assert not wrong, broken("Dependencies", wrong)
