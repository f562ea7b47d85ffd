"""One decoder: every conversion by the stated rule, every failure a reason."""

import io
import resource
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from barlow.data.decoding import UnreadableImage, decode, decode_with_header, read_header
from barlow.data.stored import BACKGROUND


def photo(height: int = 60, width: int = 80) -> np.ndarray:
    """Smooth, coloured, and different at every corner."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    return np.rint(255 * np.stack([x, y, (x * y) ** 0.5], axis=2)).clip(0, 255).astype(np.uint8)


def encode(image: np.ndarray | Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, form, **options)
    return buffer.getvalue()


def error(a: np.ndarray, b: np.ndarray) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("form", LOSSLESS)
def test_lossless_formats_give_the_stored_pixels(form: str) -> None:
    assert np.array_equal(decode(encode(photo(), form, **LOSSLESS[form])), photo())


def test_jpeg_is_close_to_the_original_and_reported_as_what_it_is() -> None:
    pixels, header = decode_with_header(encode(photo(), "JPEG", quality=95))
    assert error(pixels, photo()) < 2
    assert (header.format, header.height, header.width, header.multiframe, header.grey) == (
        "JPEG",
        60,
        80,
        False,
        False,
    )


def test_the_format_is_found_from_the_content() -> None:
    assert decode_with_header(encode(photo(), "GIF"))[1].format == "GIF"


@pytest.mark.parametrize("min_side", [1, 8, 20, 60, 200])
def test_early_stopping_keeps_the_shorter_side_and_the_original_size(min_side: int) -> None:
    data = encode(photo(120, 160), "JPEG", quality=95)
    pixels, header = decode_with_header(data, min_side=min_side)
    assert min(pixels.shape[:2]) >= min(min_side, 120)
    assert (header.height, header.width) == (120, 160)
    if min_side <= 60:
        assert pixels.shape[0] < 120


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
def test_other_numbers_of_channels_have_to_be_in_the_file(form: str) -> None:
    with pytest.raises(
        UnreadableImage, match=r"has 3 bands, and images are read with 4; a run with --data.channels 3 reads"
    ):
        decode(encode(photo(), form), channels=4)
    with pytest.raises(ValueError, match="channels=0"):
        decode(encode(photo(), form), channels=0)


# --- Orientation ----------------------------------------------------------------------------------------------------

STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_eight_orientations_come_out_upright(form: str, orientation: int) -> None:
    stored = Image.fromarray(photo())
    if STORED[orientation] is not None:
        stored = stored.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}.get(form, {})
    data = encode(stored, form, exif=exif, **options)
    pixels, header = decode_with_header(data)
    assert error(pixels, photo()) <= (1.5 if form == "JPEG" else 0)
    assert (header.height, header.width) == (60, 80)
    early = read_header(io.BytesIO(data))
    assert (early.height, early.width, early.format) == (60, 80, form)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_costs_the_orientation_and_not_the_image(form: str) -> None:
    draws = np.random.default_rng(0)
    good = Image.Exif()
    good[0x0112] = 6
    block = good.tobytes()
    for _ in range(50):
        broken = bytearray(block)
        for _ in range(int(draws.integers(1, 6))):
            broken[int(draws.integers(6, len(broken)))] = int(draws.integers(256))
        broken = broken[: int(draws.integers(6, len(broken) + 1))]
        pixels = decode(encode(photo(), form, exif=bytes(broken), **({"lossless": True} if form == "WEBP" else {})))
        assert sorted(pixels.shape[:2]) == [60, 80]


# --- Conversions ----------------------------------------------------------------------------------------------------


def test_cmyk_jpeg_keeps_its_colours() -> None:
    cmyk = Image.fromarray(photo()).convert("CMYK")
    assert error(decode(encode(cmyk, "JPEG", quality=95)), photo()) < 3


def test_cmyk_tiff_and_grey_from_cmyk() -> None:
    cmyk = Image.fromarray(photo()).convert("CMYK")
    assert error(decode(encode(cmyk, "TIFF")), photo()) < 1
    luma = np.asarray(Image.fromarray(photo()).convert("L"))[:, :, None]
    assert error(decode(encode(cmyk, "TIFF"), channels=1), luma) < 1


def test_lab_tiff_becomes_srgb() -> None:
    lab = Image.new("LAB", (8, 8), (255, 128, 128))  # L* = 100, a* = b* = 0
    assert decode(encode(lab, "TIFF")).min() >= 250


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_shows_the_background(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    alpha = np.zeros((60, 80), np.uint8)
    alpha[:, :40], alpha[:, 40:60] = 255, 128
    image.putalpha(Image.fromarray(alpha))
    pixels = decode(encode(image, "PNG")).astype(int)
    opaque = np.asarray(Image.fromarray(photo()).convert("L" if mode == "LA" else "RGB").convert("RGB")).astype(int)
    assert np.array_equal(pixels[:, :40], opaque[:, :40])
    assert np.abs(pixels[:, 40:60] - (opaque[:, 40:60] * 128 + BACKGROUND * 127) / 255).max() <= 1
    assert (pixels[:, 60:] == BACKGROUND).all()


@pytest.mark.parametrize("form", ["PNG", "GIF"])
def test_palette_with_transparency(form: str) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((0, 0), 1)
    pixels = decode(encode(image, form, transparency=0))
    assert pixels[0, 0].tolist() == [0, 0, 255]
    assert pixels[3, 3].tolist() == [BACKGROUND] * 3


def test_palette_without_transparency_and_its_grey() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0])
    assert decode(encode(image, "PNG"))[0, 0].tolist() == [255, 0, 0]
    assert decode(encode(image, "PNG"), channels=1)[0, 0].tolist() == [76]  # 0.299 · 255


def test_a_transparent_colour_of_a_png_is_transparent() -> None:
    image = np.full((4, 4, 3), 10, np.uint8)
    image[0, 0] = 200
    pixels = decode(encode(image, "PNG", transparency=(10, 10, 10)))
    assert pixels[3, 3].tolist() == [BACKGROUND] * 3
    assert pixels[0, 0].tolist() == [200] * 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_sixteen_bit_ramp_keeps_its_levels(form: str) -> None:
    ramp = np.linspace(0, 65_535, 4_096).astype(np.uint16).reshape(64, 64)
    pixels = decode(encode(ramp, form))
    assert len(np.unique(pixels)) >= 255
    assert np.abs(pixels[:, :, 0] - ramp / 257.0).max() <= 0.51


def test_big_endian_sixteen_bit_tiff() -> None:
    ramp = np.linspace(0, 65_535, 256).astype(">u2").reshape(16, 16)
    strips = ramp.tobytes()
    entries = [
        (256, 3, 16), (257, 3, 16), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (278, 3, 16),
        (279, 4, len(strips)),
    ]  # fmt: skip
    directory = struct.pack(">H", len(entries))
    for tag, kind, value in entries:
        directory += struct.pack(">HHI", tag, kind, 1) + (
            struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value)
        )
    data = b"MM\0*" + struct.pack(">I", 8 + len(strips)) + strips + directory + b"\0\0\0\0"
    pixels = decode(data, channels=1)
    assert np.abs(pixels[:, :, 0] - ramp.astype(float) / 257).max() <= 0.51


def png(depth: int, colour: int, rows: list[bytes], width: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65_535, 512).astype(">u2")
    row = np.repeat(ramp[:, None], 3, axis=1).tobytes()
    pixels = decode(png(16, 2, [row, row], 512))
    assert len(np.unique(pixels)) >= 255
    assert np.abs(pixels[0, :, 0] - ramp.astype(float) / 257).max() <= 1


def test_one_bit_is_black_and_white() -> None:
    bits = np.indices((8, 8)).sum(0) % 2
    pixels = decode(encode(Image.fromarray((bits * 255).astype(np.uint8)).convert("1"), "PNG"))
    assert np.array_equal(pixels[:, :, 1], bits * 255)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_floats_and_wide_integers_are_stretched_from_least_to_greatest(kind: type) -> None:
    ramp = (np.linspace(-3, 5, 1_024) * 1_000).astype(kind).reshape(32, 32)
    pixels = decode(encode(Image.fromarray(ramp), "TIFF"), channels=1)
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert len(np.unique(pixels)) == 256


def test_not_a_number_and_infinities_do_not_spoil_a_float_image() -> None:
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    ramp[0, 0], ramp[0, 1], ramp[0, 2] = np.nan, np.inf, -np.inf
    pixels = decode(encode(Image.fromarray(ramp), "TIFF"), channels=1)[:, :, 0]
    assert pixels[0, :3].tolist() == [0, 255, 0]
    assert len(np.unique(pixels)) > 50


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf, -3.4e38, 3.4e38])
def test_a_constant_float_image_is_black(value: float) -> None:
    assert not decode(encode(Image.fromarray(np.full((4, 4), value, np.float32)), "TIFF")).any()


def test_the_whole_range_of_floats_does_not_overflow() -> None:
    pixels = decode(encode(Image.fromarray(np.array([[-3.4e38, 0, 3.4e38]], np.float32)), "TIFF"), channels=1)
    assert pixels[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_grey_is_repeated_and_colour_becomes_luma(form: str) -> None:
    grey = photo()[:, :, 0]
    tripled = decode(encode(grey, form))
    assert tripled.shape == (60, 80, 3)
    assert (tripled == tripled[:, :, :1]).all()
    luma = photo() @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(encode(photo(), form), channels=1)[:, :, 0] - luma).mean() < 1.5


# --- Frames ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "name"), [("GIF", "GIF"), ("WEBP", "WEBP"), ("PNG", "PNG"), ("TIFF", "TIFF"), ("MPO", "MPO")]
)
def test_the_first_frame_is_taken_and_the_others_are_reported(form: str, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    lossless = {"lossless": True} if form == "WEBP" else {}
    pixels, header = decode_with_header(encode(frames[0], form, save_all=True, append_images=frames[1:], **lossless))
    assert header.multiframe
    assert header.format == name
    assert error(pixels, np.asarray(frames[0])) < 3


# --- Damage ---------------------------------------------------------------------------------------------------------


JPEGS = [{"quality": 90}, {"quality": 75, "progressive": True}, {"restart_marker_rows": 1}, {"subsampling": 0}]


@pytest.mark.parametrize("options", JPEGS)
def test_no_cut_of_a_jpeg_passes(options: dict[str, object]) -> None:
    data = encode(photo(), "JPEG", **options)
    for percent in range(1, 100):
        with pytest.raises(UnreadableImage):
            decode(data[: len(data) * percent // 100])


@pytest.mark.parametrize("options", JPEGS)
def test_no_jpeg_that_was_cut_and_closed_is_completed_with_grey(options: dict[str, object]) -> None:
    data = encode(photo(), "JPEG", **options)
    whole = decode(data).astype(int)
    passed = 0
    for percent in range(1, 100):
        try:
            pixels = decode(data[: len(data) * percent // 100] + b"\xff\xd9")
        except UnreadableImage:
            continue
        # A progressive file that ends with one of its scans is a whole one of lower quality: every row is there.
        passed += 1
        assert np.abs(pixels - whole).mean((1, 2)).max() < 16
    assert passed == 0 or (options.get("progressive") and passed < 10)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_no_cut_of_the_other_formats_passes(form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    data = encode(noise, form, **LOSSLESS.get(form, {}))
    for percent in range(1, 98):
        with pytest.raises(UnreadableImage):
            decode(data[: len(data) * percent // 100])


@pytest.mark.parametrize("tail", [b"\n", b"trailing text", b"\0" * 4_096])
def test_bytes_behind_the_end_of_a_jpeg_are_no_damage(tail: bytes) -> None:
    data = encode(photo(), "JPEG")
    assert np.array_equal(decode(data + tail), decode(data))


def test_padding_before_the_end_marker_is_no_damage_but_other_bytes_are() -> None:
    data = encode(photo(), "JPEG")
    assert np.array_equal(decode(data[:-2] + b"\0" * 40 + data[-2:]), decode(data))
    with pytest.raises(UnreadableImage, match=r"damaged JPEG: .* extraneous"):
        decode(data[:-2] + bytes(range(1, 41)) + data[-2:])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html>404</html>", "not an image"),
        (b"just a line of text\n", "not an image"),
        (b"\xff\xd8\xff", "not an image|damaged|truncated|Truncated"),
        (b"8BPS\0\1" + b"\0" * 40, "PSD is not one"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40, "JPEG 2000 is not one"),
        (b"\0\0\0\x1cftypavif" + b"\0" * 40, "AVIF is not one"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "EPS is not one"),
    ],
)
def test_what_is_not_an_image_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decode(data)
    assert "\n" not in caught.value.reason
    assert "0x" not in caught.value.reason


def webp_header(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (width - 1).to_bytes(3, "little")
    body += (height - 1).to_bytes(3, "little") + b"VP8 " + struct.pack("<I", 0)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def tiff_header(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 9)]
    body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag, v in entries)
    return b"II*\0" + struct.pack("<I", 8) + body + b"\0\0\0\0"


BOMBS = {
    "PNG": png(8, 2, [], 1)[:16] + struct.pack(">II", 65_000, 65_000) + png(8, 2, [], 1)[24:],
    "PNG, right checksum": b"\x89PNG\r\n\x1a\n"
    + struct.pack(">I", 13)
    + (ihdr := b"IHDR" + struct.pack(">IIBBBBB", 65_000, 65_000, 8, 2, 0, 0, 0))
    + struct.pack(">I", zlib.crc32(ihdr))
    + struct.pack(">I", 10)
    + b"IDAT",
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 65_535, 65_535, 0x80, 0, 0) + b"\0" * 6
    + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0) + b"\x02\x02\x4c\x01\x00;",
    "WEBP": webp_header(16_383, 16_383),
    "TIFF": tiff_header(60_000, 60_000),
    "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 40_000, 40_000, 1, 24, *[0] * 6),
    "JPEG": b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 65_500, 65_500, 1) + b"\1\x11\0",
    "90 megapixels, under Pillow's limit": tiff_header(9_000, 10_000),
    "65 megapixels": tiff_header(8_001, 8_001),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_from_their_header(name: str) -> None:
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UnreadableImage, match=r"pixels|damaged PNG|not an image"):
        decode(BOMBS[name])
    with pytest.raises(UnreadableImage):
        read_header(io.BytesIO(BOMBS[name]))
    assert time.perf_counter() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_the_pixel_limit_is_the_callers_to_set() -> None:
    data = encode(photo(), "PNG")
    assert decode(data, max_pixels=4_800).shape == (60, 80, 3)
    with pytest.raises(UnreadableImage, match=r"80×60 is 4,800 pixels, more than the limit of 4,799"):
        decode(data, max_pixels=4_799)


def test_a_tiff_of_many_bands_is_refused() -> None:
    bands = tiff_header(2, 2).replace(struct.pack("<HHII", 277, 4, 1, 1), struct.pack("<HHII", 277, 4, 1, 5))
    with pytest.raises(UnreadableImage):
        decode(bands + b"\0" * 64)


SEEDS = [
    encode(photo(20, 30), form, **LOSSLESS.get(form, {})) for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
]


@settings(max_examples=300, deadline=2_000)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=20),
    st.floats(0.2, 1),
)
def test_damaged_bytes_give_pixels_or_a_reason_and_nothing_else(
    seed: bytes, changes: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(seed[: int(len(seed) * kept)])
    for place, value in changes:
        data[int(place * (len(data) - 1))] = value
    reason = ""
    try:
        pixels = decode(bytes(data), max_pixels=1_000_000)
    except UnreadableImage as refused:
        reason = refused.reason
    if reason:
        assert len(reason.splitlines()) == 1
    else:
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3
        assert pixels.flags.c_contiguous


def test_decoding_in_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = [encode(photo(), form) for form in ("PNG", "TIFF", "GIF")] * 20
    with ThreadPoolExecutor(4) as pool:
        shapes = {pixels.shape for pixels in pool.map(decode, data)}
    assert shapes == {(60, 80, 3)}
    assert warnings.filters == before


def test_a_reason_survives_the_way_out_of_a_worker() -> None:
    kind, arguments = UnreadableImage("why").__reduce__()
    assert kind(*arguments).reason == "why"
