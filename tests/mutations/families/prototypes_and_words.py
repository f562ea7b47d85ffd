"""Faults of OBoW: of its lists of words, its bags, and the slow copy that gives maps."""

from mutations.fault import Fault

OBOW = "objectives/test_obow.py::test_"
SLOW_MAPS = "methods/test_slow_maps.py::test_"
PATCH = "views/test_patch.py::test_"

FAULTS = [
    Fault(
        "obow: bags are made with the mean distance of the step before",
        "objectives/_words.py",
        "sharp = -inverse_temperature / distance",
        "sharp = -inverse_temperature / self.distance",
        (f"{OBOW}published_bags_and_the_mean_distance_that_they_are_made_with",),
        fast=True,
    ),
    Fault(
        "obow: the mean distance moves the wrong way round",
        "objectives/_words.py",
        "(memory * self.distance + (1 - memory) * least)",
        "((1 - memory) * self.distance + memory * least)",
        (f"{OBOW}published_bags_and_the_mean_distance_that_they_are_made_with",),
    ),
    Fault(
        "obow: weights of words are averaged over positions",
        "objectives/_words.py",
        ".softmax(dim=2).amax(dim=1)",
        ".softmax(dim=2).mean(dim=1)",
        (f"{OBOW}published_bags_and_the_mean_distance_that_they_are_made_with",),
    ),
    Fault(
        "obow: distances are not squared",
        "objectives/_words.py",
        "(lengths - 2 * block @ words.T).clamp_(min=0)",
        "(lengths - 2 * block @ words.T).clamp_(min=0).sqrt()",
        (f"{OBOW}published_bags_and_the_mean_distance_that_they_are_made_with",),
    ),
    Fault(
        "obow: words are not scaled to length 1 before their network",
        "objectives/_words.py",
        "directions(exact(self.words.clone())) @ exact(self.first).T",
        "exact(self.words.clone()) @ exact(self.first).T",
        (f"{OBOW}value_gradients_and_mean_distances_equal_the_loops",),
    ),
    Fault(
        "obow: features are scaled to length 1",
        "objectives/_words.py",
        "predicted = in_float64(kappa * exact(p)",
        "predicted = in_float64(kappa * directions(exact(p))",
        (f"{OBOW}value_gradients_and_mean_distances_equal_the_loops",),
    ),
    Fault(
        "obow: kinds of crops are averaged",
        "objectives/obow.py",
        "torch.stack([kind.mean() for kind in kinds]).sum()",
        "torch.stack([kind.mean() for kind in kinds]).mean()",
        (f"{OBOW}losses_are_means_over_the_crops_of_a_kind_and_sums_over_kinds",),
    ),
    Fault(
        "obow: the step's words come in first",
        "objectives/obow.py",
        "            of_crops: list[list[Scalar]] = [[] for _ in groups]",
        "            self._remember(maps[0], [words.distance for words in self._lists()], ids)\n"
        "            of_crops: list[list[Scalar]] = [[] for _ in groups]",
        (f"{OBOW}bags_and_directions_are_made_of_the_lists_before_the_steps_words_come_in",),
    ),
    Fault(
        "obow: the newest words are replaced",
        "objectives/obow.py",
        "self.oldest.add_(len(ids))",
        "self.oldest.add_(0 * len(ids))",
        (f"{OBOW}every_image_leaves_a_word_in_each_list_in_the_place_of_the_oldest_and_the_list_wraps",),
    ),
    Fault(
        "obow: windows lie at the same places in every step",
        "objectives/obow.py",
        "self.steps.add_(1)",
        "self.steps.add_(0)",
        (f"{OBOW}places_of_windows_are_drawn_evenly_for_each_step_level_and_id_whatever_the_batch",),
    ),
    Fault(
        "obow: windows are drawn by the row of the batch",
        "objectives/obow.py",
        '"windows of maps", self.steps, ids, part=level)',
        '"windows of maps", self.steps, torch.arange(len(ids)), part=level)',
        (f"{OBOW}places_of_windows_are_drawn_evenly_for_each_step_level_and_id_whatever_the_batch",),
    ),
    Fault(
        "slow maps: the encoder itself gives the maps",
        "methods/slow_maps.py",
        'maps_of(self.target["encoder"], view',
        "maps_of(self.encoder, view",
        (f"{SLOW_MAPS}the_copy_gives_maps_of_the_first_view_and_the_encoder_features_of_the_others",),
    ),
    Fault(
        "slow maps: the padded edge is kept",
        "methods/slow_maps.py",
        "self.stages, self.section.border)",
        "self.stages, 0 * self.section.border)",
        (f"{SLOW_MAPS}positions_at_the_edges_are_left_out",),
    ),
    Fault(
        "slow maps: channels come before positions",
        "nets/maps.py",
        "border : m.shape[3] - border].permute(0, 2, 3, 1)",
        "border : m.shape[3] - border]",
        (f"{SLOW_MAPS}channels_of_a_position_lie_side_by_side",),
    ),
    Fault(
        "patches: offsets in both directions are one",
        "views/ops/patch.py",
        "np.floor(uniforms[:, 2:4] * (self.jitter + 1))",
        "np.floor(uniforms[:, 2:3] * (self.jitter + 1))",
        (f"{PATCH}of_a_whole_image_the_patches_are_the_papers_nine_places_with_their_offsets",),
    ),
]
