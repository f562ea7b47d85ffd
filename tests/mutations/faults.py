"""Faults that an implementation of these methods can have, most of them found in published ones, as changes of ours.

Each is a sentence, a file of the package with the text that is right there and the text that is wrong, and the tests
that must fail: few, and quick. A text must occur exactly once; with changed code, change the fault.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One wrong variant."""

    name: str
    file: str
    right: str
    wrong: str
    caught_by: tuple[str, ...]
    fast: bool = False
    """Whether the ordinary suite tries it: some of each kind. The others run at night."""


BARLOW_TWINS = "objectives/test_barlow_twins.py::test_"
CROSS_ENTROPY = "objectives/test_barlow_twins_cross_entropy.py::test_"
VICREG = "objectives/test_vicreg.py::test_"
W_MSE = "objectives/test_w_mse.py::test_"
OBJECTIVES = "contracts/test_objectives.py::test_"
SYNCHRONIZED = "nets/test_synchronized.py::test_"
GROUPED = "nets/test_grouped_norms.py::test_"
GROUPED_WORLDS = "equivalence/test_grouped_processes.py::test_groups_across_processes_are_the_groups_of_one_process"
LINALG = "test_linalg.py::test_"
LARS = "optim/test_lars.py::test_"
SCHEDULES = "optim/test_schedules.py::test_"
BLOCKS = "data/test_blocks.py::test_"
CHUNKS = "equivalence/test_chunks.py::test_"
BACKWARD = "methods/test_backward.py::test_"
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
        fast=True,
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
        fast=True,
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
        fast=True,
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
        "nets/grouped_norms.py",
        "all_squares.sum(0) + values * (counts * (means - mean).square()).sum(0)",
        "all_squares.sum(0)",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "grouped batch norm: the variance leaves out how far apart the means of rows are",
        "nets/grouped_norms.py",
        "squares_of_row + values * (of_row - mean[drawn.group]).square()",
        "squares_of_row",
        (f"{GROUPED}values_gradients_and_statistics_are_those_of_the_loops",),
    ),
    Fault(
        "grouped batch norm: no gradient passes from one process's loss to another's rows",
        "nets/grouped_norms.py",
        "ctx.world.total(own)",
        "(ctx.world.size * own)",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "grouped batch norm: rows that another process holds are taken for the first of this one",
        "nets/grouped_norms.py",
        ".masked_fill(self.elsewhere.unsqueeze(2), 0)",
        "",
        (f"{GROUPED_WORLDS}[2]",),
    ),
    Fault(
        "the projector's batch norm sees each view where it should see all",
        "methods/siamese.py",
        'if self.batch_norm_sees == "each_view":',
        "if True:",
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
        "data/loader.py",
        "[place * self.batch_size : (place + 1) * self.batch_size][self.block]",
        "[place * self.batch_size : (place + 1) * self.batch_size]",
        (f"{BLOCKS}the_blocks_of_all_processes_are_the_batch_of_one",),
    ),
    Fault(
        "a run that streams does not tell its loader which rows are its own",
        "resolve.py",
        "max_bad=data.max_bad,\n            block=own,",
        "max_bad=data.max_bad,",
        (f"{BLOCKS}what_a_run_prepares_for_a_process_loads_the_rows_of_that_process[streaming]", RUN_OF_ONE),
    ),
    Fault(
        "a run in memory does not tell its loader which rows are its own",
        "resolve.py",
        "device=device,\n            block=own,",
        "device=device,",
        (f"{BLOCKS}what_a_run_prepares_for_a_process_loads_the_rows_of_that_process[in_memory]",),
    ),
    Fault(
        "the last short batch of an epoch is used, and counted as a full one",
        "data/loader.py",
        "self.steps_per_epoch = count // batch_size",
        "self.steps_per_epoch = -(-count // batch_size)",
        (
            "data/test_loader.py::test_every_image_comes_once_an_epoch_in_another_order_and_the_short_batch_is_dropped[memory]",
        ),
    ),
    # --- Views ------------------------------------------------------------------------------------------------------
    Fault(
        "the hue turns by a sixth of what was drawn",
        "views/ops.py",
        "chroma * (6.0 * shift)",
        "chroma * shift",
        ("views/test_ops_against_torchvision.py::test_each_part_of_the_jitter_is_torchvisions[hue]",),
    ),
    Fault(
        "a large image's blur leaves out taps that count",
        "views/ops.py",
        "    CUT = 5  #",
        "    CUT = 2  #",
        ("views/test_ops_against_torchvision.py::test_blur_is_torchvisions_with_byols_kernel[opencv-224-224]",),
    ),
    Fault(
        "all chunks of a batch are changed by the draws of the first",
        "views/pipeline.py",
        "[draw[rows] for draw in draws]",
        "[draw[: len(x)] for draw in draws]",
        ("views/test_pipeline.py::test_large_batches_made_in_chunks_are_those_made_at_once",),
    ),
    # --- Barlow Twins -----------------------------------------------------------------------------------------------
    Fault(
        "Barlow Twins: the second view is detached",
        "objectives/barlow_twins.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{BARLOW_TWINS}{LOOPS}[size0-healthy]",),
        fast=True,
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
        "linalg.py",
        "taken_by_on, sums = u * apart,",
        "taken_by_on, sums = u,",
        (f"{BARLOW_TWINS}{LOOPS}[size0-healthy]",),
    ),
    Fault(
        "Barlow Twins: the correlation is divided by a nominal batch size",
        "linalg.py",
        "rows.sum(), off_weight / n**2",
        "rows.sum(), off_weight / 256**2",
        (f"{BARLOW_TWINS}published_vectors",),
    ),
    Fault(
        "Barlow Twins: the off-diagonal sum has the diagonal in it",
        "linalg.py",
        "    return matrix.fill_diagonal_(0).square()\n",
        "    return matrix.square()\n",
        (f"{BARLOW_TWINS}published_vectors", f"{VICREG}published_vectors"),
    ),
    Fault(
        "Barlow Twins: the Gram form has the diagonal in it",
        "linalg.py",
        "(gram_a * gram_b).sum() - (1 - apart).square().sum()",
        "(gram_a * gram_b).sum()",
        (
            f"{BARLOW_TWINS}{LOOPS}[size2-healthy]",
            f"{LINALG}gram_and_direct_form_are_the_same_energy_with_the_same_gradient[size0-cross-correlation-healthy]",
        ),
    ),
    # --- VICReg -----------------------------------------------------------------------------------------------------
    Fault(
        "VICReg: the second view is detached",
        "objectives/vicreg.py",
        "with full_precision(z) as views:\n",
        "with full_precision(z) as views:\n            views = [views[0], *(view.detach() for view in views[1:])]\n",
        (f"{VICREG}{LOOPS}[size0-healthy]",),
        fast=True,
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
        "linalg.py",
        "else torch.float64) / (n - 1)",
        "else torch.float64) / n",
        (f"{VICREG}published_vectors", f"{LINALG}covariance_is_unbiased"),
        fast=True,
    ),
    Fault(
        "VICReg: the covariance is the biased one",
        "linalg.py",
        "(factor.T @ factor).div_(n - 1)",
        "(factor.T @ factor).div_(n)",
        (f"{VICREG}published_vectors", f"{LINALG}covariance_is_unbiased"),
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
        "objectives/vicreg.py",
        "off_diagonal / z.shape[1]",
        "off_diagonal / (z.shape[1] * (z.shape[1] - 1))",
        (f"{VICREG}published_vectors",),
    ),
    Fault(
        "VICReg: variance and covariance are divided by a nominal batch size",
        "linalg.py",
        "        n, d = z.shape\n        x = center(z)\n",
        "        n, d = z.shape\n        x = center(z)\n        n = 256\n",
        (f"{VICREG}published_vectors",),
    ),
    Fault(
        "VICReg: the Gram form has the diagonal in it",
        "linalg.py",
        "matrix.square().sum() - spread.square().sum() + rank_excess",
        "matrix.square().sum() + rank_excess",
        (
            f"{VICREG}{LOOPS}[size3-healthy]",
            f"{LINALG}gram_and_direct_form_are_the_same_energy_with_the_same_gradient[size3-covariance-healthy]",
        ),
    ),
    Fault(
        "VICReg: epsilon is added to the standard deviation, not to the variance",
        "objectives/vicreg.py",
        "(variance + self.eps).sqrt()",
        "(variance.sqrt() + self.eps)",
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
        fast=True,
    ),
    Fault(
        "W-MSE: whitening takes its covariance for a constant",
        "linalg.py",
        "    factor, pivots = _cholesky(sigma)\n",
        "    factor, pivots = _cholesky(sigma.detach())\n",
        (
            f"{W_MSE}{LOOPS}[healthy-0.0-kind0]",
            f"{LINALG}the_gradient_of_whitening_equals_finite_differences[healthy-cholesky]",
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
        "linalg.py",
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
        "    with torch.autocast(kind, enabled=False):\n",
        "    with nullcontext():\n",
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
        """            torch._foreach_addcmul_(buffers, updates, q.unbind())
        else:
            torch._foreach_add_(buffers, updates)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])
""",
        """            torch._foreach_addcmul_(buffers, updates, (q * group["lr"]).unbind())
        else:
            torch._foreach_add_(buffers, updates, alpha=group["lr"])
        torch._foreach_add_(parameters, buffers, alpha=-1)
""",
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
        "train.py",
        "now := rate(batch.step, total)",
        "now := rate(batch.step + 1, total)",
        ("test_train.py::test_the_rate_follows_the_schedule_scaled_by_the_batch_and_is_logged",),
    ),
    Fault(
        "a constant learning rate follows the schedule",
        "optim/optimizers.py",
        'if group.get("schedule") != "constant":',
        "if True:",
        ("optim/test_groups.py::test_every_parameter_moves_as_its_rule_says",),
    ),
    Fault(
        "a frozen parameter moves a step early",
        "optim/optimizers.py",
        "progress <= until",
        "progress < until",
        (
            "optim/test_groups.py::test_a_share_of_the_run_is_so_many_of_its_steps",
            "optim/test_groups.py::test_a_frozen_parameter_neither_moves_nor_gathers_state",
        ),
    ),
    # --- Chunks, and activations made again -------------------------------------------------------------------------
    Fault(
        "chunks: dropout has other masks when a chunk is run again",
        "methods/backward.py",
        "        with draws(number), world.autocast(precision):\n",
        "        with world.autocast(precision):\n",
        (f"{CHUNKS}queues_targets_and_dropout_are_those_of_one_pass_over_the_chunks",),
    ),
    Fault(
        "chunks: all of them have the same dropout masks",
        "train.py",
        'names = (("step", step), ("process", world.rank), ("chunk", chunk))',
        'names = (("step", step), ("process", world.rank))',
        ("test_loss_and_draws.py::test_every_step_process_and_chunk_draws_its_own_numbers_and_the_same_again",),
    ),
    Fault(
        "all processes have the same dropout masks",
        "train.py",
        'names = (("step", step), ("process", world.rank), ("chunk", chunk))',
        'names = (("step", step), ("chunk", chunk))',
        ("test_loss_and_draws.py::test_every_step_process_and_chunk_draws_its_own_numbers_and_the_same_again",),
    ),
    Fault(
        "chunks: buffers count every row twice",
        "methods/backward.py",
        "            buffer.copy_(value)\n",
        "            pass\n",
        (
            f"{CHUNKS}batch_norm_per_chunk_is_what_its_name_says",
            f"{BACKWARD}a_chunk_that_is_run_again_finds_the_state_that_it_found_first",
        ),
    ),
    Fault(
        "chunks: the gradient is that of the last chunk",
        "methods/backward.py",
        "            _carry(embedded(number, part), compared, part)\n",
        "            if last:\n                _carry(embedded(number, part), compared, part)\n",
        (f"{CHUNKS}chunks_have_the_gradient_of_the_whole_batch[5-vicreg]",),
    ),
    Fault(
        "chunks: each has an objective of its own, without the rows of the others",
        "methods/backward.py",
        "    terms = objective(*world.gather(compared))\n",
        "    made = [objective(*world.gather([z[part] for z in compared])) for part in parts]\n"
        "    terms = {name: sum(terms[name] for terms in made) / len(made) for name in made[0]}\n",
        (
            f"{CHUNKS}chunks_have_the_gradient_of_the_whole_batch[5-vicreg]",
            f"{CHUNKS}the_objective_is_called_once_a_step_with_the_global_batch",
        ),
    ),
    Fault(
        "chunks: no process hears of the gradients of the others",
        "methods/backward.py",
        "if last else world.apart(network)",
        "if False else world.apart(network)",
        (
            f"{ONE_STEP}[vicreg-in chunks]",
            f"{BACKWARD}gradients_are_exchanged_once_a_step_however_many_chunks_there_are[4]",
        ),
    ),
    Fault(
        "chunks: gradients are exchanged and averaged after every one",
        "methods/backward.py",
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
        "methods/backward.py",
        "        (loss_weight * torch.stack(list(terms.values())).sum()).backward()\n        return",
        "        torch.stack(list(terms.values())).sum().backward()\n        return",
        (f"{BACKWARD}the_weight_of_the_loss_is_a_factor_of_the_gradient_and_not_of_the_terms[None]",),
    ),
    Fault(
        "chunks: the weight of the loss is ignored",
        "methods/backward.py",
        "    (loss_weight * torch.stack(list(terms.values())).sum()).backward()\n    for",
        "    torch.stack(list(terms.values())).sum().backward()\n    for",
        (f"{BACKWARD}the_weight_of_the_loss_is_a_factor_of_the_gradient_and_not_of_the_terms[4]",),
    ),
    Fault(
        "a run does not hand the recipe's weight of the loss on",
        "train.py",
        "            chosen.optim.loss_weight,\n",
        "            1.0,\n",
        ("test_loss_and_draws.py::test_a_run_weighs_its_gradient_as_the_recipe_says_and_logs_the_loss_as_it_is",),
    ),
]
