"""Faults that an implementation of counting can have."""

from mutations.fault import Fault

COUNTING = "objectives/test_counting_objective.py::test_"
TILE_SUM = "methods/test_tile_sum.py::test_"
OBJECTIVES = "contracts/test_objectives.py::test_"
LOOPS = f"{COUNTING}value_and_gradient_equal_the_loops_in_both_precisions"
OBJECTIVE, METHOD = "objectives/counting.py", "methods/tile_sum.py"

FAULTS = [
    Fault(
        "counting: the hinge is on each feature by itself, and the mean over them",
        OBJECTIVE,
        "missing = (self.margin - (squares - 2 * summed @ whole.T)).clamp(min=0)",
        "missing = (self.margin - (summed[:, None] - whole).square()).clamp(min=0).mean(dim=2)",
        (f"{COUNTING}published_values_are_those_of_whole_vectors", LOOPS),
    ),
    Fault(
        "counting: the distance is a mean over the features",
        OBJECTIVE,
        "(whole - summed).square().sum(dim=1).mean()",
        "(whole - summed).square().mean()",
        (f"{COUNTING}published_values_are_those_of_whole_vectors", LOOPS),
    ),
    Fault(
        "counting: the hinge is on the distance, not on its square",
        OBJECTIVE,
        "(squares - 2 * summed @ whole.T)",
        "(squares - 2 * summed @ whole.T).clamp(min=1e-12).sqrt()",
        (f"{COUNTING}published_values_are_those_of_whole_vectors", LOOPS),
    ),
    Fault(
        "counting: the other image may be the image itself",
        OBJECTIVE,
        "others = ids[:, None] != ids",
        "others = ids[:, None] > -1",
        (
            f"{COUNTING}published_values_are_those_of_whole_vectors",
            f"{COUNTING}a_row_of_the_same_image_is_no_other_image",
            f"{COUNTING}counting_nothing_costs_the_margin_and_counting_right_and_apart_costs_nothing",
        ),
    ),
    Fault(
        "counting: the other image is told by its row, not by its id",
        OBJECTIVE,
        "others = ids[:, None] != ids",
        "others = ~torch.eye(len(ids), dtype=torch.bool)",
        (f"{COUNTING}a_row_of_the_same_image_is_no_other_image",),
    ),
    Fault(
        "counting: the other image is that of the next row",
        OBJECTIVE,
        "others = ids[:, None] != ids",
        "others = torch.eye(len(ids), dtype=torch.bool).roll(1, 1)",
        (f"{OBJECTIVES}permuting_the_rows_of_all_views_together_changes_only_rounding[counting]", LOOPS),
    ),
    Fault(
        "counting: rows with many other images weigh more",
        OBJECTIVE,
        "(missing.where(others, 0).sum(dim=1) / others.sum(dim=1)).mean()",
        "missing.where(others, 0).sum() / others.sum()",
        (f"{COUNTING}every_row_weighs_the_same_however_many_other_images_it_has",),
    ),
    Fault(
        "counting: no gradient of the hinge reaches the sum of the quarters",
        OBJECTIVE,
        "(squares - 2 * summed @ whole.T)",
        "(squares - 2 * summed.detach() @ whole.T)",
        (f"{COUNTING}published_gradient_of_one_image_beside_another", LOOPS),
    ),
    Fault(
        "counting: other images are drawn together, not pushed apart",
        OBJECTIVE,
        "missing = (self.margin - (squares - 2 * summed @ whole.T)).clamp(min=0)",
        "missing = ((squares - 2 * summed @ whole.T) - self.margin).clamp(min=0)",
        (f"{COUNTING}counting_nothing_costs_the_margin_and_counting_right_and_apart_costs_nothing", LOOPS),
    ),
    Fault(
        "counting: the margin is 1",
        OBJECTIVE,
        "margin: float = 10.0",
        "margin: float = 1.0",
        (f"{COUNTING}published_values_are_those_of_whole_vectors",),
    ),
    Fault(
        "counting: the loss of unrelated embeddings leaves out how far those below the margin are",
        OBJECTIVE,
        " - 2 * width * _below(width / 2 + 1, self.margin / 4)",
        "",
        (f"{COUNTING}of_unrelated_narrow_embeddings_the_hinge_is_seen_in_the_levels",),
    ),
    Fault(
        "counting: half the size is every second pixel",
        METHOD,
        "F.avg_pool2d(view, QUARTERS)",
        "view[:, :, ::2, ::2]",
        (f"{TILE_SUM}the_whole_is_halved_by_the_mean_of_four_pixels_and_quarters_keep_theirs",),
    ),
    Fault(
        "counting: the quarters' mean, not their sum",
        METHOD,
        "-1, whole.shape[1]).sum(dim=1)",
        "-1, whole.shape[1]).mean(dim=1)",
        (f"{TILE_SUM}the_sum_is_over_the_four_quarters_of_the_same_image",),
    ),
    Fault(
        "counting: quarters of several images are summed",
        METHOD,
        "parts.view(n, -1, whole.shape[1]).sum(dim=1)",
        "parts.view(-1, n, whole.shape[1]).sum(dim=0)",
        (f"{TILE_SUM}the_sum_is_over_the_four_quarters_of_the_same_image",),
    ),
    Fault(
        "counting: counts may be negative",
        METHOD,
        "nn.ReLU() if rectified",
        "nn.Identity() if rectified",
        (f"{TILE_SUM}what_is_counted_is_not_negative_unless_that_is_asked_for",),
    ),
    Fault(
        "counting: no gradient reaches the whole",
        METHOD,
        "(whole, parts.view(",
        "(whole.detach(), parts.view(",
        (f"{TILE_SUM}the_gradient_reaches_the_encoder_through_the_whole_and_through_every_quarter",),
    ),
    Fault(
        "counting: wholes and quarters are normalised apart",
        METHOD,
        "features_of(self.encoder, torch.cat([F.avg_pool2d(view, QUARTERS), quarters]))",
        "torch.cat([features_of(self.encoder, F.avg_pool2d(view, QUARTERS)), features_of(self.encoder, quarters)])",
        (f"{TILE_SUM}one_pass_takes_all_five_so_that_batch_norm_sees_them_together",),
    ),
]
