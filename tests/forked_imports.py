"""What the server of the fixture ``forked`` imports, before any of its processes is asked for."""

import training.two_processes  # noqa: F401
