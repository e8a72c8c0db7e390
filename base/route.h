// Route: the path of a step through the workers, the compiled form of a placement.
//
// An Op reads and writes the residual stream `x` [rows, hidden_size] (f32), which is the only thing
// that crosses from worker to worker:
//   kEmbedding   x = embedding[token]
//   kAttention   x += o_proj(attention(rope(qkv(norm(x)))))      (one layer, its KV cache)
//   kMlp         x += down(act(gate(norm(x))) * up(norm(x)))     (one layer)
//   kNorm        x = output_norm(x), for the rows whose logits are wanted; x shrinks to those rows
//   kLmHead      logits = lm_head(x), then sampling
// A Segment is what one worker does without a hop. The route is re-entrant: a worker may own
// several segments. Plain data, shared by both processes.
#ifndef DOVETAIL_BASE_ROUTE_H_
#define DOVETAIL_BASE_ROUTE_H_

#include <cstdint>
#include <string>
#include <vector>

namespace dovetail {

enum class OpKind : uint32_t { kEmbedding = 0, kAttention = 1, kMlp = 2, kNorm = 3, kLmHead = 4 };

struct Op {
  OpKind kind = OpKind::kEmbedding;
  int32_t layer = -1;  // of kAttention and kMlp
  bool operator==(const Op&) const = default;
};

struct Segment {
  std::string worker;  // "cpu:0"
  std::vector<Op> ops;
  bool operator==(const Segment&) const = default;
};

using Route = std::vector<Segment>;

// Steps report the time of every segment, so there is a limit: 16 per layer of the deepest models.
inline constexpr int kMaxRouteSegments = 4096;

}  // namespace dovetail

#endif  // DOVETAIL_BASE_ROUTE_H_
