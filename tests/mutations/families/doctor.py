"""Faults that the doctor can have: each makes it say what is not so, or say nothing of what is."""

from mutations.fault import Fault

DOCTOR = "diagnostics/test_doctor.py::test_"
ADVICE = "test_advice.py::test_"
FILE = "diagnostics/doctor.py"
EARLY = f"{DOCTOR}in_the_first_tenth_of_a_run_only_what_explains_itself_is_told"
NO_GRADIENT = f"{DOCTOR}a_run_whose_encoder_gets_no_gradient_is_told_so"

FAULTS = [
    Fault(
        "doctor: the first tenth of a run is judged like the rest",
        FILE,
        "(found if started(lines, about) else [])",
        "found",
        (EARLY,),
        fast=True,
    ),
    Fault(
        "doctor: what explains itself waits for the first tenth to be over",
        FILE,
        "return causes or (found if started(lines, about) else [])",
        "return (causes or found) if started(lines, about) else []",
        ("training/test_monitor.py::test_what_no_network_comes_out_of_is_told_at_once",),
    ),
    Fault(
        "doctor: weights leap by the length of a move, however many steps it took",
        FILE,
        "moved / steps > LEAP:",
        "moved > LEAP:",
        (f"{DOCTOR}weights_that_move_by_a_twentieth_of_their_length_in_a_step_leap",),
    ),
    Fault(
        "doctor: the steps of a move are counted from the beginning of the log",
        FILE,
        'steps, before = line["step"] - before, line["step"]',
        'steps = line["step"] - before',
        (f"{DOCTOR}the_steps_of_a_move_are_those_since_the_line_before_it",),
    ),
    Fault(
        "doctor: a leap is told for the rest of the run",
        FILE,
        "POOLED, EARLY = 10, 50",
        "POOLED, EARLY = 100, 50",
        (f"{DOCTOR}one_leap_is_told_for_ten_lines_and_forgotten_then",),
    ),
    Fault(
        "doctor: predictions that begin close together are a collapse from the first step on",
        FILE,
        "else ONE_POINT_AT_FIRST",
        "else ONE_POINT",
        (f"{DOCTOR}predictions_may_lie_close_together_for_eighty_steps_and_not_longer",),
    ),
    Fault(
        "doctor: predictions that begin close together are near each other",
        FILE,
        "if about.spreads_by is None or len(spread) < FRESH",
        "if len(spread) < FRESH",
        (f"{DOCTOR}a_spread_below_the_range_of_the_log_is_told_before_it_is_a_collapse",),
    ),
    Fault(
        "doctor: a setting of the objective is never the cause",
        FILE,
        "if kept == keeps:",
        "if False:",
        (f"{DOCTOR}a_setting_of_the_objective_that_alone_explains_a_collapse_is_named_first",),
    ),
    Fault(
        "doctor: a run that is made longer begins again",
        FILE,
        'for total in [*_numbers([line], ("total",)), about.total][:1]',
        "for total in [about.total]",
        (
            "training/test_monitor.py::test_a_run_that_is_past_its_first_tenth_does_not_start_again_when_it_is_made_longer",
        ),
    ),
    Fault(
        "doctor: a run that is gone on with forgets what its log has",
        "training/watchers.py",
        "        self.health = health\n",
        "",
        ("report/test_five_runs.py::test_a_collapsed_run_that_is_gone_on_with_stays_so_and_says_so_once",),
    ),
    Fault(
        "doctor: three directions of many are enough for every objective",
        FILE,
        "few = max(few, min(FEW_OF_MANY, SHARE_OF_MANY * possible))",
        "pass",
        (f"{DOCTOR}three_directions_of_many_are_a_collapse_where_the_objective_keeps_more",),
    ),
    Fault(
        "doctor: embeddings of every objective should keep a tenth of their directions",
        FILE,
        "    few = FEW_DIRECTIONS\n",
        "    few = max(FEW_DIRECTIONS, min(0.1 * possible, 10.0))\n",
        (f"{DOCTOR}three_directions_of_many_are_a_collapse_where_the_objective_keeps_more",),
    ),
    Fault(
        "doctor: a loss is at chance before half of the run is over",
        FILE,
        "max(GAINED_BY * about.total, LEARNS_BY)",
        "LEARNS_BY",
        (f"{DOCTOR}a_loss_that_is_that_of_unrelated_views_is_told_when_half_of_the_run_is_over",),
    ),
    Fault(
        "doctor: the loss of a moving target is compared with its start",
        FILE,
        "if about.moving_target or not lines",
        "if not lines",
        (f"{DOCTOR}a_loss_that_is_that_of_unrelated_views_is_told_when_half_of_the_run_is_over",),
    ),
    Fault(
        "doctor: views are too weak for a network that knows better",
        FILE,
        "if about.from_weights or (spread",
        "if (spread",
        (f"{DOCTOR}a_network_that_was_trained_before_may_take_two_views_for_one",),
    ),
    Fault(
        "doctor: a rate that ends at zero is too low",
        FILE,
        ">= 0.01 * about.peak]",
        ">= 0]",
        (
            f"{DOCTOR}weights_that_stand_still_where_the_schedule_wants_it_are_fine",
            f"{ADVICE}a_rate_that_ends_at_zero_is_no_rate_that_is_too_low",
        ),
    ),
    Fault(
        "doctor: advice does not know the peak of the schedule",
        "runs/ran.py",
        "            peak=self.peak,\n",
        "",
        (f"{ADVICE}a_rate_that_ends_at_zero_is_no_rate_that_is_too_low",),
    ),
    Fault(
        "doctor: nobody tells it how long the run is in epochs",
        "runs/ran.py",
        "            epochs=self.epochs if self.seen is None else self.seen,\n            copies",
        "            copies",
        (f"{ADVICE}few_epochs_copies_and_few_images_are_said_before_and_after",),
    ),
    Fault(
        "doctor: copies are counted, and their number taken for a share",
        "runs/ran.py",
        "self.copies / self.images",
        "self.copies",
        (f"{ADVICE}few_epochs_copies_and_few_images_are_said_before_and_after",),
    ),
    Fault(
        "doctor: few images harm an objective that decorrelates nothing",
        FILE,
        "if about.spreads_by != DECORRELATION:",
        "if False:",
        (f"{DOCTOR}few_images_are_enough_for_an_objective_that_decorrelates_nothing",),
    ),
    Fault(
        "doctor: a part without gradient waits for the next line of the log",
        "training/watchers.py",
        " or moment.step == moment.total or bool(idle)",
        " or moment.step == moment.total",
        (NO_GRADIENT,),
    ),
    Fault(
        "doctor: an image and its caption are two views of it",
        "diagnostics/evidence.py",
        "    if len(views) < 2:\n        return {}\n",
        "    if len(views) < 2:\n        views = [views[0], views[0]]\n",
        (f"{DOCTOR}parts_of_one_view_are_no_two_views",),
    ),
    Fault(
        "doctor: of the layers whose gradients are none, the farthest from the loss is named",
        "training/learner.py",
        "broken[-1]",
        "broken[0]",
        (f"{DOCTOR}the_layer_is_named_where_gradients_began_to_be_none",),
    ),
    Fault(
        "doctor: beside other runs, the score hides that one has collapsed",
        "report/compared.py",
        "    if state is not None:\n        yield",
        '    if state is not None and "verdict" not in lines:\n        yield',
        ("report/test_five_runs.py::test_beside_other_runs_one_that_is_ill_says_so_first",),
    ),
]
