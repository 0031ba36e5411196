"""Samples from arrays."""

import pytest

from edgekit.data import Samples


@pytest.fixture
def as_samples():
    """Makes samples of arrays by input name: ``as_samples(image=array)``."""

    def make(**arrays):
        count = len(next(iter(arrays.values())))
        return Samples(name="arrays", count=count, fetch=lambda i: {name: array[i] for name, array in arrays.items()})

    return make
