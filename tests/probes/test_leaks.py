import numpy as np

from barlow.data.labelled import pixel_hash
from barlow.probes.leaks import overlap, unseen_classes


def pictures(n, seed):
    return list(np.random.default_rng(seed).integers(256, size=(n, 4, 6, 3), dtype=np.uint8))


def test_separate_sets_do_not_overlap():
    found = overlap(map(pixel_hash, pictures(5, 0)), map(pixel_hash, pictures(5, 1)))
    assert found.shared == []
    assert found.warning is None


def test_shared_images_are_found_where_they_are():
    train, test = pictures(6, 0), pictures(4, 1)
    test[2] = train[5].copy()
    found = overlap(map(pixel_hash, train), map(pixel_hash, test))
    assert found.shared == [2]
    assert "1 of 4 test images (25.0%)" in found.warning
    assert "--train" in found.warning


def test_train_given_as_test_is_named():
    hashes = [pixel_hash(x) for x in pictures(6, 0)]
    assert "every one of the 6 test images" in overlap(hashes, hashes).warning


def test_copies_within_a_set_are_counted():
    found = overlap(["a", "b", "a", "a"], ["c", "c"])
    assert (found.repeated_train, found.repeated_test) == (2, 1)
    assert found.warning is None


def test_classes_that_train_lacks_are_named():
    assert unseen_classes(np.array([0, 1, 2]), np.array([2, 5, 1, 5])) == [5]
    assert unseen_classes(np.array([[1, 0, 0]]), np.array([[0, 1, 0]])) == [1]
