import pytest

from edgekit.errors import EngineMissing
from edgekit.runtime import cuda


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'cuda-bindings" in cuda.missing()
    with pytest.raises(EngineMissing, match="cuda-bindings is not installed"):
        cuda.gpu()
