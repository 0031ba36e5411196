import pytest
from cuda_fake import FakeCuda

from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime import cuda
from edgekit.runtime.cuda import Cuda, Gpu, gpu


@pytest.fixture
def fake(monkeypatch, tmp_path):
    world = FakeCuda()
    world.install(monkeypatch)
    monkeypatch.setattr(cuda, "_DRIVER_FILE", tmp_path / "version")
    return world


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'cuda-bindings" in cuda.missing()
    with pytest.raises(EngineMissing, match="cuda-bindings is not installed"):
        gpu()


def test_without_its_parent_package_it_says_the_same(monkeypatch):
    def not_found(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.util.find_spec", not_found)
    assert "cuda-bindings is not installed" in cuda.missing()


def test_the_gpus_facts(fake):
    assert cuda.missing() is None
    assert gpu() == Gpu(
        name="Fake GPU", compute_capability="8.7", memory_mb=8000, free_mb=6000, driver="CUDA 12.6", runtime="13.5"
    )


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.00  Release Build  (buildbrain@x)\n"
            "GCC version:  gcc version 13.2.0\n",
            "580.00",
        ),
    ],
)
def test_the_kernel_drivers_version_is_part_of_the_driver(fake, tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    assert gpu().driver == f"{version}, CUDA 12.6"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("cudaErrorNoDevice", "no NVIDIA GPU that CUDA can see"),
        ("cudaErrorInsufficientDriver", "driver is missing, or older"),
        ("cudaErrorDevicesUnavailable", "taken by another process"),
        ("cudaErrorSystemDriverMismatch", "of different versions"),
        ("cudaErrorCompatNotSupportedOnDevice", "too old for this CUDA"),
    ],
)
def test_no_usable_gpu_is_a_sentence(fake, code, words):
    fake.fail["cudaGetDeviceCount"] = (code, 0)
    with pytest.raises(EngineMissing, match="CUDA has no GPU to work with") as caught:
        gpu()
    assert words in caught.value.found
    assert "nvidia-smi" in caught.value.fix


def test_out_of_memory_says_what_was_asked_and_what_is_free(fake):
    fake.free_mb = 2
    with pytest.raises(EngineError, match=r"out of GPU memory: CUDA could not take 5\.0 MB") as caught:
        Cuda().take("cudaMalloc", 5_000_000, release="cudaFree", doing="take 5.0 MB")
    assert "(2): out of memory; 2 of 8000 MB are free" in caught.value.found
    fake.fail["cudaMemGetInfo"] = ("cudaErrorLaunchFailure", 1)
    with pytest.raises(EngineError, match="how much is free is not known"):
        Cuda().take("cudaMalloc", 5_000_000, release="cudaFree", doing="take 5.0 MB")


def test_any_other_code_is_told_by_name_number_and_text(fake):
    fake.fail["cudaStreamSynchronize"] = ("cudaErrorIllegalAddress", 0)
    with pytest.raises(EngineError, match="CUDA could not wait") as caught:
        Cuda().call("cudaStreamSynchronize", None, doing="wait")
    assert caught.value.found == "cudaStreamSynchronize answered cudaErrorIllegalAddress (700): a text of CUDA's"


def test_what_was_taken_is_given_back_the_last_first(fake):
    owner = Cuda()
    taken = [owner.take("cudaMalloc", 8, release="cudaFree", doing="take") for _ in range(3)]
    owner.give_back(taken[1])
    assert set(fake.live) == {taken[0], taken[2]}
    fake.calls.clear()
    owner.take("cudaEventCreate", release="cudaEventDestroy", doing="make")
    owner.close()
    owner.close()
    assert fake.calls == ["cudaEventCreate", "cudaEventDestroy", "cudaFree", "cudaFree"]
    assert fake.live == {}


def test_a_refusal_on_the_way_leaves_nothing_else_behind(fake):
    owner = Cuda()
    for _ in range(3):
        owner.take("cudaMalloc", 8, release="cudaFree", doing="take")
    fake.fail["cudaFree"] = ("cudaErrorLaunchFailure", 1)
    with pytest.raises(EngineError, match="could not give back"):
        owner.close()
    assert len(fake.live) == 1
    owner.abandon()


def test_after_an_error_nothing_more_is_told(fake):
    owner = Cuda()
    owner.take("cudaMalloc", 8, release="cudaFree", doing="take")
    fake.fail["cudaFree"] = ("cudaErrorLaunchFailure", 0)
    owner.abandon()
    assert fake.calls.count("cudaFree") == 1
