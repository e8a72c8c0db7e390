// Tokenizer: text to token ids and back, as the GGUF file's tokenizer.ggml.* keys say.
//
// Kinds: byte-level BPE ("gpt2" with a pre-tokenizer), SentencePiece ("llama"), and none
// ("no_vocab": ids only). Encode/Decode are const and thread-safe. Vocabulary data is hostile until
// checked.
#ifndef DOVETAIL_MODEL_TOKENIZER_TOKENIZER_H_
#define DOVETAIL_MODEL_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "model/gguf/gguf_file.h"

namespace dovetail::model {

using TokenId = int32_t;

struct EncodeOptions {
  bool add_special = true;  // BOS / EOS where the file says so
  bool parse_special =
      false;  // special tokens written in the text ("<|im_start|>") become their id
};

class Tokenizer {
 public:
  // InvalidArgument names the key that is missing, inconsistent or unsupported.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Create(const GgufFile& file);
  virtual ~Tokenizer() = default;

  // InvalidArgument: the text is not valid UTF-8 (with the byte offset), or there is no vocabulary.
  virtual absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                                      const EncodeOptions& options) const = 0;

  // The bytes of one token. Special (control) tokens give "" unless `special` is set.
  virtual std::string TokenBytes(TokenId id, bool special) const = 0;
  // The text of `ids`; bytes that are not UTF-8 in the end become U+FFFD. SentencePiece's leading
  // space is removed at the start of a text, as its own decoder does.
  virtual std::string Decode(absl::Span<const TokenId> ids, bool special) const = 0;

  virtual int vocab_size() const = 0;
  virtual bool has_vocab() const = 0;
  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  virtual bool add_bos() const = 0;
  // Every token that ends a generation: eos, eot, eom and control tokens known to end a turn.
  virtual absl::Span<const TokenId> end_of_generation() const = 0;
  virtual std::optional<TokenId> FindToken(absl::string_view text) const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;
  // SentencePiece: a space was put before the text, so its decoder takes one away at the start.
  virtual bool drops_leading_space() const { return false; }
};

// StreamingDetokenizer: turns a growing list of ids into text deltas that never end inside a UTF-8
// character; concatenated they equal Decode() of the list. One per choice, one thread.
class StreamingDetokenizer {
 public:
  // `tokenizer` must outlive it. `at_start`: the ids begin a text (SentencePiece drops one space).
  StreamingDetokenizer(const Tokenizer* tokenizer, bool special, bool at_start);
  std::string Push(TokenId id);  // what became complete
  std::string Finish();          // what is left, incomplete bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  bool special_;
  bool at_start_;
  std::string pending_;
};

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_TOKENIZER_H_
