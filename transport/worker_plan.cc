#include "transport/worker_plan.h"

#include <cmath>
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
constexpr int64_t kMaxStreamBytes = int64_t{1} << 40;
constexpr int kMaxLinkSlots = 1024;
constexpr int kMaxLayers = 1 << 16;
constexpr uint64_t kMaxPlanRingBytes = uint64_t{1} << 32;

constexpr int kMaxExperts = 1 << 16;

// The protobuf form of each kind.
struct KindPair {
  OpKind kind;
  v1::OpKind proto;
};
constexpr KindPair kKinds[] = {
    {OpKind::kEmbedding, v1::OP_KIND_EMBEDDING},
    {OpKind::kAttention, v1::OP_KIND_ATTENTION},
    {OpKind::kMlp, v1::OP_KIND_MLP},
    {OpKind::kNorm, v1::OP_KIND_NORM},
    {OpKind::kLmHead, v1::OP_KIND_LM_HEAD},
    {OpKind::kRouter, v1::OP_KIND_ROUTER},
    {OpKind::kSharedExperts, v1::OP_KIND_SHARED_EXPERTS},
    {OpKind::kExperts, v1::OP_KIND_EXPERTS},
};

v1::OpKind KindToProto(OpKind kind) {
  for (const KindPair& pair : kKinds) {
    if (pair.kind == kind) return pair.proto;
  }
  return v1::OP_KIND_UNSPECIFIED;
}

bool KindFromProto(v1::OpKind proto, OpKind* kind) {
  for (const KindPair& pair : kKinds) {
    if (pair.proto != proto) continue;
    *kind = pair.kind;
    return true;
  }
  return false;
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
  const bool has_layer = IsOfLayer(op.kind);
  if (has_layer && (op.layer < 0 || op.layer >= kMaxLayers)) {
    mistakes->push_back(absl::StrCat(where, ".layer is ", op.layer));
  }
  if (!has_layer && op.layer != -1) {
    mistakes->push_back(absl::StrCat(where, ".layer is ", op.layer,
                                     ", expected -1 for an operation without layer"));
  }
  op.expert_begin = proto.expert_begin();
  op.expert_end = proto.expert_end();
  const bool fits =
      op.kind == OpKind::kExperts
          ? op.expert_begin >= 0 && op.expert_begin < op.expert_end && op.expert_end <= kMaxExperts
          : op.expert_begin == 0 && op.expert_end == 0;
  if (!fits) {
    mistakes->push_back(absl::StrCat(where, ": experts ", op.expert_begin, " to ", op.expert_end,
                                     " are no range of experts"));
  }
  return op;
}

// Each worker once, the segment's own first, with a share that can be computed with.
void CheckMembers(const Segment& segment, const std::string& where, Mistakes* mistakes) {
  if (segment.members.empty()) return;
  CheckRange((where + ".members").c_str(), static_cast<int64_t>(segment.members.size()), 2,
             kMaxRowMembers, mistakes);
  if (segment.members.front().worker != segment.worker) {
    mistakes->push_back(absl::StrCat(where, ": the first member is not ", segment.worker));
  }
  for (size_t i = 0; i < segment.members.size(); ++i) {
    const Member& member = segment.members[i];
    if (!(member.share > 0) || !std::isfinite(member.share)) {
      mistakes->push_back(absl::StrCat(where, ".members[", i, "].share is ", member.share));
    }
    if (MemberOf(segment, member.worker) != static_cast<int>(i)) {
      mistakes->push_back(absl::StrCat(where, ": member ", member.worker, " is there twice"));
    }
  }
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
  for (const v1::RouteMember& member : proto.members()) {
    segment.members.push_back({member.worker(), member.share()});
  }
  CheckMembers(segment, where, mistakes);
  return segment;
}

v1::KvType KvTypeToProto(dovetail::KvType type) {
  switch (type) {
    case dovetail::KvType::kF32:
      return v1::KV_TYPE_F32;
    case dovetail::KvType::kF16:
      return v1::KV_TYPE_F16;
    case dovetail::KvType::kBF16:
      return v1::KV_TYPE_BF16;
    case dovetail::KvType::kQ8_0:
      return v1::KV_TYPE_Q8_0;
  }
  return v1::KV_TYPE_UNSPECIFIED;
}

dovetail::KvType KvTypeFromProto(int proto, const std::string& where, Mistakes* mistakes) {
  for (const dovetail::KvType type : kKvTypes) {
    if (KvTypeToProto(type) == proto) return type;
  }
  mistakes->push_back(absl::StrCat(where, " is ", proto, ", which is no type"));
  return dovetail::KvType::kF16;
}

dovetail::StepShape ShapeFromProto(const v1::StepShape& proto, Mistakes* mistakes) {
  CheckRange("step_shape.max_rows", proto.max_rows(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.max_sequences", proto.max_sequences(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.max_logit_rows", proto.max_logit_rows(), 1, kMaxStepRows, mistakes);
  CheckRange("step_shape.context_length_tokens", proto.context_length_tokens(), 1,
             kMaxContextTokens, mistakes);
  CheckRange("step_shape.num_kv_blocks", proto.num_kv_blocks(), 1, kMaxKvBlocks, mistakes);
  CheckRange("step_shape.vocab_size", proto.vocab_size(), 0, kMaxVocabSize, mistakes);
  CheckRange("step_shape.num_swap_blocks", proto.num_swap_blocks(), 0, kMaxKvBlocks, mistakes);
  dovetail::StepShape shape;
  shape.num_swap_blocks = proto.num_swap_blocks();
  shape.max_rows = proto.max_rows();
  shape.max_sequences = proto.max_sequences();
  shape.max_logit_rows = proto.max_logit_rows();
  shape.context_length = proto.context_length_tokens();
  shape.num_kv_blocks = proto.num_kv_blocks();
  shape.vocab_size = proto.vocab_size();
  CheckRange("step_shape.stream_bytes", proto.stream_bytes(), 0, kMaxStreamBytes, mistakes);
  shape.stream_bytes = proto.stream_bytes();
  CheckRange("step_shape.gpu_links", proto.gpu_links(), 0, kGpuLinksNames.size() - 1, mistakes);
  CheckRange("step_shape.link_slots", proto.link_slots(), 1, kMaxLinkSlots, mistakes);
  shape.gpu_links = static_cast<GpuLinks>(proto.gpu_links());
  shape.link_slots = proto.link_slots();
  shape.kv_type = KvTypeFromProto(proto.kv_type(), "step_shape.kv_type", mistakes);
  if (proto.layer_kv_types_size() > kMaxLayers) {
    mistakes->push_back(absl::StrCat("step_shape.layer_kv_types has ", proto.layer_kv_types_size(),
                                     " layers, allowed are ", kMaxLayers));
    return shape;
  }
  for (int i = 0; i < proto.layer_kv_types_size(); ++i) {
    shape.layer_kv_types.push_back(KvTypeFromProto(
        proto.layer_kv_types(i), absl::StrCat("step_shape.layer_kv_types[", i, "]"), mistakes));
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
    out->set_expert_begin(op.expert_begin);
    out->set_expert_end(op.expert_end);
  }
  for (const Member& member : segment.members) {
    v1::RouteMember* out = proto->add_members();
    out->set_worker(member.worker);
    out->set_share(member.share);
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
  proto->set_stream_bytes(shape.stream_bytes);
  proto->set_gpu_links(static_cast<uint32_t>(shape.gpu_links));
  proto->set_link_slots(shape.link_slots);
  proto->set_num_swap_blocks(shape.num_swap_blocks);
  proto->set_kv_type(KvTypeToProto(shape.kv_type));
  for (const dovetail::KvType type : shape.layer_kv_types) {
    proto->add_layer_kv_types(KvTypeToProto(type));
  }
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
  CheckRange("segments of the route", proto.route_size(), 0, kMaxRouteSegments, &mistakes);
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
