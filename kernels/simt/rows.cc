// All kernels but the products with quantised weights, and the table, over the shim.
#include "kernels/cuda/unit.h"
#include "kernels/simt/table.h"

namespace dovetail::kernels::cuda {
namespace {

#include "kernels/cuda/elementwise.inl.h"
//
#include "kernels/cuda/norm.inl.h"
//
#include "kernels/cuda/copy.inl.h"
//
#include "kernels/cuda/moe.inl.h"
//
#include "kernels/cuda/router.inl.h"
//
#include "kernels/cuda/kv_cache.inl.h"
//
#include "kernels/cuda/attention.inl.h"
//
#include "kernels/cuda/attention_merge.inl.h"
//
#include "kernels/cuda/attention_stages.inl.h"
//
#include "kernels/cuda/attention_scores.inl.h"
//
#include "kernels/cuda/attention_rows.inl.h"
//
#include "kernels/cuda/attention_tile.inl.h"
//
#include "kernels/cuda/matmul_float.inl.h"
//
#include "kernels/cuda/pack.inl.h"
//
#include "kernels/cuda/launch_rows.inl.h"
//
#include "kernels/cuda/launch_attention.inl.h"
//
#include "kernels/cuda/launch_float.inl.h"
//
#include "kernels/cuda/launch.inl.h"

}  // namespace
}  // namespace dovetail::kernels::cuda

namespace dovetail::simt {

const kernels::DeviceTable& LaunchTable() {
  static const kernels::DeviceTable table = kernels::cuda::MakeDeviceTable("simt");
  return table;
}

}  // namespace dovetail::simt
