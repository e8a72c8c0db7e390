// VocabData: what the tokenizer.ggml.* keys of a GGUF file say, as plain data.
//
// ReadVocabData() copies the keys, CheckVocabData() says whether they fit together. The tokenizers
// are built from a checked VocabData and know nothing of GGUF. Plain values, no threads involved.
#ifndef DOVETAIL_MODEL_TOKENIZER_VOCAB_DATA_H_
#define DOVETAIL_MODEL_TOKENIZER_VOCAB_DATA_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/gguf/gguf_file.h"
#include "model/tokenizer/tokenizer.h"

namespace dovetail::model {

// tokenizer.ggml.token_type
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct VocabData {
  std::string model;  // tokenizer.ggml.model: "gpt2", "llama", "no_vocab"
  std::string pre;    // tokenizer.ggml.pre, "" where absent
  std::vector<std::string> tokens;
  std::vector<float> scores;        // empty or one per token
  std::vector<TokenType> types;     // one per token after CheckVocabData()
  std::vector<std::string> merges;  // "left right", best first

  std::optional<TokenId> bos, eos, eot, eom, unknown;
  std::optional<bool> add_bos, add_eos, add_space_prefix, remove_extra_whitespaces;
  std::optional<bool> ignore_merges;
};

// NotFound or InvalidArgument names the key.
absl::StatusOr<VocabData> ReadVocabData(const GgufFile& file);

// Fills what may be left out (types) and refuses what does not fit: sizes, types and special ids
// out of range, scores that are not numbers, an empty vocabulary.
absl::Status CheckVocabData(VocabData* vocab);

// The tokenizer for a vocabulary; Tokenizer::Create() is ReadVocabData() and this.
absl::StatusOr<std::unique_ptr<Tokenizer>> CreateTokenizer(VocabData vocab);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_VOCAB_DATA_H_
