#include "coordinator/prefix_index.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "xxhash.h"

namespace dovetail::coordinator {
namespace {

constexpr size_t kTokenBytes = kKvBlockTokens * sizeof(int32_t);

// Another one in every process, so that nobody can prepare collisions.
uint64_t ProcessSeed() {
  static const uint64_t seed = [] {
    std::random_device device;
    return (static_cast<uint64_t>(device()) << 32) | device();
  }();
  return seed;
}

}  // namespace

CacheSalt MakeCacheSalt(absl::string_view text) {
  if (text.empty()) return {};
  const XXH128_hash_t hash = XXH3_128bits_withSeed(text.data(), text.size(), ProcessSeed());
  return {hash.low64, hash.high64};
}

PrefixIndex::PrefixIndex(int num_blocks)
    : entries_(num_blocks),
      tokens_(static_cast<size_t>(num_blocks) * kKvBlockTokens),
      buckets_(absl::bit_ceil(static_cast<size_t>(std::max(1, num_blocks))), -1) {}

size_t PrefixIndex::BucketOf(PrefixNode parent, const CacheSalt& salt,
                             const int32_t* tokens) const {
  const uint64_t before[4] = {parent, salt.low, salt.high, ProcessSeed()};
  const uint64_t seed = XXH3_64bits(before, sizeof(before));
  return XXH3_64bits_withSeed(tokens, kTokenBytes, seed) & (buckets_.size() - 1);
}

BlockId PrefixIndex::Find(PrefixNode parent, const CacheSalt& salt,
                          absl::Span<const int32_t> tokens) const {
  DT_CHECK_EQ(tokens.size(), static_cast<size_t>(kKvBlockTokens));
  BlockId block = buckets_[BucketOf(parent, salt, tokens.data())];
  for (; block >= 0; block = entries_[block].next) {
    const Entry& entry = entries_[block];
    if (entry.parent == parent && entry.salt == salt &&
        std::memcmp(TokensOf(block), tokens.data(), kTokenBytes) == 0) {
      break;
    }
  }
  return block;
}

PrefixNode PrefixIndex::Insert(BlockId block, PrefixNode parent, const CacheSalt& salt,
                               absl::Span<const int32_t> tokens) {
  DT_CHECK_EQ(tokens.size(), static_cast<size_t>(kKvBlockTokens));
  Entry& entry = entries_[block];
  DT_CHECK(entry.node == kNoPrefix);
  std::memcpy(tokens_.data() + static_cast<size_t>(block) * kKvBlockTokens, tokens.data(),
              kTokenBytes);
  BlockId& first = buckets_[BucketOf(parent, salt, tokens.data())];
  entry = {++last_node_, parent, salt, first};
  first = block;
  ++size_;
  return entry.node;
}

void PrefixIndex::Erase(BlockId block) {
  Entry& entry = entries_[block];
  DT_CHECK(entry.node != kNoPrefix);
  BlockId* link = &buckets_[BucketOf(entry.parent, entry.salt, TokensOf(block))];
  while (*link != block) {
    DT_CHECK(*link >= 0);
    link = &entries_[*link].next;
  }
  *link = entry.next;
  entry = Entry();
  --size_;
}

void PrefixIndex::Clear() {
  std::fill(entries_.begin(), entries_.end(), Entry());
  std::fill(buckets_.begin(), buckets_.end(), -1);
  size_ = 0;
}

absl::Status PrefixIndex::Audit() const {
  int seen = 0;
  for (size_t bucket = 0; bucket < buckets_.size(); ++bucket) {
    for (BlockId block = buckets_[bucket]; block >= 0; block = entries_[block].next) {
      const Entry& entry = entries_[block];
      if (++seen > size_ || entry.node == kNoPrefix ||
          BucketOf(entry.parent, entry.salt, TokensOf(block)) != bucket) {
        return absl::InternalError(absl::StrCat("block ", block, " is in the wrong bucket"));
      }
    }
  }
  if (seen == size_) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(seen, " blocks can be found, ", size_, " were entered"));
}

}  // namespace dovetail::coordinator
