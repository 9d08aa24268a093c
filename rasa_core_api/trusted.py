"""Classes of other projects, imported only from modules that the operator trusts."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from typing import Any

from rasa_core_api.exceptions import InvalidDomain
from rasa_core_api.slots import ClassFinder, refuse_classes


def is_trusted(module: str, trusted: Collection[str]) -> bool:
    """Whether a module, or a package around it, is on the list."""
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def class_finder(trusted: Collection[str]) -> ClassFinder:
    """Finds classes in the modules on the list, and in no other."""

    def find(path: str) -> type[Any]:
        module, _, name = path.rpartition(".")
        if not is_trusted(module, trusted):
            return refuse_classes(path)
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InvalidDomain(f"cannot import {path!r}: {error}") from error
        if not isinstance(found, type):
            raise InvalidDomain(f"{path!r} is no class")
        return found

    return find
