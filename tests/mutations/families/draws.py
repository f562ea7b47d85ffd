"""Faults that scores and intervals of several draws can have."""

from mutations.fault import Fault

FEWSHOT = "probes/test_fewshot.py::test_"

FAULTS = [
    Fault(
        "draws: the gains are not paired draw by draw",
        "probes/drawn.py",
        "each - worse[name] for",
        "each - worse[name][::-1] for",
        (f"{FEWSHOT}the_interval_of_a_gain_is_students_of_the_differences_draw_by_draw",),
        fast=True,
    ),
    Fault(
        "draws: the share by class leaves the first class out",
        "probes/metrics.py",
        'right["top1"][labels == c].mean() for c in np.unique(labels)',
        'right["top1"][labels == c].mean() for c in np.unique(labels)[1:]',
        (f"{FEWSHOT}the_share_by_class_of_draws_is_the_mean_of_that_of_each_draw",),
    ),
    Fault(
        "draws: the interval is over draws, though all of them are the same",
        "probes/drawn.py",
        "np.ptp(each) <= ROUNDING",
        "len(each) == 1",
        (
            f"{FEWSHOT}draws_that_all_have_the_same_images_have_an_interval_over_the_test_images",
            f"{FEWSHOT}draws_that_differ_and_have_one_value_are_not_taken_for_certain",
        ),
    ),
    Fault(
        "search: equals stay in the order of the images",
        "protocols/retrieval.py",
        "order[row] = np.lexsort((keys, unlike[row]))",
        "order[row] = np.argsort(unlike[row], kind='stable') if len(keys) else row",
        (
            "probes/test_retrieval.py::test_features_that_do_not_vary_find_what_chance_finds_whatever_the_order_of_the_images",
        ),
    ),
    Fault(
        "chance: a random order has the share of the images that have the label",
        "probes/average_precision.py",
        "(right - 1) / (n - 1) * (1 - first) + first",
        "right / n",
        ("probes/test_conventions_of_map.py::test_on_few_images_chance_is_above_the_share_that_has_the_label",),
    ),
]
