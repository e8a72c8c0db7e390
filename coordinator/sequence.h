// Sequence: one request's tokens and how far the model has computed them.
//
// `num_computed_tokens` is advanced when tokens are scheduled, so prefill, chunks, decode and
// recomputation are all "compute tokens from here to there". `num_confirmed_tokens` follows when
// their step has come back. Plain data; owned by the scheduler, touched by the engine's thread
// only.
#ifndef DOVETAIL_COORDINATOR_SEQUENCE_H_
#define DOVETAIL_COORDINATOR_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/sampling_params.h"
#include "coordinator/block_pool.h"
#include "coordinator/logit_adjustments.h"

namespace dovetail::coordinator {

struct Tenant;

struct Sequence {
  uint64_t id = 0;  // ascending in order of arrival
  SamplingParams sampling;
  std::vector<int32_t> tokens;  // prompt, then what was generated
  int num_prompt_tokens = 0;
  int max_total_tokens = 0;  // prompt and generated; reached: the sequence is done
  // Of every prompt row that was not sent; as logprobs with num_top_logprobs >= 0.
  bool wants_logits = false;
  bool wants_hidden = false;  // in place of those logits: what the last norm makes
  int num_top_logprobs = -1;  // of every token, beside its own logprob; -1: no logprobs
  std::unique_ptr<LogitAdjustments> adjustments;  // null: none
  // With a grammar: what it allows next (null or empty: everything), and whether that is still
  // being computed. Until then no token can be drawn.
  const std::vector<uint32_t>* mask = nullptr;
  bool waits_for_mask = false;
  CacheSalt salt;                                // only sequences with the same one share blocks
  std::string tenant_name;                       // whose turn it is is decided between tenants
  int priority = 0;                              // the lower number first
  absl::Time arrival;                            // set by the scheduler
  absl::Time admitted = absl::InfiniteFuture();  // the first time

  int num_computed_tokens = 0;
  int num_confirmed_tokens = 0;
  int num_logit_rows_sent = 0;  // prompt rows whose logits were scheduled; never asked for again
  std::vector<BlockId> blocks;
  int num_cached_blocks = 0;           // of its first blocks: others can find or already share them
  PrefixNode cached_node = kNoPrefix;  // of the last of those
  int num_cached_tokens = -1;          // prompt tokens that were found; -1: never admitted yet
  std::vector<BlockId> swapped;        // where its computed tokens are while it is swapped out

  Tenant* tenant = nullptr;
  int lane = -1;          // where it decodes; -1: waiting
  int num_in_flight = 0;  // steps in flight that hold rows of it
  bool removed = false;   // gone, but its blocks belong to steps in flight
  bool failed = false;    // a step of it failed: nothing that it computed may be used again
  int num_preemptions = 0;
  // Epochs that were lost with a step of it in flight, since its last new token.
  int num_interruptions = 0;
  int tokens_when_interrupted = -1;

  int num_tokens() const { return static_cast<int>(tokens.size()); }
  int num_pending_tokens() const { return num_tokens() - num_computed_tokens; }
  bool samples() const { return max_total_tokens > num_prompt_tokens; }
  // The last token that is generated is not computed any more.
  int max_computed_tokens() const { return samples() ? max_total_tokens - 1 : num_prompt_tokens; }
  bool prompt_confirmed() const { return num_confirmed_tokens >= num_prompt_tokens; }
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_SEQUENCE_H_
