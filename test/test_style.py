"""House rules that no linter checks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
FunctionNode = (ast.FunctionDef, ast.AsyncFunctionDef)
# Spelt so that this line does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:work|root|tmp|home/\w+|Users/\w+)/")
VERSION_HOLDERS = {"package.xml", "CHANGELOG.rst"}


@pytest.fixture(scope="module")
def texts(repository: Path, tracked_files: list[Path]) -> dict[Path, str]:
    """Relative path -> content of every tracked text file."""
    found: dict[Path, str] = {}
    for path in tracked_files:
        content = (repository / path).read_bytes()
        if b"\0" not in content:
            found[path] = content.decode("utf-8")
    return found


@pytest.fixture(scope="module")
def python_files(texts: dict[Path, str]) -> dict[Path, str]:
    """The Python modules among them, tests included."""
    return {path: text for path, text in texts.items() if path.suffix == ".py"}


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function and method of a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, FunctionNode):
            yield node


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines from `def` to its end, its docstring left out: explaining must not cost."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def checks_something(function: ast.FunctionDef | ast.AsyncFunctionDef, helpers: set[str]) -> bool:
    """Tell whether a test asserts: by itself, pytest.raises or warns, an assert_... function, or a local helper."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if name in {"raises", "warns"} | helpers or name.startswith("assert_"):
                return True
    return False


def test_modules_are_short(python_files: dict[Path, str]) -> None:
    lengths = {str(path): text.count("\n") for path, text in python_files.items() if path.parts[0] != "test"}
    assert not {path: lines for path, lines in lengths.items() if lines >= MAX_MODULE_LINES}


def test_functions_are_short(python_files: dict[Path, str]) -> None:
    long = [
        f"{path}:{function.lineno} {function.name}: {code_lines(function)} lines"
        for path, text in python_files.items()
        for function in functions(text)
        if code_lines(function) >= MAX_FUNCTION_LINES
    ]
    assert not long


def test_no_machine_paths(texts: dict[Path, str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_the_version_is_stated_once(texts: dict[Path, str]) -> None:
    version = re.search(r"<version>(.+)</version>", texts[Path("package.xml")])
    assert version is not None
    again = re.compile(rf"(?<![\w.]){re.escape(version[1])}(?![\w.])")
    holders = {str(path) for path, text in texts.items() if path.suffix not in {".txt", ".json"} and again.search(text)}
    assert holders <= VERSION_HOLDERS


def test_every_test_asserts(python_files: dict[Path, str]) -> None:
    silent = []
    for path, text in python_files.items():
        if path.parts[0] != "test":
            continue
        found = list(functions(text))
        helpers = {function.name for function in found if checks_something(function, set())}
        silent += [
            f"{path}:{function.lineno} {function.name}"
            for function in found
            if function.name.startswith("test_") and not checks_something(function, helpers)
        ]
    assert not silent


def test_the_rules_catch_their_opposite() -> None:
    silent, loud = functions(
        "def test_a():\n    'Doc.'\n    f(1)\n\n\ndef test_b():\n    with pytest.raises(E):\n        f(1)\n"
    )
    assert (checks_something(silent, set()), checks_something(loud, set())) == (False, True)
    assert (code_lines(silent), code_lines(loud)) == (2, 3)
    assert MACHINE_PATH.search("see /" + "work/data")
    assert not MACHINE_PATH.search("../work/data and momap_ros/work/x")
