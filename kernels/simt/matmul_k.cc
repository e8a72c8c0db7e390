// Over the shim.
#include "kernels/cuda/matmul_k.cu"  // NOLINT
