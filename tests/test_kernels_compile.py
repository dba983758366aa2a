"""Triton's compiler makes code for GPUs from every kernel. Its interpreter, in which other tests run, accepts more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.slow
def test_every_kernel_compiles_for_gpus(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("helpers") / "compile_kernels.py"],
        env={**env, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert json.loads(result.stdout) == {
        "products_kernel": 8,
        "add_up_kernel": 4,
        "combine_kernel": 16,
        "_convolution_kernel": 4,
        "_convolution_backward_kernel": 4,
        "_scan_kernel": 8,
        "_scan_backward_kernel": 4,
    }
