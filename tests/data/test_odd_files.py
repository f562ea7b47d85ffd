"""Files of rare layouts are read by the stated rule, and what is no image at all is called what it is."""

import io
import struct

import numpy as np
import pytest
from damaged import FOREIGN, encode, photograph, png, tiff
from PIL import Image

from barlow.data.decoding import UnreadableImage, decode, decode_with_header, read_header
from barlow.data.stored import BACKGROUND

# --- Transparent colours of PNGs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_a_png_is_transparent_at_any_depth(depth: int) -> None:
    levels = np.arange(2**depth)
    bits = "".join(f"{level:0{depth}b}" for level in levels).ljust(8, "0")
    row = int(bits, 2).to_bytes(-(-len(bits) // 8), "big")
    key = 2**depth - 1
    pixels = decode(png(depth, 0, [row], len(levels), (b"tRNS", struct.pack(">H", key))), channels=1)[0, :, 0]
    expected = levels * 255 // (2**depth - 1)
    expected[key] = BACKGROUND
    assert pixels.tolist() == expected.tolist()


def test_a_transparent_grey_of_sixteen_bits_is_that_one_value() -> None:
    values = np.array([0, 0x1234, 0x1235, 0xFFFF], ">u2")
    data = png(16, 0, [values.tobytes()], 4, (b"tRNS", struct.pack(">H", 0x1234)))
    opaque = decode(png(16, 0, [values.tobytes()], 4))[0].tolist()
    assert decode(data)[0].tolist() == [opaque[0], [BACKGROUND] * 3, opaque[2], opaque[3]]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_colour_of_sixteen_bits_is_that_one_value(channels: int) -> None:
    near = [[0x1234, 0x5678, 0x9ABC], [0x1235, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD], [0x1234, 0x5678, 0x9ABC]]
    row = np.array(near, ">u2").tobytes()
    opaque = decode(png(16, 2, [row, row], 4), channels=channels)
    pixels = decode(png(16, 2, [row, row], 4, (b"tRNS", struct.pack(">3H", *near[0]))), channels=channels)
    assert (pixels[:, [0, 3]] == BACKGROUND).all()
    assert np.array_equal(pixels[:, 1:3], opaque[:, 1:3])


# --- TIFF -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_one_band_in_planes_is_read(order: str) -> None:
    ramp = np.linspace(0, 65_535, 256).astype(order + "u2").reshape(16, 16)
    tags = {256: 16, 257: 16, 258: 16, 259: 1, 262: 1, 277: 1, 278: 16}
    plain = tiff([ramp.tobytes()], tags, order)
    planar = tiff([ramp.tobytes()], tags | {284: 2}, order)
    assert planar != plain
    assert np.array_equal(decode(planar), decode(plain))
    assert len(np.unique(decode(planar))) == 256


def test_a_bigtiff_is_read() -> None:
    grey = photograph(0)[:, :, 0]
    tags = {256: 160, 257: 120, 258: 8, 259: 1, 262: 1, 277: 1, 278: 120}
    assert np.array_equal(decode(tiff([grey.tobytes()], tags, big=True), channels=1)[:, :, 0], grey)


# --- Orientation: that of EXIF, in every format ---------------------------------------------------------------------

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_of_xmp_counts_in_no_format(form: str) -> None:
    options: dict[str, object] = {"xmp": XMP}
    if form == "PNG":
        from PIL.PngImagePlugin import PngInfo

        text = PngInfo()
        text.add_itxt("XML:com.adobe.xmp", XMP.decode())
        options = {"pnginfo": text}
    elif form == "TIFF":
        options = {"tiffinfo": {700: XMP}}
    data = encode(photograph(1), form, **options)
    assert b"tiff:Orientation" in data
    pixels, header = decode_with_header(data)
    assert pixels.shape == (120, 160, 3)
    assert (header.height, header.width) == (120, 160)
    early = read_header(io.BytesIO(data))
    assert (early.height, early.width) == (120, 160)


def test_an_exif_block_behind_the_pixels_of_a_png_turns_it_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(photograph(1), "PNG", exif=exif)
    at = data.find(b"eXIf") - 4
    block = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
    late = data.replace(block, b"").replace(data[-12:], block + data[-12:])
    assert late.find(b"eXIf") > late.find(b"IDAT")
    assert np.array_equal(decode(late), decode(data))
    assert read_header(io.BytesIO(late)).height == read_header(io.BytesIO(data)).height == 160


# --- What is no image -----------------------------------------------------------------------------------------------

CALLED = {
    "page": "HTML page",
    "pointer": "git lfs pull",
    "drawing": "SVG",
    "jxl": "JPEG XL",
    "scan": "DICOM",
    "avif": "AVIF",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_image_is_called_what_it_is(name: str) -> None:
    with pytest.raises(UnreadableImage, match=CALLED[name]):
        decode(FOREIGN[name])
    with pytest.raises(UnreadableImage, match=CALLED[name]):
        read_header(io.BytesIO(FOREIGN[name]))


@pytest.mark.parametrize(
    ("data", "called"),
    [
        (b"\xef\xbb\xbf\n<HTML lang=en>", "HTML page"),
        (b"<svg width='1'>", "SVG"),
        (b"<!-- made by hand --><svg>", "SVG"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(9), "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0mif1msf1" + bytes(9), "HEIF"),
        (b"II+\0" + bytes(60), "damaged BigTIFF"),
        (b"II*\0" + bytes(60), "damaged TIFF"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "damaged PNG"),
        (bytes(600), "zeros"),
        (b"PK\x03\x04" + bytes(30), "ZIP"),
        (b"some words", "not an image"),
    ],
)
def test_beginnings_are_told_apart(data: bytes, called: str) -> None:
    with pytest.raises(UnreadableImage, match=called) as caught:
        decode(data)
    assert len(caught.value.reason) < 150
