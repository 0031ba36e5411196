"""The golden check of what an engine built on this device: made once for every build, before anything relies on it."""

from __future__ import annotations

from pathlib import Path

from edgekit.artifact import GOLDEN_FILE
from edgekit.runtime.bundle import Bundle, open_listed
from edgekit.runtime.golden import verify_opened
from edgekit.runtime.tensorrt_plans import is_proven, mark_proven, refuse


def proven(bundle: Bundle) -> Bundle:
    """Checks the golden outputs of a bundle whose session runs a plan built here, unless that was done before.

    A plan that fails is refused for good, and the bundle is opened again: on the last working plan where there is one.

    Args:
        bundle: An opened bundle; its session has a ``plan``, the file that it runs. Closed where the check fails.

    Returns:
        The bundle, or one opened again on another plan.

    Raises:
        BundleError: The golden file does not fit the model.
        EngineError: The outputs are wrong and there is no other plan, or the engine fails on a sample.
    """
    golden = bundle.manifest.files[GOLDEN_FILE]
    while True:
        plan: Path = getattr(bundle.session, "plan")  # noqa: B009  # no other engine's session has one
        try:
            if is_proven(plan, golden):
                return bundle
            verification = verify_opened(bundle)
            if verification.passed:
                mark_proven(plan, golden)
                return bundle
        except BaseException:
            bundle.close()
            raise
        bundle.close()
        refuse(plan, "; ".join(verification.messages))
        session = open_listed(bundle.folder, bundle.manifest)
        bundle = Bundle(folder=bundle.folder, manifest=bundle.manifest, session=session)
