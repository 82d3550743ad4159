"""One environment for all tests: set before any test module imports ROS or numpy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

# Assigning a wrong type to a message field fails at once; without this ROS converts, truncates or crashes later.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
# Nodes of a test run see neither the network nor another run on this machine. Domain ids above 101 may collide with the
# ephemeral ports of Linux; 0 is everybody's default.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 101)
# The threads of numpy and torch would fight over few cores with the nodes under test.
os.environ.setdefault("OMP_NUM_THREADS", "2")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def tracked_files() -> list[Path]:
    """Files under version control, relative to the repository's root, as they are in the working tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip(f"needs a git checkout: {listed.stderr.strip()}")
    paths = (Path(name) for name in listed.stdout.split("\0") if name)
    return sorted(path for path in paths if (REPOSITORY / path).is_file())
