"""A program that compiles every kernel for GPUs, in each variant that is launched, and writes how many there are.

It runs without Triton's interpreter, and needs no GPU.
"""

import json
import sys

import torch

from hf_gradalign.alignment import gradient_table
from hf_gradalign.models import mamba_kernels
from hf_gradalign.models.head_mamba import MambaMixer

POINTERS = {
    **{torch.float32: "*fp32", torch.float64: "*fp64", torch.float16: "*fp16", torch.bfloat16: "*bf16"},
    **{torch.int32: "*i32", torch.int64: "*i64"},
}
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def targets():
    from triton.backends.compiler import GPUTarget

    return [GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)]


class Compiled:
    """Stands in for a kernel: a launch compiles it for each target and computes nothing."""

    def __init__(self, kernel):
        self.kernel = kernel
        self.variants = set()

    def __getitem__(self, grid):
        return self.launch

    def launch(self, *arguments, num_warps=4, **constants):
        import triton

        named = {**dict(zip(self.kernel.arg_names, arguments, strict=False)), **constants}
        signature = {
            name: "constexpr" if name in constants else POINTERS[value.dtype] if torch.is_tensor(value) else "i32"
            for name, value in ((name, named[name]) for name in self.kernel.arg_names)
        }
        variant = str((signature, constants, num_warps))
        if variant in self.variants:
            return
        self.variants.add(variant)
        source = triton.compiler.ASTSource(self.kernel, signature, constants)
        for target in targets():
            code = triton.compile(source, target=target, options={"num_warps": num_warps}).asm
            assert code["cubin" if target.backend == "cuda" else "hsaco"], (variant, target)


def launch_gradient_kernels():
    for dtype in DTYPES:
        for views in (2, 3):
            for shift in (0, 1):  # addresses that are multiples of 16 bytes, and others
                table = gradient_table.GradientTable([[torch.ones(9, dtype=dtype)[shift:]] for _ in range(views)])
                table.products_(torch.zeros(1, views, views))
                table.combine_(torch.ones(1, views))


def launch_mamba_kernels():
    for dtype in DTYPES:
        mixer = MambaMixer(8, 16, 4, expansion=2).to(dtype)
        frames = torch.ones(2, 5, 8, dtype=dtype)
        with torch.no_grad():
            mixer._fused(frames)
        mixer._fused(frames).sum().backward()


if __name__ == "__main__":
    kernels = []
    for module in (gradient_table, mamba_kernels):
        for name, kernel in list(vars(module).items()):
            if name.endswith("_kernel"):
                kernels.append(Compiled(kernel))
                setattr(module, name, kernels[-1])
    launch_gradient_kernels()
    launch_mamba_kernels()
    sys.stdout.write(json.dumps({kernel.kernel.__name__: len(kernel.variants) for kernel in kernels}))
