"""docs/paper.md and the `Paper:` lines in the code name the same sections and functions."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

SECTION = re.compile(r"(?:Sec\. |and )(\d(?:\.\d)+)")
NAME = re.compile(r"`(momap_ros(?:\.\w+)+)`")


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs/paper.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cited(repository: Path, tracked_files: list[Path]) -> dict[str, set[str]]:
    """Section -> dotted names of the modules whose `Paper:` lines name it."""
    found: dict[str, set[str]] = {}
    for path in tracked_files:
        if path.parts[0] != "momap_ros" or path.suffix != ".py":
            continue
        for line in (repository / path).read_text(encoding="utf-8").splitlines():
            _, marker, citation = line.partition("Paper:")
            for section in SECTION.findall(citation) if marker else []:
                found.setdefault(section, set()).add(".".join(path.with_suffix("").parts))
    return found


def defined_names(module: Path) -> set[str]:
    """Functions, classes and constants of a module."""
    names: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def exists(name: str, repository: Path) -> bool:
    """Whether a dotted name is a module of ours or something defined at the top of one."""
    parts = name.split(".")
    module = repository.joinpath(*parts).with_suffix(".py")
    parent = repository.joinpath(*parts[:-1]).with_suffix(".py")
    return module.is_file() or (parent.is_file() and parts[-1] in defined_names(parent))


def test_every_name_on_the_page_exists(page: str, repository: Path) -> None:
    names = NAME.findall(page)
    assert len(names) > 20
    assert not [name for name in names if not exists(name, repository)]


def test_every_citation_is_on_the_page(page: str, cited: dict[str, set[str]]) -> None:
    listed: dict[str, set[str]] = {}
    for line in page.splitlines():
        row = re.match(r"\| Sec\. (\d(?:\.\d)+) \|", line)
        if row:
            listed.setdefault(row[1], set()).update(name.rpartition(".")[0] for name in NAME.findall(line))
    assert {"3.1", "3.3.3", "4.2"} <= cited.keys()
    missing = {section: modules - listed.get(section, set()) for section, modules in cited.items()}
    assert not {section: modules for section, modules in missing.items() if modules}, "add rows to docs/paper.md"


def test_the_checks_find_what_they_look_for(repository: Path) -> None:
    assert SECTION.findall(" Sec. 3.4.2 and 4.2 item 6. Of 1.5 m") == ["3.4.2", "4.2"]
    assert exists("momap_ros.momap.MoMap", repository)
    assert exists("momap_ros.momap", repository)
    assert not exists("momap_ros.momap.NoMap", repository)
    assert not exists("momap_ros.nomap.MoMap", repository)
