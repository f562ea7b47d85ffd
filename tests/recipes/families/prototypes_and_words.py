"""OBoW and PCL: rates worked out by hand, as `test_published.py` says, decays of weights and vectors, and
epochs and batches."""

IMAGENET = 1_281_167

RATES = {
    "imagenet/obow": (  # 0.03 after ten epochs from 0, and down to 0.00003
        IMAGENET,
        5004,
        {
            0: (0, 0),
            25_020: (0.015, 0.015),
            50_040: (0.03, 0.03),
            525_420: (0.015015, 0.015015),
            1_000_799: (3e-5, 3e-5),
        },
    ),
}

RATES["imagenet/pcl_v1"] = (  # 0.03, ÷ 10 after epochs 120 and 160 of 200
    IMAGENET,
    5004,
    {0: (0.03, 0.03), 600_479: (0.03, 0.03), 600_480: (0.003, 0.003), 800_640: (0.0003, 0.0003)},
)
RATES["imagenet/pcl_v2"] = (IMAGENET, 5004, {0: (0.03, 0.03), 500_400: (0.015, 0.015), 1_000_799: (0, 0)})

SIZES = {name: (200, 256) for name in RATES}
DECAYS = {name: [1e-4, 1e-4] for name in RATES}
