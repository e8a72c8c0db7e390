#include "transport/worker_plan.h"

#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "dovetail/v1/plan.pb.h"

namespace dovetail::transport {
namespace {

// Far above any machine, and low enough that sizes computed from them stay within 64 bits.
constexpr int kMaxStepRows = 1 << 20;
constexpr int kMaxContextTokens = 1 << 26;
constexpr int kMaxKvBlocks = 1 << 28;
constexpr int kMaxVocabSize = 1 << 26;
constexpr int kMaxLayers = 1 << 16;
constexpr uint64_t kMaxPlanRingBytes = uint64_t{1} << 32;

v1::OpKind KindToProto(OpKind kind) {
  switch (kind) {
    case OpKind::kEmbedding:
      return v1::OP_KIND_EMBEDDING;
    case OpKind::kAttention:
      return v1::OP_KIND_ATTENTION;
    case OpKind::kMlp:
      return v1::OP_KIND_MLP;
    case OpKind::kNorm:
      return v1::OP_KIND_NORM;
    case OpKind::kLmHead:
      return v1::OP_KIND_LM_HEAD;
  }
  return v1::OP_KIND_UNSPECIFIED;
}

bool KindFromProto(v1::OpKind proto, OpKind* kind) {
  switch (proto) {
    case v1::OP_KIND_EMBEDDING:
      *kind = OpKind::kEmbedding;
      return true;
    case v1::OP_KIND_ATTENTION:
      *kind = OpKind::kAttention;
      return true;
    case v1::OP_KIND_MLP:
      *kind = OpKind::kMlp;
      return true;
    case v1::OP_KIND_NORM:
      *kind = OpKind::kNorm;
      return true;
    case v1::OP_KIND_LM_HEAD:
      *kind = OpKind::kLmHead;
      return true;
    default:
      return false;
  }
}

using Mistakes = std::vector<std::string>;

void CheckRange(const char* field, int64_t value, int64_t low, int64_t high, Mistakes* mistakes) {
  if (value >= low && value <= high) return;
  mistakes->push_back(absl::StrCat(field, " is ", value, ", allowed are ", low, " to ", high));
}

Op OpFromProto(const v1::RouteOp& proto, const std::string& where, Mistakes* mistakes) {
  Op op;
  op.layer = proto.layer();
  if (!KindFromProto(proto.kind(), &op.kind)) {
    mistakes->push_back(absl::StrCat(where, ".kind is ", static_cast<int>(proto.kind()),
                                     ", which is no operation"));
    return op;
  }
  const bool has_layer = op.kind == OpKind::kAttention || op.kind == OpKind::kMlp;
  if (has_layer && (op.layer < 0 || op.layer >= kMaxLayers)) {
    mistakes->push_back(absl::StrCat(where, ".layer is ", op.layer));
  }
  if (!has_layer && op.layer != -1) {
    mistakes->push_back(absl::StrCat(where, ".layer is ", op.layer,
                                     ", expected -1 for an operation without layer"));
  }
  return op;
}

Segment SegmentFromProto(const v1::RouteSegment& proto, const std::string& where,
                         Mistakes* mistakes) {
  Segment segment;
  segment.worker = proto.worker();
  if (segment.worker.empty()) mistakes->push_back(where + ".worker is empty");
  if (proto.ops_size() == 0) mistakes->push_back(where + ".ops is empty");
  for (int i = 0; i < proto.ops_size(); ++i) {
    segment.ops.push_back(
        OpFromProto(proto.ops(i), absl::StrCat(where, ".ops[", i, "]"), mistakes));
  }
  return segment;
}

dovetail::StepShape ShapeFromProto(const v1::StepShape& proto, Mistakes* mistakes) {
  CheckRange("step_shape.max_rows", proto.max_rows(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.max_sequences", proto.max_sequences(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.max_logit_rows", proto.max_logit_rows(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.context_length_tokens", proto.context_length_tokens(), 1,
             kMaxContextTokens, mistakes);
  CheckRange("step_shape.num_kv_blocks", proto.num_kv_blocks(), 1, kMaxKvBlocks, mistakes);
  CheckRange("step_shape.vocab_size", proto.vocab_size(), 0, kMaxVocabSize, mistakes);
  dovetail::StepShape shape;
  shape.max_rows = proto.max_rows();
  shape.max_sequences = proto.max_sequences();
  shape.max_logit_rows = proto.max_logit_rows();
  shape.context_length = proto.context_length_tokens();
  shape.num_kv_blocks = proto.num_kv_blocks();
  shape.vocab_size = proto.vocab_size();
  if (proto.kv_type() == v1::KV_TYPE_F32) {
    shape.kv_type = KvType::kF32;
  } else if (proto.kv_type() == v1::KV_TYPE_F16) {
    shape.kv_type = KvType::kF16;
  } else {
    mistakes->push_back(absl::StrCat("step_shape.kv_type is ", static_cast<int>(proto.kv_type()),
                                     ", which is no type"));
  }
  return shape;
}

}  // namespace

void ToProto(const WorkerPlan& plan, v1::WorkerPlan* proto) {
  proto->Clear();
  proto->set_plan_id(plan.plan_id);
  proto->set_model_path(plan.model_path);
  proto->set_model_fingerprint(plan.model_fingerprint);
  for (const Segment& segment : plan.route) ToProto(segment, proto->add_route());
  ToProto(plan.step_shape, proto->mutable_step_shape());
  proto->set_ring_bytes(plan.ring_bytes);
}

void ToProto(const Segment& segment, v1::RouteSegment* proto) {
  proto->Clear();
  proto->set_worker(segment.worker);
  for (const Op& op : segment.ops) {
    v1::RouteOp* out = proto->add_ops();
    out->set_kind(KindToProto(op.kind));
    out->set_layer(op.layer);
  }
}

void ToProto(const dovetail::StepShape& shape, v1::StepShape* proto) {
  proto->Clear();
  proto->set_max_rows(shape.max_rows);
  proto->set_max_sequences(shape.max_sequences);
  proto->set_max_logit_rows(shape.max_logit_rows);
  proto->set_context_length_tokens(shape.context_length);
  proto->set_num_kv_blocks(shape.num_kv_blocks);
  proto->set_vocab_size(shape.vocab_size);
  proto->set_kv_type(shape.kv_type == KvType::kF32 ? v1::KV_TYPE_F32 : v1::KV_TYPE_F16);
}

absl::StatusOr<WorkerPlan> FromProto(const v1::WorkerPlan& proto) {
  Mistakes mistakes;
  WorkerPlan plan;
  plan.plan_id = proto.plan_id();
  plan.model_path = proto.model_path();
  plan.model_fingerprint = proto.model_fingerprint();
  plan.ring_bytes = proto.ring_bytes();
  if (plan.model_path.empty()) mistakes.push_back("model_path is empty");
  if (proto.route_size() == 0) mistakes.push_back("route is empty");
  for (int i = 0; i < proto.route_size(); ++i) {
    plan.route.push_back(
        SegmentFromProto(proto.route(i), absl::StrCat("route[", i, "]"), &mistakes));
  }
  plan.step_shape = ShapeFromProto(proto.step_shape(), &mistakes);
  if (plan.ring_bytes == 0 || plan.ring_bytes > kMaxPlanRingBytes) {
    mistakes.push_back(
        absl::StrCat("ring_bytes is ", plan.ring_bytes, ", allowed are 1 to ", kMaxPlanRingBytes));
  }
  if (mistakes.empty()) return plan;
  return absl::InvalidArgumentError(absl::StrCat("worker plan: ", absl::StrJoin(mistakes, "; ")));
}

}  // namespace dovetail::transport
