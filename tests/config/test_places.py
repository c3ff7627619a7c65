"""A key without its section, or in another one: the refusal says where it belongs."""

import json

import pytest

from birdsonnx.config.reading import parse
from birdsonnx.errors import ConfigError


def refusal(network, *overrides):
    with pytest.raises(ConfigError) as refused:
        parse(json.dumps({"neural_network": network}), "config.json", overrides)
    return str(refused.value)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("batch_size=32", "did you mean data.batch_size?"),
        ("Batch_Size=32", "did you mean data.batch_size?"),
        ("bach_size=32", "did you mean data.batch_size?"),
        ("learning_rate=1", "did you mean optimizer.learning_rate?"),
        ("data.learning_rate=1", "did you mean optimizer.learning_rate?"),
        ("load=x.onnx", "did you mean checkpoints.load?"),
        ("trainable=x", "did you mean birdsonnx.trainable?"),
        ("testing_tag=x", "did you mean data.testing_tag?"),
        ("gamma=0.5", "did you mean optimizer.lr_scheduler.gamma or loss.gamma?"),
        ("checkpoints.num_epochs=3", "did you mean num_epochs or optimizer.lr_scheduler.num_epochs?"),
    ],
)
def test_it_says_where_a_key_belongs(override, meant):
    assert refusal({}, override).endswith(meant)


def test_so_it_does_for_a_key_in_the_file():
    assert refusal({"batch_size": 32}).startswith("config.json: neural_network.batch_size: unknown key")
    assert refusal({"batch_size": 32}).endswith("did you mean data.batch_size?")


@pytest.mark.parametrize("override", ["optimizer.eta=1", "zzz=1"])
def test_it_does_not_send_anyone_to_where_he_is(override):
    assert "; known keys: " in refusal({}, override)
