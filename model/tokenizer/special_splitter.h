// SpecialSplitter: finds special tokens that are written out in a text.
//
// At each position the longest token wins, and the leftmost position comes first. One pass over the
// text, whatever the number of tokens. Immutable after construction, so any thread may use it.
#ifndef DOVETAIL_MODEL_TOKENIZER_SPECIAL_SPLITTER_H_
#define DOVETAIL_MODEL_TOKENIZER_SPECIAL_SPLITTER_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::model {

class SpecialSplitter {
 public:
  // `always`: found whatever is asked (user defined tokens), else only with parse_special.
  void Add(absl::string_view text, TokenId id, bool always);

  struct Match {
    size_t begin = 0;
    size_t length = 0;  // 0: nothing found, `begin` is the end of the text
    TokenId id = -1;
  };
  // The first token at or after `from`.
  Match Find(absl::string_view text, size_t from, bool parse_special) const;

 private:
  struct Node {
    TokenId id = -1;
    bool always = false;
  };
  Match MatchAt(absl::string_view text, size_t at, bool parse_special) const;

  std::vector<Node> nodes_ = std::vector<Node>(1);
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  std::array<bool, 256> starts_{};                 // a token starts with this byte
  std::array<bool, 256> always_starts_{};
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_SPECIAL_SPLITTER_H_
