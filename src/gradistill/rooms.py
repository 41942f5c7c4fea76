"""Rooms that are called by the name of what people come for: ``gradistill.objectives()``, ``gradistill.audit(…)``.

A subpackage and a public function of one name cannot both be an attribute of the package: whichever is imported
last wins. So the subpackage itself answers the call.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        module, _, name = self.__dict__["_called"].partition(":")
        return getattr(import_module(module), name)(*arguments, **options)


def called(room: str, function: str) -> None:
    """Let a call of the module ``room`` be one of ``function``, ``module:name``, which is imported only then."""
    module = sys.modules[room]
    module.__class__ = _Room
    module.__dict__["_called"] = function
