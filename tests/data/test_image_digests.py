"""Copies of images are found by a short digest, whichever way they were read."""

import base64
import io
import json

import numpy as np
import pytest
from damaged import encode, photograph

from barlow.data import image_digests
from barlow.data.folder import FolderSource
from barlow.data.inventory import scan
from barlow.data.memory import hold
from barlow.data.sources import open_source


@pytest.mark.parametrize("size", [0, 1, 4_095, 4_096, 4_097, 8_191, 12_288, 12_289, 100_000])
def test_a_file_has_the_digest_of_its_bytes(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    digest = image_digests.of_bytes(data)
    blocks, whole = image_digests.of_file(io.BytesIO(data), size)
    assert (blocks, whole if whole else digest[1]) == digest
    assert bool(whole) == (size <= image_digests.SMALL)
    assert all(0 < each < 2**64 for each in digest)
    if size:
        assert image_digests.of_bytes(data[:-1]) != digest
        for at in {0, size // 2, size - 1}:
            changed = image_digests.of_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            assert all(each != before for each, before in zip(changed, digest, strict=True))


def test_streamed_and_held_images_have_the_same_digests(tmp_path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(encode(photograph(number % 4), "PNG"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    streamed = scan(FolderSource([tmp_path]), sample=1)
    held, _ = hold(FolderSource([tmp_path]), 32)
    assert streamed.digests.tolist() == held.digests.tolist()
    assert len(held.digests) == len(held.ids) == 6
    assert (held.digests > 0).all()
    assert image_digests.copies(held.digests) == (2, True)


def test_sets_without_files_have_digests_of_their_pixels() -> None:
    inventory, _ = hold(open_source("digits"), 8)
    assert (inventory.digests > 0).all()
    assert image_digests.copies(inventory.digests) == (0, True)
    test, _ = hold(open_source("digits:test"), 8)
    assert image_digests.shared(test.digests, inventory.digests) == (0, True)


def test_what_a_run_keeps_is_small_and_read_back() -> None:
    digests = np.random.default_rng(0).integers(1, 2**63, (10_000, 2)).astype(np.uint64)
    digests[5] = digests[6]
    digests[7] = image_digests.UNKNOWN
    text = json.dumps(image_digests.as_json(digests))
    assert len(text) < 22 * len(digests)
    back = image_digests.from_json(json.loads(text))
    assert back.tolist() == sorted(map(list, {tuple(row) for row in digests.tolist()} - {(0, 0)}))
    assert image_digests.shared(digests, back) == (9_999, True)
    assert image_digests.shared(digests, back[:0]) == (0, True)


def test_a_list_of_an_earlier_version_has_digests_of_blocks_alone() -> None:
    given = of(b"a"), of(b"b")
    text = base64.b64encode(np.sort(np.array([pair[0] for pair in given], "<u8")).tobytes()).decode()
    back = image_digests.from_json({"format": 1, "images": 2, "digests": text})
    assert image_digests.shared(np.array(given, np.uint64), back) == (2, False)


def of(middle: bytes, size: int = 100_000) -> tuple[int, int]:
    """The digests of a file that is dark but for some bytes between its blocks."""
    return image_digests.of_bytes(middle.rjust(20_000, b"\0").ljust(size, b"\0"))


def test_files_that_agree_in_their_blocks_alone_are_not_called_the_same() -> None:
    one, other, again = of(b"a"), of(b"b"), of(b"a")
    assert one[0] == other[0], "the blocks of both are dark"
    part = one[0], image_digests.UNKNOWN
    for rows, expected in (
        ((one, other), (0, True)),
        ((one, other, again), (1, True)),
        ((one, part), (1, False)),
        ((part, part), (1, False)),
        ((one, other, again, part), (3, False)),
    ):
        assert image_digests.copies(np.array(rows, np.uint64)) == expected
    for test, run, expected in (
        ((one, other), (one,), (1, True)),
        ((other,), (one,), (0, True)),
        ((other,), (one, part), (1, False)),
        ((part,), (one,), (1, False)),
        ((one, other), (one, part), (2, False)),
    ):
        assert image_digests.shared(np.array(test, np.uint64), np.array(run, np.uint64)) == expected


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"format": 3, "digests": ""},
        {"format": 1, "digests": "?"},
        {"format": 1},
        {"format": 2, "digests": "", "whole": "?"},
    ],
)
def test_anything_else_is_a_value_error(content: object) -> None:
    with pytest.raises(ValueError, match=r"format|digests|base64|Base64|Only"):
        image_digests.from_json(content)
