// CudaTable: the kernels that nvcc compiled; in builds with nvcc only.
#ifndef DOVETAIL_KERNELS_CUDA_CUDA_TABLE_H_
#define DOVETAIL_KERNELS_CUDA_CUDA_TABLE_H_

#include "kernels/cuda/device_table.h"

namespace dovetail::kernels {

const DeviceTable& CudaTable();

}  // namespace dovetail::kernels

#endif  // DOVETAIL_KERNELS_CUDA_CUDA_TABLE_H_
