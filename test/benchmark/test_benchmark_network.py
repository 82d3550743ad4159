from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from momap_ros.benchmark import network
from momap_ros.benchmark.network import FORMAT, STAGES, VARIANTS, measure_variant, named_variants, network_reports
from momap_ros.benchmark.report import markdown, read_report
from momap_ros.benchmark.scene import Scene, first_scene
from momap_ros.benchmark.timing import QUICK
from momap_ros.cli import main
from momap_ros.commands.demo import DEMO_BAG
from momap_ros.config import ForecastConfig
from momap_ros.model import onnx_export

BY_NAME = {variant.name: variant for variant in VARIANTS}


@pytest.fixture
def bag() -> Path:
    if not DEMO_BAG.exists():
        pytest.skip("needs the bundled recording")
    return DEMO_BAG


@pytest.fixture
def scene(bag: Path) -> Scene:
    return first_scene(bag)


@pytest.fixture
def config(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ForecastConfig:
    """The tiny model on a machine without a compiler."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # every variant sets its own
    monkeypatch.setenv("CXX", "no-such-compiler")
    return ForecastConfig(checkpoint=str(tiny_checkpoint), device="cpu")


def test_every_row_is_named_for_what_it_is() -> None:
    what = {stage.name: stage.what for stage in STAGES}
    assert len(what) == len(set(what.values())) == len(STAGES)
    assert what["float32_encoder"] == "torch, float32: scene encoder, once per scene"
    assert what["bfloat16_n10_s4"] == "torch, bfloat16: denoiser, N = 10, 4 steps"
    assert what["compiled_compile_n1"] == "torch.compile, float32: compilation for N = 1, once"
    assert what["onnxruntime_n1_s1"] == "ONNX Runtime on the CPU, float32: denoiser, N = 1, 1 step"


def test_variants_are_chosen_by_name() -> None:
    assert named_variants(["cuda_graphs", "float32"]) == (BY_NAME["cuda_graphs"], BY_NAME["float32"])
    assert named_variants([]) == VARIANTS
    with pytest.raises(ValueError, match=r"expected some of float32, .*, got float16"):
        named_variants(["float16", "bfloat16"])


@pytest.mark.slow
def test_the_command_writes_a_report(bag: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--bag", str(bag), "--checkpoint", str(tiny_checkpoint), "--device", "cpu", "--out", str(tmp_path)]
    assert main(["bench", "--network", "float32", "--quick", *arguments]) == 0
    report = read_report(tmp_path / "network.json", {FORMAT: list(BY_NAME["float32"].stages())})
    assert (tmp_path / "network.md").read_text(encoding="utf-8") == markdown(report)
    assert all((item.runs, item.skipped) == (QUICK.min_runs, None) for item in report.rows)


def test_what_was_measured_before_an_interruption_is_there(
    bag: Path, config: ForecastConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "on_cores", lambda _, measure, *given: measure(*given))  # here: to start takes longest
    variants = named_variants(["cuda_graphs", "compiled"])  # neither can run here: their rows say so at once
    reports = network_reports(bag, config, variants=variants, quick=True)
    names = [[stage.name for stage in variant.stages()] for variant in variants]
    assert [item.name for item in next(reports).rows] == names[0]
    assert [item.name for item in next(reports).rows] == names[0] + names[1]
    assert next(reports, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compiled_bfloat16", "onnxruntime"])
def test_what_happens_once_has_a_row_in_seconds(
    name: str, scene: Scene, config: ForecastConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "onnxruntime":
        for library in onnx_export.LIBRARIES:
            pytest.importorskip(library, reason="needs the extra onnx")
    # torch's switch: a compiled module runs as it is. Compilation itself has its test in test_execution.
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")
    monkeypatch.setenv("CXX", "true")  # any program that exists
    variant = dataclasses.replace(BY_NAME[name], hypotheses=(2,))
    rows, threads = measure_variant(variant, scene, config, QUICK)
    assert threads > 0
    assert [item.name for item in rows] == [stage.name for stage in variant.stages()]
    for item in rows:
        assert item.skipped is None
        assert (item.unit, item.runs) == (("s", 1) if item.name.endswith(("_export", "_n2")) else ("ms", 2))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("compiled", "a C++ compiler 'no-such-compiler'"),
        ("cuda_graphs", "reduce-overhead records CUDA graphs and needs a CUDA device, got 'cpu'"),
    ],
)
def test_a_variant_that_cannot_run_says_why(name: str, reason: str, scene: Scene, config: ForecastConfig) -> None:
    rows, _ = measure_variant(BY_NAME[name], scene, config, QUICK)
    assert [item.name for item in rows] == [stage.name for stage in BY_NAME[name].stages()]
    assert all(reason in str(item.skipped) for item in rows)
