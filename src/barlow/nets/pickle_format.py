"""What a file of `torch.save` holds, told without unpickling it. A program of its own, run by `barlow.nets.torch_file`.

Unpickling runs what a file says: a pickle is a program for a small machine that may import any function and call it.
Here is another machine for the same programs. It has lists, dictionaries, tuples and plain values. A function that a
file names is a `Name`, which is two strings; what a file calls becomes a `Made`, which remembers the name and nothing
else. Nothing is imported for a file and nothing of a file is called, because no instruction here can do either. Seven
names have a meaning, which is a function of this file: those by which torch writes that a tensor is a view of a
storage, and dictionaries with an order.

It runs in a process without torch and without this package, with limits of memory and time, and only reads its
standard input. On its standard output it describes what it found in JSON: the tree of dictionaries, and for each
tensor the place of its numbers in the file. Numbers are never read here.

Source: the pickle protocols 0 to 5 as `pickletools` of Python's library describes them; `torch/serialization.py` for
the two forms of file (a zip archive since torch 1.6; before that five pickles and the numbers, one after the other).

Long because the program imports nothing of this package, and is one file that can be read from end to end.
"""

import contextlib
import io
import json
import pickletools
import struct
import zipfile
from collections.abc import Callable
from typing import Any, BinaryIO

MEMORY_BYTES, SECONDS = 2**30, 20
"""Of this process. The pickle of a ResNet-50 with its optimizer has 200 kB, and takes a tenth of a second."""

OPERATIONS = 2_000_000
"""Of a file's programs together."""

DEPTH, NODES = 8, 100_000
"""Of the tree that is told: dictionaries inside dictionaries, and entries. `classy_state_dict`, the deepest of the
layouts that are known, has its tensors at a depth of five."""

PICKLE_BYTES = 2**27
"""Of the pickle in a zip archive."""

DIMENSIONS = 8
"""Of a tensor."""

STRING = 300
"""Of a name, or of a text among a file's entries, in characters. More is cut."""

DTYPES = {
    "FloatStorage": ("F32", 4), "DoubleStorage": ("F64", 8), "HalfStorage": ("F16", 2), "BFloat16Storage": ("BF16", 2),
    "LongStorage": ("I64", 8), "IntStorage": ("I32", 4), "ShortStorage": ("I16", 2), "CharStorage": ("I8", 1),
    "ByteStorage": ("U8", 1), "BoolStorage": ("BOOL", 1), "UntypedStorage": ("U8", 1),
}  # fmt: skip
"""By torch's classes of storages: safetensors' name of the type, and the bytes of a number."""

PLAIN_DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip

MAGIC = 0x1950A86A20F9469CFC6C
"""The first pickle of a file in torch's older form."""


class Unreadable(Exception):
    """It is no such file, or a damaged one; says why in a few words."""


class Name:
    """A function or class that a file names. It is never looked up."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module[:STRING], name[:STRING]

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Made:
    """What a file wants made by calling something. Nothing was called."""

    def __init__(self, of: object) -> None:
        self.of = str(of) if isinstance(of, Name | Made) else type(of).__name__

    def __str__(self) -> str:
        return self.of


class Storage:
    """A run of numbers in the file, by its key."""

    def __init__(self, key: str, dtype: str, items: int, start: int = 0) -> None:
        self.key, self.dtype, self.items, self.start = key, dtype, items, start


class Tensor:
    """A view of a storage."""

    def __init__(self, storage: Storage, offset: int, shape: list[int], stride: list[int], dtype: str = "") -> None:
        self.key, self.dtype = storage.key, dtype or storage.dtype
        self.offset, self.shape, self.stride = storage.start + offset, shape, stride


# --- The machine --------------------------------------------------------------------------------------------------


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise Unreadable("a tensor in it has a size or a place that is no whole number")
    return value


def _tensor(args: Any, dtype: str = "") -> Any:
    storage, offset, shape, stride = args[:4]
    if not isinstance(storage, Storage):
        return Made("a tensor without numbers")
    if len(shape) != len(stride) or len(shape) > DIMENSIONS:
        raise Unreadable("a tensor in it has a shape that no weight has")
    return Tensor(storage, _whole(offset), [*map(_whole, shape)], [*map(_whole, stride)], dtype)


def _tensor_with_dtype(args: Any) -> Any:
    dtype = PLAIN_DTYPES.get(args[6].name, "") if isinstance(args[6], Name) else ""
    return _tensor(args, dtype) if dtype else Made("a tensor of another type")


def _of_subclass(args: Any) -> Any:
    return call(args[0], args[2])


def _dictionary(args: Any) -> dict[Any, Any]:
    pairs = args[0] if args and isinstance(args[0], list | tuple) else []
    return {_key(pair[0]): pair[1] for pair in pairs}


MEANINGS: dict[str, Callable[[Any], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_with_dtype,
    "torch._utils._rebuild_parameter": lambda args: args[0],
    "torch._utils._rebuild_parameter_with_state": lambda args: args[0],
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.Size": lambda args: tuple(args[0]),
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": lambda args: {},
}
"""What is done for a name that a file calls. Every other name makes a `Made`."""


def call(function: object, args: object) -> Any:
    """What stands for the result of a call that a file asks for."""
    meaning = MEANINGS.get(str(function)) if isinstance(function, Name) else None
    if meaning is None or not isinstance(args, list | tuple):
        return Made(function)
    return meaning(args)


def _key(key: object) -> Any:
    # Of a tuple of tuples Python may take for ever to make the hash that a dictionary needs.
    return key if isinstance(key, str | int | float | bytes | None) else Made("a key")


_PLAIN = {
    "NONE": None, "NEWTRUE": True, "NEWFALSE": False,
}  # fmt: skip
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list, "EMPTY_SET": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "UNICODE", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_NOTHING = {"PROTO", "FRAME", "STOP"}


class Machine:
    """Runs one pickle after the other, in the sense of this file."""

    def __init__(self) -> None:
        self.left = OPERATIONS
        self.storages: dict[str, Storage] = {}
        """All that were named, by their keys."""

    def run(self, file: BinaryIO) -> Any:
        """What the pickle that begins here describes; the file then stands after its end.

        Raises:
            Unreadable: it is no pickle, or a damaged one.
        """
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        try:
            for operation, argument, _ in pickletools.genops(file):
                self.left -= 1
                if self.left < 0:
                    raise Unreadable(f"it has more than {OPERATIONS:,} instructions")
                self._step(operation.name, argument)
            return self.stack.pop()
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, ArithmeticError, struct.error) as error:
            raise Unreadable(f"it is no pickle, or a damaged one ({error})") from error
        except RecursionError as error:
            raise Unreadable("it describes something inside itself without end") from error

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _PLAIN:
            stack.append(_PLAIN[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "POP":
            # pickle lets a mark be popped like a value.
            self.marks.pop() if self.marks and self.marks[-1] == len(stack) else stack.pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name not in _NOTHING and not self._make(name, argument):
            self._fill(name)

    def _make(self, name: str, argument: Any) -> bool:
        """Instructions that put something made on the stack; whether this was one."""
        stack = self.stack
        if name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self._since_mark()))
        elif name == "LIST":
            stack.append(self._since_mark())
        elif name == "FROZENSET":
            self._since_mark()
            stack.append(Made("a set"))
        elif name == "DICT":
            stack.append(self._pairs(self._since_mark()))
        elif name == "GLOBAL":
            module, _, called = str(argument).partition(" ")
            stack.append(Name(module, called))
        elif name == "STACK_GLOBAL":
            called, module = stack.pop(), stack.pop()
            stack.append(Name(str(module), str(called)))
        elif name in ("EXT1", "EXT2", "EXT4"):
            stack.append(Made("an extension"))
        elif name in ("REDUCE", "NEWOBJ"):
            args = stack.pop()
            stack.append(call(stack.pop(), args))
        elif name == "NEWOBJ_EX":
            del stack[-2:]
            stack.append(Made(stack.pop()))
        elif name == "OBJ":
            function, *args = self._since_mark()
            stack.append(call(function, args))
        elif name == "INST":
            module, _, called = str(argument).partition(" ")
            stack.append(call(Name(module, called), self._since_mark()))
        elif name in ("PERSID", "BINPERSID"):
            found = _storage(argument if name == "PERSID" else stack.pop())
            if isinstance(found, Storage):
                self.storages[found.key] = found
            stack.append(found)
        else:
            return False
        return True

    def _pairs(self, values: list[Any]) -> dict[Any, Any]:
        return {_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}

    def _fill(self, name: str) -> None:
        """Instructions that change what is on the stack. What was `Made` is not changed by anything."""
        stack = self.stack
        if name == "BUILD":
            stack.pop()  # the state of an object
        elif name == "APPEND":
            value = stack.pop()
            if isinstance(stack[-1], list):
                stack[-1].append(value)
        elif name in ("APPENDS", "ADDITEMS"):
            values = self._since_mark()
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                self.marks.append(len(stack) - 2)
            pairs = self._pairs(self._since_mark())
            if isinstance(stack[-1], dict):
                stack[-1].update(pairs)
        else:
            raise Unreadable(f"it has an instruction that no file of weights needs ({name})")


def _storage(identity: Any) -> Any:
    """What stands for a storage: ("storage", class, key, place, items), and in older files (…, view of another)."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        return Made("something outside of the file")
    _, kind, key, _, items, *view = identity
    if not isinstance(kind, Name) or kind.name not in DTYPES:
        return Made("a storage of another type")
    start = view[0][1] if view and view[0] is not None else 0  # (key of the view, its first number, how many)
    return Storage(str(key), DTYPES[kind.name][0], _whole(items), _whole(start))


# --- The two forms of file ----------------------------------------------------------------------------------------


def _archive(file: BinaryIO) -> tuple[Any, dict[str, Any]]:
    """What a zip archive holds, and where its storages are: [first byte, bytes, CRC-32]."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OSError) as error:
        raise Unreadable("it is a zip archive that is cut off or damaged: download or copy it again") from error
    entries = {entry.filename: entry for entry in archive.infolist()}
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        inside = next(
            (name for name in entries if name.endswith((".pth", ".pt", ".ckpt", ".safetensors", ".tar"))), None
        )
        raise Unreadable(
            f"it is a zip archive with {inside} in it: unpack it, and give that"
            if inside
            else "it is a zip archive of something else: torch's have a data.pkl"
        )
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise Unreadable("it is a TorchScript program: save its tensors alone, torch.save(module.state_dict(), FILE)")
    if any(entry.flag_bits & 1 for entry in entries.values()):
        raise Unreadable("it is an encrypted archive")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
        raise Unreadable("its archive was compressed by another program: load it with torch and save it again")
    for name, most in ((pickles[0], PICKLE_BYTES), (f"{folder}byteorder", 16)):
        if name in entries and entries[name].file_size > most:
            raise Unreadable(f"its {name} has {entries[name].file_size:,} bytes, and {most:,} are allowed")
    try:
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise Unreadable("its numbers were written by a big-endian machine")
        content = archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError) as error:
        raise Unreadable(f"it is damaged ({error}): download or copy it again") from error
    found = Machine().run(io.BytesIO(content))
    places = {}
    for name, entry in entries.items():
        if name.startswith(f"{folder}data/"):
            file.seek(entry.header_offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise Unreadable("its archive has no entry where its index says: it is damaged")
            names, extra = struct.unpack("<HH", header[26:30])
            first = entry.header_offset + 30 + names + extra
            places[name.removeprefix(f"{folder}data/")] = [first, entry.file_size, entry.CRC]
    return found, places


def _in_a_row(file: BinaryIO, length: int) -> tuple[Any, dict[str, Any]]:
    """The same of a file in torch's older form, whose storages have no checksum."""
    machine = Machine()
    if machine.run(file) != MAGIC:
        raise Unreadable("it is a pickle, and not one of torch.save: what it holds is not read")
    if machine.run(file) != 1001:
        raise Unreadable("it was written by a torch that is not known here: load it with torch and save it again")
    system = machine.run(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Unreadable("its numbers were written by a big-endian machine")
    found = machine.run(file)
    sizes = dict(machine.storages)
    keys, places = machine.run(file), {}
    if not isinstance(keys, list):
        raise Unreadable("it has no list of its storages")
    for key in map(str, keys):
        if key not in sizes:
            raise Unreadable("it has a storage of a type that is not read here")
        count = file.read(8)
        items, size = int.from_bytes(count, "little"), dict(DTYPES.values())[sizes[key].dtype]
        places[key] = [file.tell(), items * size, None]
        if len(count) < 8 or file.tell() + items * size > length:
            raise Unreadable("it is cut off: download or copy it again")
        file.seek(items * size, io.SEEK_CUR)
    return found, places


# --- Telling ------------------------------------------------------------------------------------------------------


class Telling:
    """A tree as JSON. Only dictionaries are gone into; of all else there is what it is."""

    def __init__(self) -> None:
        self.left = NODES

    def of(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if self.left < 0:
            raise Unreadable(f"it has more than {NODES:,} entries")
        if isinstance(value, Tensor):
            return {"tensor": [value.dtype, value.shape, value.stride, value.key, value.offset]}
        if isinstance(value, dict):
            if depth >= DEPTH or not all(isinstance(key, str) for key in value):
                return {"other": "a table"}
            return {"entries": [[key[:STRING], self.of(inner, depth + 1)] for key, inner in value.items()]}
        if isinstance(value, str):
            return {"text": value[:STRING]}
        return {"other": str(value) if isinstance(value, Made | Name) else type(value).__name__}


def _limited() -> None:
    """Holds this process to its limits, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in ((resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_CPU, SECONDS)):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(what, (most, most))


def main() -> None:
    """Reads the file that is the standard input, and describes it on the standard output."""
    _limited()
    try:
        with open(0, "rb") as file:
            length = file.seek(0, io.SEEK_END)
            file.seek(0)
            start = file.read(2)
            file.seek(0)
            found, places = _archive(file) if start == b"PK" else _in_a_row(file, length)
        told: Any = {"root": Telling().of(found), "places": places}
    except Unreadable as error:
        told = {"wrong": " ".join(str(error).split())}
    except MemoryError:
        told = {"wrong": "reading it takes more memory than a file of weights may ask for"}
    with open(1, "w", encoding="utf-8") as out:  # a pipe to the process that asks
        out.write(json.dumps(told))


if __name__ == "__main__":
    main()
