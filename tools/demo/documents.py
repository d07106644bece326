"""Python's standard library as a collection: every public docstring is a document.

It knows how to walk modules and to name what it finds; it does not know what is searched or how.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# Modules that open windows or browsers, print, are somebody's tests, or only stand behind another
# public name (posix behind os, sre_* behind re).
_SKIPPED = {
    "antigravity", "this", "idlelib", "test", "tests", "turtle", "turtledemo", "tkinter", "lib2to3",
    "encodings", "distutils", "ensurepip", "venv", "pydoc_data", "posix", "nt", "posixpath",
    "ntpath", "genericpath", "nturl2path", "sre_compile", "sre_constants", "sre_parse",
}  # fmt: skip


def collect_documents() -> dict[str, str]:
    """Return {qualified name: signature and docstring}, sorted by name, the same in every run.

    An object has one name, the most public one (`asyncio.gather`, not `asyncio.tasks.gather`), and
    methods that repeat the docstring of another class's method are left out.
    """
    found: dict[str, Any] = {}
    for name, value in _public_objects().items():
        found[name] = value
        if inspect.isclass(value):
            found.update(_methods(name, value))
    documents: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    for name in sorted(found, key=lambda name: (name.count("."), name)):
        docstring = inspect.cleandoc(_docstring(found[name]))
        identity = (name.rsplit(".", 1)[-1], docstring)
        if docstring and identity not in seen:
            seen.add(identity)
            documents[name] = f"{name}{_signature(found[name])}\n{docstring}"
    return dict(sorted(documents.items()))


def _public_objects() -> dict[str, Any]:
    """Return modules, classes and functions by their best name."""
    modules = dict(_modules())
    best: dict[int, tuple[tuple[Any, ...], str, Any]] = {}
    for module_name, module in modules.items():
        for attribute in _public_names(module):
            value = getattr(module, attribute, None)
            place = _place(module_name, module, attribute, value, modules)
            if place is None:
                continue
            if id(value) not in best or place < best[id(value)][0]:
                name = f"{module_name}.{attribute}".removeprefix("builtins.")
                best[id(value)] = (place, name, value)
    return {**modules, **{name: value for _, name, value in best.values()}}


def _place(
    module_name: str, module: ModuleType, attribute: str, value: Any, modules: dict[str, ModuleType]
) -> tuple[Any, ...] | None:
    """Say how well a module suits as the home of a value (lower is better), None for not at all."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return None
    home = getattr(value, "__module__", None) or module_name
    native = f"{home}.".startswith((f"{module_name}.", f"_{module_name}."))
    declared = attribute in getattr(module, "__all__", ())
    if not native and not declared and home in modules:
        return None
    other_name = attribute != getattr(value, "__name__", attribute)
    return (not native, not declared, module_name.count("."), other_name, module_name, attribute)


def _modules() -> Iterator[tuple[str, ModuleType]]:
    for top in sorted(sys.stdlib_module_names):
        yield from _with_submodules(top)
    yield "os.path", importlib.import_module("os.path")


def _with_submodules(name: str) -> Iterator[tuple[str, ModuleType]]:
    last = name.rsplit(".", 1)[-1]
    if last.startswith("_") or last in _SKIPPED:
        return
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
        except Exception:  # another system's module, or one built without its C library
            return
    yield name, module
    for entry in pkgutil.iter_modules(getattr(module, "__path__", ())):
        yield from _with_submodules(f"{name}.{entry.name}")


def _public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None) or vars(module)
    return sorted(name for name in names if not name.startswith("_"))


def _methods(class_name: str, owner: type) -> dict[str, Any]:
    """Return the public methods that the class itself defines."""
    own = {name: value for name, value in vars(owner).items() if not name.startswith("_")}
    return {
        f"{class_name}.{name}": value
        for name, value in own.items()
        if inspect.isroutine(value) or isinstance(value, (classmethod, staticmethod))
    }


def _docstring(value: Any) -> str:
    docstring = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    return docstring if isinstance(docstring, str) else ""


def _signature(value: Any) -> str:
    """Return the parameters; long or odd defaults may hold this machine's state and are dots."""
    if inspect.ismodule(value):
        return ""
    try:
        wrapped = isinstance(value, (classmethod, staticmethod))
        signature = inspect.signature(value.__func__ if wrapped else value)
    except Exception:  # written in C without a signature, or with one that does not evaluate
        return ""
    parameters = [
        parameter if _is_shown(parameter) else parameter.replace(default=...)
        for parameter in signature.parameters.values()
    ]
    return str(signature.replace(parameters=parameters)).replace("Ellipsis", "...")


def _is_shown(parameter: inspect.Parameter) -> bool:
    value = parameter.default
    plain = value is None or isinstance(value, (bool, int, float, str, bytes))
    return value is parameter.empty or (plain and len(repr(value)) <= 12)
