"""Makes the modules that the plugin carries importable, with their text for tracebacks."""

import importlib.abc
import importlib.util
import sys


class _Carried(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, sources):
        self._sources = sources

    def find_spec(self, name, path=None, target=None):
        if name not in self._sources:
            return None
        return importlib.util.spec_from_loader(name, self, origin=f"<{name}>", is_package=self.is_package(name))

    def is_package(self, name):
        return "." not in name

    def get_source(self, name):
        return self._sources[name]


def install(sources):
    sys.meta_path.insert(0, _Carried(sources))
