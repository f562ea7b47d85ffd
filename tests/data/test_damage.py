"""Damage that a file gives away is seen, what is odd but harmless passes, and no file crashes the program."""

import io
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from damaged import (
    JPEGS,
    Made,
    encode,
    jpeg_segment,
    lossless_jpeg,
    overwritten,
    photograph,
    planar_tiff,
    scan_start,
    tiff_strips,
    two_hundred,
    zero_tail,
)
from PIL import Image

from barlow.data import jpeg
from barlow.data.decoding import UnreadableImage, decode, decode_with_header, read_header


def refusal(data: bytes, **options: int) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, **options)
    assert len(caught.value.reason.splitlines()) == 1
    return caught.value.reason


# --- JPEGs of rare processes ----------------------------------------------------------------------------------------


def test_a_lossless_jpeg_that_is_asked_for_small_ends_no_process() -> None:
    program = textwrap.dedent("""
        from damaged import lossless_jpeg
        from barlow.data.decoding import decode
        for components in (1, 3):
            for bits in (2, 4, 8):
                for channels in (1, 3):
                    data = lossless_jpeg(400, 400, components, bits)
                    assert decode(data, channels=channels, min_side=32).shape == (400, 400, channels)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("components", [1, 3])
def test_a_lossless_jpeg_in_a_tiff_ends_no_process_and_its_damage_is_seen(components: int) -> None:
    program = textwrap.dedent(f"""
        from damaged import lossless_tiff, overwritten
        from barlow.data.decoding import UnreadableImage, decode
        data = lossless_tiff(400, 401, {components})
        for min_side in (0, 32):
            for channels in (1, 3):
                assert decode(data, channels=channels, min_side=min_side).shape == (400, 401, channels)
        try:
            decode(data[:8 + 1000] + bytes([255, 217]) * 500 + data[8 + 2000:])
        except UnreadableImage as error:
            print(error.reason)
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith(("damaged", "decoded", "broken")), done.stdout


def test_a_strip_that_claims_more_pixels_than_its_part_of_a_tiff_has_is_not_decoded_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(jpeg, "strictly", lambda data, colours, min_side: asked.append(min_side))
    jpeg.check_within(lossless_jpeg(40, 40), 1_600)
    jpeg.check_within(lossless_jpeg(40, 41), 1_600)
    jpeg.check_within(encode(photograph(0), "JPEG"), 1)  # which is scaled, and small
    assert asked == [0, 1]


def test_the_size_that_is_demanded_is_the_one_that_libjpeg_takes() -> None:
    """Of 40 odd sizes, at each of which as much is asked for as there is, one more, one less, and what lies between."""
    draws = np.random.default_rng(0)
    for height, width in draws.integers(1, 700, (40, 2)).tolist():
        data = encode(np.zeros((height, width), np.uint8), "JPEG")
        header = jpeg.find_header(data)
        assert header is not None
        short = min(height, width)
        eighths = [-(-short * k // 8) + more for k in range(1, 9) for more in (-1, 0, 1)]
        for min_side in {0, 1, 2 * short, *eighths} - {-1}:
            taken = simplejpeg.decode_jpeg_header(data, min_height=min_side, min_width=min_side)
            assert jpeg._size_at(header, min_side) == taken[:2], (height, width, min_side)


@pytest.mark.parametrize("form", ["RGB", "CMYK"])
def test_an_image_that_comes_back_at_another_size_than_was_asked_for_is_refused(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(Image.fromarray(photograph(0, 160, 160)).convert(form), "JPEG")
    bands = 4 if form == "CMYK" else 3
    for eighths, min_side in ((3, 32), (1, 32), (8, 32), (4, 0)):
        side = 160 * eighths // 8
        monkeypatch.setattr(jpeg, "strictly", lambda *_, side=side: np.zeros((side, side, bands), np.uint8))
        wanted = 160 if min_side == 0 or form == "CMYK" else 40
        if side == wanted:
            assert decode(data, min_side=min_side).shape == (side, side, 3)
        else:
            assert f"decoded to {side}×{side}, not {wanted}×{wanted}" in refusal(data, min_side=min_side)


def environment() -> dict[str, str]:
    import os

    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("bits", range(2, 9))
def test_samples_of_few_bits_are_scaled_to_eight(components: int, bits: int) -> None:
    half = round(2 ** (bits - 1) * 255 / (2**bits - 1))
    for channels in (1, 3):
        pixels = decode(lossless_jpeg(9, 7, components, bits), channels=channels)
        assert pixels.shape == (9, 7, channels)
        assert np.unique(pixels).tolist() == [half]


@pytest.mark.parametrize("bits", [9, 10, 12, 16])
@pytest.mark.parametrize("process", [0xC1, 0xC3])
def test_samples_of_more_bits_are_refused_by_their_number(bits: int, process: int) -> None:
    data = lossless_jpeg(40, 40, bits=bits, process=process)
    assert f"{bits}-bit samples" in refusal(data)
    with pytest.raises(UnreadableImage, match=f"{bits}-bit samples"):
        read_header(io.BytesIO(data))


@pytest.mark.parametrize("process", [0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF])
def test_processes_that_nothing_reads_are_refused_by_their_name(process: int) -> None:
    assert f"SOF{process - 0xC0}" in refusal(lossless_jpeg(40, 40, process=process), min_side=8)


def test_a_jpeg_of_very_many_scans_is_refused_before_it_is_decoded() -> None:
    data = encode(photograph(0), "JPEG", progressive=True)
    start = data.find(b"\xff\xda")
    scan = data[start : data.find(b"\xff\xc4", start)]
    assert "scans" in refusal(data[:start] + scan * 2_000 + data[start:], max_pixels=1_000_000)


@pytest.mark.parametrize("components", [1, 3, 4])
@pytest.mark.parametrize("process", [0xC0, 0xC2])
def test_only_what_would_pass_is_let_pass_unlooked(
    components: int, process: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small image is not looked at for its cost; how large it may be for that depends on its bytes, too."""
    sampling = b"\1\x22\0\2\x11\0\3\x11\0\4\x22\0"
    frame = jpeg_segment(process, b"\x08\0\x10\0\x10" + bytes([components]) + sampling)
    scan = jpeg_segment(0xDA, bytes([components]) + b"\1\0" * components + b"\0\x3f\0")
    made = {scans: b"\xff\xd8" + frame + scan * scans for scans in (1, 17, 900)}
    sides = (40, 400, 1_500, 6_000, 9_000)

    def refused(data: bytes, side: int, channels: int) -> bool:
        found = jpeg.find_header(data)
        assert found is not None
        header = found._replace(height=side, width=side, components=components, orientation=6)
        try:
            jpeg._check_cost(data, header, channels, 0, 1_000_000)
        except UnreadableImage:
            return True
        return False

    def outcomes() -> list[bool]:
        return [refused(data, side, channels) for data in made.values() for side in sides for channels in (1, 3)]

    found = outcomes()
    assert any(found)
    assert not all(found)
    monkeypatch.setattr(jpeg, "BYTES_AT_MOST", 10**9)  # nothing is small
    assert outcomes() == found


# --- Damage in JPEGs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("byte", [0x00, 0x55, 0xFF])
def test_a_scan_that_was_overwritten_up_to_its_end_marker_is_no_padding(byte: int, options: dict[str, object]) -> None:
    data = encode(photograph(1), "JPEG", quality=85, **options)
    start, end = scan_start(data), len(data) - 2
    for percent in range(1, 99, 4):
        at = start + (end - start) * percent // 100
        refusal(overwritten(data, at, end, byte))
        refusal(overwritten(data, at, end, byte), min_side=16)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("count", [1, 30, 512, 70_000])
def test_padding_of_any_length_is_harmless(count: int, options: dict[str, object]) -> None:
    data = encode(photograph(1), "JPEG", quality=85, **options)
    assert np.array_equal(decode(data[:-2] + bytes(count) + data[-2:]), decode(data))


@pytest.mark.parametrize(
    ("form", "row"),
    [("BMP", "| BMP, TIFF without compression, `.npy` |"), ("TIFF", "TIFF without compression"), ("WEBP", "| WebP |")],
)
def test_a_format_without_checksums_shows_no_changed_byte_and_the_page_says_so(form: str, row: str) -> None:
    """A user who reads docs/images.md knows that such a change cannot be seen."""
    whole = encode(photograph(1), form, **({"lossless": True} if form == "WEBP" else {}))
    changed = [overwritten(whole, at, at + 1) for at in range(len(whole) // 3, 2 * len(whole) // 3, len(whole) // 60)]
    unseen = 0
    for data in changed:
        try:
            unseen += not np.array_equal(decode(data), decode(whole))
        except UnreadableImage:
            assert form == "WEBP", "any bytes are pixels"
    assert unseen >= (1 if form == "WEBP" else len(changed) // 2)
    assert row in (Path(__file__).parents[2] / "docs" / "images.md").read_text(encoding="utf-8")


def test_a_second_warning_is_not_excused_by_a_harmless_first_one() -> None:
    data = encode(photograph(1), "JPEG", quality=85, restart_marker_rows=1)
    at = data.find(b"\xff\xdb")
    harmless = data[:at] + b"abc" + data[at:]
    assert np.array_equal(decode(harmless), decode(data))
    middle = (scan_start(harmless) + len(harmless)) // 2
    assert "damaged JPEG" in refusal(overwritten(harmless, middle, middle + 64))
    padded = harmless[:-2] + bytes(30) + harmless[-2:]
    assert np.array_equal(decode(padded), decode(data))
    assert "damaged JPEG" in refusal(overwritten(padded, middle, middle + 64))


@pytest.mark.parametrize("marker", [0xDB, 0xC0, 0xC4, 0xDA])
def test_bytes_between_the_segments_of_a_header_are_harmless(marker: int) -> None:
    data = encode(photograph(2), "JPEG")
    at = data.find(bytes([0xFF, marker]))
    for stray in (b"\0", b"abc", b"\0" * 300):
        assert np.array_equal(decode(data[:at] + stray + data[at:]), decode(data))


def test_a_lost_segment_on_colours_is_no_stray_bytes() -> None:
    inverted = Image.fromarray(photograph(2)).convert("CMYK")
    data = encode(inverted, "JPEG")
    at = data.find(b"\xff\xee")
    assert data[at + 4 : at + 9] == b"Adobe"
    assert "extraneous" in refusal(overwritten(data, at, at + 2))


def test_a_broken_colour_profile_is_harmless_as_none_is_applied() -> None:
    data = encode(photograph(2), "JPEG")
    for body in (b"ICC_PROFILE\0\5\2" + b"x" * 50, b"ICC_PROFILE\0\1\2" + b"x" * 50):
        profiled = data[:2] + jpeg_segment(0xE2, body) + data[2:]
        assert np.array_equal(decode(profiled), decode(data))


# --- PNG and TIFF ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_no_byte_of_a_png_that_matters_can_change(mode: str) -> None:
    data = encode(Image.fromarray(photograph(3, 40, 60)).convert(mode), "PNG")
    for at in np.random.default_rng(0).integers(8, len(data), 100):
        refusal(overwritten(data, int(at), int(at) + 1, data[at] ^ 0x10))


@pytest.mark.parametrize("percent", range(2, 100, 7))
def test_no_zero_tail_of_a_png_passes(percent: int) -> None:
    assert "damaged PNG" in refusal(zero_tail(encode(photograph(4), "PNG"), percent / 100))


TIFFS: dict[str, dict[str, object]] = {
    "deflate": {"compression": "tiff_adobe_deflate"},
    "deflate in strips": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 32}},
    "deflate of differences": {"compression": "tiff_adobe_deflate", "tiffinfo": {278: 32, 317: 2}},
    "jpeg": {"compression": "jpeg", "tiffinfo": {278: 32}},
}


@pytest.mark.parametrize("options", TIFFS.values(), ids=TIFFS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_zeros_in_any_strip_of_a_tiff_with_checksums_are_seen(mode: str, options: dict[str, object]) -> None:
    data = encode(Image.fromarray(photograph(5)).convert(mode), "TIFF", **options)
    assert decode(data).shape == (120, 160, 3)
    for number, (offset, length) in enumerate(tiff_strips(data)):
        for percent in (10, 40, 80):
            at = offset + length * percent // 100
            said = refusal(overwritten(data, at, at + min(64, length // 8)))
            assert said.startswith((f"damaged TIFF: strip {number}", "damaged TIFF: a strip"))


@pytest.mark.parametrize("values", [np.uint16, np.float32])
def test_a_deflated_tiff_of_wide_values_is_inflated_again(values: type) -> None:
    pixels = (photograph(6)[:, :, 0].astype(np.float64) * 200).astype(values)
    data = encode(pixels, "TIFF", compression="tiff_adobe_deflate")
    assert decode(data).shape == (120, 160, 3)
    (offset, length), *_ = tiff_strips(data)
    assert "damaged TIFF" in refusal(overwritten(data, offset + length // 2, offset + length // 2 + 64))


def test_a_tiff_in_planes_is_checked_by_plane() -> None:
    data = planar_tiff(photograph(7))
    assert np.array_equal(decode(data), photograph(7))
    offset, length = tiff_strips(data)[2]
    assert "strip 2" in refusal(overwritten(data, offset + length // 2, offset + length // 2 + 64))


def test_strips_of_jpeg_may_leave_out_their_end_marker() -> None:
    data = encode(photograph(5), "TIFF", compression="jpeg")
    ((offset, length),) = tiff_strips(data)
    assert data[offset + length - 2 : offset + length] == b"\xff\xd9"
    cut = data.replace(np.array([length], "<u4").tobytes(), np.array([length - 2], "<u4").tobytes(), 1)
    assert cut != data
    assert np.array_equal(decode(cut), decode(data))


def test_the_check_of_a_tiff_leaves_a_missing_checksum_alone() -> None:
    data = planar_tiff(photograph(7))
    _, length = tiff_strips(data)[0]
    cut = data.replace(np.array([length], "<u4").tobytes(), np.array([length - 4], "<u4").tobytes(), 1)
    assert cut != data
    assert np.array_equal(decode(cut), photograph(7))


# --- Two hundred files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files() -> list[Made]:
    return two_hundred()


@pytest.mark.parametrize("min_side", [0, 32])
def test_of_two_hundred_files_those_are_refused_that_are_damaged(files: list[Made], min_side: int) -> None:
    wrong = []
    for made in files:
        reason = ""
        try:
            pixels, header = decode_with_header(made.data, min_side=min_side)
        except UnreadableImage as error:
            reason = error.reason
        if bool(reason) == made.readable:
            wrong.append((made.name, reason))
        if reason:
            assert len(reason.splitlines()) == 1
        else:
            assert min_side or pixels.shape == (header.height, header.width, 3)
    assert wrong == []


@pytest.mark.parametrize("process", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC9, 0xCA, 0xCB, 0xCF])
def test_a_frame_header_that_lies_about_its_process_or_size_ends_no_process(process: int) -> None:
    program = textwrap.dedent(f"""
        import numpy as np
        from damaged import encode, lossless_jpeg, photograph
        from barlow.data.decoding import UnreadableImage, decode
        files = [encode(photograph(1), "JPEG", progressive=k == 1) for k in range(2)]
        files += [lossless_jpeg(120, 160, components, 8) for components in (1, 3)]
        draws = np.random.default_rng({process})
        for data in files:
            at = max(data.find(bytes([0xFF, marker])) for marker in (0xC0, 0xC2, 0xC3))
            for trial in range(60):
                changed = bytearray(data)
                changed[at + 1] = {process}
                for k in range(trial % 4):  # bits, sides, components and their sampling
                    changed[at + 4 + int(draws.integers(0, 15))] = int(draws.integers(0, 40))
                for min_side in (0, 16):
                    try:
                        decode(bytes(changed), min_side=min_side, max_pixels=4_000_000)
                    except UnreadableImage:
                        pass
    """)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_unknown_revision_of_jfif_excuses_no_damage() -> None:
    data = encode(photograph(1), "JPEG", quality=85, restart_marker_rows=1)
    at = data.find(b"JFIF\0") + 5
    odd = overwritten(data, at, at + 1, 9)
    assert np.array_equal(decode(odd), decode(data))
    middle = (scan_start(odd) + len(odd)) // 2
    assert "damaged JPEG" in refusal(overwritten(odd, middle, middle + 64))
