"""Our TensorRT code against the real bindings of the 10 and 11 series: names, signatures, members of enums.

Two steps. Our code runs against ``tensorrt_fake``, whose classes have no member but those written there and check every
argument; here each of those members is compared with the real one. So whatever our code calls exists on both series,
and every call binds to its signature.
"""

import enum
import inspect
import re
import sys

import pytest
from tensorrt_fake import CLASSES, FakeDevice, fake_tensorrt
from tensorrt_fake_types import MADE_BY_CALLERS, value
from tensorrt_stubs import SERIES, bindings, run, surface

# Names of the same thing in signatures of pybind11 2 and 3, and in those of the fake.
PLAIN = {
    "typing.SupportsInt": "int",
    "typing.SupportsFloat": "float",
    "typing_extensions.Buffer": "bytes",
    "buffer": "bytes",
    "collections.abc.Sequence": "list",
    "tuple": "Dims",  # a shape, by its overloads
    "List": "list",
    "IParserError": "ParserError",  # the C++ name, where the signature was written before the class was
}


@pytest.fixture(scope="module", params=SERIES)
def real(request, tmp_path_factory):
    return surface(request.param, tmp_path_factory.mktemp(f"tensorrt{request.param}"))


def fake_classes(version):
    module = fake_tensorrt(FakeDevice(version=version))
    return {name: cls for name, cls in vars(module).items() if isinstance(cls, type)}


def own_members(cls):
    """What a class of the fake has, its bases' included."""
    return {name: member for base in reversed(cls.__mro__[:-1]) for name, member in vars(base).items()}


def signatures(doc, name):
    """The overloads in a docstring, each as parameters (name, type, whether it has a default) and result."""
    found = []
    for line in doc.splitlines():
        match = re.match(rf"(?:\d+\. )?{name}\((.*)\) -> (.+)$", line.strip())
        if match is not None and "*args" not in match[1]:
            found.append(([parameter(text) for text in split(match[1])], plain(match[2])))
    return found


def split(text):
    """Parameters, at the commas outside brackets."""
    parts = re.split(r", (?![^\[<(]*[\])>])", text)
    return [part for part in parts if part and part != "/"]


def parameter(text):
    name, _, rest = text.partition(": ")
    kind, _, default = rest.partition(" = ")
    return name, plain(kind), bool(default)


def plain(kind):
    kind = kind.strip().partition("[")[0]
    kind = PLAIN.get(kind, kind).rpartition("::")[2]
    return PLAIN.get(kind, kind).rpartition(".")[2]


def annotations(method):
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return [(p.name, str(p.annotation), p.default is not p.empty) for p in parameters]


def fits(fake, overloads):
    """Whether an overload takes what the fake takes: the same names in the same order, the same types.

    What it has besides must have defaults.
    """
    for parameters, _ in overloads:
        own = parameters[1:]  # without self
        same = [(name, kind) for name, kind, _ in own[: len(fake)]] == [(name, kind) for name, kind, _ in fake]
        if same and all(default for _, _, default in own[len(fake) :]):
            return True
    return False


def test_every_class_and_member_of_the_fake_is_real(real):
    for name, cls in fake_classes(real["version"]).items():
        assert name in real["classes"], f"TensorRT {real['version']} has no class {name}"
        members = real["classes"][name]
        for member, own in own_members(cls).items():
            if member.startswith("_") or issubclass(cls, enum.Enum):
                continue
            if not (inspect.isfunction(own) or isinstance(own, (property, enum.Enum))):
                continue
            assert member in members, f"TensorRT {real['version']} has no {name}.{member}"
            kind = members[member]["kind"]
            if isinstance(own, property):
                assert kind == "property", f"{name}.{member}"
            elif inspect.isfunction(own):
                assert kind == "method", f"{name}.{member}"


def test_every_member_of_an_enum_is_real(real):
    enums = {n: c for n, c in fake_classes(real["version"]).items() if issubclass(c, enum.Enum)}
    assert len(enums) >= 10
    for name, cls in enums.items():
        missing = {member.name for member in cls} - set(real["classes"][name]["__enum__"])
        # Of the two series' numbers and members only the flags' differ, and the fake has them by series.
        assert not missing, f"TensorRT {real['version']}: {name} has no {missing}"


def test_every_call_binds_to_its_signature(real):
    checked = 0
    for name, cls in fake_classes(real["version"]).items():
        for member, own in own_members(cls).items():
            if not inspect.isfunction(own) or (member.startswith("_") and member != "__init__"):
                continue
            if member == "__init__" and name not in MADE_BY_CALLERS:
                continue
            overloads = signatures(real["classes"][name][member]["doc"], member)
            assert fits(annotations(own), overloads), f"{name}.{member}: {annotations(own)} is none of {overloads}"
            result = str(inspect.signature(own).return_annotation)
            results = {kind for _, kind in overloads}
            assert result in results, f"{name}.{member} gives {results}, the fake {result}"
            checked += 1
    assert checked > 45


def test_what_is_set_can_be_set_to_its_type(real):
    settable = 0
    for name, cls in fake_classes(real["version"]).items():
        for member, own in own_members(cls).items():
            if not isinstance(own, value):
                continue
            told = real["classes"][name][member]
            found = re.search(r"-> ([\w.:]+)", told["doc"])
            assert found is not None, f"{name}.{member}"
            assert plain(found[1]) == own.kind, f"{name}.{member}"
            if own.fset is not None:
                assert told["setter"] is not None, f"{name}.{member} cannot be set"
                taken = re.search(r"arg1: ([\w.:]+)", told["setter"])
                assert taken is not None
                assert plain(taken[1]) == own.kind, f"{name}.{member}"
                settable += 1
    assert settable >= 6


def test_classes_that_are_subclassed_and_made_are_there(real):
    for name in MADE_BY_CALLERS:
        assert "__init__" in real["classes"][name]
    assert {cls.__name__ for cls in CLASSES} <= set(real["classes"])


CALLED_BACK = """
import sys
from pathlib import Path
import tensorrt_bindings.tensorrt as trt
print(all(name.encode() in Path(trt.__file__).read_bytes() for name in sys.argv[1].split()))
"""


@pytest.mark.parametrize("series", SERIES)
def test_methods_that_tensorrt_calls_back_are_looked_up_by_these_names(series, tmp_path):
    # Subclasses of its interfaces define them; the bindings list none, but look each up by its name.
    names = "log reallocate_output_async notify_shape report_layer_time"
    assert run(CALLED_BACK.replace("sys.argv[1]", repr(names)), bindings(series, tmp_path)) == "True\n"


REFUSED = """
import sys
from pathlib import Path
import tensorrt_bindings
sys.modules["tensorrt"] = tensorrt_bindings
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime import tensorrt_build
from edgekit.runtime.cuda import Gpu
from edgekit.runtime.tensorrt_module import collect_log, import_tensorrt, on_gpu

trt = import_tensorrt()
log = collect_log(trt)
log.logger.log(trt.ILogger.ERROR, "an  error")
log.logger.log(trt.ILogger.WARNING, "a warning")
log.logger.log(trt.ILogger.INFO, "no matter")
assert (log.errors, log.warnings) == (["an error"], ["a warning"]), log
for kind in (trt.Builder, trt.Runtime):
    try:
        on_gpu(kind, log)
    except EngineMissing as exc:
        print(exc.problem)
try:
    trt.Builder("no logger")
except TypeError as exc:
    print("incompatible" in str(exc))
print(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
tensorrt_build.gpu = lambda: Gpu(
    name="Orin", compute_capability="8.7", memory_mb=8000, free_mb=5000, driver="d", runtime="r"
)
try:
    tensorrt_build.build_plan(Path(sys.argv[1]) if sys.argv[1:] else Path({model!r}), {{"precision": "fp32"}}, None)
except EngineMissing as exc:
    print(exc.problem)
"""


@pytest.mark.parametrize(("series", "flag"), [("10", "2"), ("11", "1")])
def test_the_real_module_is_loaded_logs_and_finds_no_gpu(series, flag, tmp_path, tiny_artifact):
    model = tiny_artifact("conv_batch2", "tensorrt").path
    out = run(REFUSED.format(model=str(model)), bindings(series, tmp_path)).splitlines()
    no_gpu = "TensorRT finds no usable GPU here"
    assert out == [no_gpu, no_gpu, "True", flag, no_gpu]


def test_the_comparison_sees_what_is_wrong():
    doc = "f(self: a.b.C, name: str, size: typing.SupportsInt, more: int = 0) -> bool"
    overloads = signatures(doc, "f")
    assert overloads[0][1] == "bool"
    assert fits([("name", "str", False), ("size", "int", False)], overloads)
    assert not fits([("name", "str", False)], overloads)
    assert not fits([("name", "str", False), ("length", "int", False)], overloads)
    assert not fits([("name", "str", False), ("size", "str", False)], overloads)


def test_the_fake_refuses_arguments_as_compiled_code_does(monkeypatch):
    trt = fake_tensorrt(FakeDevice())
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(TypeError, match="logger"):
        trt.Builder("no logger")

    class Log(trt.ILogger):
        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, msg):
            """Says nothing."""

    config = trt.Builder(Log()).create_builder_config()
    with pytest.raises(TypeError, match="pool_size"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, "1 GB")
    with pytest.raises(TypeError):
        config.set_timing_cache(config.create_timing_cache(b""))
    with pytest.raises(TypeError, match="no int"):
        config.builder_optimization_level = "high"
    with pytest.raises(AttributeError):
        config.int8_calibrator  # noqa: B018
