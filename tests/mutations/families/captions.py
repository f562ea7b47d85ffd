"""Images and captions: VSE++'s hinge, words, the text network, the two branches, recalls."""

from mutations.fault import Fault

VSE = "objectives/test_vse.py::test_"
WORDS = "data/test_captions.py::test_"
TEXT = "nets/test_text.py::test_"
METHOD = "methods/test_image_text.py::test_"
RECALLS = "probes/test_recalls.py::test_"

FAULTS = [
    Fault(
        "VSE: the hinges are averaged over the rows",
        "objectives/vse.py",
        "return torch.relu(self.margin + excess).sum()",
        "return torch.relu(self.margin + excess).mean()",
        (f"{VSE}published_values_of_all_hinges_and_of_the_hardest",),
    ),
    Fault(
        "VSE: a caption is compared with its image's captions alone, and not with images",
        "objectives/vse.py",
        "self._hinges(others.T - right[:, None])",
        "self._hinges(others - right[:, None])",
        (f"{VSE}one_direction_alone_is_not_enough", f"{VSE}published_values_of_all_hinges_and_of_the_hardest"),
    ),
    Fault(
        "VSE: the right answer is among its own negatives",
        "objectives/vse.py",
        "(ua @ ub.T).fill_diagonal_(-torch.inf)",
        "(ua @ ub.T)",
        (f"{VSE}the_hinge_is_at_rest_where_everything_is_nearer_by_the_margin",),
    ),
    Fault(
        "VSE: the hardest negative is the mean one",
        "objectives/vse.py",
        "excess = excess.amax(dim=1)",
        "excess = excess.masked_fill(excess.isinf(), 0).mean(dim=1)",
        (f"{VSE}published_values_of_all_hinges_and_of_the_hardest",),
    ),
    Fault(
        "VSE: embeddings are compared at the length that they have",
        "objectives/vse.py",
        "u = [directions(in_float64(view)) for view in views]",
        "u = [in_float64(view) for view in views]",
        (f"{VSE}positive_scales_of_rows_a_rotation_and_the_order_of_sides_and_rows_change_nothing",),
    ),
    Fault(
        "captions: an image has its first caption in every epoch",
        "data/captions.py",
        "chosen = (hashed((CAPTIONS, seed, epoch), images) % counts).astype(np.int64)",
        "chosen = np.zeros(len(images), np.int64)",
        (f"{WORDS}over_the_epochs_all_captions_of_an_image_come_equally_often",),
    ),
    Fault(
        "captions: the draw follows from the place in the batch",
        "data/captions.py",
        "hashed((CAPTIONS, seed, epoch), images)",
        "hashed((CAPTIONS, seed, epoch), np.arange(len(images)))",
        (f"{WORDS}an_image_gets_one_caption_by_seed_epoch_and_id_alone",),
    ),
    Fault(
        "captions: unknown words are left out",
        "data/vocabulary.py",
        "*(self._numbers.get(word, UNKNOWN) for word in words)",
        "*(self._numbers[word] for word in words if word in self._numbers)",
        (f"{WORDS}a_vocabulary_has_the_frequent_words_first_and_marks_before_them",),
    ),
    Fault(
        "text: the state after the padding is taken",
        "nets/text.py",
        "lengths = (tokens != PADDING).sum(dim=1).clamp(min=1).cpu()",
        "lengths = (tokens != -1).sum(dim=1).clamp(min=1).cpu()",
        (f"{TEXT}a_caption_has_the_same_features_alone_and_beside_longer_ones",),
    ),
    Fault(
        "image_text: held features are taken by place",
        "methods/image_text.py",
        "return [features[place]]",
        "return [features[: len(place)]]",
        (f"{METHOD}held_features_take_the_place_of_views_in_training_and_only_there",),
    ),
    Fault(
        "image_text: held features stand for images that are only looked at",
        "methods/image_text.py",
        "if self.training and self._held is not None:",
        "if self._held is not None:",
        (f"{METHOD}held_features_take_the_place_of_views_in_training_and_only_there",),
    ),
    Fault(
        "image_text: batch norm of a frozen encoder goes on learning",
        "methods/image_text.py",
        "        if self.frozen:\n            self.encoder.eval()\n        return self",
        "        return self",
        (f"{METHOD}a_frozen_encoder_is_neither_trained_nor_normalised_by_the_batch",),
    ),
    Fault(
        "recalls: only the first caption of an image counts",
        "probes/recalls.py",
        "right = owner[None, :] == np.arange(len(images))[:, None]",
        "right = np.searchsorted(owner, np.arange(len(images)))[:, None] == np.arange(len(captions))",
        (f"{RECALLS}any_of_the_own_captions_is_a_hit_of_an_image",),
    ),
    Fault(
        "recalls: captions of one image are drawn as if they were independent",
        "probes/recalls.py",
        "_over_images(self.of_captions < k, self.owner, len(self.of_images))",
        "_over_images(self.of_captions < k, np.arange(len(self.owner)), len(self.owner))",
        (f"{RECALLS}an_interval_of_captions_draws_images_and_not_captions",),
    ),
    Fault(
        "recalls: the k-th place is not among the first k",
        "probes/recalls.py",
        "int((self.of_images < k).sum())",
        "int((self.of_images < k - 1).sum())",
        (f"{RECALLS}recalls_are_those_of_loops_with_any_number_of_captions",),
    ),
]
