"""`momap data`: help, an import on the command line, errors in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from momap_ros.cli import main
from momap_ros.commands.data_import import KINDS
from momap_ros.data.importing.common import ASSUMED_VERTICAL_FOV_DEG
from momap_ros.data.importing.importer import IMPORTERS
from momap_ros.data.sample import iterate_samples

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data")


def test_the_help_knows_every_kind_and_the_assumed_camera(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(IMPORTERS) == KINDS
    with pytest.raises(SystemExit):
        main(["data", "import", "--help"])
    text = capsys.readouterr().out
    assert f"{ASSUMED_VERTICAL_FOV_DEG}" in text
    assert all(f"\n  {kind} " in text for kind in KINDS)


@needs_data
def test_an_import_says_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    source = str(DATA / "bridge_episodes")
    options = ["--name", "real", "--episodes", "2", "--every", "20", "--vertical-fov-deg", "60"]
    assert main(["data", "import", source, "--out", str(out), *options]) == 0
    text = capsys.readouterr()
    samples = list(iterate_samples(out, "real"))
    assert f"{out}: {len(samples)} samples of 2 episodes (bridge-mp4)" in text.out
    assert "nobody measured: camera, depth, instances, motion" in text.out
    assert "no --licence" in text.err
    assert samples[0].camera.fy == pytest.approx(120 * 3**0.5)
    assert main(["data", "import", source, "--out", str(out), "--licence", "CC BY 4.0"]) == 1
    assert "expected a new folder, it exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["absent", "--out", "o"],
            "momap: error: absent: expected recordings of a known kind, got nothing of this name",
        ),
        (["absent", "--out", "o", "--kind", "lerobot"], "momap: error: absent/meta: expected"),
        (["absent", "--out", "o", "--kind", "hdf5"], "invalid choice: 'hdf5'"),
        (["absent", "--out", "o", "--every", "0"], "expected a whole number from 1 on, got 0"),
    ],
)
def test_wrong_arguments_are_one_clear_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    command = [sys.executable, "-m", "momap_ros.cli", "data", "import", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"
