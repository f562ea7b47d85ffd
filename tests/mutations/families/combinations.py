"""Faults of combinations: which embedding a group brings along, and which branch is named."""

from mutations.fault import Fault

DISTILLATION = "methods/test_distillation.py::test_"
BRANCHES = "methods/test_two_branches.py::test_"

FAULTS = [
    Fault(
        "with embeddings: each group has its prediction twice",
        "methods/distillation.py",
        "[(*group, online[i][1]) for group, (i, _)",
        "[(*group, online[i][2]) for group, (i, _)",
        (f"{DISTILLATION}with_embeddings_each_group_has_what_the_prediction_was_made_from",),
    ),
    Fault(
        "with embeddings: the embedding is that of the target's view",
        "methods/distillation.py",
        "[(*group, online[i][1]) for group, (i, _)",
        "[(*group, online[i][1]) for group, (_, i)",
        (f"{DISTILLATION}with_embeddings_each_group_has_what_the_prediction_was_made_from",),
    ),
    Fault(
        "with embeddings: the embedding has no gradient",
        "methods/distillation.py",
        "[(*group, online[i][1]) for group, (i, _)",
        "[(*group, online[i][1].detach()) for group, (i, _)",
        (f"{DISTILLATION}with_embeddings_each_group_has_what_the_prediction_was_made_from",),
    ),
    Fault(
        "two branches: an encoder's description does not say which one it is of",
        "runs/finishing.py",
        'config if kept is None else config | {"branch": kept}',
        "config",
        (f"{BRANCHES}a_run_with_a_vision_transformer_beside_a_resnet_keeps_the_resnet[vicreg]",),
    ),
]
