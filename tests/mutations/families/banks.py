"""Faults of the methods that tell images apart by a memory bank."""

from mutations.fault import Fault

NPID = "objectives/test_npid.py::test_"
LOOPS = f"{NPID}three_steps_equal_the_loops_in_value_gradient_and_bank"
PUBLISHED = f"{NPID}published_values"
WITH_STATE = "contracts/test_objectives_with_state.py::test_"
TWO = "objectives/test_cmc_and_pirl.py::test_"
INFOMIN = "objectives/test_infomin.py::test_"
LAB = "nets/test_lab_halves.py::test_"
TILES = "methods/test_image_and_tiles.py::test_"
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
    Fault(
        "CMC: each half is compared with its own bank",
        "objectives/cmc.py",
        '"lightness": self.colour.surprise(lightness, ids, negatives, self.how, of_colours),',
        '"lightness": self.lightness.surprise(lightness, ids, negatives, self.how, of_colours),',
        (f"{TWO}cmcs_published_values_and_both_its_constants",),
    ),
    Fault(
        "CMC: each bank takes the embeddings of the other half",
        "objectives/cmc.py",
        "(self.lightness, lightness, of_lightnesses), (self.colour, colour, of_colours)",
        "(self.lightness, colour, of_lightnesses), (self.colour, lightness, of_colours)",
        (f"{TWO}cmcs_banks_each_take_the_embeddings_of_their_own_half",),
    ),
    Fault(
        "PIRL: the tiles move the rows, too",
        "objectives/pirl.py",
        "self.finish([(self.bank, image, constant)], ids)",
        "self.finish([(self.bank, (image + tiles) / 2, constant)], ids)",
        (f"{TWO}pirls_published_values", f"{TWO}pirl_without_tiles_is_npid_and_the_tiles_move_no_row"),
    ),
    Fault(
        "PIRL: both terms have half of the weight, whatever the share",
        "objectives/pirl.py",
        '{"image": (1 - self.share) * of_image, "tiles": self.share * of_tiles}',
        '{"image": 0.5 * of_image, "tiles": 0.5 * of_tiles}',
        (f"{TWO}the_share_of_the_tiles_weighs_both_terms_and_nothing_else",),
    ),
    Fault(
        "InfoMin: the keys come into the queue with every query",
        "objectives/infomin.py",
        "return keys[0]",
        "return keys[0].repeat(2, 1)",
        (f"{INFOMIN}three_steps_equal_the_loops_in_value_gradient_and_queue",),
    ),
    Fault(
        "InfoMin: the losses of image and tiles are added",
        "objectives/infomin.py",
        "return mean(losses)",
        "return mean(losses) * len(losses)",
        (f"{INFOMIN}it_is_half_of_mocos_sum_over_the_same_groups",),
    ),
    Fault(
        "Lab: a and b are normalised by each other's numbers",
        "nets/lab_halves.py",
        "MEAN, DEVIATION = (50.0, 6.025, -6.690), (50.0, 92.208, 101.168)",
        "MEAN, DEVIATION = (50.0, -6.690, 6.025), (50.0, 101.168, 92.208)",
        (f"{LAB}one_half_sees_the_lightness_and_the_other_the_colour_as_cmc_normalises_them",),
    ),
    Fault(
        "halves: one network is taken for two",
        "methods/halves.py",
        'if not callable(getattr(encoder, "halves", None)):',
        "if False:",
        (f"{LAB}one_network_has_no_halves_that_see_different_things",),
    ),
    Fault(
        "halves: both have the same half of the features",
        "methods/halves.py",
        "halves = [f.chunk(2, dim=1) for f in features]",
        "halves = [f.chunk(2, dim=1)[:1] * 2 for f in features]",
        (f"{LAB}each_half_has_a_head_of_its_own_and_what_is_compared_is_both",),
    ),
    Fault(
        "image and tiles: the key is of the first view",
        "methods/image_and_tiles.py",
        'self.target["encoder"](others[0])',
        'self.target["encoder"](image)',
        (f"{TILES}with_a_slow_copy_image_and_tiles_have_the_key_of_the_plain_second_view",),
    ),
    Fault(
        "image and tiles: the slow copy is the online network",
        "methods/image_and_tiles.py",
        "follow(self.target.parameters(), online, self.momentum, self.schedule, progress)",
        "follow(self.target.parameters(), online, 0.0, self.schedule, progress)",
        (f"{TILES}with_a_slow_copy_image_and_tiles_have_the_key_of_the_plain_second_view",),
    ),
]
