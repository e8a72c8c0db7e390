#include "coordinator/placement/memory_check.h"

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/placement/plan_table.h"
#include "coordinator/placement/streaming.h"
#include "coordinator/placement/suggestions.h"
#include "transport/exchange.h"
#include "transport/remote_edges.h"

namespace dovetail::coordinator {
namespace {

// Rings in a worker's memory: those that end there, and its own side of those that go to another
// host or come from one (transport/tcp_edge.h).
int CountRings(const Route& route, const std::string& worker) {
  const auto spec = transport::ExchangeSpec::ForRoute(route, /*epoch=*/0, /*ring_bytes=*/0);
  int rings = 0;
  for (const auto* edges : {&spec.edges, &spec.gathers}) {
    for (const auto& [from, to] : *edges) {
      const bool own_side = from == worker && transport::IsRemoteEdge(from, to);
      rings += to == worker || own_side ? 1 : 0;
    }
  }
  return rings;
}

// Places for rows at this worker's ends of links: at the sender's those of all lanes, at the
// receiver's of NCCL one.
int64_t LinkBytes(const model::ModelConfig& config, const Plan& plan, const std::string& worker) {
  if (plan.shape.gpu_links == GpuLinks::kHost) return 0;
  std::set<std::string> to, from;
  for (size_t i = 0; i < plan.route.size(); ++i) {
    if (!IsLinkedHop(plan.route, i, plan.shape.gpu_links)) continue;
    if (plan.route[i].worker == worker) to.insert(plan.route[i + 1].worker);
    if (plan.route[i + 1].worker == worker) from.insert(plan.route[i].worker);
  }
  int64_t places = static_cast<int64_t>(to.size()) * plan.shape.link_slots;
  if (plan.shape.gpu_links == GpuLinks::kNccl) places += static_cast<int64_t>(from.size());
  return places * HopBytes(config, plan.shape.max_rows);
}

// Workers that share one memory.
struct Pool {
  std::string name;
  int64_t budget = 0;
  int64_t needed = 0;
  std::vector<std::string> workers;
};

std::vector<Pool> PoolsOf(const Plan& plan) {
  std::vector<Pool> pools;
  for (const PlacedWorker& worker : plan.workers) {
    if (worker.device.memory_pool.empty()) continue;
    auto pool = std::find_if(pools.begin(), pools.end(),
                             [&](const Pool& p) { return p.name == worker.device.memory_pool; });
    if (pool == pools.end()) {
      pool = pools.insert(pools.end(), {worker.device.memory_pool, worker.device.budget(), 0, {}});
    }
    pool->budget = std::min(pool->budget, worker.device.budget());
    pool->needed += worker.memory.needed();
    pool->workers.push_back(worker.device.name);
  }
  return pools;
}

// One line for each shared memory that is too small.
std::string DescribePools(const Plan& plan) {
  std::string text;
  for (const Pool& pool : PoolsOf(plan)) {
    if (pool.needed <= pool.budget) continue;
    absl::StrAppend(&text, "  ", absl::StrJoin(pool.workers, ", "),
                    " share one memory: together they need ", FormatBytes(pool.needed), " of ",
                    FormatBytes(pool.budget), ", ", FormatBytes(pool.needed - pool.budget),
                    " too little\n");
  }
  return text;
}

}  // namespace

void PlanMemory(const model::ModelConfig& config, Plan* plan) {
  for (PlacedWorker& worker : plan->workers) {
    worker.memory = {};
    for (const PlacedModule& module : plan->modules) {
      const ModuleBytes bytes = BytesOn(module, worker.device.name);
      worker.memory.weights_packed += bytes.packed;
      if (module.op.kind == OpKind::kLmHead && model::HeadIsEmbedding(config, worker.ops)) continue;
      worker.memory.weights_stored += bytes.stored;
      worker.memory.weights_mapped += bytes.in_place;
    }
  }
  PlanMemoryOfShape(config, plan);
}

void PlanMemoryOfShape(const model::ModelConfig& config, Plan* plan) {
  for (PlacedWorker& worker : plan->workers) {
    const DeviceInfo& device = worker.device;
    model::WorkerMemory& memory = worker.memory;
    model::PlanStepMemory(config, worker.ops, plan->shape, device.layout, device.num_threads,
                          &memory, StreamedOpsOf(*plan, device));
    if (device.has_gpu_kernels()) memory.load_device = model::kLoadDeviceBytes;
    if (device.kind == DeviceKind::kCuda) {
      memory.staging = 0;  // of the host
      memory.communication = LinkBytes(config, *plan, device.name);
      memory.runtime = kGpuRuntimeBytes;
    } else {
      memory.communication =
          CountRings(plan->route, device.name) * model::kRingBytes + model::FrameBytes(plan->shape);
      memory.runtime = model::RuntimeBytes(device.num_threads);
      if (device.kind != DeviceKind::kSimt) continue;
      memory.runtime += kSimtRuntimeBytes;
      memory.communication += LinkBytes(config, *plan, device.name);
    }
  }
}

bool Fits(const Plan& plan) {
  const bool alone = std::all_of(
      plan.workers.begin(), plan.workers.end(),
      [](const PlacedWorker& worker) { return worker.memory.needed() <= worker.device.budget(); });
  if (!alone) return false;
  const std::vector<Pool> pools = PoolsOf(plan);
  return std::all_of(pools.begin(), pools.end(),
                     [](const Pool& pool) { return pool.needed <= pool.budget; });
}

absl::Status CheckMemory(const model::ModelConfig& config, const model::GgufFile& file,
                         const Plan& plan) {
  if (Fits(plan)) return absl::OkStatus();
  std::string advice;
  for (const Suggestion& suggestion : NearestFits(config, file, plan)) {
    absl::StrAppend(&advice, "\n", suggestion.message);
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "the plan needs more memory than its workers have (context_length ",
      plan.shape.context_length, ", kv_tokens ", int64_t{plan.shape.num_kv_blocks} * kKvBlockTokens,
      ", chunk_size ", plan.shape.max_rows - plan.shape.max_sequences, ", max_batch_size ",
      plan.shape.max_sequences, "):\n", FormatMemoryTable(plan.workers), DescribePools(plan),
      "What would fit:", advice));
}

}  // namespace dovetail::coordinator
