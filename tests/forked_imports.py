"""What the server of the fixture ``forked`` imports, before any of its processes is asked for."""

import bench.started
import commands.wrong_types
import store.stores
import training.two_processes

MODULES = (bench.started, commands.wrong_types, store.stores, training.two_processes)
