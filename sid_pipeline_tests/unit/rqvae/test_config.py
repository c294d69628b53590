from __future__ import annotations

import json
from dataclasses import fields

import pytest

from sid_pipeline.rqvae import TrainConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("levels", 0),
        ("codebook_size", 1),
        ("codebook_size", 2.5),
        ("batch_size", True),
        ("lambda_contrastive", -0.01),
        ("lambda_contrastive", float("nan")),
        ("contrastive_every", 0),
        ("cell_products", 0.5),
        ("level_weights", (1.0, 0.5)),
        ("snapped_levels", 1),
        ("snapped_levels", 4),
        ("table_decay", 1.5),
        ("hidden", (0,)),
        ("max_seconds", 0),
        ("device", "tpu"),
        ("validation_fraction", 0.9),
        ("taxonomy_init", "yes"),
        ("threads", 0),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"TrainConfig\.{name} is .*allowed: "):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


def test_settings_survive_json() -> None:
    config = TrainConfig(hidden=(32, 16), steps=7)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(ValueError, match="no field 'lamda'; its fields are levels, "):
        TrainConfig.from_dict({"lamda": 0.1})


def test_every_field_is_described() -> None:
    described = TrainConfig.describe()
    assert list(described) == [f.name for f in fields(TrainConfig)]
    assert all(text.endswith(".") for text in described.values())


def test_a_record_of_an_earlier_version_means_what_it_meant() -> None:
    old = {k: v for k, v in TrainConfig(steps=7).to_dict().items() if k not in ("contrastive_every", "min_near_share")}
    then = TrainConfig.from_record(old)
    assert (then.contrastive_every, then.min_near_share, then.steps) == (1, 0.0, 7)
    assert TrainConfig.from_record(TrainConfig().to_dict()) == TrainConfig()
