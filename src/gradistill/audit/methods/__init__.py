"""Attribution methods, one file each: how much a prediction rests on each token, as a score of 0 or more.

A method is a frozen dataclass with a ``title``, a ``source`` and a call that takes what was heard of one batch
(``signals.hearing.Heard``) and returns scores ``(batch, token)``. Both models of an audit are asked by the same one.
"""

from gradistill.audit.methods._known import Method, method, methods

__all__ = ["Method", "method", "methods"]
