"""Installs the Python half of the package with pip; CMakeLists.txt generates the messages and serves colcon."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
MANIFEST = ElementTree.parse(ROOT / "package.xml")


def manifest(tag: str) -> str:
    """Return the text of one element of package.xml, the one place that states name, version and licence."""
    text = MANIFEST.findtext(tag)
    if text is None:
        raise ValueError(f"package.xml: expected an element <{tag}>, got none; add it")
    return text


# A lower bound is the oldest release that has what the code uses; an upper bound is a break that the code would feel.
CORE = [
    "numpy>=1.26",  # the oldest with wheels for Python 3.12
    "scipy>=1.11",  # the oldest with wheels for Python 3.12
    "opencv-python-headless>=4.8",  # 4 and 5 both; headless: no libGL needed
    "rosbags>=0.10.4,<0.12",  # Reader and Writer changed their arguments between minor versions
    "apsw>=3.45",  # its exceptions leave rosbags unwrapped when a sqlite3 bag is damaged; rosbags itself depends on it
    "transforms3d>=0.4.2",  # the first that runs with NumPy 2
    "tqdm>=4.60",
    "pyyaml>=6.0",
    "matplotlib>=3.8",  # the oldest with wheels for Python 3.12
    "pillow>=10.1",  # the oldest with wheels for Python 3.12
]
EXTRAS = {
    "model": [
        "torch>=2.4",  # requirements/torch.txt names the release that is tested
        "diffusers>=0.31,<1",
        "transformers>=4.45,<6",  # CLIP text model and SAM 2
        "safetensors>=0.4.3",  # checkpoints are safetensors only
        "threadpoolctl>=3.1",  # the first that can be told of single libraries
    ],
    # Exact: another physics engine gives other data from the same seed. Its wheels begin at Python 3.11.
    "sim": ["mujoco==4.0.0; python_version >= '3.11'"],
    "data": ["pyarrow>=16.1"],  # the first that runs with NumPy 2; Parquet tables of LeRobot data sets
    "policy": ["gymnasium>=1.0"],  # the first with the present Wrapper; environments that hold forecasts
    # The exporter of torch 2.6 and newer; onnxruntime 1.23 is the last for Python 3.10.
    "onnx": ["torch>=2.6", "onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
    "view": ["open3d-cpu>=0.18; platform_machine == 'x86_64'"],  # same import as open3d, without CUDA
    # Exact where another release judges the same code otherwise.
    "test": ["pytest>=8", "ruff==0.17.5", "mypy==2.4.1", "types-pyyaml", "types-tqdm"],
}

setup(
    name=manifest("name"),
    version=manifest("version"),
    description=manifest("description"),
    license=manifest("license"),
    license_files=["LICENSE"],
    long_description=manifest("description"),
    python_requires=">=3.10",
    packages=find_packages(include=["momap_ros", "momap_ros.*"]),
    package_data={"momap_ros": ["py.typed", "weights/**/*", "demo/**/*", "ros/*.xml"]},
    # The same place as in a ROS prefix, so that the bag reader finds the definitions in both.
    data_files=[("share/momap_ros/msg", sorted(str(path.relative_to(ROOT)) for path in (ROOT / "msg").glob("*.msg")))],
    install_requires=CORE,
    extras_require={**EXTRAS, "all": sorted(requirement for extra in EXTRAS.values() for requirement in extra)},
    entry_points={"console_scripts": ["momap = momap_ros.cli:main"]},
    zip_safe=False,
)
