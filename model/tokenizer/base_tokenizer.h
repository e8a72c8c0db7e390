// BaseTokenizer: what byte-level BPE and SentencePiece have in common: special tokens, BOS and EOS,
// decoding, look-ups. A subclass turns the plain text between special tokens into ids.
//
// Immutable after construction, so any thread may use it.
#ifndef DOVETAIL_MODEL_TOKENIZER_BASE_TOKENIZER_H_
#define DOVETAIL_MODEL_TOKENIZER_BASE_TOKENIZER_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "model/tokenizer/merge.h"
#include "model/tokenizer/special_splitter.h"
#include "model/tokenizer/tokenizer.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::model {

// One Encode() call's memory: what the subclasses reuse from word to word.
struct EncodeScratch {
  MergeScratch merge;
  std::vector<Symbol> symbols;
  std::vector<size_t> ends;
  std::string text;
};

class BaseTokenizer : public Tokenizer {
 public:
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view text,
                                              const EncodeOptions& options) const override;
  std::string TokenBytes(TokenId id, bool special) const override;
  std::string Decode(absl::Span<const TokenId> ids, bool special) const override;
  int vocab_size() const override { return static_cast<int>(vocab_.tokens.size()); }
  bool has_vocab() const override { return true; }
  std::optional<TokenId> bos() const override { return vocab_.bos; }
  std::optional<TokenId> eos() const override { return vocab_.eos; }
  bool add_bos() const override { return *vocab_.add_bos; }
  absl::Span<const TokenId> end_of_generation() const override { return end_of_generation_; }
  std::optional<TokenId> FindToken(absl::string_view text) const override;
  bool IsSpecial(TokenId id) const override;

 protected:
  // `vocab` is checked, and its add_bos and add_eos are set.
  explicit BaseTokenizer(VocabData vocab);

  // Appends the ids of `text`, which holds no special token. `starts_part`: it stands at the start
  // or after a special token.
  virtual absl::Status EncodePlain(absl::string_view text, bool starts_part, EncodeScratch* scratch,
                                   std::vector<TokenId>* ids) const = 0;

  bool InVocab(TokenId id) const { return id >= 0 && id < vocab_size(); }
  TokenType type(TokenId id) const { return vocab_.types[id]; }
  const VocabData& vocab() const { return vocab_; }

  std::vector<std::string> bytes_;  // of every token, filled by the subclass

 private:
  VocabData vocab_;
  absl::flat_hash_map<absl::string_view, TokenId> ids_;  // keys live in vocab_.tokens
  SpecialSplitter splitter_;
  std::vector<TokenId> end_of_generation_;
};

// "tokenizer.ggml.add_bos_token is true, but there is no bos_token_id" and the like.
absl::Status CheckAddedTokens(const VocabData& vocab);

}  // namespace dovetail::model

#endif  // DOVETAIL_MODEL_TOKENIZER_BASE_TOKENIZER_H_
