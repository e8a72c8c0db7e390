// PrefixIndex: finds the KV block that holds given tokens after a given prefix.
//
// A full block is entered as a node: its tokens, and the node of the block before it (or the salt
// of the tenant, for the first block of a prompt). Node ids are never used twice, so a chain of
// nodes stands for exactly one sequence of tokens. Find() compares tokens and parent themselves;
// the hash, with a seed of the process's own, only chooses where to look. So neither a collision
// nor somebody who makes one can be given another prompt's keys and values.
//
// A block whose parent was forgotten can no longer be found, and costs nothing until it is erased.
// Everything is reserved by the constructor. Not thread-safe: owned by the block pool.
#ifndef DOVETAIL_COORDINATOR_PREFIX_INDEX_H_
#define DOVETAIL_COORDINATOR_PREFIX_INDEX_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/step_shape.h"

namespace dovetail::coordinator {

using BlockId = int32_t;
using PrefixNode = uint64_t;
inline constexpr PrefixNode kNoPrefix = 0;  // before the first block

// Separates the prefixes of those who may not see each other's: 128 bits of a keyed hash of a text.
struct CacheSalt {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const CacheSalt&) const = default;
};
// The empty text has the zero salt. Any thread.
CacheSalt MakeCacheSalt(absl::string_view text);

class PrefixIndex {
 public:
  explicit PrefixIndex(int num_blocks);

  // The block that holds `tokens` (kKvBlockTokens of them) after `parent`; -1: none.
  BlockId Find(PrefixNode parent, const CacheSalt& salt, absl::Span<const int32_t> tokens) const;
  // Enters a block that is not entered. Nothing equal may be there.
  PrefixNode Insert(BlockId block, PrefixNode parent, const CacheSalt& salt,
                    absl::Span<const int32_t> tokens);
  void Erase(BlockId block);  // that is entered
  void Clear();

  // kNoPrefix when the block is not entered.
  PrefixNode node(BlockId block) const { return entries_[block].node; }
  int size() const { return size_; }
  absl::Status Audit() const;

 private:
  struct Entry {
    PrefixNode node = kNoPrefix;
    PrefixNode parent = kNoPrefix;
    CacheSalt salt;
    BlockId next = -1;  // in the same bucket
  };
  size_t BucketOf(PrefixNode parent, const CacheSalt& salt, const int32_t* tokens) const;
  const int32_t* TokensOf(BlockId block) const {
    return tokens_.data() + static_cast<size_t>(block) * kKvBlockTokens;
  }

  std::vector<Entry> entries_;    // by block
  std::vector<int32_t> tokens_;   // [block][kKvBlockTokens]
  std::vector<BlockId> buckets_;  // first block of each; -1: none
  PrefixNode last_node_ = kNoPrefix;
  int size_ = 0;
};

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PREFIX_INDEX_H_
