from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from threadpoolctl import ThreadpoolController

from momap_ros.model.device import choose_device, keep_numpy_single_threaded


def test_numpy_gives_its_threads_up_and_torch_keeps_its_own() -> None:
    libraries = ThreadpoolController().lib_controllers
    of_numpy = [library for library in libraries if library.user_api == "blas" and "torch" not in library.filepath]
    assert of_numpy
    before, threads = [library.num_threads for library in of_numpy], torch.get_num_threads()
    try:
        for library in of_numpy:
            library.set_num_threads(2)
        keep_numpy_single_threaded()
        assert [library.num_threads for library in of_numpy] == [1] * len(of_numpy)
        assert torch.get_num_threads() == threads
    finally:
        for library, count in zip(of_numpy, before, strict=True):
            library.set_num_threads(count)


def test_a_named_device_is_taken_as_it_is() -> None:
    assert choose_device("cuda:1") == "cuda:1"
    assert choose_device("auto") in {"cpu", "cuda"}
