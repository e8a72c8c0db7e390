#include "model/tokenizer/tokenizer.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/tokenizer/bpe_tokenizer.h"
#include "model/tokenizer/spm_tokenizer.h"
#include "model/tokenizer/utf8.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::model {
namespace {

// "no_vocab": the model is used with token ids alone.
class NoVocabTokenizer final : public Tokenizer {
 public:
  explicit NoVocabTokenizer(const VocabData& vocab)
      : bos_(vocab.bos), eos_(vocab.eos), add_bos_(vocab.add_bos.value_or(false)) {
    if (eos_.has_value()) end_of_generation_.push_back(*eos_);
  }
  absl::StatusOr<std::vector<TokenId>> Encode(absl::string_view,
                                              const EncodeOptions&) const override {
    return absl::InvalidArgumentError(
        "the model file has no vocabulary (tokenizer.ggml.model is 'no_vocab'): give token ids");
  }
  std::string TokenBytes(TokenId, bool) const override { return ""; }
  std::string Decode(absl::Span<const TokenId>, bool) const override { return ""; }
  int vocab_size() const override { return 0; }
  bool has_vocab() const override { return false; }
  std::optional<TokenId> bos() const override { return bos_; }
  std::optional<TokenId> eos() const override { return eos_; }
  bool add_bos() const override { return add_bos_ && bos_.has_value(); }
  absl::Span<const TokenId> end_of_generation() const override { return end_of_generation_; }
  std::optional<TokenId> FindToken(absl::string_view) const override { return std::nullopt; }
  bool IsSpecial(TokenId) const override { return false; }

 private:
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  bool add_bos_ = false;
  std::vector<TokenId> end_of_generation_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateTokenizer(VocabData vocab) {
  if (vocab.model == "no_vocab" || vocab.model == "none") {
    return std::make_unique<NoVocabTokenizer>(vocab);
  }
  if (vocab.model != "gpt2" && vocab.model != "llama") {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.model: '", vocab.model,
                                                   "' is not supported (gpt2, llama, no_vocab)"));
  }
  DT_RETURN_IF_ERROR(CheckVocabData(&vocab));
  if (vocab.model == "gpt2") return CreateBpeTokenizer(std::move(vocab));
  return CreateSpmTokenizer(std::move(vocab));
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Create(const GgufFile& file) {
  DT_ASSIGN_OR_RETURN(VocabData vocab, ReadVocabData(file));
  return CreateTokenizer(std::move(vocab));
}

StreamingDetokenizer::StreamingDetokenizer(const Tokenizer* tokenizer, bool special, bool at_start)
    : tokenizer_(tokenizer), special_(special), at_start_(at_start) {}

std::string StreamingDetokenizer::Push(TokenId id) {
  const std::string bytes = tokenizer_->TokenBytes(id, special_);
  absl::string_view added = bytes;
  if (at_start_ && !added.empty()) {
    if (added.front() == ' ' && tokenizer_->drops_leading_space()) added.remove_prefix(1);
    at_start_ = false;
  }
  pending_.append(added.data(), added.size());
  std::string text;
  pending_.erase(0, AppendLossyUtf8(pending_, /*final=*/false, &text));
  return text;
}

std::string StreamingDetokenizer::Finish() {
  std::string text;
  AppendLossyUtf8(pending_, /*final=*/true, &text);
  pending_.clear();
  return text;
}

}  // namespace dovetail::model
