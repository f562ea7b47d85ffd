"""Faults of tiles: where windows lie, in which order, what is told of it, and what the classes are."""

from mutations.fault import Fault

VIEWS = "views/test_tiles.py::test_"
ORDERS = "test_orders.py::test_"
PILLOW = "views/test_ops_against_pillow.py::test_"
CUES = "views/test_standardize_and_dropping.py::test_"
JIGSAW = "objectives/test_jigsaw.py::test_"
METHOD = "methods/test_tiles_apart.py::test_"

FAULTS = [
    Fault(
        "tiles: the order that is told is that of the places, not of the tiles",
        "views/ops/tiles.py",
        "return tile_orders.ranks_of(order)",
        "return tile_orders.ranks_of(np.argsort(order, axis=1))",
        (f"{VIEWS}the_order_that_is_told_is_that_in_which_the_windows_lie",),
        fast=True,
    ),
    Fault(
        "tiles: all windows of an image lie at one place of their cells",
        "views/ops/tiles.py",
        "places = keys.uniforms(0, 2 * tiles).T.reshape(n, tiles, 2)",
        "places = np.tile(keys.uniforms(0, 2).T[:, None], (1, tiles, 1))",
        (f"{VIEWS}windows_lie_anywhere_in_their_cells_and_never_outside",),
    ),
    Fault(
        "tiles: a window never touches the far edges of its cell",
        "views/ops/tiles.py",
        "return np.floor(places * (room + 1)).astype(np.int64)",
        "return np.floor(places * max(room, 1)).astype(np.int64)",
        (f"{VIEWS}windows_lie_anywhere_in_their_cells_and_never_outside",),
    ),
    Fault(
        "tiles: with a jitter, windows lie from the corner of their room on",
        "views/ops/tiles.py",
        "return room // 2 - jitter + np.floor",
        "return np.floor",
        (f"{VIEWS}with_a_jitter_windows_lie_that_near_to_the_centres_of_their_cells",),
    ),
    Fault(
        "tiles: they are numbered column by column",
        "views/ops/tiles.py",
        "tiles = x.reshape(n, c, rows, high, columns, wide).permute(0, 2, 4, 1, 3, 5)",
        "tiles = x.reshape(n, c, rows, high, columns, wide).permute(0, 4, 2, 1, 3, 5)",
        (f"{VIEWS}cutting_and_joining_are_inverse_and_go_row_by_row",),
    ),
    Fault(
        "patch pair: positions go down the columns",
        "views/ops/tiles.py",
        "np.array([(row, column) for row in range(3) for column in range(3) if",
        "np.array([(row, column) for column in range(3) for row in range(3) if",
        (f"{VIEWS}the_position_that_is_told_is_that_of_the_neighbour_as_published",),
    ),
    Fault(
        "each tile: all tiles of a view have the draws of the first",
        "views/each_tile.py",
        "op=keys.op + (t + 1) * OF_TILE",
        "op=keys.op + OF_TILE",
        (f"{VIEWS}each_tile_is_changed_as_an_image_of_its_own_with_draws_of_its_own",),
    ),
    Fault(
        "orders: the next is the nearest to those taken",
        "orders.py",
        'score = total.copy() if distance == "mean"',
        'score = -total if distance == "mean"',
        (f"{ORDERS}a_hundred_orders_of_nine_tiles_are_as_far_apart_as_published",),
    ),
    Fault(
        "orders: the one in which nothing moves is among them",
        "orders.py",
        "list(permutations(range(tiles)))[1:]",
        "list(permutations(range(tiles)))[:-1]",
        (f"{ORDERS}a_set_has_different_orders_by_rank_and_never_that_in_which_nothing_moves",),
    ),
    Fault(
        "jigsaw: an order that is not in the set counts as the next one",
        "objectives/jigsaw.py",
        "if not bool((ranks[classes] == told).all()):",
        "if False:",
        (f"{JIGSAW}an_order_that_is_not_in_the_set_is_refused",),
    ),
    Fault(
        "jigsaw: the set of a checkpoint is not looked at",
        "objectives/jigsaw.py",
        'self.register_buffer("orders", orders)',
        "self.orders = orders",
        (f"{JIGSAW}the_set_of_orders_is_in_the_checkpoint_and_says_what_the_classes_are",),
    ),
    Fault(
        "context prediction: left and right are exchanged",
        "objectives/context_prediction.py",
        "cross_entropy(logits, position, name",
        "cross_entropy(logits, 7 - position, name",
        ("objectives/test_context_prediction.py::test_each_position_is_a_class",),
    ),
    Fault(
        "the head of tiles takes their mean",
        "methods/_tiles.py",
        "torch.flatten(parts.view(len(view), -1, parts.shape[1]), 1)",
        "parts.view(len(view), -1, parts.shape[1]).mean(1).repeat(1, len(features) // len(view))",
        (f"{METHOD}the_order_in_which_tiles_lie_is_seen_by_the_head_and_not_by_the_encoder",),
    ),
    Fault(
        "equalize: levels are counted over all channels",
        "views/ops/photometric.py",
        "counts.scatter_add_(1, levels, torch.ones_like(levels))",
        "counts.scatter_add_(1, levels, torch.ones_like(levels)); counts[:] = counts.sum(0, keepdim=True)",
        (f"{PILLOW}posterize_and_equalize_are_exactly_pillows",),
    ),
    Fault(
        "sharpness: the smooth image weighs all nine pixels alike",
        "views/ops/photometric.py",
        "smooth.add_(inner * 4.0).div_(13.0)",
        "smooth.div_(9.0)",
        (f"{PILLOW}sharpness_is_torchvisions_and_pillows_but_for_rounding",),
    ),
    Fault(
        "randaugment: rotations go clockwise",
        "views/ops/rand_augment.py",
        "cos, sin = cosine[:, :, 0], sine[:, :, 0]",
        "cos, sin = cosine[:, :, 0], -sine[:, :, 0]",
        (f"{PILLOW}each_op_of_randaugment_is_pillows",),
    ),
    Fault(
        "dropped colours: noise is the same in both channels and all images",
        "views/ops/color_dropping.py",
        "words = seeds[:, None] + torch.arange(count",
        "words = 0 * seeds[:, None] + torch.arange(count",
        (f"{CUES}noise_is_unrelated_from_pixel_to_pixel_and_image_to_image",),
    ),
    Fault(
        "standardisation is over all channels at once",
        "views/ops/standardize.py",
        "channel_means(x.square())[:, :, None, None].sqrt_()",
        "channel_means(x.square())[:, :, None, None].mean(1, keepdim=True).sqrt_()",
        (f"{CUES}every_channel_has_one_mean_and_one_spread_afterwards",),
    ),
]
