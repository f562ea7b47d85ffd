"""Combinations that papers print a number for, SwAV's two crops, and exemplar's triplets: rates worked out by hand, as
`test_published.py` says, decays of weights and vectors, epochs and batches."""

IMAGENET = 1_281_167

COPIES = 5 * 20_018
"""Updates of exemplar's warm-up: an epoch has 1,281,167 // 64."""

TABLE_6 = {  # Barlow Twins': 0.2 and 0.0048 × 2048 / 256, down to a thousandth after 300 epochs of 625
    0: (0, 0),
    3_125: (0.8, 0.0192),
    6_250: (1.6, 0.0384),
    6_250 + (187_500 - 6_250) // 2: (0.8008, 0.0192192),
    187_499: (0.0016, 0.0000384),
}

RATES = {
    "imagenet/swav_two_crops": (  # ten epochs of warm-up from 0.3 to 4.8, and down to 0.0048
        IMAGENET,
        312,
        {0: (0.3, 0.3), 1_560: (2.55, 2.55), 3_120: (4.8, 4.8), 249_599: (0.0048, 0.0048)},
    ),
    "imagenet/exemplar_triplets": (  # 0.1 × 64 / 256 after five epochs from 0, ÷ 10 after epochs 15 and 25 of 35
        IMAGENET,
        20_018,
        {
            0: (0.025 / COPIES, 0.025 / COPIES),
            COPIES // 2 - 1: (0.0125, 0.0125),
            COPIES - 1: (0.025, 0.025),
            15 * 20_018 - 1: (0.025, 0.025),
            15 * 20_018: (0.0025, 0.0025),
            25 * 20_018: (0.00025, 0.00025),
            35 * 20_018 - 1: (0.00025, 0.00025),
        },
    ),
    "imagenet/byol_vicreg": (  # 0.45 × 4096 / 256, ten epochs of warm-up from 0, to 0 after 100 of 312
        IMAGENET,
        312,
        {
            0: (0, 0),
            1_560: (3.6, 3.6),
            3_120: (7.2, 7.2),
            3_120 + (31_200 - 3_120) // 2: (3.6, 3.6),
            31_199: (2.253087e-8, 2.253087e-8),
        },
    ),
    # 0.05 × 2048 / 256, to 0 after 100 epochs of 625
    "imagenet/simsiam_vicreg": (IMAGENET, 625, {0: (0.4, 0.4), 31_250: (0.2, 0.2), 62_499: (2.5266e-10, 2.5266e-10)}),
    **{
        f"imagenet/barlow_twins_{kind}": (IMAGENET, 625, TABLE_6)
        for kind in ("predictor", "stop_gradient", "predictor_stop_gradient")
    },
}

DECAYS = {
    "imagenet/swav_two_crops": [1e-6, 1e-6],
    "imagenet/exemplar_triplets": [1e-4, 0.0],
    "imagenet/byol_vicreg": [1e-6, 0.0],
    "imagenet/simsiam_vicreg": [1e-4, 1e-4],
} | {name: [1e-6, 0.0] for name in RATES if "barlow_twins" in name}

SIZES = {
    "imagenet/swav_two_crops": (800, 4096),
    "imagenet/exemplar_triplets": (35, 64),
    "imagenet/byol_vicreg": (100, 4096),
    "imagenet/simsiam_vicreg": (100, 2048),
} | {name: (300, 2048) for name in RATES if "barlow_twins" in name}

ZERO_INIT = [name for name in RATES if "vicreg" in name or "barlow_twins" in name]
"""Those whose networks start with the last batch norm of every block at 0."""
