"""A float network, and what the backends make of it, once a session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from small_nets import conv_net, note, quantise, save

from edgekit.artifact import Artifact


@pytest.fixture(scope="session")
def float_net(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A small convolutional network with paths of the build machine in it."""
    proto = conv_net()
    note(proto)
    return save(proto, tmp_path_factory.mktemp("float_net"))


@pytest.fixture(scope="session")
def made(float_net: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Artifact]:
    """The network quantised for a target, made once: ``made("onnxruntime", "x86-vnni")``."""
    done: dict[tuple[str, str], Artifact] = {}

    def make(engine: str, target: str) -> Artifact:
        if (engine, target) not in done:
            done[engine, target] = quantise(engine, target, float_net, tmp_path_factory.mktemp(f"{engine}-{target}"))
        return done[engine, target]

    return make
