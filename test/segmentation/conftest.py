from __future__ import annotations

import sys
from pathlib import Path

import pytest

# What the tests of this folder share lies beside them.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def shared_data(repository: Path) -> Path:
    """Folder of real recordings, which are not part of the repository."""
    folder = repository.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real recordings in ../shared/data")
    return folder
