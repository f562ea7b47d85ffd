import re

import pytest

from barlow.nets.building import build_encoder
from barlow.nets.encoder_table import TESTED


@pytest.mark.parametrize("name", TESTED)
def test_listed_encoders_have_the_parameters_and_features_they_are_listed_with(name: str) -> None:
    said = re.search(r"([\d.]+) M parameters, (\d+) features", TESTED[name])
    assert said is not None
    encoder = build_encoder(name, image_size=32)
    assert sum(p.numel() for p in encoder.parameters()) / 1e6 == pytest.approx(float(said[1]), abs=0.06)
    assert encoder.num_features == int(said[2])
