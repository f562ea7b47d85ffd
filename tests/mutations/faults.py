"""Faults that an implementation of these methods can have, most of them found in published ones, as changes of ours.

Each is a sentence, a file of the package with the text that is right there and the text that is wrong, and the tests
that must fail: few, and quick. A text must occur exactly once; with changed code, change the fault.

The faults of a family of methods are in a file of their own in `families/`, as a list `FAULTS`, and are found there.
"""

import importlib
from pathlib import Path

from mutations.fault import Fault

BARLOW_TWINS = "objectives/test_barlow_twins.py::test_"
CROSS_ENTROPY = "objectives/test_barlow_twins_cross_entropy.py::test_"
VICREG = "objectives/test_vicreg.py::test_"
W_MSE = "objectives/test_w_mse.py::test_"
SIMCLR = "objectives/test_simclr.py::test_"
BYOL = "objectives/test_byol.py::test_"
MOCO = "objectives/test_moco.py::test_"
BYOL_VICREG = "objectives/test_byol_vicreg.py::test_"
SWAV = "objectives/test_swav.py::test_"
MOCO_V3 = "objectives/test_moco_v3.py::test_"
SIAMESE = "methods/test_siamese.py::test_"
TWO_BRANCHES = "methods/test_two_branches.py::test_"
SIMSIAM = "objectives/test_simsiam.py::test_"
ROTATION = "objectives/test_rotation.py::test_"
OBJECTIVES = "contracts/test_objectives.py::test_"
WITH_STATE = "contracts/test_objectives_with_state.py::test_"
SYNCHRONIZED = "nets/test_synchronized.py::test_"
COVARIANCE = "objectives/test_covariance.py::test_"
GRADIENTS = "objectives/test_gradients.py::test_"
WHITENING = "objectives/test_whitening.py::test_"
GROUPED = "nets/test_grouped_norms.py::test_"
GROUPED_WORLDS = "equivalence/test_grouped_processes.py::test_groups_across_processes_are_the_groups_of_one_process"
LINALG = "test_linalg.py::test_"
LARS = "optim/test_lars.py::test_"
SCHEDULES = "optim/test_schedules.py::test_"
DISTILLATION = "methods/test_distillation.py::test_"
LEARNER = "training/test_learner.py::test_"
BLOCKS = "data/test_blocks.py::test_"
NEAR = "data/test_near_duplicates.py::test_"
CHUNKS = "equivalence/test_chunks.py::test_"
BACKWARD = "training/test_global_gradient.py::test_"
ONE_STEP = "equivalence/test_one_step.py::test_two_processes_with_different_rows_take_the_step_of_one"
RUN_OF_ONE = "equivalence/test_processes.py::test_a_run_in_two_processes_is_the_run_of_one"
LOOPS = "value_and_gradient_equal_the_loops_in_both_precisions"

FAULTS = [
    # --- Several processes ------------------------------------------------------------------------------------------
    Fault(
        "the gradient is divided by the number of processes",
        "distributed.py",
        "return (own * ctx.size).to(ctx.dtype), None, None",
        "return own.to(ctx.dtype), None, None",
        (ONE_STEP,),
    ),
    Fault(
        "the gradient is the sum over the processes, not the mean",
        "distributed.py",
        "return (own * ctx.size).to(ctx.dtype), None, None",
        "return (own * ctx.size**2).to(ctx.dtype), None, None",
        (ONE_STEP,),
    ),
    Fault(
        "the objective sees the rows of its own process only",
        "distributed.py",
        "return list(_Gather.apply(torch.stack(list(embeddings)), self.rank, self.size))",
        "return [at_least_float32(z) for z in embeddings]",
        (ONE_STEP,),
    ),
    Fault(
        "the blocks of the processes come in reverse order",
        "distributed.py",
        "return at_least_float32(blocks.transpose(0, 1).flatten(1, 2))",
        "return at_least_float32(blocks.flip(0).transpose(0, 1).flatten(1, 2))",
        (ONE_STEP,),
    ),
    Fault(
        "the rows of the processes are interleaved",
        "distributed.py",
        "return at_least_float32(blocks.transpose(0, 1).flatten(1, 2))",
        "return at_least_float32(blocks.permute(1, 2, 0, 3).flatten(1, 2))",
        (ONE_STEP,),
    ),
    Fault(
        "the gradients of the processes are not averaged",
        "distributed.py",
        "return nn.parallel.DistributedDataParallel(network, **options)",
        "return network",
        (ONE_STEP,),
    ),
    # --- Batch norm -------------------------------------------------------------------------------------------------
    Fault(
        "batch norm sees the rows of its own process only",
        "nets/norms.py",
        "if world.size > 1 else",
        "if world.size < 1 else",
        (f"{SYNCHRONIZED}norms_are_exchanged_inside_and_back_outside_with_the_same_tensors",),
    ),
    Fault(
        "synchronised batch norm normalises by the statistics of its own process",
        "nets/norms.py",
        "world.collect(torch.stack([mean, variance])).unbind(1)",
        "torch.stack([mean, variance])[None].unbind(1)",
        (f"{ONE_STEP}[barlow_twins-with batch norm]",),
    ),
    Fault(
        "synchronised batch norm takes the mean of variances for the variance of all rows",
        "nets/norms.py",
        "variance = variances.mean(0) + (means - mean).square().mean(0)",
        "variance = variances.mean(0)",
        (f"{ONE_STEP}[vicreg-with batch norm]",),
    ),
    Fault(
        "no gradient passes from one process's loss to another's rows through batch norm",
        "nets/norms.py",
        "ctx.world.total(torch.stack([to_bias, to_weight]))",
        "(ctx.world.size * torch.stack([to_bias, to_weight]))",
        (f"{ONE_STEP}[vicreg-with batch norm]",),
    ),
    Fault(
        "the running variance of synchronised batch norm is the biased one",
        "nets/norms.py",
        "(variance * (count / max(count - 1, 1)))",
        "(variance)",
        (f"{ONE_STEP}[vicreg-with batch norm]", f"{SYNCHRONIZED}among_one_process_it_is_batch_norm"),
    ),
    Fault(
        "synchronised batch norm takes its statistics in the half precision of its input",
        "nets/norms.py",
        "exact = at_least_float32(x)\n",
        "exact = x\n",
        (f"{SYNCHRONIZED}among_one_process_it_is_batch_norm",),
    ),
    Fault(
        "the running variance of synchronised batch norm counts the rows of one process",
        "nets/norms.py",
        "self._remember(mean, variance, self.world.size * (input.numel() // input.shape[1]))",
        "self._remember(mean, variance, input.numel() // input.shape[1])",
        (f"{ONE_STEP}[vicreg-with batch norm]",),
    ),
    Fault(
        "grouped batch norm: query and key network have the same groups",
        "nets/grouped_norms.py",
        "zlib.crc32(self.network.encode())",
        "0",
        (
            f"{GROUPED}query_and_key_network_have_other_groups_in_every_step",
            f"{GROUPED}a_query_and_its_key_are_normalised_with_other_rows",
        ),
    ),
    Fault(
        "grouped batch norm: the groups are those of the first step in all steps",
        "nets/grouped_norms.py",
        "zlib.crc32(self.network.encode()), step)",
        "zlib.crc32(self.network.encode()), 0)",
        (f"{GROUPED}groups_differ_between_steps_and_between_seeds",),
    ),
    Fault(
        "grouped batch norm: the variance leaves out how far apart the means of processes are",
        "nets/group_normalized.py",
        "all_squares.sum(0) + values * (counts * (means - mean).square()).sum(0)",
        "all_squares.sum(0)",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "grouped batch norm: the variance leaves out how far apart the means of rows are",
        "nets/group_normalized.py",
        "squares_of_row + values * (of_row - mean[drawn.group]).square()",
        "squares_of_row",
        (f"{GROUPED}values_gradients_and_statistics_are_those_of_the_loops",),
    ),
    Fault(
        "grouped batch norm: the running variance of sorted rows is unbiased twice",
        "nets/group_normalized.py",
        "        variance *= (values - 1) / values  # torch's running variance is the unbiased one\n",
        "",
        (f"{GROUPED}values_gradients_and_statistics_are_those_of_the_loops",),
    ),
    Fault(
        "grouped batch norm: rows that were sorted by their groups are not put back",
        "nets/grouped_norms.py",
        "place.flatten().argsort())",
        "place.flatten())",
        (f"{GROUPED}values_gradients_and_statistics_are_those_of_the_loops",),
    ),
    Fault(
        "grouped batch norm: no gradient passes from one process's loss to another's rows",
        "nets/group_normalized.py",
        "ctx.world.total(own)",
        "(ctx.world.size * own)",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "grouped batch norm: rows that another process holds are taken for the first of this one",
        "nets/group_normalized.py",
        ".masked_fill(self.elsewhere.unsqueeze(2), 0)",
        "",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "the projector's batch norm sees each view where it should see all",
        "methods/siamese.py",
        'self.section.batch_norm_sees == "all_views")',
        "False)",
        ("methods/test_siamese.py::test_all_views_share_the_projectors_batch_norm_but_not_the_encoders",),
    ),
    # --- Data -------------------------------------------------------------------------------------------------------
    Fault(
        "every process takes the rows of the first",
        "distributed.py",
        "return slice(self.rank * share, (self.rank + 1) * share)",
        "return slice(0, share)",
        (
            f"{BLOCKS}the_blocks_of_all_processes_are_the_batch_of_one",
            "equivalence/test_processes.py::test_blocks_are_contiguous_and_a_batch_that_does_not_divide_is_refused_with_the_arithmetic",
        ),
    ),
    Fault(
        "every process takes the whole batch",
        "data/order.py",
        "[place * self.batch_size : (place + 1) * self.batch_size][self.block]",
        "[place * self.batch_size : (place + 1) * self.batch_size]",
        (f"{BLOCKS}the_blocks_of_all_processes_are_the_batch_of_one",),
    ),
    Fault(
        "a run does not tell its loader which rows are its own",
        "planning/preparation.py",
        "**options, block=own, known=Known(labels, spoken.tokens))",
        "**options, known=Known(labels, spoken.tokens))",
        (
            f"{BLOCKS}what_a_run_prepares_for_a_process_loads_the_rows_of_that_process[in_memory]",
            f"{BLOCKS}what_a_run_prepares_for_a_process_loads_the_rows_of_that_process[streaming]",
            RUN_OF_ONE,
        ),
    ),
    Fault(
        "the last short batch of an epoch is used, and counted as a full one",
        "data/epochs.py",
        "return max(1, images // max(1, batch_size))",
        "return max(1, -(-images // max(1, batch_size)))",
        (
            "data/test_loader.py::test_every_image_comes_once_an_epoch_in_another_order_and_the_short_batch_is_dropped[memory]",
        ),
    ),
    Fault(
        "near-duplicates are not looked for among mirrored images",
        "data/near_duplicates.py",
        "similar.add_(differences.abs_())",
        "similar.add_(differences)",
        (f"{NEAR}what_was_changed_slightly_is_most_like_its_original[mirrored]",),
    ),
    Fault(
        "near-duplicates are compared without the weights of their frequencies",
        "data/near_duplicates.py",
        "(squares[:, None] + squares).pow(0.25)",
        "(squares[:, None] + squares).clamp(0, 1)",
        (f"{NEAR}the_most_alike_are_those_of_a_loop_over_all_pairs[0]",),
    ),
    Fault(
        "candidates are called copies without a look at their detail",
        "data/copies.py",
        "(similarity > threshold.value).sum()",
        "(similarity > -1).sum()",
        ("data/test_copies.py::test_images_of_one_layout_are_no_copies_and_a_crop_of_one_of_them_is[120]",),
    ),
    Fault(
        "crops are not looked for in detail",
        "data/detail.py",
        "for side in PARTS:",
        "for side in ():",
        ("data/test_detail.py::test_crops_at_any_place_are_similar_to_the_whole_mirrored_too[0.9]",),
    ),
    Fault(
        "the copies in a set count as its look-alikes",
        "data/thresholds.py",
        "return pairs[~beyond]",
        "return pairs",
        ("data/test_thresholds.py::test_a_set_full_of_copies_has_the_threshold_that_it_would_have_without[900]",),
    ),
    Fault(
        "an image is its own near-duplicate",
        "data/near_duplicates.py",
        "similar[inside, at[inside]] = -math.inf",
        "similar[inside, at[inside]] += 0.0",
        (f"{NEAR}an_image_is_not_its_own_neighbour_where_it_is_left_out",),
    ),
    Fault(
        "a check's rows are those of the files, whether they can be read or not",
        "data/survey.py",
        "thumbnails, colour = thumbnails[ids], colour[ids]",
        "thumbnails, colour = thumbnails[: len(ids)], colour[: len(ids)]",
        ("data/test_survey.py::test_thumbnails_and_means_are_in_the_order_of_the_images_that_can_be_read",),
    ),
    Fault(
        "every difference of two sets that is beyond chance is told, however small",
        "data/shift.py",
        "return self.p < CHANCE and self.distance >= LEAST_DISTANCE",
        "return self.p < CHANCE",
        ("data/test_shift.py::test_a_difference_that_is_sure_and_small_is_not_told",),
    ),
    # --- Views ------------------------------------------------------------------------------------------------------
    Fault(
        "the hue turns by a sixth of what was drawn",
        "views/ops/colour.py",
        "chroma * (6.0 * shift)",
        "chroma * shift",
        ("views/test_ops_against_torchvision.py::test_each_part_of_the_jitter_is_torchvisions[hue]",),
    ),
    Fault(
        "a large image's blur leaves out taps that count",
        "views/ops/blur.py",
        "    CUT: ClassVar[int] = 5\n",
        "    CUT: ClassVar[int] = 2\n",
        ("views/test_ops_against_torchvision.py::test_blur_is_torchvisions_with_byols_kernel[opencv-224-224]",),
    ),
    Fault(
        "all chunks of a batch are changed by the draws of the first",
        "views/pipeline.py",
        "[draw[rows] for draw in draws]",
        "[draw[: len(x)] for draw in draws]",
        ("views/test_pipeline.py::test_large_batches_made_in_chunks_are_those_made_at_once",),
    ),
    Fault(
        "images are turned clockwise",
        "views/ops/rotate.py",
        "torch.rot90(x, k, (2, 3))",
        "torch.rot90(x, k, (3, 2))",
        (
            "views/test_rotate.py::test_a_square_is_turned_as_in_the_published_example[1-expected1]",
            "views/test_rotate.py::test_what_is_told_is_what_was_done_to_the_view[memory-24]",
        ),
    ),
    Fault(
        "what is told was drawn with the keys of the first view",
        "views/pipeline.py",
        "draws = op.draws(Keys(seed, epoch, ids, view, position))",
        "draws = op.draws(Keys(seed, epoch, ids, 0, position))",
        ("views/test_rotate.py::test_what_is_told_is_what_was_done_to_the_view[workers-24]",),
    ),
    Fault(
        "boxes are cut from images in memory without mapping their coordinates",
        "views/ops/crop.py",
        "self.resample(x, boxes * np.tile(np.array(x.shape[2:]) / sizes, (1, 2)))",
        "self.resample(x, boxes)",
        (
            "views/test_centre.py::test_an_image_held_at_a_square_gives_the_centre_of_the_original[120-180]",
            "views/test_pipeline.py::test_images_held_at_a_square_are_cropped_as_the_originals_are",
        ),
    ),
    Fault(
        "the limits of a crop's aspect ratio do not count from the view's",
        "views/ops/crop.py",
        "*np.log(self.ratio))) * aspect(self.size)",
        "*np.log(self.ratio)))",
        ("views/test_view_sizes.py::test_content_is_stretched_no_more_than_in_a_square_view",),
    ),
    Fault(
        "the centre view is cut from a square, whatever the shape of the view",
        "nets/preprocessing.py",
        "largest_inside((height, width), (high, wide))",
        "largest_inside((height, width), (1, 1))",
        (
            "nets/test_preprocessing.py::test_the_centre_box_is_the_largest_of_the_sizes_aspect_ratio[size0-20-100-box0]",
        ),
    ),
    Fault(
        "an evaluation reads images with 8 bits, whatever the run's range of values",
        "data/labelled.py",
        "channels=preprocessing.channels, value_range=value_range)",
        "channels=preprocessing.channels)",
        ("test_depth.py::test_preprocess_makes_of_a_file_and_of_its_array_what_evaluation_makes",),
    ),
    Fault(
        "long images are held at the shape of the views, from which crops are enlarged",
        "planning/choices.py",
        "times = images.aspect / aspect(view)",
        "times = 1.0",
        ("test_size.py::test_long_images_are_held_with_the_pixels_that_their_views_need",),
    ),
    # --- Barlow Twins -----------------------------------------------------------------------------------------------
    Fault(
        "Barlow Twins: the second view is detached",
        "objectives/barlow_twins.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{BARLOW_TWINS}{LOOPS}[size0-healthy]",),
    ),
    Fault(
        "Barlow Twins: lambda is ignored",
        "objectives/barlow_twins.py",
        "weights = (self.invariance, self.redundancy)",
        "weights = (self.invariance, 1.0)",
        (f"{BARLOW_TWINS}published_vectors", f"{BARLOW_TWINS}each_sum_has_a_weight_and_may_be_left_out"),
    ),
    Fault(
        "Barlow Twins: features are standardised by the unbiased variance",
        "linalg.py",
        "        return Standardized(x, z, scale, eps)\n",
        "        return Standardized(x * ((n - 1) / n) ** 0.5, z, scale * ((n - 1) / n) ** 0.5, eps)\n",
        (f"{BARLOW_TWINS}published_vectors", f"{BARLOW_TWINS}{LOOPS}[size0-healthy]"),
    ),
    Fault(
        "Barlow Twins: the standard deviation takes no part in the gradient",
        "objectives/_cross_correlation.py",
        "taken_by_on, sums = u * apart,",
        "taken_by_on, sums = u,",
        (f"{BARLOW_TWINS}{LOOPS}[size0-healthy]",),
    ),
    Fault(
        "Barlow Twins: the correlation is divided by a nominal batch size",
        "objectives/_cross_correlation.py",
        "rows.sum(), off_weight / n**2",
        "rows.sum(), off_weight / 256**2",
        (f"{BARLOW_TWINS}published_vectors",),
    ),
    Fault(
        "Barlow Twins: the off-diagonal sum has the diagonal in it",
        "objectives/_gradients.py",
        "    return matrix.fill_diagonal_(0).square()\n",
        "    return matrix.square()\n",
        (f"{BARLOW_TWINS}published_vectors", f"{VICREG}published_vectors"),
    ),
    Fault(
        "Barlow Twins: the Gram form has the diagonal in it",
        "objectives/_cross_correlation.py",
        "(gram_a * gram_b).sum() - (1 - apart).square().sum()",
        "(gram_a * gram_b).sum()",
        (
            f"{BARLOW_TWINS}{LOOPS}[size2-healthy]",
            f"{GRADIENTS}gram_and_direct_form_are_the_same_energy_with_the_same_gradient[size0-cross-correlation-healthy]",
        ),
    ),
    # --- VICReg -----------------------------------------------------------------------------------------------------
    Fault(
        "VICReg: the second view is detached",
        "objectives/vicreg.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{VICREG}{LOOPS}[size0-healthy]",),
    ),
    Fault(
        "VICReg: the variance is the sum over the views, twice what its weight is for",
        "objectives/vicreg.py",
        "mean(hinges)",
        "sum(hinges)",
        (f"{VICREG}published_vectors",),
        fast=True,
    ),
    Fault(
        "VICReg: the variance is the biased one",
        "objectives/_covariance.py",
        "else torch.float64) / (n - 1)",
        "else torch.float64) / n",
        (f"{VICREG}published_vectors", f"{COVARIANCE}variances_and_covariances_are_unbiased"),
    ),
    Fault(
        "VICReg: the covariance is the biased one",
        "objectives/_covariance.py",
        "(factor.T @ factor).div_(n - 1)",
        "(factor.T @ factor).div_(n)",
        (f"{VICREG}published_vectors", f"{COVARIANCE}variances_and_covariances_are_unbiased"),
    ),
    Fault(
        "VICReg: the covariance is the mean over the views, half of what its weight is for",
        "objectives/vicreg.py",
        "self.covariance * 2 * mean(energies)",
        "self.covariance * mean(energies)",
        (f"{VICREG}published_vectors",),
    ),
    Fault(
        "VICReg: the covariance is a mean over the d (d - 1) entries",
        "objectives/_covariance.py",
        "off_diagonal / z.shape[1]",
        "off_diagonal / (z.shape[1] * (z.shape[1] - 1))",
        (f"{VICREG}published_vectors",),
    ),
    Fault(
        "VICReg: variance and covariance are divided by a nominal batch size",
        "objectives/_covariance.py",
        "        n, d = z.shape\n        x = center(z)\n",
        "        n, d = z.shape\n        x = center(z)\n        n = 256\n",
        (f"{VICREG}published_vectors",),
    ),
    Fault(
        "VICReg: the Gram form has the diagonal in it",
        "objectives/_covariance.py",
        "matrix.square().sum() - spread.square().sum() + rank_excess",
        "matrix.square().sum() + rank_excess",
        (
            f"{VICREG}{LOOPS}[size3-healthy]",
            f"{GRADIENTS}gram_and_direct_form_are_the_same_energy_with_the_same_gradient[size3-covariance-healthy]",
        ),
    ),
    Fault(
        "VICReg: epsilon is added to the standard deviation, not to the variance",
        "objectives/_covariance.py",
        "(variance + eps).sqrt()",
        "(variance.sqrt() + eps)",
        (f"{VICREG}published_vectors", f"{VICREG}views_collapsed_to_one_point_cost_what_the_code_says"),
    ),
    Fault(
        "Barlow Twins by cross entropies: the second view is detached",
        "objectives/barlow_twins_cross_entropy.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{CROSS_ENTROPY}gradient_equals_finite_differences",),
    ),
    # --- W-MSE ------------------------------------------------------------------------------------------------------
    Fault(
        "W-MSE: the second view is detached",
        "objectives/w_mse.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{W_MSE}gradient_equals_finite_differences[healthy-objective0]",),
    ),
    Fault(
        "W-MSE: whitening takes its covariance for a constant",
        "linalg.py",
        "    factor, pivots = _cholesky(sigma)\n",
        "    factor, pivots = _cholesky(sigma.detach())\n",
        (
            f"{W_MSE}{LOOPS}[healthy-0.0-kind0]",
            f"{WHITENING}the_gradient_of_whitening_equals_finite_differences[healthy-cholesky]",
        ),
    ),
    Fault(
        "W-MSE: the views are whitened together",
        "objectives/w_mse.py",
        "whitened = whiten(slices, self.shrinkage, method=self.whitening)",
        "whitened = whiten(torch.cat(list(slices), -2), self.shrinkage, method=self.whitening)\n"
        "            whitened = torch.stack(whitened.split(k, -2))",
        (f"{W_MSE}published_vectors", f"{W_MSE}{LOOPS}[healthy-0.0-kind0]"),
    ),
    Fault(
        "W-MSE: the covariance is the biased one",
        "linalg.py",
        "    x = center(z)\n    sigma = x.mT @ x / (k - 1)\n",
        "    x = center(z)\n    sigma = x.mT @ x / k\n",
        (
            f"{W_MSE}published_vectors",
            f"{LINALG}whitened_slices_have_mean_zero_and_the_identity_as_covariance",
        ),
    ),
    Fault(
        "W-MSE: ZCA where Cholesky is asked for",
        "objectives/_whitening.py",
        'if method == "zca" else white',
        "if method else white",
        (f"{W_MSE}published_vectors",),
    ),
    Fault(
        "W-MSE: the distance is that of whitened rows that were not scaled to unit length",
        "objectives/w_mse.py",
        "whitened = torch.nn.functional.normalize(whitened, dim=-1)",
        "pass",
        (f"{W_MSE}published_vectors",),
    ),
    # --- SimCLR -------------------------------------------------------------------------------------------------------
    Fault(
        "SimCLR: negatives and positives that are looked up are constants",
        "objectives/simclr.py",
        "(ua / self.temperature @ ub.T)",
        "(ua / self.temperature @ ub.detach().T)",
        (f"{SIMCLR}published_value_and_gradient_of_unequal_lengths",),
    ),
    Fault(
        "SimCLR: the temperature is ignored",
        "objectives/simclr.py",
        ("        check_positive(temperature=self.temperature)\n"),
        (
            "        check_positive(temperature=self.temperature)\n"
            '        object.__setattr__(self, "temperature", 1.0)\n'
        ),
        (
            f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",
            f"{SIMCLR}published_value_and_gradient_of_unequal_lengths",
        ),
    ),
    Fault(
        "SimCLR: a row is a negative of itself",
        "objectives/simclr.py",
        "@ ub.T).fill_diagonal_(-torch.inf)",
        "@ ub.T)",
        (
            f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",
            f"{SIMCLR}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "SimCLR: the positive stands among the negatives, too",
        "objectives/simclr.py",
        "across = self._similarities(ua, ub)",
        "across = ua / self.temperature @ ub.T",
        (
            f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",
            f"{SIMCLR}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "SimCLR: only one direction is compared",
        "objectives/simclr.py",
        "return forth.mean() + back.mean()",
        "return 2 * forth.mean()",
        (
            f"{SIMCLR}value_and_gradient_equal_the_loops_in_both_precisions",
            f"{SIMCLR}positive_scales_of_rows_a_rotation_and_the_order_of_views_and_rows_change_nothing",
        ),
    ),
    Fault(
        "SimCLR: the second direction looks along the rows of the first",
        "objectives/simclr.py",
        "across.logsumexp(dim=0)",
        "across.logsumexp(dim=1)",
        (f"{SIMCLR}value_and_gradient_equal_the_loops_in_both_precisions",),
    ),
    Fault(
        "SimCLR: rows of the own view are no negatives",
        "objectives/simclr.py",
        "surprisal(right, torch.logaddexp(within_a, across.logsumexp(dim=1)))",
        "surprisal(right, across.logsumexp(dim=1))",
        (
            f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",
            f"{SIMCLR}equal_embeddings_cost_what_chance_does",
        ),
    ),
    Fault(
        "SimCLR: rows are compared at the length that they have",
        "objectives/simclr.py",
        "u = [directions(in_float64(view)) for view in views]",
        "u = [in_float64(view) for view in views]",
        (
            f"{SIMCLR}published_value_and_gradient_of_unequal_lengths",
            f"{SIMCLR}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "SimCLR: the sum of the directions where the paper's mean is asked for",
        "objectives/simclr.py",
        'share = 1 if self.convention == "code" else 1 / 2',
        "share = 1",
        (f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",),
    ),
    # --- BYOL ---------------------------------------------------------------------------------------------------------
    Fault(
        "BYOL, SimSiam: the target gets a gradient",
        "objectives/_directions.py",
        "in_float64(t.detach())",
        "in_float64(t)",
        (
            f"{BYOL}the_target_is_a_constant",
            f"{OBJECTIVES}a_target_gets_no_gradient[byol]",
            f"{SIMSIAM}the_target_is_a_constant",
            f"{OBJECTIVES}a_target_gets_no_gradient[simsiam]",
            f"{OBJECTIVES}a_target_gets_no_gradient[byol_vicreg]",
        ),
    ),
    Fault(
        "BYOL, SimSiam: the prediction is not scaled to length 1",
        "objectives/_directions.py",
        "squared_distance(directions(in_float64(p)), aim)",
        "squared_distance(in_float64(p), aim)",
        (
            f"{BYOL}published_values_of_rows_and_of_the_mean_over_both_groups",
            f"{BYOL}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "BYOL, SimSiam: the target is not scaled to length 1",
        "objectives/_directions.py",
        "aim = directions(in_float64(t.detach()))",
        "aim = in_float64(t.detach())",
        (
            f"{BYOL}published_values_of_rows_and_of_the_mean_over_both_groups",
            f"{BYOL}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "BYOL: the two directions are averaged, not added",
        "objectives/byol.py",
        "2 * prediction_error(prediction, target)",
        "prediction_error(prediction, target)",
        (
            f"{BYOL}published_values_of_rows_and_of_the_mean_over_both_groups",
            f"{BYOL}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "directions: a row of zeros is divided by its length",
        "objectives/_directions.py",
        "directed = ~(length <= SHORTEST)",
        "directed = length >= 0",
        (
            f"{BYOL}a_row_without_direction_has_a_cosine_of_zero_and_no_gradient[0.0]",
            f"{SIMCLR}a_row_without_direction_is_like_nothing_and_gets_no_gradient[0.0]",
        ),
    ),
    Fault(
        "directions: two that are none look like agreement",
        "objectives/_directions.py",
        "return torch.where(undirected, 2.0, (a - b).square().sum(dim=-1))",
        "return (a - b).square().sum(dim=-1)",
        (f"{BYOL}a_row_without_direction_has_a_cosine_of_zero_and_no_gradient[0.0]",),
    ),
    # --- SimSiam ------------------------------------------------------------------------------------------------------
    Fault(
        "SimSiam: the loss is BYOL's distance, not the cosine",
        "objectives/simsiam.py",
        "prediction_error(prediction, target) / 2 - 1",
        "prediction_error(prediction, target) - 1",
        (
            f"{SIMSIAM}published_values_of_rows_and_of_the_mean_over_both_groups",
            f"{SIMSIAM}published_gradient_of_the_prediction",
            f"{SIMSIAM}{LOOPS}",
        ),
    ),
    Fault(
        "SimSiam: the cosine is made as large as it can be wrong, not right",
        "objectives/simsiam.py",
        "prediction_error(prediction, target) / 2 - 1",
        "1 - prediction_error(prediction, target) / 2",
        (
            f"{SIMSIAM}published_values_of_rows_and_of_the_mean_over_both_groups",
            f"{SIMSIAM}published_gradient_of_the_prediction",
            f"{SIMSIAM}{LOOPS}",
        ),
    ),
    Fault(
        "VICReg's terms in BYOL: the distance is BYOL's where SimSiam's is asked for",
        "objectives/byol_vicreg.py",
        "error / 2 - 1",
        "2 * error",
        (f"{BYOL_VICREG}value_and_gradients_equal_the_loops_in_both_precisions[healthy-simsiam]",),
    ),
    Fault(
        "VICReg's terms in BYOL: the covariance is that of one view",
        "objectives/byol_vicreg.py",
        "self.covariance * 2 * energy",
        "self.covariance * energy",
        (f"{BYOL_VICREG}value_and_gradients_equal_the_loops_in_both_precisions[healthy-byol]",),
    ),
    # --- SwAV ---------------------------------------------------------------------------------------------------------
    Fault(
        "SwAV: a gradient flows through the codes",
        "objectives/swav.py",
        "    @torch.no_grad()\n    def _codes(",
        "    def _codes(",
        (f"{SWAV}three_steps_equal_the_loops_in_value_gradients_and_queue[healthy-2]",),
    ),
    Fault(
        "SwAV: a view predicts its own codes as well",
        "objectives/swav.py",
        "for v, p in enumerate(predictions) if v != i",
        "for v, p in enumerate(predictions)",
        (f"{SWAV}published_losses",),
    ),
    Fault(
        "SwAV: the queue is used before it is full",
        "objectives/swav.py",
        "(self.queue[view, -1] != 0).any()",
        "(self.queue[view, 0] != 0).any()",
        (f"{SWAV}a_queue_is_filled_from_its_time_on_and_used_once_it_is_full",),
    ),
    Fault(
        "SwAV: the batch comes into the queue before the codes",
        "objectives/swav.py",
        "            codes = [self._codes(i, scores[i], prototypes) for i in range(s.assigned)]\n",
        "            if s.queue and progress >= s.queue_from:\n"
        "                self._enqueue(u[: s.assigned])\n"
        "            codes = [self._codes(i, scores[i], prototypes) for i in range(s.assigned)]\n",
        (f"{SWAV}three_steps_equal_the_loops_in_value_gradients_and_queue[healthy-2]",),
    ),
    Fault(
        "SwAV: the queue keeps its oldest rows",
        "objectives/swav.py",
        "self.queue[view]])[: self.section.queue]",
        "self.queue[view]])[-self.section.queue :]",
        (f"{SWAV}three_steps_equal_the_loops_in_value_gradients_and_queue[healthy-2]",),
    ),
    Fault(
        "SwAV: the codes of the queue are learned from, not those of the batch",
        "objectives/swav.py",
        "s.iterations)[-len(scores) :]",
        "s.iterations)[: len(scores)]",
        (f"{SWAV}three_steps_equal_the_loops_in_value_gradients_and_queue[healthy-2]",),
    ),
    Fault(
        "SwAV: the temperature is that of the codes",
        "objectives/swav.py",
        "F.log_softmax(score / s.temperature, dim=1)",
        "F.log_softmax(score / s.epsilon, dim=1)",
        (f"{SWAV}published_losses",),
    ),
    Fault(
        "SwAV: the prototypes keep the length that the update gave them",
        "objectives/swav.py",
        "self.prototypes.copy_(directions(self.prototypes))",
        "pass",
        (f"{SWAV}prototypes_start_with_length_1_and_have_it_again_after_every_update",),
    ),
    Fault(
        "Sinkhorn: the last division is that of the prototypes",
        "objectives/_sinkhorn.py",
        "        logs = logs - logs.logsumexp(dim=0)\n        logs = logs - logs.logsumexp(dim=1, keepdim=True)\n",
        "        logs = logs - logs.logsumexp(dim=1, keepdim=True)\n        logs = logs - logs.logsumexp(dim=0)\n",
        (f"{SWAV}published_codes[3-0.05]",),
    ),
    Fault(
        "Sinkhorn: one iteration too many",
        "objectives/_sinkhorn.py",
        "for _ in range(iterations)",
        "for _ in range(iterations + 1)",
        (f"{SWAV}published_codes[1-0.25]",),
    ),
    # --- MoCo v3 ------------------------------------------------------------------------------------------------------
    Fault(
        "MoCo v3: the keys get a gradient",
        "objectives/moco_v3.py",
        "in_float64(keys.detach())",
        "in_float64(keys)",
        (f"{MOCO_V3}keys_are_constants",),
    ),
    Fault(
        "MoCo v3: the temperature does not scale the loss",
        "objectives/moco_v3.py",
        "4 * self.temperature * contrast",
        "4 * contrast",
        (f"{MOCO_V3}published_values",),
    ),
    Fault(
        "MoCo v3: the two directions are averaged, not added",
        "objectives/moco_v3.py",
        "4 * self.temperature * contrast",
        "2 * self.temperature * contrast",
        (f"{MOCO_V3}published_values",),
    ),
    # --- Crops of two sizes, two branches ---------------------------------------------------------------------------
    Fault(
        "siamese: small views are compared with each other, too",
        "methods/siamese.py",
        "if i < self.large",
        "if i <= self.large",
        (f"{SIAMESE}only_pairs_with_a_large_view_are_compared",),
    ),
    Fault(
        "siamese: the views of a size take a pass each",
        "methods/_networks.py",
        'if passes == "each_view":',
        "if True:",
        (f"{SIAMESE}the_encoder_takes_all_views_of_a_size_in_one_pass",),
    ),
    Fault(
        "two branches: both views go through the first",
        "methods/two_branches.py",
        'self.other["encoder"] if i % 2 else self.encoder',
        'self.other["encoder"] if i > 99 else self.encoder',
        (f"{TWO_BRANCHES}views_go_through_the_branches_in_turn",),
    ),
    Fault(
        "two branches: the other starts as a copy of the first",
        "training/assembly.py",
        'if part == "encoder" else derived(plan.recipe.seed, part)',
        "if part else derived(plan.recipe.seed, part)",
        (f"{TWO_BRANCHES}the_weights_of_the_other_branch_differ_from_the_first_of_the_same_architecture",),
    ),
    Fault(
        "LARS: the rate is outside of the momentum where it is asked for inside",
        "optim/lars.py",
        'if group["rate_in_momentum"] else',
        "if False else",
        (f"{LARS}the_rate_may_be_inside_of_the_momentum_or_outside_as_the_vector_says",),
    ),
    # --- MoCo ---------------------------------------------------------------------------------------------------------
    Fault(
        "MoCo: the keys come into the queue before the loss",
        "objectives/moco.py",
        (
            '            earlier = in_float64(self.get_buffer("queue").clone())\n'
            "            losses = [self._contrast(q, k, earlier) for q, k in zip(queries, keys, strict=True)]\n"
            '            terms = {"contrast": self.together(losses).to(flat[0].dtype)}\n'
            "            self._enqueue(entering)\n"
        ),
        (
            "            self._enqueue(entering)\n"
            '            earlier = in_float64(self.get_buffer("queue").clone())\n'
            "            losses = [self._contrast(q, k, earlier) for q, k in zip(queries, keys, strict=True)]\n"
            '            terms = {"contrast": self.together(losses).to(flat[0].dtype)}\n'
        ),
        (
            f"{MOCO}published_values",
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
            f"{WITH_STATE}the_state_changes_in_place_and_only_after_the_last_term[moco]",
        ),
        fast=True,
    ),
    Fault(
        "MoCo: the keys of the first group come in before the second is compared",
        "objectives/moco.py",
        "self._contrast(q, k, earlier) for q, k",
        '(self._contrast(q, k, self.get_buffer("queue").clone().double()), self._enqueue(k))[0] for q, k',
        (
            f"{MOCO}both_groups_meet_the_queue_that_the_step_before_has_left",
            f"{WITH_STATE}the_state_changes_in_place_and_only_after_the_last_term[moco]",
        ),
    ),
    Fault(
        "MoCo: the keys get a gradient",
        "objectives/moco.py",
        "directions(in_float64(k.detach()))",
        "directions(in_float64(k))",
        (
            f"{MOCO}keys_are_constants_and_the_queue_has_no_gradient",
            f"{OBJECTIVES}a_target_gets_no_gradient[moco]",
        ),
    ),
    Fault(
        "MoCo: keys are compared and kept at the length that they have",
        "objectives/moco.py",
        "directions(in_float64(k.detach()))",
        "in_float64(k.detach())",
        (
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
            f"{MOCO}all_keys_of_a_step_take_the_places_of_the_oldest_and_the_queue_wraps",
        ),
    ),
    Fault(
        "MoCo: queries are compared at the length that they have",
        "objectives/moco.py",
        "queries = [directions(in_float64(q)) for q in flat[::2]]",
        "queries = [in_float64(q) for q in flat[::2]]",
        (
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
            f"{MOCO}scales_of_rows_change_nothing_but_rows_that_do_not_belong_together_cost_more",
        ),
    ),
    Fault(
        "MoCo: the temperature is ignored",
        "objectives/moco.py",
        "scaled = q / self.temperature",
        "scaled = q / 0.07",
        (f"{MOCO}published_values",),
    ),
    Fault(
        "MoCo: the queue does not move on",
        "objectives/moco.py",
        "oldest.add_(len(keys)).remainder_(len(queue))",
        "pass",
        (
            f"{MOCO}all_keys_of_a_step_take_the_places_of_the_oldest_and_the_queue_wraps",
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
        ),
    ),
    Fault(
        "MoCo: the keys of one group only come into the queue",
        "objectives/moco.py",
        "return torch.cat(keys)",
        "return keys[-1]",
        (
            f"{MOCO}all_keys_of_a_step_take_the_places_of_the_oldest_and_the_queue_wraps",
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
        ),
    ),
    Fault(
        "MoCo: the groups are averaged, not added",
        "objectives/moco.py",
        "reduce(torch.add, losses)",
        "reduce(torch.add, losses).div(len(losses))",
        (
            f"{MOCO}both_groups_meet_the_queue_that_the_step_before_has_left",
            f"{MOCO}three_steps_equal_the_loops_in_value_gradient_and_queue",
        ),
    ),
    Fault(
        "MoCo: the place of the next key is not saved",
        "objectives/moco.py",
        "torch.zeros((), dtype=torch.int64))",
        "torch.zeros((), dtype=torch.int64), persistent=False)",
        (f"{WITH_STATE}resumed_from_its_state_it_goes_on_to_the_bit[moco-precision0]",),
    ),
    Fault(
        "MoCo: the queue starts with ambient random numbers",
        "objectives/moco.py",
        "torch.randn(length, width, generator=torch.Generator().manual_seed(seed))",
        "torch.randn(length, width)",
        (f"{WITH_STATE}initial_values_are_drawn_from_the_seed_alone[moco]",),
    ),
    Fault(
        "MoCo: the queue starts with keys of any length",
        "objectives/moco.py",
        'self.register_buffer("queue", directions(random))',
        'self.register_buffer("queue", random)',
        (f"{MOCO}the_queue_starts_with_directions_drawn_from_the_seed",),
    ),
    # --- Classifiers --------------------------------------------------------------------------------------------------
    Fault(
        "rotation: the classes are shifted by one",
        "objectives/rotation.py",
        "cross_entropy(logits, rotation, name",
        "cross_entropy(logits, (rotation + 1) % 4, name",
        (
            f"{ROTATION}the_classes_are_quarter_turns_counter_clockwise",
            f"{ROTATION}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "rotation: the classes count clockwise",
        "objectives/rotation.py",
        "cross_entropy(logits, rotation, name",
        "cross_entropy(logits, -rotation % 4, name",
        (
            f"{ROTATION}the_classes_are_quarter_turns_counter_clockwise",
            f"{ROTATION}value_and_gradient_equal_the_loops_in_both_precisions",
        ),
    ),
    Fault(
        "cross-entropy: the right class is not in the denominator",
        "objectives/_classification.py",
        "return -F.logsigmoid(right - others)",
        "return others - right",
        (
            f"{ROTATION}value_and_gradient_equal_the_loops_in_both_precisions",
            f"{SIMCLR}published_values_of_rows_of_the_papers_mean_and_of_the_codes_sum",
            f"{MOCO}published_values",
        ),
    ),
    Fault(
        "cross-entropy: it stands there twice",
        "objectives/_classification.py",
        "exact.scatter(1, right, -torch.inf)",
        "exact",
        (
            f"{ROTATION}value_and_gradient_equal_the_loops_in_both_precisions",
            f"{ROTATION}equal_logits_cost_the_logarithm_of_the_classes",
        ),
    ),
    Fault(
        "cross-entropy: the sum over the rows, not their mean",
        "objectives/_classification.py",
        ".mean().to(scores.dtype)",
        ".sum().to(scores.dtype)",
        (f"{ROTATION}value_and_gradient_equal_the_loops_in_both_precisions",),
    ),
    # --- All objectives ---------------------------------------------------------------------------------------------
    Fault(
        "the losses are computed in the half precision that embeddings come in",
        "objectives/_inputs.py",
        "prepared = [z.to(dtype) for z in views]",
        "prepared = list(views)",
        (f"{OBJECTIVES}half_precision_inputs_are_computed_in_float32",),
    ),
    Fault(
        "the losses are computed under the autocast of the networks",
        "objectives/_inputs.py",
        "self.off = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else None",
        "self.off = None",
        (
            "objectives/test_autocast.py::test_wide_embeddings_are_compared_in_full_precision_under_autocast_too[384-vicreg]",
        ),
    ),
    # --- LARS -------------------------------------------------------------------------------------------------------
    Fault(
        "LARS: the norm of the gradient is taken before the decay is added",
        "optim/lars.py",
        "q = _trust_ratios(parameters, updates,",
        "q = _trust_ratios(parameters, [g.to(wide) for g in gradients],",
        (
            f"{LARS}fifty_steps_are_those_of_the_loops[0.5-0.9-False-False]",
            f"{LARS}the_first_update_of_a_weight_has_a_length_set_by_the_weight_alone[10.0-1.0]",
        ),
    ),
    Fault(
        "LARS: the rate is inside of the momentum buffer",
        "optim/lars.py",
        'else (1.0, group["lr"])',
        'else (group["lr"], 1.0)',
        (f"{LARS}fifty_steps_are_those_of_the_loops[0.5-0.9-False-False]",),
    ),
    Fault(
        "LARS: vectors are adapted",
        "optim/lars.py",
        'adapt = group["adapt"] and p.ndim != 1',
        'adapt = group["adapt"]',
        (f"{LARS}vectors_are_neither_decayed_nor_adapted[False]",),
    ),
    Fault(
        "LARS: vectors are decayed",
        "optim/lars.py",
        'if group["weight_decay"] and (adapt or not group["adapt"]):',
        'if group["weight_decay"]:',
        (f"{LARS}vectors_are_neither_decayed_nor_adapted[False]",),
    ),
    Fault(
        "LARS: the group of vectors is adapted",
        "optim/groups.py",
        'group["adapt"] = not vectors and rule.trust_ratio',
        'group["adapt"] = True',
        (f"{LARS}the_groups_say_what_is_done_to_them",),
    ),
    Fault(
        "every optimizer: vectors are decayed although they are excluded",
        "optim/groups.py",
        " and not (vectors and exclude_1d)",
        "",
        ("optim/test_optimizers.py::test_parameters_of_one_dimension_are_not_decayed_when_excluded",),
    ),
    Fault(
        "LARS: where a norm is 0 the ratio is 0, and a weight that starts at 0 never moves",
        "optim/lars.py",
        "torch.where((p > 0) & (g > 0), q, torch.ones_like(q))",
        "torch.where((p > 0) & (g > 0), q, torch.zeros_like(q))",
        (f"{LARS}where_a_norm_is_zero_the_gradient_is_taken_as_it_is",),
    ),
    # --- Rates ------------------------------------------------------------------------------------------------------
    Fault(
        "the warm-up is a step early",
        "optim/schedules.py",
        "(1 - self.start) * step / self.warmup_steps",
        "(1 - self.start) * (step + 1) / self.warmup_steps",
        (f"{SCHEDULES}warmup_cosine_has_the_values_worked_out_by_hand",),
    ),
    Fault(
        "W-MSE's warm-up is a step late",
        "optim/schedules.py",
        "(step + 1) / self.warmup_steps",
        "step / self.warmup_steps",
        (f"{SCHEDULES}step_drops_have_w_mse_values",),
    ),
    Fault(
        "the cosine is a step early",
        "optim/schedules.py",
        "(step - self.warmup_steps) / (total - self.warmup_steps)",
        "(step - self.warmup_steps) / (total - 1 - self.warmup_steps)",
        (f"{SCHEDULES}the_last_update_is_slightly_above_the_floor_and_the_rate_falls_all_the_way",),
    ),
    Fault(
        "the loop takes the rate of the next step",
        "training/train.py",
        "course.rate(batch.step)",
        "course.rate(batch.step + 1)",
        ("test_pretraining.py::test_the_rate_follows_the_schedule_scaled_by_the_batch_and_is_logged",),
    ),
    Fault(
        "a constant learning rate follows the schedule",
        "optim/optimizers.py",
        'if group.get("schedule") != "constant":',
        "if True:",
        ("optim/test_groups.py::test_every_parameter_moves_as_its_rule_says",),
    ),
    Fault(
        "a frozen parameter moves a step late",
        "optim/optimizers.py",
        "progress < until",
        "progress <= until",
        ("optim/test_groups.py::test_a_share_of_the_run_is_so_many_of_its_steps",),
    ),
    # --- Chunks, and activations made again -------------------------------------------------------------------------
    Fault(
        "chunks: dropout has other masks when a chunk is run again",
        "training/global_gradient.py",
        "        with draws(number), world.autocast(precision):\n",
        "        with world.autocast(precision):\n",
        (f"{CHUNKS}the_second_pass_of_a_chunk_draws_what_the_first_one_drew",),
    ),
    Fault(
        "chunks: all of them have the same dropout masks",
        "training/learner.py",
        'names = (("step", step), ("process", world.rank), ("chunk", chunk))',
        'names = (("step", step), ("process", world.rank))',
        ("test_loss_and_draws.py::test_every_step_process_and_chunk_draws_its_own_numbers_and_the_same_again",),
    ),
    Fault(
        "all processes have the same dropout masks",
        "training/learner.py",
        'names = (("step", step), ("process", world.rank), ("chunk", chunk))',
        'names = (("step", step), ("chunk", chunk))',
        ("test_loss_and_draws.py::test_every_step_process_and_chunk_draws_its_own_numbers_and_the_same_again",),
    ),
    Fault(
        "chunks: buffers count every row twice",
        "training/global_gradient.py",
        "            buffer.copy_(value)\n",
        "            pass\n",
        (
            f"{CHUNKS}batch_norm_per_chunk_is_what_its_name_says",
            f"{BACKWARD}a_chunk_that_is_run_again_finds_the_state_that_it_found_first",
        ),
    ),
    Fault(
        "chunks: the gradient is that of the last chunk",
        "training/global_gradient.py",
        "            _carry(distinct(embedded(number, rows[part]).groups)[0], held, part)\n",
        "            if last:\n                _carry(distinct(embedded(number, rows[part]).groups)[0], held, part)\n",
        (f"{CHUNKS}chunks_have_the_gradient_of_the_whole_batch[5-vicreg]",),
    ),
    Fault(
        "chunks: each has an objective of its own, without the rows of the others",
        "training/global_gradient.py",
        "    terms = terms_of(held, places)\n",
        "    made = [terms_of([z[part] for z in held], places) for part in parts]\n"
        "    terms = {name: sum(terms[name] for terms in made) / len(made) for name in made[0]}\n",
        (
            f"{CHUNKS}chunks_have_the_gradient_of_the_whole_batch[5-vicreg]",
            f"{CHUNKS}the_objective_is_called_once_a_step_with_the_global_batch",
        ),
    ),
    Fault(
        "chunks: no process hears of the gradients of the others",
        "training/global_gradient.py",
        "if last else world.apart(network)",
        "if False else world.apart(network)",
        (
            f"{ONE_STEP}[vicreg-in chunks]",
            f"{BACKWARD}gradients_are_exchanged_once_a_step_however_many_chunks_there_are[4]",
        ),
    ),
    Fault(
        "chunks: gradients are exchanged and averaged after every one",
        "training/global_gradient.py",
        "if last else world.apart(network)",
        "if True else world.apart(network)",
        (f"{BACKWARD}gradients_are_exchanged_once_a_step_however_many_chunks_there_are[4]",),
    ),
    Fault(
        "activations made again: running statistics count every row twice",
        "nets/recompute.py",
        "context_fn=lambda: (contextlib.nullcontext(), statistics_kept(block))",
        "context_fn=lambda: (contextlib.nullcontext(), contextlib.nullcontext())",
        (f"{CHUNKS}recomputed_activations_give_the_same_gradients_and_buffers_to_the_bit[resnet18-options0-8]",),
    ),
    # --- The weight of the loss -------------------------------------------------------------------------------------
    Fault(
        "the weight of the loss is ignored",
        "training/global_gradient.py",
        "(loss_weight * torch.stack(list(terms.values())).sum()).backward()",
        "torch.stack(list(terms.values())).sum().backward()",
        (
            f"{BACKWARD}the_weight_of_the_loss_is_a_factor_of_the_gradient_and_not_of_the_terms[None]",
            f"{BACKWARD}the_weight_of_the_loss_is_a_factor_of_the_gradient_and_not_of_the_terms[4]",
        ),
    ),
    Fault(
        "a run does not hand the recipe's weight of the loss on",
        "training/assembly.py",
        "        loss_weight=optim.loss_weight,\n",
        "        loss_weight=1.0,\n",
        ("test_loss_and_draws.py::test_a_run_weighs_its_gradient_as_the_recipe_says_and_logs_the_loss_as_it_is",),
    ),
    # --- Methods with a target --------------------------------------------------------------------------------------
    Fault(
        "the target's momentum is the wrong way round",
        "methods/_slow.py",
        "list(online), 1 - keep)",
        "list(online), keep)",
        (f"{DISTILLATION}a_constant_momentum_moves_the_target_as_the_vector_says",),
    ),
    Fault(
        "the target's momentum never rises",
        "methods/_slow.py",
        'if schedule == "cosine":',
        "if False:",
        (f"{DISTILLATION}a_cosine_momentum_moves_the_target_as_the_vector_says",),
    ),
    Fault(
        "a gradient flows through the target",
        "methods/distillation.py",
        "return z.detach() if self.stop_gradient else z",
        "return z",
        (f"{DISTILLATION}without_a_momentum_the_target_is_the_online_network_behind_a_stop_gradient[True]",),
    ),
    Fault(
        "the target sees the view that is predicted from",
        "methods/distillation.py",
        "[(online[i][2], targets[j]) for i, j in pairs]",
        "[(online[i][2], targets[i]) for i, j in pairs]",
        (f"{DISTILLATION}the_target_of_another_view_is_what_a_view_predicts",),
    ),
    Fault(
        "online network and target have the same groups of batch norm",
        "training/learner.py",
        "Grouping(rows=rows, seed=self.seed, network=name)",
        'Grouping(rows=rows, seed=self.seed, network="one")',
        (f"{LEARNER}the_two_networks_of_a_method_have_groups_of_their_own",),
    ),
    # --- The learner ------------------------------------------------------------------------------------------------
    Fault(
        "the objective's own parameters are not trained",
        "training/learner.py",
        '        *((f"objective.{name}", p) for name, p in _parameters(objective) if p.requires_grad),\n',
        "",
        (f"{LEARNER}an_objective_with_parameters_is_trained_saved_and_loaded",),
    ),
    Fault(
        "the objective's own state is not saved",
        "training/learner.py",
        "return objective.state_dict() if isinstance(objective, nn.Module) else {}",
        "return {}",
        (f"{LEARNER}an_objective_with_parameters_is_trained_saved_and_loaded",),
    ),
    Fault(
        "an objective with state is called once for each group",
        "training/comparison.py",
        "            return _checked(self.objective(groups, **asked))\n",
        "            found = [_checked(self.objective([group], **asked)) for group in groups]\n"
        "            return {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}\n",
        (f"{LEARNER}an_objective_with_state_is_called_once_a_step_with_all_groups",),
    ),
    Fault(
        "what is known of the rows is that of this process's own",
        "training/learner.py",
        "self.world.collect(known[name].to(device)).flatten(0, 1)",
        "known[name].to(device).repeat(self.world.size)",
        ("contracts/test_methods.py::test_several_processes_with_different_rows_make_the_run_of_one[2]",),
    ),
    Fault(
        "the target is not moved after a step",
        "training/learner.py",
        "        self.method.after_step(progress)\n",
        "",
        (f"{LEARNER}after_an_update_the_method_is_told_how_far_the_run_was",),
    ),
]

for _path in sorted((Path(__file__).parent / "families").glob("*.py")):
    FAULTS += importlib.import_module(f"mutations.families.{_path.stem}").FAULTS
