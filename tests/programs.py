"""The programs of `benchmarks` and `experiments`, as modules that tests can call."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def program(path: str) -> ModuleType:
    """A program by its path in the checkout, for example `experiments/table.py`. It is run once, as when imported.

    From then on, what lies beside it can be imported too, as it does that itself.
    """
    file = ROOT / path
    name = f"program {path}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        if str(file.parent) not in sys.path:
            sys.path.append(str(file.parent))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]
