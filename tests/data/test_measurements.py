"""Files with more than 8 bits or other than three bands: every number is read, or the file is refused by what it is."""

import io
import struct
import zipfile
import zlib
from typing import Any

import measurements
import numpy as np
import pytest
from PIL import Image

from barlow.data.decoding import OtherBands, UnreadableImage, decode, decode_with_header, read_header, stored_values


def numbers(kind: str, bands: int = 1, height: int = 23, width: int = 31) -> np.ndarray:
    """All over the range of a type, with its ends."""
    draws = np.random.default_rng(bands)
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        made = draws.normal(0, 1000, (height, width, bands)).astype(dtype)
    else:
        ends = np.iinfo(dtype)
        native = dtype.newbyteorder("=")
        made = draws.integers(ends.min, ends.max, (height, width, bands), native, endpoint=True).astype(dtype)
        made[0, 0], made[-1, -1] = ends.min, ends.max
    return made


def read(data: bytes) -> np.ndarray:
    stored = stored_values(data)
    assert stored is not None
    return stored.values


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


# --- TIFF -------------------------------------------------------------------------------------------------------------

LAYOUTS: list[dict[str, Any]] = [
    {},
    {"order": ">"},
    {"compress": True},
    {"compress": True, "predictor": 2},
    {"apart": True},
    {"tile": 16},
    {"tile": 16, "compress": True, "predictor": 2, "apart": True, "order": ">"},
    {"big": True},
    {"big": True, "order": ">"},
]


@pytest.mark.parametrize("kind", ["u2", "u4", "i1", "i2", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("bands", [1, 12])
def test_every_number_of_a_tiff_is_read(kind: str, layout: dict[str, Any], bands: int) -> None:
    made = numbers(kind, bands)
    found = read(measurements.tiff(made, **layout))
    assert found.dtype == made.dtype
    assert np.array_equal(found, made)


@pytest.mark.parametrize("bands", [2, 4, 5, 13])
def test_bands_of_8_bits_are_read_too(bands: int) -> None:
    made = numbers("u1", bands)
    assert np.array_equal(decode(measurements.tiff(made), channels=bands), made)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("bands", [1, 3])
def test_the_predictor_of_floats_is_undone(kind: str, bands: int) -> None:
    made = numbers(kind, bands)
    found = read(measurements.tiff(made, predictor=3, compress=True, photometric=2 if bands == 3 else 1))
    assert np.array_equal(found, made)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_bits_are_unpacked_and_scaled_by_their_own_depth(bits: int) -> None:
    made = np.linspace(0, 2**bits - 1, 23 * 31).astype(np.uint16).reshape(23, 31, 1)
    data = measurements.tiff(made, bits=bits)
    assert np.array_equal(read(data), made)
    assert np.ptp(decode(data, channels=1)) == 255, "twelve bits end at white"


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "raw"])
def test_what_pillow_compresses_is_read(compression: str) -> None:
    made = np.sort(numbers("u2")[:, :, 0], axis=1)
    assert np.array_equal(read(encode(Image.fromarray(made), "TIFF", compression=compression))[:, :, 0], made)


def test_white_is_zero_is_inverted_at_16_bits() -> None:
    made = numbers("u2")
    assert np.array_equal(read(measurements.tiff(made, photometric=0)), 65_535 - made)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_of_many_bands_comes_out_upright(orientation: int) -> None:
    made = numbers("u1", 5)
    data = measurements.tiff(made, orientation=orientation)
    transposed = {5: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    pixels, header = decode_with_header(data, channels=5)
    assert pixels.shape == ((31, 23, 5) if orientation in transposed else (23, 31, 5))
    assert (header.height, header.width) == pixels.shape[:2]
    one = np.asarray(Image.open(io.BytesIO(measurements.tiff(made[:, :, :1], orientation=orientation))))
    assert np.array_equal(pixels[:, :, 0], one), "as Pillow turns an image of one band"


def test_missing_numbers_of_gdal_are_black_and_do_not_count() -> None:
    made = numbers("f4").clip(0, 1000)
    made[:, 5] = np.float32(-3.4e38)
    pixels = decode(measurements.tiff(made, nodata="-3.4e+38"), channels=1, value_range=(-1000, 1000))
    assert (pixels[:, 5] == 0).all()
    assert pixels[:, 6].min() > 32_000


def test_what_is_not_read_is_refused_by_what_it_is() -> None:
    jpegs = numbers("u1", 10)
    whole = bytearray(measurements.tiff(jpegs))
    at = whole.rindex(b"\x03\x01\x04\0\x01\0\0\0")  # the entry of the compression
    whole[at + 8] = 7
    with pytest.raises(UnreadableImage, match=r"a TIFF with 10 bands of 8 bits, compressed by JPEG: save it"):
        decode(bytes(whole), channels=10)
    with pytest.raises(UnreadableImage, match="a TIFF with 2000 bands"):
        decode(measurements.tiff(numbers("u1", 2000, 2, 2)), channels=2000)


@pytest.mark.parametrize("compress", [False, True])
def test_no_cut_of_a_tiff_of_many_bands_passes(compress: bool) -> None:
    data = measurements.tiff(numbers("u2", 12), compress=compress)
    end = len(data) - 12 * 20  # behind it is the directory
    for percent in range(1, 100, 7):
        cut = end * percent // 100
        with pytest.raises(UnreadableImage):
            decode(data[:cut], channels=12)
        if compress:
            damaged = bytearray(data)
            damaged[cut : cut + 8] = bytes(b ^ 0x55 for b in damaged[cut : cut + 8])
            with pytest.raises(UnreadableImage):
                decode(bytes(damaged), channels=12)


# --- NumPy's arrays ---------------------------------------------------------------------------------------------------


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def npz(*arrays: np.ndarray, packed: bool = True) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, *arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["u1", "u2", ">u2", "u4", "i1", "i2", "f2", "f4", "f8", "i8"])
@pytest.mark.parametrize("bands", [1, 3, 12])
def test_every_number_of_an_array_is_read(kind: str, bands: int) -> None:
    made = numbers(kind, bands)
    for array in (made, np.asfortranarray(made)):
        for data, form in ((npy(array), "NPY"), (npz(array), "NPZ"), (npz(array, packed=False), "NPZ")):
            assert np.array_equal(read(data), made)
            header = read_header(io.BytesIO(data))
            assert (header.format, header.height, header.width, header.bands) == (form, 23, 31, bands)
            assert header.deep == (kind != "u1")
    flat = made[:, :, 0]
    assert np.array_equal(read(npy(flat))[:, :, 0], flat)


def test_arrays_that_are_no_images_are_refused_by_what_they_are() -> None:
    for data, reason in (
        (npy(np.zeros((2, 3, 4, 5))), r"shape \(2, 3, 4, 5\): an image is \(height, width\)"),
        (npy(np.zeros((12, 64, 64))), r"looks like \(bands, height, width\): transpose"),
        (npy(np.zeros((4, 4), complex)), "complex128, not of numbers"),
        (npy(np.array([[None]])), "object, not of numbers"),
        (npz(np.zeros((4, 4)), np.zeros((4, 4))), r"ZIP archive with 2 arrays \(arr_0.npy, arr_1.npy\)"),
        (npy(np.zeros((40, 40)))[:-8], "damaged array: 12,792 bytes, where its header promises 12,800"),
        (npy(np.zeros((0, 40))), "no pixels"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            decode(data, channels=1)


def test_an_archive_of_other_files_is_said_to_be_one() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(UnreadableImage, match="a ZIP archive with no array"):
        decode(buffer.getvalue())


def test_a_header_that_promises_too_much_takes_no_memory() -> None:
    header = npy(np.zeros((1, 1), np.uint16)).replace(b"(1, 1), }", b"(7999, 7999, 99), }")
    large = bytearray(measurements.tiff(numbers("u2", 99, 4, 4), rows_per_strip=4))
    for tag, value in ((256, 7_999), (257, 7_999), (278, 7_999)):
        at = large.rindex(struct.pack("<HHI", tag, 4, 1))
        large[at + 8 : at + 12] = struct.pack("<I", value)
    for data in (header, header[:200], bytes(large)):
        with pytest.raises(UnreadableImage, match=r"MB to decode, more than the limit of .*--data.max_pixels"):
            decode(data, channels=99)


# --- From numbers to pixels -------------------------------------------------------------------------------------------


def test_twelve_bits_in_sixteen_keep_all_their_levels() -> None:
    made = np.arange(4_096, dtype=np.uint16).reshape(64, 64)
    for data in (measurements.tiff(made), encode(Image.fromarray(made), "PNG"), npy(made)):
        pixels = decode(data, channels=1, value_range=(0, 4_095))
        assert pixels.dtype == np.uint16
        assert len(np.unique(pixels)) == 4_096
        assert (pixels.min(), pixels.max()) == (0, 65_535)


def test_sixteen_bits_and_wide_integers_keep_65536_levels() -> None:
    made = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(decode(npy(made), channels=1, value_range=(0, 65_535))[:, :, 0], made)
    high = made.astype(np.uint32) + np.uint32(2**31 + 5)
    found = decode(measurements.tiff(high), channels=1, value_range=(2**31 + 5, 2**31 + 5 + 65_535))
    assert np.array_equal(found[:, :, 0], made)


def test_signs_keep_their_order() -> None:
    made = np.arange(-128, 128, dtype=np.int8).reshape(16, 16)
    for data in (measurements.tiff(made), npy(made)):
        pixels = decode(data, channels=1, value_range=(-128, 127)).ravel().astype(int)
        assert (np.diff(pixels) == 257).all()


def test_what_lies_outside_of_the_range_is_clipped_and_what_is_no_number_is_black() -> None:
    made = np.array([[-5.0, 0.0, 0.25, 1.0, 9.0, np.nan, np.inf, -np.inf]], np.float32)
    pixels = decode(npy(made), channels=1, value_range=(0, 1))
    assert pixels.ravel().tolist() == [0, 0, 16_384, 65_535, 65_535, 0, 65_535, 0]


def test_files_of_8_bits_have_their_own_white_whatever_the_range() -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for data in (encode(Image.fromarray(grey), "PNG"), npy(grey)):
        assert np.array_equal(decode(data, channels=1, value_range=(0, 10))[:, :, 0], grey.astype(int) * 257)
    photo = encode(Image.fromarray(np.stack([grey] * 3, 2)), "JPEG")
    assert np.array_equal(decode(photo, value_range=(0, 10)), decode(photo).astype(int) * 257)


def test_colour_and_grey_of_16_bits_become_each_other() -> None:
    made = numbers("u2", 3)
    data = measurements.tiff(made, photometric=2)
    luma = decode(data, channels=1, value_range=(0, 65_535))
    assert np.abs(luma[:, :, 0] - made @ np.array([0.299, 0.587, 0.114])).max() < 2
    grey = decode(measurements.tiff(made[:, :, :1]), channels=3, value_range=(0, 65_535))
    assert np.array_equal(grey, np.repeat(made[:, :, :1], 3, axis=2))


def png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits, which Pillow does not write in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    h, w, bands = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", w, h, 16, {1: 0, 3: 2, 4: 6}[bands], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("block", [1 << 20, 100])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_png_of_16_bits_keeps_them_all(bands: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("barlow.data.decoded.BLOCK_PIXELS", block)
    made = numbers("u2", bands)
    data, ends = png(made), (0.0, 65_535.0)
    assert np.array_equal(read(data), made)
    assert read_header(io.BytesIO(data)).deep
    if bands < 4:
        assert np.array_equal(decode(data, channels=bands, value_range=ends), made)
        eight = made >> 8 if bands == 3 else np.rint(made / 257)
        assert np.array_equal(decode(data, channels=bands), eight), "as ever"
        return
    share = made[..., 3:] / 65_535
    over = made[..., :3] * share + 128 * 257 * (1 - share)
    assert np.abs(decode(data, value_range=ends) - over).max() <= 0.5001


# --- Bands ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("extra", [0, 2])
def test_a_fourth_band_is_not_lost_and_near_infrared_is_no_alpha(kind: str, extra: int) -> None:
    made = numbers(kind, 4)
    data = measurements.tiff(made, photometric=2, extra=(extra,))
    ends = None if kind == "u1" else (0.0, 65_535.0)
    assert np.array_equal(decode(data, channels=4, value_range=ends), made)
    with pytest.raises(OtherBands, match="has 4 bands, and images are read with 3"):
        decode(data, channels=3, value_range=ends)


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_alpha_is_composited_over_mid_grey_at_every_depth(kind: str) -> None:
    made = numbers(kind, 4)
    made[..., 3] = np.iinfo(kind).max
    made[:10, :, 3] = 0
    data = measurements.tiff(made, photometric=2, extra=(2,))
    whole, header = decode_with_header(data, value_range=None if kind == "u1" else (0, 65_535))
    assert header.alpha
    assert np.array_equal(whole[10:], made[10:, :, :3])
    assert (whole[:10] == (128 if kind == "u1" else 128 * 257)).all()
    assert np.array_equal(decode(data, channels=4, value_range=None if kind == "u1" else (0, 65_535)), made)


def test_a_photo_with_alpha_can_be_read_with_four_channels() -> None:
    made = numbers("u1", 4)
    assert np.array_equal(decode(encode(Image.fromarray(made), "PNG"), channels=4), made)
    assert decode_with_header(encode(Image.fromarray(made), "PNG"))[1].alpha


@pytest.mark.parametrize(("bands", "channels"), [(12, 3), (12, 13), (2, 1), (3, 12), (1, 12)])
def test_another_number_of_bands_is_refused_by_number(bands: int, channels: int) -> None:
    with pytest.raises(UnreadableImage, match=rf"has {bands} bands?, and images are read with {channels}; "):
        decode(measurements.tiff(numbers("u2", bands)), channels=channels, value_range=(0, 65_535))


def test_a_fifth_band_beside_cmyk_is_not_dropped() -> None:
    data = bytearray(measurements.tiff(numbers("u1", 5), extra=(0,)))
    at = data.rindex(struct.pack("<HHII", 262, 4, 1, 1))
    data[at + 8] = 5  # CMYK
    with pytest.raises(UnreadableImage):
        decode(bytes(data))
