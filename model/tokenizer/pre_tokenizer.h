// PreTokenizer: cuts text into the pieces that byte-level BPE may not merge across.
//
// A pre-tokenizer is a list of patterns; each is applied to the pieces that the ones before it
// left: its matches become pieces of their own, and so does what lies between them. No byte is
// lost.
//
// Immutable after Create(); Split() may be called from any thread.
#ifndef DOVETAIL_MODEL_TOKENIZER_PRE_TOKENIZER_H_
#define DOVETAIL_MODEL_TOKENIZER_PRE_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::model {

// One row of the table in pre_tokenizer_table.cc.
struct PreTokenizerSpec {
  absl::string_view name;                   // tokenizer.ggml.pre
  std::vector<absl::string_view> patterns;  // PCRE2, or kGroupDigitsByThree
  bool ignore_merges = false;               // a piece that is a token is not merged
  bool add_bos = false;                     // unless the file says otherwise
  bool nfc = false;                         // texts are composed first (unicode_nfc.h)
};

// In place of a pattern: runs of digits are cut into threes from the right ("12|345|678").
inline constexpr absl::string_view kGroupDigitsByThree = "@group-digits-by-three";

// InvalidArgument lists the names that are known.
absl::StatusOr<const PreTokenizerSpec*> FindPreTokenizer(absl::string_view name);
// All names, sorted.
std::vector<absl::string_view> PreTokenizerNames();

class PreTokenizer {
 public:
  static absl::StatusOr<std::unique_ptr<PreTokenizer>> Create(const PreTokenizerSpec& spec);
  ~PreTokenizer();

  // Replaces `*ends` by the end offset of every piece of `text`, which must be valid UTF-8.
  // ResourceExhausted: a pattern went over its match limit.
  absl::Status Split(absl::string_view text, std::vector<size_t>* ends) const;

 private:
  PreTokenizer();
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_PRE_TOKENIZER_H_
