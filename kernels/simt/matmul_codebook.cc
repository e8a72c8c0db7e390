// Over the shim.
#include "kernels/cuda/matmul_codebook.cu"  // NOLINT
