"""Classes of other projects, imported only from modules that the operator trusts."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Collection
from typing import Any

from rasa_core_api.exceptions import InvalidConfiguration, InvalidDomain
from rasa_core_api.slots import ClassFinder, refuse_classes


def is_trusted(module: str, trusted: Collection[str]) -> bool:
    """Whether a module, or a package around it, is on the list."""
    return any(module == name or module.startswith(f"{name}.") for name in trusted)


def class_finder(trusted: Collection[str]) -> ClassFinder:
    """Finds classes in the modules on the list, and in no other."""

    def find(path: str) -> type[Any]:
        if not is_trusted(path.rpartition(".")[0], trusted):
            return refuse_classes(path)
        found = imported(path)
        if not isinstance(found, type):
            raise InvalidDomain(f"{path!r} is no class")
        return found

    return find


def implementation(path: str, base: type[Any], trusted: Collection[str], key: str) -> Any:
    """The class at `path`, a subclass of `base` with a class method `from_settings`.

    Raises `InvalidConfiguration`, naming the `key` that asked for it.
    """
    module = path.rpartition(".")[0]
    if not is_trusted(module, trusted):
        raise InvalidConfiguration(
            f"{key}: the module '{module}' is not trusted; name it with --trusted_modules to use its classes"
        )
    try:
        found = imported(path)
    except InvalidDomain as error:
        raise InvalidConfiguration(f"{key}: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base) and hasattr(found, "from_settings")):
        raise InvalidConfiguration(
            f"{key}: '{path}' is no subclass of {base.__module__}.{base.__name__} with a 'from_settings'"
        )
    return found


def imported(path: str) -> object:
    """What a path such as `module.Class` names, for callers that asked whether the module is trusted.

    Raises `InvalidDomain` with the reason and, where the module itself fails, its line.
    """
    module, _, name = path.rpartition(".")
    if not module or not all(part.isidentifier() for part in path.split(".")):
        raise InvalidDomain(f"{path!r} is not the path of a class, such as 'module.Class'")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidDomain(f"cannot import {path!r}: {error}") from error
    except Exception as error:  # the module's own
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" ({frame.filename}, line {frame.lineno})"
        raise InvalidDomain(f"cannot import {path!r}: {type(error).__name__}: {error}{where}") from error
