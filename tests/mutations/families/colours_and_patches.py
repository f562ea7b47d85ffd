"""Faults of colorization and of CPC: codes, weights, what a network must not see, and which patch is meant."""

from mutations.fault import Fault

COLOUR_SPACES = "test_colour_spaces.py::test_"
COLOURS = "objectives/test_colorization.py::test_"
NO_COLOUR = "methods/test_colorization_needs.py::test_"
STEMS = "nets/test_lightness_stems.py::test_"
CPC = "objectives/test_cpc.py::test_"
PATCHES = "methods/test_cpc_needs.py::test_"
LEARNER = "training/test_learner.py::test_"
LOOPS = "value_and_gradient_equal_the_loops_in_both_precisions"

FAULTS = [
    Fault(
        "Lab of numbers that are still on the curve of sRGB",
        "colour_spaces.py",
        "return torch.where(rgb > 0.04045, curved, rgb / 12.92)",
        "return rgb",
        (f"{COLOUR_SPACES}every_colour_of_a_grid_is_that_of_the_equations",),
    ),
    Fault(
        "a root of 0 in the gradient of black",
        "colour_spaces.py",
        "_power(t.clamp(min=0.008856), 1 / 3)",
        "_power(t, 1 / 3)",
        (f"{COLOUR_SPACES}gradients_are_finite_at_black_and_those_of_differences_elsewhere",),
    ),
    Fault(
        "a view in Lab is scaled as eight-bit images of it are, without the shift of a and b",
        "views/ops/colour_spaces.py",
        "made[:, 1:].add_(128.0).div_(255.0)",
        "made[:, 1:].div_(255.0)",
        (f"{COLOUR_SPACES}the_op_scales_the_colours_into_the_unit_interval",),
    ),
    Fault(
        "the code of a colour is its nearest bin alone",
        "objectives/_colour_bins.py",
        "(nearest / (-2 * SIGMA**2)).softmax(dim=1)",
        "(nearest * -1e9).softmax(dim=1)",
        (f"{COLOURS}the_soft_code_is_the_published_one", f"{COLOURS}{LOOPS}"),
    ),
    Fault(
        "the Gaussian of a code lacks its factor of two",
        "objectives/_colour_bins.py",
        "(nearest / (-2 * SIGMA**2)).softmax(dim=1)",
        "(nearest / (-(SIGMA**2))).softmax(dim=1)",
        (f"{COLOURS}the_soft_code_is_the_published_one",),
    ),
    Fault(
        "the candidates of a colour are those of a square that is too small",
        "objectives/_colour_bins.py",
        "half = SPACING / 2 + 1e-6",
        "half = 0.0",
        (f"{COLOURS}the_bins_of_a_colour_are_the_nearest_of_all_of_them",),
    ),
    Fault(
        "weights have an expectation of one over the bins, not over the prior",
        "objectives/_colour_bins.py",
        "return weights / (prior * torch.where(occurs, weights, 0)).sum()",
        "return weights / torch.where(occurs, weights, 0).mean()",
        (f"{COLOURS}the_weights_are_the_published_ones",),
    ),
    Fault(
        "the weights are left out of the loss, as a weight of the gradient alone is in ports",
        "objectives/colorization.py",
        "* weights[which[:, 0]].view(n, places)",
        "* torch.ones_like(weights)[which[:, 0]].view(n, places)",
        (f"{COLOURS}the_printed_loss_has_the_weights_in_it", f"{COLOURS}{LOOPS}"),
    ),
    Fault(
        "the weight of a place is that of its farthest bin",
        "objectives/colorization.py",
        "weights[which[:, 0]]",
        "weights[which[:, -1]]",
        (f"{COLOURS}{LOOPS}",),
    ),
    Fault(
        "grey images count",
        "objectives/colorization.py",
        "return (ab.abs() > self.section.grey).any(dim=1)",
        "return (ab.abs() >= 0).any(dim=1)",
        (f"{COLOURS}an_image_without_colour_gets_no_gradient_and_stays_in_the_mean",),
    ),
    Fault(
        "a and b lie place by place, where logits lie bin by bin",
        "objectives/colorization.py",
        "colours = in_float64(colours).view(n, 2, places)",
        "colours = in_float64(colours).view(n, places, 2).transpose(1, 2)",
        (f"{COLOURS}{LOOPS}",),
    ),
    Fault(
        "the prior that was found is not kept",
        "objectives/colorization.py",
        "prior.copy_(smoothed(in_float64(counts), self.section.smoothing))",
        "smoothed(in_float64(counts), self.section.smoothing)",
        (f"{COLOURS}the_prior_is_found_in_all_images_before_the_run_and_saved",),
    ),
    Fault(
        "the encoder sees the colours that it has to name",
        "methods/colorization.py",
        "maps_of(self.encoder, grey_of_lightness(view))",
        "maps_of(self.encoder, view)",
        (f"{NO_COLOUR}an_image_and_its_grey_version_give_the_same_logits_and_other_targets",),
    ),
    Fault(
        "the places of the logits are turned against those of the colours",
        "methods/colorization.py",
        "scores.view(n, h, w, -1).permute(0, 3, 1, 2)",
        "scores.view(n, h, w, -1).permute(0, 3, 2, 1)",
        (f"{NO_COLOUR}the_logits_of_a_place_are_those_of_the_pixels_there",),
    ),
    Fault(
        "colours are averages of pixels, in place of every fourth",
        "methods/colorization.py",
        'F.interpolate(view, size=self.grid, mode="nearest")',
        'F.interpolate(view, size=self.grid, mode="area")',
        (f"{NO_COLOUR}the_targets_are_the_colours_of_every_fourth_pixel",),
    ),
    Fault(
        "the stem of lightness takes the mean of the channels",
        "nets/stems.py",
        "lightness(x.clamp(0.0, 1.0)) / 50.0 - 1.0",
        "x.clamp(0.0, 1.0).mean(1, keepdim=True) * 2.0 - 1.0",
        (f"{STEMS}the_convolution_is_of_one_channel_which_is_the_lightness_from_minus_one_to_one",),
    ),
    Fault(
        "what comes before a run comes before every epoch",
        "training/looks.py",
        '    if step == 0 and hasattr(objective, "before_run"):',
        '    if hasattr(objective, "before_run"):',
        (f"{LEARNER}the_hook_before_a_run_gets_the_groups_of_each_image_once_and_not_where_a_run_is_resumed",),
    ),
    Fault(
        "an image that fills up the last batch is counted twice",
        "training/looks.py",
        "        if each not in seen:\n",
        "        if True:\n",
        (f"{LEARNER}the_hook_before_a_run_gets_the_groups_of_each_image_once_and_not_where_a_run_is_resumed",),
    ),
    Fault(
        "CPC: a prediction is of the patch beside it in the list, not of those rows further on",
        "objectives/cpc.py",
        "+ there - count + torch.arange(count)",
        "+ torch.arange(count)",
        (f"{CPC}each_prediction_is_of_the_published_patch", f"{CPC}{LOOPS}"),
    ),
    Fault(
        "CPC: negatives are those of the same image",
        "objectives/cpc.py",
        "others = scores.scatter(1, right, -torch.inf).logsumexp(dim=1)",
        "others = scores.scatter(1, right, -torch.inf)[:, :there].logsumexp(dim=1)",
        (f"{CPC}{LOOPS}",),
    ),
    Fault(
        "CPC: patches get no gradient",
        "objectives/cpc.py",
        "in_float64(patches.reshape(",
        "in_float64((patches.detach() + 0 * patches).reshape(",
        (f"{CPC}{LOOPS}",),
    ),
    Fault(
        "CPC: patches are not centred, and float32 loses the digits of those far from the origin",
        "objectives/cpc.py",
        "(centred - centred.detach().mean(dim=0))",
        "centred",
        (f"{CPC}patches_far_from_the_origin_keep_their_digits_in_float32",),
    ),
    Fault(
        "CPC: the context sees the row below",
        "methods/cpc.py",
        "shift=nn.ZeroPad2d((0, 0, 1, 0))",
        "shift=nn.ZeroPad2d((0, 0, 0, 1))",
        (f"{PATCHES}a_prediction_sees_the_rows_up_to_its_own_in_all_columns_and_nothing_below",),
    ),
    Fault(
        "CPC: all directions are one",
        "methods/cpc.py",
        "torch.rot90(seen, turns, (2, 3))",
        "torch.rot90(seen, 0, (2, 3))",
        (f"{PATCHES}each_direction_is_that_of_the_image_turned_with_networks_of_its_own",),
    ),
    Fault(
        "CPC: predictions are made from the rows that they are of",
        "methods/cpc.py",
        "context[:, :, : -int(rows)]",
        "context[:, :, int(rows) :]",
        (f"{PATCHES}the_target_of_a_prediction_lies_so_many_rows_below_it",),
    ),
    Fault(
        "CPC: patches are cut column by column",
        "methods/cpc.py",
        "cut.permute(0, 2, 3, 1, 4, 5)",
        "cut.permute(0, 3, 2, 1, 4, 5)",
        (f"{PATCHES}patches_are_cut_row_by_row_in_equal_steps",),
    ),
    Fault(
        "CPC: an encoder with batch norm is taken",
        "methods/cpc.py",
        "        _check_norms(encoder)\n",
        "",
        (f"{PATCHES}an_encoder_with_batch_norm_is_refused_as_all_patches_would_see_what_is_predicted",),
    ),
]
