"""Faults of exemplar: whose copy a view is, and which negative a triplet has."""

from mutations.fault import Fault

EXEMPLAR = "objectives/test_exemplar.py::test_"

FAULTS = [
    Fault(
        "exemplar triplets: the nearest negative is taken, however near",
        "objectives/exemplar_triplets.py",
        "further = of_others & (distances > to_copy[:, None])",
        "further = of_others",
        (f"{EXEMPLAR}triplets_and_their_gradients_equal_the_loops",),
    ),
    Fault(
        "exemplar triplets: distances are not squared",
        "objectives/exemplar_triplets.py",
        "distances = 2.0 - 2.0 * (u @ u.T)",
        "distances = (2.0 - 2.0 * (u @ u.T)).clamp(min=0).sqrt()",
        (f"{EXEMPLAR}semi_hard_triplets_have_the_published_value",),
    ),
    Fault(
        "exemplar triplets: where none is further, the nearest is taken",
        "objectives/exemplar_triplets.py",
        "torch.where(of_others, distances, -torch.inf).argmax(dim=1)",
        "torch.where(of_others, distances, torch.inf).argmin(dim=1)",
        (f"{EXEMPLAR}of_no_further_negative_the_furthest_is_taken",),
    ),
    Fault(
        "exemplar: the classes are places in the batch",
        "objectives/exemplar.py",
        'losses.append(cross_entropy(logits, ids, name="ids"))',
        'losses.append(cross_entropy(logits, torch.arange(len(z)), name="ids"))',
        (f"{EXEMPLAR}an_image_is_told_by_its_id_and_not_by_its_place_in_the_batch",),
    ),
    Fault(
        "exemplar: views are added and not averaged",
        "objectives/exemplar.py",
        'return {"cross_entropy": mean(losses)}',
        'return {"cross_entropy": mean(losses) * len(losses)}',
        (f"{EXEMPLAR}the_classifier_and_its_gradients_equal_the_loops",),
    ),
]
