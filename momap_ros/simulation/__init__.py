"""Procedural table-top manipulation scenes in MuJoCo, with exact Motion Maps, instance ids and a sentence per view.

The only package that imports mujoco. Rendering needs no GPU: Mesa's software rasteriser through EGL (or OSMesa).
"""

import os
import sys

# Read by mujoco and Mesa when they are loaded, so they must be set before the import below. Rasterising one small image
# gains nothing from threads; a second process does.
if sys.platform.startswith("linux"):
    os.environ.setdefault("MUJOCO_GL", "egl")
    os.environ.setdefault("LP_NUM_THREADS", "1")

try:
    import mujoco as _mujoco  # noqa: F401  (imported here to explain a failure once, for every module of this package)
except ModuleNotFoundError as error:
    raise ImportError(
        f"simulation: expected the package mujoco, got {error}; pip install mujoco==4.0.0 (needs Python 3.11 or newer)"
    ) from error
except (ImportError, AttributeError, OSError) as error:
    raise ImportError(
        f"simulation: expected OpenGL libraries for MUJOCO_GL={os.environ.get('MUJOCO_GL')}, got {error!r}; "
        "apt-get install -y --no-install-recommends libegl1 libgl1 (or libosmesa6 with MUJOCO_GL=osmesa)"
    ) from error
