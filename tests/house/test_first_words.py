"""Every kind of draw has keys of its own: no two begin with one word, and each first word has a name."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import barlow
from barlow.objectives import _draws

SOURCE = Path(barlow.__file__).parent
SAYS_SO = "First word of the key"


def named_words(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    """The constants of a module whose docstring says that they are first words, with their values."""
    for at, documented in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(documented, ast.Expr) and isinstance(documented.value, ast.Constant)):
            continue
        if isinstance(at, ast.Assign) and str(documented.value.value).startswith(SAYS_SO):
            (name,) = at.targets
            assert isinstance(name, ast.Name)
            yield name.id, at.value


def hashed_words(tree: ast.Module) -> Iterator[str]:
    """What calls of `hashed` begin with."""
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hashed"):
            continue
        if isinstance(node.args[0], ast.Tuple):
            yield ast.unparse(node.args[0].elts[0])


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}
WORDS = {
    (path.relative_to(SOURCE).as_posix(), name): value
    for path, tree in TREES.items()
    for name, value in named_words(tree)
}


def test_the_first_words_are_found_and_no_two_are_equal() -> None:
    numbers = {
        where: _draws.NEGATIVES if where[1] == "NEGATIVES" else ast.literal_eval(value)
        for where, value in WORDS.items()
    }
    assert len(numbers) >= 9
    shared = [number for number, count in Counter(numbers.values()).items() if count > 1]
    assert not shared, f"shared: {[where for where, number in numbers.items() if number in shared]}"


def test_every_hash_of_keys_begins_with_one_of_them() -> None:
    names = {name for _, name in WORDS}
    begun = {word for tree in TREES.values() for word in hashed_words(tree)}
    assert begun
    assert begun <= names, "give the constant a docstring that begins with 'First word of the keys'"
