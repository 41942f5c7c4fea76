"""The packages that an export needs, which are not installed with gradistill by default."""

from __future__ import annotations

from importlib.util import find_spec

from gradistill.errors import ModelError
from gradistill.package_versions import installing

PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def check_packages() -> None:
    """Raise ModelError if a package that an export needs is not installed."""
    missing = [name for name in PACKAGES if not _installed(name)]
    if missing:
        raise ModelError(
            f"an export needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            expected=f"the packages {', '.join(PACKAGES)}",
            remedy=installing("export"),
        )


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # the module was removed from sys.modules
        return False
