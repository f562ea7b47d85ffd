"""Faults of the methods that tell images apart by a memory bank."""

from mutations.fault import Fault

NPID = "objectives/test_npid.py::test_"
LOOPS = f"{NPID}three_steps_equal_the_loops_in_value_gradient_and_bank"
PUBLISHED = f"{NPID}published_values"
WITH_STATE = "contracts/test_objectives_with_state.py::test_"
BANK, DRAWS, NPID_FILE = "objectives/_bank.py", "objectives/_draws.py", "objectives/npid.py"

FAULTS = [
    Fault(
        "bank: an image that comes twice is written twice, and the last row wins",
        BANK,
        "means = (sums / counts.clamp(min=1)[:, None])[image]",
        "means = sorted_u",
        (f"{NPID}an_image_that_comes_twice_moves_its_row_once_towards_the_mean_in_any_order_of_the_rows",),
        fast=True,
    ),
    Fault(
        "bank: rows are not scaled to length 1 after they moved",
        BANK,
        "moved = directions(momentum * self.rows[listed].to(means.dtype) + (1 - momentum) * means)",
        "moved = momentum * self.rows[listed].to(means.dtype) + (1 - momentum) * means",
        (PUBLISHED, f"{NPID}a_row_keeps_its_share_and_has_length_1_after_a_step"),
    ),
    Fault(
        "bank: momentum is the share of the new embedding",
        BANK,
        "directions(momentum * self.rows[listed].to(means.dtype) + (1 - momentum) * means)",
        "directions((1 - momentum) * self.rows[listed].to(means.dtype) + momentum * means)",
        (f"{NPID}a_row_keeps_its_share_and_has_length_1_after_a_step",),
    ),
    Fault(
        "bank: the constant is the mean of exp(score), not times the number of images",
        BANK,
        "return mean * len(self.rows)",
        "return mean",
        (PUBLISHED,),
    ),
    Fault(
        "bank: the constant is taken anew in every step",
        BANK,
        "if bool(self.constant > 0):",
        "if bool(self.constant < 0):",
        (f"{NPID}the_constant_is_that_of_the_first_batch_and_stays",),
    ),
    Fault(
        "bank: the constant is not kept, so that a resumed run takes another",
        BANK,
        "bank.constant.copy_(constant)",
        "constant.clone()",
        (f"{NPID}the_constant_is_that_of_the_first_batch_and_stays",),
    ),
    Fault(
        "bank: noise-contrastive estimation takes the mean over its negatives",
        BANK,
        "return right + torch.log1p((likely[:, 1:] + EPS) / share).sum(dim=1)",
        "return right + torch.log1p((likely[:, 1:] + EPS) / share).mean(dim=1)",
        (PUBLISHED,),
    ),
    Fault(
        "bank: the share of the noise is 1 / N, not k / N",
        BANK,
        "share = (scaled.shape[1] - 1) / len(self.rows)",
        "share = 1 / len(self.rows)",
        (PUBLISHED,),
    ),
    Fault(
        "bank: the right image is one of the others, too",
        BANK,
        "of_all.scatter(1, own, -torch.inf)",
        "of_all",
        (PUBLISHED,),
    ),
    Fault(
        "bank: the gradient of a part goes to all parts",
        BANK,
        "return upstream[0][:, None] * gradient, None, None",
        "return upstream[0].mean() * gradient.mean(dim=0).expand_as(gradient), None, None",
        (LOOPS,),
    ),
    Fault(
        "bank: the step is written before it is scored",
        NPID_FILE,
        "            constant = self.constant(self.bank, u[0], ids, negatives)\n",
        "            constant = self.constant(self.bank, u[0], ids, negatives)\n"
        "            self.bank.write(ids, u[0].detach(), 0.5)\n",
        (PUBLISHED, f"{WITH_STATE}the_state_changes_in_place_and_only_after_the_last_term"),
    ),
    Fault(
        "draws: every step draws the same negatives",
        BANK,
        "self.steps.add_(1)",
        "self.steps.add_(0)",
        (f"{NPID}a_later_step_draws_others",),
    ),
    Fault(
        "draws: a shift repeats the sign",
        DRAWS,
        "return (words >> by) & ((1 << (64 - by)) - 1)",
        "return words >> by",
        (f"{NPID}draws_are_the_hashes_of_their_keys",),
    ),
    Fault(
        "draws: the step is left out of the key",
        DRAWS,
        "for word in (NEGATIVES, seed, step):",
        "for word in (NEGATIVES, seed, seed):",
        (f"{NPID}draws_are_the_hashes_of_their_keys",),
    ),
]
