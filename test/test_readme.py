"""What README.md and the other pages tell people to type or to open exists."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/conventions.md",
    "docs/data_and_training.md",
    "docs/full_model.md",
    "docs/policies.md",
    "docs/metrics.md",
    "docs/self_scoring.md",
    "docs/speed.md",
)
PROGRAMS = ("make", "momap", "python", "ros2", "bag_player")
REPOSITORY = Path(__file__).parents[1]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")
# Made by `make demo` once the weights are there.
NOT_YET = {"docs/images/demo.png"}


def text_of(page: str) -> str:
    return (REPOSITORY / page).read_text(encoding="utf-8")


def commands(text: str) -> Iterator[list[str]]:
    """Words of every command of PROGRAMS: indented lines and code spans, cut at &&, comments left out."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [
        span for line in prose.splitlines() if not line.startswith("    ") for span in re.findall(r"`([^`]+)`", line)
    ]
    lines = re.findall(r"^ {4}(\S.*)$", prose, flags=re.MULTILINE)
    for line in [*lines, *spans]:
        if "'" in line and line.count("'") % 2:
            continue  # a code span that is no command
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            command = words[:end]
            words = words[end + 1 :]
            while command and ASSIGNMENT.fullmatch(command[0]):
                command = command[1:]
            if len(command) > 1 and command[0] in PROGRAMS:
                yield command


ALL_COMMANDS = sorted({(page, shlex.join(words)) for page in PAGES for words in commands(text_of(page))})


@functools.cache
def help_of(*command: str) -> str:
    """What a program prints for --help."""
    done = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command} --help: {done.stderr}"
    return done.stdout


def options_of_module(path: Path) -> set[str]:
    """Options that a module's argument parser takes; read, not run, because some modules import torch.

    Those of a module from which it imports a function add_... are its own, too.
    """
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    shared = [
        REPOSITORY.joinpath(*node.module.split(".")).with_suffix(".py")
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module and any(name.name.startswith("add_") for name in node.names)
    ]
    own = {
        argument.value
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".add_argument")
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
    }
    return own.union(*(options_of_module(module) for module in shared))


def problem_with(words: list[str]) -> str | None:
    """Why a command would fail, as far as names, files and options go."""
    program, *arguments = words
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    if program == "make":
        targets = set(re.findall(r"^(\w+):", text_of("Makefile"), flags=re.MULTILINE))
        return f"no target {set(arguments) - targets}" if set(arguments) - targets else None
    if program == "momap":
        return problem_with_momap(arguments, options)
    if program == "python":
        return problem_with_python(arguments, options)
    if program == "ros2" and "momap_ros" in arguments:
        return problem_with_ros2(arguments, options)
    if program == "bag_player":
        return problem_with_script("bag_player", options)
    return None


def problem_with_momap(arguments: list[str], options: set[str]) -> str | None:
    cli = pytest.importorskip("momap_ros.commands.delegated", exc_type=ImportError)
    length = 2 if arguments[0] in ("bag", "data", "train") and len(arguments) > 1 else 1
    name = " ".join(word for word in arguments[:length] if not word.startswith("-"))
    if name in cli.PROGRAMS:
        known = options_of_module(REPOSITORY.joinpath(*cli.PROGRAMS[name].module.split(".")).with_suffix(".py"))
    elif name == "train":
        known = set()
    else:
        known = set(re.findall(r"--[\w-]+", help_of("-m", "momap_ros.cli", *name.split())))
    missing = options - known - {"--help"}
    return f"no option {missing}" if missing else None


def problem_with_python(arguments: list[str], options: set[str]) -> str | None:
    if arguments[0] == "-m" and arguments[1].startswith("momap_ros"):
        path = REPOSITORY.joinpath(*arguments[1].split(".")).with_suffix(".py")
    elif arguments[0].endswith(".py"):
        path = REPOSITORY / arguments[0]
    else:
        return None
    if not path.is_file() or '__name__ == "__main__"' not in path.read_text(encoding="utf-8"):
        return f"no program {path.name}"
    missing = options - options_of_module(path) - {"--help"}
    return f"no option {missing}" if missing else None


def problem_with_ros2(arguments: list[str], options: set[str]) -> str | None:
    action, _, name, *rest = arguments
    if action == "run":
        return problem_with_script(name, options)
    path = REPOSITORY / "launch" / name
    if not path.is_file():
        return f"no launch file {name}"
    declared = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    given = {word.partition(":=")[0] for word in rest if ":=" in word}
    return f"no argument {given - declared}" if given - declared else None


def problem_with_script(name: str, options: set[str]) -> str | None:
    path = REPOSITORY / "scripts" / name
    if not path.is_file():
        return f"no executable {name}"
    found = re.search(r"from (momap_ros[\w.]+) import main", path.read_text(encoding="utf-8"))
    assert found is not None
    # What ROS itself takes comes after --ros-args.
    missing = options - {"--ros-args"} - options_of_module(REPOSITORY.joinpath(*found[1].split(".")).with_suffix(".py"))
    return f"no option {missing}" if missing else None


@pytest.mark.parametrize(("page", "command"), ALL_COMMANDS, ids=[command for _, command in ALL_COMMANDS])
def test_commands_exist(page: str, command: str) -> None:
    problem = problem_with(shlex.split(command))
    assert problem is None, f"{page}: {command}: {problem}"


def test_the_check_finds_what_it_looks_for() -> None:
    text = (
        "Run `make demo`, not `demo`.\n\n    cd x && PYTHON=python3 make setup   # here\n    momap bag check b --all\n"
    )
    assert list(commands(text)) == [["make", "setup"], ["momap", "bag", "check", "b", "--all"], ["make", "demo"]]
    assert problem_with(["make", "coffee"])
    assert problem_with(["python", "-m", "momap_ros.coffee"])
    assert problem_with(["python", "-m", "momap_ros.training.prepare", "--coffee"])
    assert problem_with(["momap", "bench", "--coffee"])
    assert problem_with(["momap", "train", "small", "--coffee"])
    assert problem_with(["momap", "train", "vae", "--coffee"])
    assert problem_with(["ros2", "run", "momap_ros", "coffee_node"])
    assert problem_with(["ros2", "run", "momap_ros", "bag_player", "bag", "--coffee"])
    assert problem_with(["ros2", "launch", "momap_ros", "momap.launch.py", "coffee:=black"])
    assert problem_with(["ros2", "launch", "momap_ros", "coffee.launch.py"])
    assert problem_with(["ros2", "launch", "momap_ros", "momap.launch.py", "prompt:=lift the cup"]) is None


@pytest.mark.parametrize("page", [*PAGES, "docs/architecture.md", "docs/paper.md", "docs/planners.md"])
def test_links_lead_somewhere(page: str) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(text_of(page)) if "://" not in target]
    missing = {target for target in targets if target and not (REPOSITORY / page).parent.joinpath(target).exists()}
    assert missing <= NOT_YET


def test_camera_presets_are_listed() -> None:
    presets = {path.stem for path in (REPOSITORY / "config/cameras").glob("*.yaml")}
    table = text_of("README.md").split("### Cameras\n")[1].split("\n### ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    assert presets
    assert listed == presets


@pytest.mark.ros
def test_made_parts_are_up_to_date(load_script: Callable[[str], ModuleType]) -> None:
    module = load_script("scripts/update_readme.py")
    text = text_of("README.md")
    assert len(module.PART.findall(text)) == len(module.GROUPS) + 1
    assert module.updated(text) == text, "run: python scripts/update_readme.py"
    assert module.updated(text.replace("`0.02`", "`0.03`", 1)) == text
    for page, parts in (
        ("docs/data_card.md", ["data_engine"]),
        ("docs/full_model.md", ["full_model_size", "full_model_speed"]),
        ("docs/speed.md", ["network"]),
    ):
        text = text_of(page)
        assert [found[1] for found in module.PART.findall(text)] == parts
        assert module.updated(text) == text, "run: python scripts/update_readme.py"
