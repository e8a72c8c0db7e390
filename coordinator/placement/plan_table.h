// How plans are shown to people: byte counts, ranges of modules, tables. Pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TABLE_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "base/byte_size.h"
#include "base/route.h"
#include "coordinator/placement/plan.h"

namespace dovetail::coordinator {

// Modules in execution order with neighbouring layers joined:
//   {"model.embed_tokens", "model.layers.0-13", "model.layers.14.self_attn",
//    "model.layers.14.mlp.gate", "model.layers.14.mlp.experts[0-31]", "lm_head"}.
std::vector<std::string> CollapseModules(const model::ModelConfig& config,
                                         absl::Span<const Op> ops);

// "embedding, layers 0-14, layer 15 attention + router + experts 0-31, norm, lm_head".
std::string DescribeOps(const model::ModelConfig& config, absl::Span<const Op> ops);

// Columns padded to their widest cell, two spaces between; the first column to the left, others to
// the right. Each line begins with two spaces and ends with a newline.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows);

// The worker of a segment, or "cpu:0 + cpu:1" where several share its rows.
std::string SegmentText(const Segment& segment);

// One row a worker: what it is to hold, the sum, the budget, and what is missing; where workers
// read weights in place, how many bytes, which are not a part of the sum.
std::string FormatMemoryTable(const std::vector<PlacedWorker>& workers);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_PLAN_TABLE_H_
