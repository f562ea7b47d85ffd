"""Jigsaw and context prediction: rates worked out by hand, as `test_published.py` says, decays, and sizes."""

IMAGENET = 1_281_167
WARM = 5 * 5004

RATES = {
    "imagenet/jigsaw": (  # 0.1 after five epochs from 0, ÷ 10 after epochs 30, 60, 90 and 100 of 105
        IMAGENET,
        5004,
        {
            0: (0.1 / WARM, 0.1 / WARM),
            12_509: (0.05, 0.05),
            WARM - 1: (0.1, 0.1),
            150_119: (0.1, 0.1),
            150_120: (0.01, 0.01),
            300_240: (0.001, 0.001),
            450_360: (1e-4, 1e-4),
            500_400: (1e-5, 1e-5),
            525_419: (1e-5, 1e-5),
        },
    ),
    "imagenet/context_prediction": (  # 0.1 after five epochs from 0, ÷ 10 after epochs 15 and 25 of 35
        IMAGENET,
        5004,
        {
            0: (0.1 / WARM, 0.1 / WARM),
            12_509: (0.05, 0.05),
            75_059: (0.1, 0.1),
            75_060: (0.01, 0.01),
            125_100: (0.001, 0.001),
            175_139: (0.001, 0.001),
        },
    ),
}

DECAYS = {"imagenet/jigsaw": [1e-4, 0.0], "imagenet/context_prediction": [1e-4, 0.0]}

SIZES = {"imagenet/jigsaw": (105, 256), "imagenet/context_prediction": (35, 256)}
