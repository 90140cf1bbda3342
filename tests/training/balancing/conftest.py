"""A new small model for each test."""

import pytest
from small_model import Model


@pytest.fixture
def model() -> Model:
    return Model()
