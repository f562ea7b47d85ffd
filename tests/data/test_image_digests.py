"""Copies of images are found by a short digest, whichever way they were read."""

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
    assert image_digests.of_file(io.BytesIO(data), size) == digest
    assert 0 < digest < 2**64
    if size:
        assert image_digests.of_bytes(data[:-1]) != digest
        for at in {0, size // 2, size - 1}:
            assert image_digests.of_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]) != digest


def test_streamed_and_held_images_have_the_same_digests(tmp_path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(encode(photograph(number % 4), "PNG"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    streamed = scan(FolderSource([tmp_path]), sample=1)
    held, _ = hold(FolderSource([tmp_path]), 32)
    assert streamed.digests.tolist() == held.digests.tolist()
    assert len(held.digests) == len(held.ids) == 6
    assert (held.digests > 0).all()
    assert image_digests.copies(held.digests) == 2


def test_sets_without_files_have_digests_of_their_pixels() -> None:
    inventory, _ = hold(open_source("digits"), 8)
    assert (inventory.digests > 0).all()
    assert image_digests.copies(inventory.digests) == 0
    test, _ = hold(open_source("digits:test"), 8)
    assert image_digests.shared(test.digests, inventory.digests) == 0


def test_what_a_run_keeps_is_small_and_read_back() -> None:
    digests = np.random.default_rng(0).integers(1, 2**63, 10_000).astype(np.uint64)
    digests[5] = digests[6]
    digests[7] = image_digests.UNKNOWN
    text = json.dumps(image_digests.as_json(digests))
    assert len(text) < 11 * len(digests)
    back = image_digests.from_json(json.loads(text))
    assert back.tolist() == sorted(set(digests.tolist()) - {0})
    assert image_digests.shared(digests, back) == 9_999
    assert image_digests.shared(digests, back[:0]) == 0


@pytest.mark.parametrize(
    "content", [{}, [], {"format": 2, "digests": ""}, {"format": 1, "digests": "?"}, {"format": 1}]
)
def test_anything_else_is_a_value_error(content: object) -> None:
    with pytest.raises(ValueError, match=r"format|digests|base64|Base64|Only"):
        image_digests.from_json(content)
