// Over the shim.
#include "kernels/cuda/matmul_small.cu"  // NOLINT
