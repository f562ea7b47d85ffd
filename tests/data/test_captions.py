"""Captions: the list that a user writes, the words, the vocabulary, and which caption of an image a step gets."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from barlow.data.captioned import LONELY, UNCAPTIONED, WORDLESS, CaptionedFiles, lines, lists_captions, read_captions
from barlow.data.captioned_shapes import COLOURS, CaptionedShapes
from barlow.data.captions import Captions, captions_of, digest
from barlow.data.known import Known
from barlow.data.sources import open_source
from barlow.data.vocabulary import END, PADDING, SPECIAL, START, UNKNOWN, Vocabulary, vocabulary_from, words_of
from barlow.exits import NoInput, UnusableData
from barlow.limits import TooLarge

FEW = [["A dog runs.", "a dog"], ["Two cats sleep; two cats!"], ["a red cat"]]


def listed(folder: Path, text: str, name: str = "captions.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_words_are_runs_of_letters_digits_and_apostrophes_in_lower_case() -> None:
    assert words_of("A boy's 2 T-shirts, (one_red) Ünder été!") == [
        "a", "boy's", "2", "t", "shirts", "one", "red", "ünder", "été",
    ]  # fmt: skip
    assert words_of(" ... -- ") == []


def test_a_vocabulary_has_the_frequent_words_first_and_marks_before_them() -> None:
    vocabulary = Vocabulary.of(FEW, min_count=2)
    assert vocabulary.words == ("a", "cats", "dog", "two")
    assert len(vocabulary) == SPECIAL + 4
    assert vocabulary.numbers("Two dogs, a dog", 64) == [START, SPECIAL + 3, UNKNOWN, SPECIAL, SPECIAL + 2, END]
    assert vocabulary.numbers("a a a a a a", 4) == [START, SPECIAL, SPECIAL, END], "cut, with its marks"
    assert vocabulary.unknown_share([["a dog", "a bird"]]) == pytest.approx(1 / 4)


def test_a_vocabulary_is_read_as_it_was_written_and_no_other_table_is_one() -> None:
    vocabulary = Vocabulary.of(FEW, min_count=1)
    assert vocabulary_from(vocabulary.as_dict(), "here") == vocabulary
    for wrong in ({}, {"format": 1, "words": "abc", "min_count": 1}, {"format": 2, "words": ["a"], "min_count": 1}):
        with pytest.raises(UnusableData, match="here is no vocabulary"):
            vocabulary_from(wrong, "here")
    with pytest.raises(UnusableData, match="a word twice"):
        vocabulary_from({"format": 1, "words": ["a", "a"], "min_count": 1}, "here")


def test_words_that_are_too_rare_or_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableData, match=r"no word occurs 9 times in the captions: use --method\.min_count 1"):
        Vocabulary.of(FEW, min_count=9)
    monkeypatch.setattr("barlow.limits.WORDS", 2)
    with pytest.raises(TooLarge, match="4 words occur 2 times or more, and at most 2 are allowed"):
        Vocabulary.of(FEW, min_count=2)


def test_an_image_gets_one_caption_by_seed_epoch_and_id_alone() -> None:
    captions = [[f"image {i} caption {k}" for k in range(1 + i % 3)] for i in range(30)]
    vocabulary = Vocabulary.of(captions, min_count=1)
    made = Captions.of(captions, vocabulary, longest=8)
    ids = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    drawn = made.drawn(ids, seed=3, epoch=5)
    assert drawn.shape == (30, 6)
    assert torch.equal(made.drawn(ids[4:9], 3, 5), drawn[4:9]), "whichever images are beside it"
    own = [{tuple(vocabulary.numbers(text, 8)) for text in captions[i]} for i in ids.tolist()]
    rows = [tuple(number for number in row if number != PADDING) for row in drawn.tolist()]
    assert all(row in of_image for row, of_image in zip(rows, own, strict=True))
    assert not torch.equal(made.drawn(ids, 3, 6), drawn)
    assert not torch.equal(made.drawn(ids, 4, 5), drawn)


def test_over_the_epochs_all_captions_of_an_image_come_equally_often() -> None:
    captions = [[f"number{k}" for k in range(5)]] * 200
    made = Captions.of(captions, Vocabulary.of(captions, 1), 8)
    counts = sum(
        torch.bincount(made.drawn(torch.arange(200), 0, epoch)[:, 1], minlength=SPECIAL + 5)[SPECIAL:]
        for epoch in range(20)
    )
    assert int(counts.sum()) == 4000
    assert bool(((counts - 800).abs() < 5 * 800**0.5).all())


def test_what_is_known_of_a_row_has_a_caption_where_there_are_captions() -> None:
    captions = Captions.of(FEW, Vocabulary.of(FEW, 1), 8)
    ids = torch.tensor([2, 0])
    assert set(Known().of(ids, 0, 0)) == {"ids"}
    assert set(Known(torch.arange(3), captions).of(ids, 0, 0)) == {"ids", "labels", "caption"}
    assert torch.equal(Known(captions=captions).of(ids, 1, 2)["caption"], captions.drawn(ids, 1, 2))


def test_a_list_of_captions_has_any_number_of_an_image_and_images_beside_it(tmp_path: Path) -> None:
    source = open_source(tiny.captioned(tmp_path, 6))
    assert isinstance(source, CaptionedFiles)
    assert (len(source), source.labels, source.classes, source.notes) == (6, None, None, {})
    assert captions_of(source)[1] == ["Noise, of a blue kind", "something blue"]  # type: ignore[index]
    assert source.read(0).shape == (24, 24, 3)
    assert source.locate(1) == "001.png"
    assert lines(source) == []


def test_what_does_not_belong_together_is_left_out_and_told(tmp_path: Path) -> None:
    tiny.images(tmp_path, 4)
    text = "image,caption\n001.png,one\n000.png,two\n001.png,three\ngone.png,four\n002.png,...\n"
    source = read_captions(listed(tmp_path, text))
    assert [source.locate(i) for i in range(len(source))] == ["000.png", "001.png"]
    assert list(source.captions) == [["two"], ["one", "three"]]
    assert source.notes == {LONELY: 1, WORDLESS: 1, UNCAPTIONED: 2}
    assert lines(source) == [
        "captions 1 whose images are not there are left out",
        "captions 1 have no word, and are left out",
        "captions 2 images beside those that are listed have none, and are left out",
    ]


def test_a_list_is_known_by_its_first_line_whatever_its_ending(tmp_path: Path) -> None:
    tiny.images(tmp_path, 2)
    text = "\ufeffImage, Caption\n000.png,a dog\n"
    for name in ("a.txt", "a.csv", "A.CSV"):
        assert lists_captions(listed(tmp_path, text, name))
        assert len(open_source(tmp_path / name)) == 1
    assert not lists_captions(listed(tmp_path, "path,label\n000.png,a\n", "b.csv"))
    assert not lists_captions(listed(tmp_path, text, "a.md"))
    assert not lists_captions(tmp_path)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("000.png,a dog, brown\n", UnusableData, "row 2 of .* has 3 columns in place of 2: .* in quotes"),
        ("000.png,a dog\n,a cat\n", UnusableData, "row 3 of .* names no image"),
        ("../000.png,a dog\n", UnusableData, "names ../000.png: give paths below the list's folder"),
        ("gone.png,a dog\n", NoInput, "names 1 images, and none of them is there, such as gone.png"),
        ("", NoInput, "names 0 images, and none of them is there: their paths start from"),
        ("000.png,!\n", UnusableData, "has no caption with a word"),
        ('000.png,"a dog\n', UnusableData, "cannot be read as a CSV file"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_in_one_line(
    text: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    tiny.images(tmp_path, 1)
    with pytest.raises(error, match=message) as raised:
        read_captions(listed(tmp_path, f"image,caption\n{text}"))
    assert "\n" not in str(raised.value)


def test_another_caption_is_another_digest() -> None:
    assert digest(FEW) == digest([list(of_image) for of_image in FEW])
    assert digest(FEW) != digest([*FEW[:2], ["a red cat", "a cat"]])


def test_captioned_shapes_are_drawn_alike_everywhere() -> None:
    source = CaptionedShapes("train", count=40)
    assert hashlib.sha256(source.pixels.tobytes()).hexdigest()[:16] == PIXELS
    assert digest(source.captions)[:16] == CAPTIONS
    assert source.captions[1] == ["a blue cross left of a white triangle", "a white triangle right of a blue cross"]
    assert np.array_equal(CaptionedShapes("train", count=50).pixels[:40], source.pixels)
    assert not np.array_equal(CaptionedShapes("test", count=40).pixels, source.pixels)
    assert open_source("shapes_captions:test", channels=1).captions[3] == CaptionedShapes("test").captions[3]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="has no split 'val'"):
        CaptionedShapes("val")  # type: ignore[arg-type]


PIXELS, CAPTIONS = "5c177b5718f8f755", "de312c60bffa7698"


def test_captions_of_shapes_say_where_the_colours_are() -> None:
    source = CaptionedShapes("test", count=60)
    for pixels, (caption, _) in zip(source.pixels.astype(int), source.captions, strict=True):
        words = caption.split()
        place = {name: COLOURS[name] for name in (words[1], words[words.index("a", 1) + 1])}
        if len(place) < 2:
            continue
        centres = []
        for colour in place.values():
            near = np.abs(pixels - np.array(colour)).sum(axis=2) <= 3
            assert near.any()
            centres.append(np.argwhere(near).mean(axis=0))
        axis = 0 if "above" in words else 1
        assert centres[0][axis] < centres[1][axis], caption
