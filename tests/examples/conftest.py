"""Fixtures: the C++ program of examples/embedded_cpp, and bundles for it."""

from pathlib import Path

import pytest
from embedded_builds import ENGINES, SANITIZERS, Program, build, exported, need, openvino_cmake


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program for this machine, with both engines; a compiler takes 10 s for it."""
    need("cmake", "g++")
    options = ("-DCMAKE_BUILD_TYPE=Debug", "-DEDGEKIT_OPENVINO=ON", openvino_cmake())
    return Program(build(tmp_path_factory.mktemp("program"), *options))


@pytest.fixture(scope="session")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The same with sanitizers and without OpenVINO, whose TBB they refuse to load."""
    need("cmake", "g++")
    options = ("-DCMAKE_BUILD_TYPE=Debug", f"-DCMAKE_CXX_FLAGS={SANITIZERS}")
    return Program(build(tmp_path_factory.mktemp("sanitized"), *options))


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Bundles of both engines, in fp32 and int8; nobody may change what is in them."""
    folder = tmp_path_factory.mktemp("exports")
    return {(e, p): exported(folder, e, p) for e in ENGINES for p in ("fp32", "int8")}
