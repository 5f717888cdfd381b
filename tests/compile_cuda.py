"""``python -m tests.compile_cuda``: compile every kernel for a GPU that need not be there."""

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from bslbench.kernels import cuda_sddmm, cuda_spmm

H100 = GPUTarget("cuda", 90, 32)


def compile_for_gpu(kernel: triton.JITFunction, types: str, **constants: object) -> None:
    """Compile with the types of the arguments that are not among `constants`, in order."""
    names = [name for name in kernel.arg_names if name not in constants]
    signature = dict(zip(names, types.split(), strict=True)) | dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert "cubin" in triton.compile(source, target=H100).asm
    print(kernel.__name__, flush=True)


def main() -> None:
    tile = cuda_sddmm.tile(64)
    scores = "*{0} *{0} *fp32 *fp32 *i32 *fp32 i32 i32"
    gradient = "*fp32 *fp32 *fp32 *fp32 *{0} *fp32 *fp32 *{1} *i32 *i32 *fp32 i32"
    for rows in ("fp32", "bf16"):
        compile_for_gpu(cuda_sddmm._forward, scores.format(rows), **tile)
        for entry in ("i32", "i64"):
            compile_for_gpu(cuda_sddmm._gradient_kernel, gradient.format(rows, entry), **tile)
    compile_for_gpu(cuda_sddmm._draw, "*i64 *i32 i32 i32 i32", BLOCK=cuda_sddmm.DRAWS)
    compile_for_gpu(cuda_sddmm._draw, "*i64 *i32 i32 i32", n_pos=1, BLOCK=cuda_sddmm.DRAWS)
    compile_for_gpu(cuda_sddmm._count, "*i32 *i32 i32 i32 i32", BLOCK=cuda_sddmm.DRAWS)
    product = "*i32 *i32 *i32 *fp32 *fp32 *{0} *{1} *fp32 *fp32 i32"
    for rows, kept in (("i32", "i32"), ("i64", "i32"), ("i32", "i8")):
        flags = {"LISTED": rows == "i64", "SOME": kept == "i8"}
        compile_for_gpu(cuda_spmm._product, product.format(rows, kept), **flags, **tile)


if __name__ == "__main__":
    main()
