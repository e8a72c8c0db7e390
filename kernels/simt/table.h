// The GPU's kernels on the shim, as tables.
#ifndef DOVETAIL_KERNELS_SIMT_TABLE_H_
#define DOVETAIL_KERNELS_SIMT_TABLE_H_

#include "kernels/cuda/device_table.h"
#include "kernels/table.h"

namespace dovetail::simt {

// "simt": launches on a Stream (simt.h).
const kernels::DeviceTable& LaunchTable();

// The same as a CPU's table (kernels/cuda/slice_table.h). Each launch has a seed of its own; a
// finding of the shim aborts.
const kernels::KernelTable& SliceTable();
// "simt-sm75": as compute capability 7.5 runs them, whose products and copies are others.
const kernels::KernelTable& SliceTableSm75();

}  // namespace dovetail::simt

#endif  // DOVETAIL_KERNELS_SIMT_TABLE_H_
