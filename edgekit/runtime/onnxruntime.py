"""ONNX Runtime: opens ONNX files."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Array, Option, StrPath, TensorSpec
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime.boundary import Boundary, closed, match_specs
from edgekit.runtime.external_data import check_external_data
from edgekit.runtime.options import check_options
from edgekit.runtime.quiet import silence_telemetry
from edgekit.runtime.session import feed_checker, zeros

if TYPE_CHECKING:
    from edgekit.runtime.placement import Placement

NAME = "onnxruntime"
DEFAULT_PROVIDER = "CPUExecutionProvider"
OPTIONS: dict[str, type] = {
    "provider": str,
    "intra_op_num_threads": int,
    "inter_op_num_threads": int,
    "enable_cpu_mem_arena": bool,
    "enable_mem_pattern": bool,
}

_DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
# Of a provider, what makes fp32 mean fp32: TF32 has 10 bits of mantissa, and is CUDA's default from Ampere on.
_PROVIDER_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_NO_FALLBACK = "session.disable_cpu_ep_fallback"
_FELL_BACK = "fallback to CPU EP has been explicitly disabled"
# Packed weights have no shape in the engine's profile.
_UNPACKED: dict[str, Option] = {"session.disable_prepacking": True}
# Entries that make the engine read or write other files, or read the model as another format.
_REFUSED_ENTRY = re.compile(r"file|path|folder|format|profiling|debug")
_UNSUPPORTED = (
    re.compile(r"Could not find an implementation for (\S+?)\(\d+\) node"),
    re.compile(r"No Op registered for (\S+) with"),
    re.compile(r"error: (\S+?)\(-?\d+\) is not a registered function/op"),
)


def missing() -> str | None:
    """Says why ONNX Runtime cannot execute here, or returns None when it can."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "the package onnxruntime is not installed: pip install onnxruntime"
    return None


def version() -> str:
    """The installed build; read without importing it, unless its package goes by another name."""
    import importlib.metadata  # brings the e-mail package with it, for which a first inference need not wait

    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:  # builds of other vendors and from archives
        silence_telemetry()
        import onnxruntime

        return str(onnxruntime.__version__)


def lacks_provider(options: Mapping[str, Option]) -> bool:
    """Whether this build of ONNX Runtime is without the provider that an artifact's options name."""
    provider = options.get("provider", DEFAULT_PROVIDER)
    if provider == DEFAULT_PROVIDER or missing() is not None:
        return False
    silence_telemetry()
    import onnxruntime

    return provider not in onnxruntime.get_available_providers()


def engine_errors(doing: str) -> Boundary:
    """A block in which ONNX Runtime's exceptions become :class:`EngineError`, e.g. ``engine_errors("open x.onnx")``."""
    return Boundary(NAME, doing, _operators)


def load(
    model: StrPath, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> OrtSession:
    """Opens an ONNX file.

    Args:
        model: The ``.onnx`` file; its external data must lie in the same folder or below.
        options: ``provider`` (default CPUExecutionProvider), ``intra_op_num_threads``, ``inter_op_num_threads``,
            ``enable_cpu_mem_arena``, ``enable_mem_pattern``, and session configuration entries, which have a ``.``.
            Another provider than the CPU's takes the whole model, unless ``session.disable_cpu_ep_fallback`` is
            false.
        inputs: What the artifact declares.
        outputs: What the artifact declares.

    Raises:
        UnknownName: An option is unknown.
        EngineMissing: The provider is not in this build, or cannot start here.
        EngineError: The engine refuses the model, or the model is not the one declared.
        BundleError: The model is no ONNX file, or its external data points outside its folder.
    """
    name = os.path.basename(model)
    check_external_data(model)
    _check_options(options)
    session = _create(model, options, str(options.get("provider", DEFAULT_PROVIDER)), profile_to=None)
    match_specs(name, "input", inputs, _specs(session.get_inputs()))
    match_specs(name, "output", outputs, _specs(session.get_outputs()))
    _check_taken(options, session.get_session_options())
    return OrtSession(session, model, options, tuple(inputs), tuple(outputs))


class OrtSession:
    """A model opened in ONNX Runtime; one thread at a time."""

    def __init__(
        self,
        session: Any,
        model: StrPath,
        options: Mapping[str, Option],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._session = session
        self._model = model
        self._options = options
        self._names = [spec.name for spec in outputs]
        self._check = feed_checker(inputs)
        self._boundary = engine_errors(f"run {os.path.basename(model)}")

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch; see :meth:`edgekit.runtime.session.Session.run`."""
        session = self._session
        if session is None:
            raise closed(NAME)
        self._check(feeds)
        with self._boundary:
            return dict(zip(self._names, session.run(self._names, feeds), strict=True))

    def placement(self, feeds: Mapping[str, Array] | None = None) -> Placement:
        """Profiles a few runs in a second session and reads the profile; further ones tell the shapes of weights."""
        if self._session is None:
            raise closed(NAME)
        from edgekit.runtime.onnxruntime_record import is_blocked, placed_nodes
        from edgekit.runtime.placement import Placement

        provider = self._session.get_providers()[0]
        feeds = zeros(self.inputs) if feeds is None else feeds
        self._check(feeds)
        timed = self._profile(provider, feeds)
        shaped = self._profile(provider, feeds, unpacked=True)
        plain = self._profile(provider, feeds, unpacked=True, unblocked=True) if is_blocked(shaped) else ()
        return Placement(device=provider, nodes=placed_nodes(timed, shaped, plain))

    def _profile(
        self, provider: str, feeds: Mapping[str, Array], *, unpacked: bool = False, unblocked: bool = False
    ) -> Any:
        """Events of a few runs, or of one where it serves for the shapes alone."""
        options = {**self._options, **_UNPACKED} if unpacked else self._options
        without = ["NchwcTransformer"] if unblocked else []
        import json
        import tempfile
        from pathlib import Path

        from edgekit.runtime.placement import recorded_runs

        with tempfile.TemporaryDirectory() as folder:
            session = _create(self._model, options, provider, profile_to=folder, without=without)
            with self._boundary:
                for _ in range(1) if unpacked else recorded_runs():
                    session.run(None, feeds)
                return json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))

    def close(self) -> None:
        """Frees the engine's session."""
        self._session = None


def _check_options(options: Mapping[str, Option]) -> None:
    check_options(NAME, {k: v for k, v in options.items() if "." not in k}, OPTIONS)
    for key in options:
        if "." in key and _REFUSED_ENTRY.search(key):
            raise EngineError(
                f"{NAME} option {key!r} is not taken: it makes the engine use other files than the artifact's",
                allowed="session configuration entries about threads and kernels",
            )


def _create(
    model: StrPath,
    options: Mapping[str, Option],
    provider: str,
    *,
    profile_to: str | None,
    without: Sequence[str] = (),
) -> Any:
    silence_telemetry()
    import onnxruntime as ort

    name = os.path.basename(model)
    ort.disable_telemetry_events()
    if provider not in ort.get_available_providers():
        raise _provider_missing(provider, ort.get_available_providers())
    try:
        with engine_errors(f"open {name}"):
            session = ort.InferenceSession(
                model,
                _settings(ort, options, provider, profile_to),
                providers=[(provider, _PROVIDER_OPTIONS.get(provider, {}))],
                enable_fallback=0,  # else a provider that fails is replaced by others, with no more than a line printed
                **({"disabled_optimizers": list(without)} if without else {}),
            )
    except EngineError as exc:
        if _FELL_BACK not in str(exc.found):
            raise
        raise EngineError(
            f"ONNX Runtime's {provider} does not take all of {name}",
            found="operators that would run on the CPU, unasked",
            fix=f'give them to the CPU: "{_NO_FALLBACK}" = false in [options.{NAME}] of the target',
        ) from exc.__cause__
    if session.get_providers()[0] != provider:
        raise _provider_missing(provider, session.get_providers())
    return session


def _settings(ort: Any, options: Mapping[str, Option], provider: str, profile_to: str | None) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = 3  # errors; they are raised as well
    if provider != DEFAULT_PROVIDER:
        settings.add_session_config_entry(_NO_FALLBACK, "1")
    for key, value in options.items():
        if "." in key:
            settings.add_session_config_entry(key, str(int(value)) if isinstance(value, bool) else str(value))
        elif key != "provider":
            setattr(settings, key, value)
    if profile_to is not None:
        settings.enable_profiling = True
        settings.profile_file_prefix = os.path.join(profile_to, "profile")
    return settings


def _check_taken(options: Mapping[str, Option], actual: Any) -> None:
    """Refuses a session that was opened with other threads or memory than asked."""
    for name in OPTIONS:
        if name in options and name != "provider" and (found := getattr(actual, name)) != options[name]:
            raise EngineError(f"{NAME} did not take {name}={options[name]}", found=f"{name}={found}")


def _provider_missing(provider: str, there: Sequence[str]) -> EngineMissing:
    return EngineMissing(
        f"ONNX Runtime has no working {provider} here",
        found=", ".join(there),
        fix="install the build of onnxruntime that has it, for NVIDIA's onnxruntime-gpu (and CUDA, cuDNN and a driver "
        "that fit it), or remove the option 'provider'",
    )


def _specs(ports: Sequence[Any]) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=port.name,
            dtype=_DTYPES.get(port.type.removeprefix("tensor(").removesuffix(")"), port.type),
            shape=tuple(d if isinstance(d, int) else str(d) for d in port.shape),
        )
        for port in ports
    ]


def _operators(message: str) -> list[str]:
    return [name for pattern in _UNSUPPORTED for name in pattern.findall(message)]
