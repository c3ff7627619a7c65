"""Keras, imported once, and the small network."""

from typing import Any

import pytest

from tests.network.networks import small_network


@pytest.fixture(scope="session")
def keras() -> Any:
    from birdsonnx.network.keras_source import import_keras

    return import_keras()


@pytest.fixture(scope="module")
def network(keras: Any) -> Any:
    return small_network(keras)
