"""NumPy's .npy and .npz: one array of an image, (height, width) or (height, width, bands).

Nothing is unpickled: the header is read by NumPy's own functions for it, and what follows is taken as plain numbers.
"""

import io
import zipfile
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from barlow.data.decoded import Header, UnreadableImage, check_memory, check_size
from barlow.data.stored import MOST_BANDS, Stored
from barlow.limits import NPY_HEADER_BYTES, ZIP_INDEX_BYTES

MAGIC = b"\x93NUMPY"
ZIP = b"PK\x03\x04"

_COUNTED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Ways to store a member of which Python inflates no more than is asked for. Of others it inflates a block at once,
which may be gigabytes. NumPy writes these two."""


def is_array(start: bytes) -> bool:
    """Whether a file that starts so is read here."""
    return start.startswith((MAGIC, ZIP))


def read_header(file: BinaryIO, max_pixels: int, channels: int, *, wide: bool) -> Header:
    """What the array's own header says, and whether it can be decoded into so many channels."""
    with _member(file) as (stream, form):
        (height, width, bands), dtype, _ = _described(stream, max_pixels, channels, wide)
    return Header(form, height, width, bands == 1, False, bands, dtype.kind != "b" and dtype != np.uint8)


def read(data: bytes, max_pixels: int, channels: int, *, wide: bool) -> tuple[Stored, Header]:
    """The array, and its header."""
    with _member(io.BytesIO(data)) as (stream, form):
        shape, dtype, fortran = _described(stream, max_pixels, channels, wide)
        needed = int(np.prod(shape)) * dtype.itemsize
        body = stream.read(needed)
        if len(body) < needed:
            raise UnreadableImage(f"damaged array: {len(body):,} bytes, where its header promises {needed:,}")
        stream.read(1)  # to its end, where the archive's checksum is compared
    height, width, bands = shape
    stored_as = shape if bands > 1 or not fortran else shape[:2]
    values = np.frombuffer(body, dtype).reshape(stored_as, order="F" if fortran else "C").reshape(shape)
    values = values.astype(dtype.newbyteorder("="), copy=False)
    if dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    full = 65_535 if values.dtype == np.uint16 else None
    return Stored(values, full), Header(form, height, width, bands == 1, False, bands, values.dtype != np.uint8)


class _member:
    """The stream of the one array of a file, and the format's name."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> tuple[IO[bytes], str]:
        start = self._file.read(len(MAGIC))
        self._file.seek(0)
        if start == MAGIC:
            return self._file, "NPY"
        try:
            listed = _Listed(self._file)
            archive = zipfile.ZipFile(cast(IO[bytes], listed))
            listed.listing = False
        except zipfile.BadZipFile as error:
            raise UnreadableImage(f"not an image but a ZIP archive, and a damaged one: {error}") from None
        names = [name for name in archive.namelist() if name.endswith(".npy")]
        if len(names) != 1:
            what = f"{len(names)} arrays ({', '.join(sorted(names)[:3])})" if names else "no array of NumPy's"
            raise UnreadableImage(f"a ZIP archive with {what}: an .npz image has one array")
        if archive.getinfo(names[0]).compress_type not in _COUNTED:
            raise UnreadableImage(
                "an .npz archive that is neither stored nor deflated: save it by np.savez or np.savez_compressed"
            )
        return archive.open(names[0]), "NPZ"

    def __exit__(self, *_: object) -> None:
        pass


class _Listed:
    """A file of which no more is read at once than an archive's list of members may have, as long as it is `listing`.

    The list has as many members as its length allows, whatever the archive says their number is.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.listing = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if not self.listing:
            return self._file.read(size)
        found = self._file.read(ZIP_INDEX_BYTES + 1 if size < 0 else min(size, ZIP_INDEX_BYTES + 1))
        if len(found) > ZIP_INDEX_BYTES:
            raise UnreadableImage(
                f"a ZIP archive whose list of members has more than {ZIP_INDEX_BYTES:,} bytes: "
                "an .npz image has one array"
            )
        return found


def _header(stream: IO[bytes], version: tuple[int, int]) -> IO[bytes]:
    """The array's header with its length before it, which is looked at before anything of that length is read."""
    width = 2 if version == (1, 0) else 4
    prefix = stream.read(width)
    length = int.from_bytes(prefix, "little")
    if length > NPY_HEADER_BYTES:
        raise UnreadableImage(
            f"an array with a header of {length:,} bytes; {NPY_HEADER_BYTES:,} are allowed: save it again by np.save"
        )
    return io.BytesIO(prefix + stream.read(length))


def _described(
    stream: IO[bytes], max_pixels: int, channels: int, wide: bool
) -> tuple[tuple[int, int, int], np.dtype[Any], bool]:
    """Height, width and bands, the type of the numbers, and whether columns are stored one after the other.

    Raises:
        UnreadableImage: it is no image, or too large to be decoded into so many channels.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise UnreadableImage(f"an array in version {version[0]}.{version[1]} of NumPy's format, which is for records")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(_header(stream, version))
    if dtype.hasobject or dtype.kind not in "buif" or dtype.itemsize > 8:
        raise UnreadableImage(f"an array of {dtype}, not of numbers: give integers or floats of at most 64 bits")
    if len(shape) not in (2, 3):
        raise UnreadableImage(f"an array of shape {shape}: an image is (height, width) or (height, width, bands)")
    height, width, bands = (*shape, 1)[:3]
    if len(shape) == 3 and height < min(width, bands) and bands > 16:
        raise UnreadableImage(
            f"an array of shape {shape}, which looks like (bands, height, width): transpose it to "
            "(height, width, bands)"
        )
    if not 1 <= bands <= MOST_BANDS:
        raise UnreadableImage(f"an array of shape {shape}: an image has 1 to {MOST_BANDS} bands, in its last axis")
    check_size(width, height, max_pixels)
    # The numbers are there twice, in the file and apart from it, and then as pixels.
    needed = (2 * bands * dtype.itemsize + channels * (2 if wide else 1)) * height * width
    check_memory(f"an array of {width}×{height} pixels ({bands} of {dtype})", needed, max_pixels)
    return (height, width, bands), dtype, fortran
