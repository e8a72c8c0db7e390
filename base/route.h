// Route: the path of a step through the workers, the compiled form of a placement.
//
// An Op reads and writes the residual stream `x` [rows, hidden_size] (f32):
//   kEmbedding      x = embedding[token]
//   kAttention      x += o_proj(attention(rope(qkv(norm(x)))))      (one layer, its KV cache)
//   kMlp            x += down(act(gate(norm(x))) * up(norm(x)))     (one dense layer)
//   kNorm           x = output_norm(x), for the rows whose logits are wanted; x shrinks to those
//   kLmHead         logits = lm_head(x), then sampling
// A layer with experts has in place of kMlp its parts, which may lie on different workers:
//   kRouter         norm(x), then which experts each row uses (its slots) and their weights
//   kSharedExperts  what the shared expert makes of norm(x); layers without one have no such op
//   kExperts        what experts [expert_begin, expert_end) make of norm(x) for the rows that use
//                   them; the ranges of a layer are disjoint, cover all its experts, and come in
//                   any order. The last one adds up all that was made: x += sum over slots.
// Between the parts of a layer a step carries slots and unsummed outputs besides x
// (docs/wire_format.md); elsewhere x is the only thing that crosses from worker to worker.
// A Segment is what one worker does without a hop. The route is re-entrant: a worker may own
// several segments. Several workers may share the output rows of a segment's ops (members): each
// has all of x, computes norms and routers for itself and its rows of every product, and they
// gather what they have made (worker/all_gather.h). A step comes to the first of them, which passes
// it on to the others, and goes on from there. Plain data, shared by both processes.
#ifndef DOVETAIL_BASE_ROUTE_H_
#define DOVETAIL_BASE_ROUTE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "base/gpu_links.h"
#include "base/row_split.h"

namespace dovetail {

enum class OpKind : uint32_t {
  kEmbedding = 0,
  kAttention = 1,
  kMlp = 2,
  kNorm = 3,
  kLmHead = 4,
  kRouter = 5,
  kSharedExperts = 6,
  kExperts = 7,
};

struct Op {
  OpKind kind = OpKind::kEmbedding;
  int32_t layer = -1;        // -1: an op of no layer
  int32_t expert_begin = 0;  // of kExperts: [expert_begin, expert_end)
  int32_t expert_end = 0;
  RowSplit rows;  // which of its rows are meant; in a route all of them: its segments have members
  bool operator==(const Op&) const = default;
};

// Is it a part of a layer's experts?
inline bool IsExpertPart(OpKind kind) {
  return kind == OpKind::kRouter || kind == OpKind::kSharedExperts || kind == OpKind::kExperts;
}

// Is there one in each layer that has it?
inline bool IsOfLayer(OpKind kind) {
  return kind == OpKind::kAttention || kind == OpKind::kMlp || IsExpertPart(kind);
}

// A worker that computes a share of the rows of a segment's ops.
struct Member {
  std::string worker;
  double share = 1;  // in proportion to those of the others
  bool operator==(const Member&) const = default;
};

struct Segment {
  std::string worker;  // "cpu:0"
  std::vector<Op> ops;
  std::vector<Member> members = {};  // that share its rows, `worker` first; none: it is alone
  bool operator==(const Segment&) const = default;
};

// "host-b" of "host-b/cuda:1"; "" of a device of the coordinator's host.
absl::string_view HostOf(absl::string_view worker);
// "cuda:1" of "host-b/cuda:1".
absl::string_view DeviceOf(absl::string_view worker);
// Are they devices of one host: "host-b/cpu:0" and "host-b/cuda:1", or both without a host's name?
bool OnOneHost(absl::string_view a, absl::string_view b);

// Which member of the segment `worker` is, 0 where it is alone; -1: none.
int MemberOf(const Segment& segment, const std::string& worker);
// The ops as that member computes them.
std::vector<Op> OpsOfMember(const Segment& segment, int member);

using Route = std::vector<Segment>;

// Of each segment, whether `worker`, a GPU's, can compute it in its owner's place: routed experts
// of a CPU worker, both of the coordinator's host, whose weights it streams from the run directory,
// between two segments of its own (StepShape::stream_bytes).
std::vector<bool> StreamedSegments(const Route& route, const std::string& worker);
// Their ops.
std::vector<Op> StreamedOps(const Route& route, const std::string& worker);

// Whether the step goes from segment `i` to the next one between two GPU workers that may have a
// link of that kind: on one host, or by NCCL.
bool IsLinkedHop(const Route& route, size_t i, GpuLinks links);

// Steps report the time of every segment, so there is a limit: 16 per layer of the deepest models.
inline constexpr int kMaxRouteSegments = 4096;

}  // namespace dovetail

#endif  // DOVETAIL_BASE_ROUTE_H_
