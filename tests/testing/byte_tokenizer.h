// ByteTokenizer: a token a byte, and a few special ones, for tests that need no real vocabulary.
#ifndef DOVETAIL_TESTS_TESTING_BYTE_TOKENIZER_H_
#define DOVETAIL_TESTS_TESTING_BYTE_TOKENIZER_H_

#include <optional>
#include <string>
#include <vector>

#include "model/tokenizer/tokenizer.h"

namespace dovetail::testing {

class ByteTokenizer : public model::Tokenizer {
 public:
  static constexpr int kBos = 256;
  static constexpr int kEnd = 257;
  static constexpr int kUserMark = 258;
  static constexpr int kAnswerMark = 259;
  static constexpr int kVocab = 260;

  explicit ByteTokenizer(bool has_vocab = true) : has_vocab_(has_vocab) {}

  absl::StatusOr<std::vector<model::TokenId>> Encode(
      absl::string_view text, const model::EncodeOptions& options) const override {
    std::vector<model::TokenId> ids;
    if (options.add_special) ids.push_back(kBos);
    while (!text.empty()) {
      if (text[0] == '\xff') return absl::InvalidArgumentError("byte 0 is not UTF-8");
      bool special = false;
      for (int id = kBos; options.parse_special && id < kVocab; ++id) {
        const std::string name = TokenBytes(id, true);
        if (text.substr(0, name.size()) != name) continue;
        ids.push_back(id);
        text.remove_prefix(name.size());
        special = true;
        break;
      }
      if (special) continue;
      ids.push_back(static_cast<unsigned char>(text[0]));
      text.remove_prefix(1);
    }
    return ids;
  }
  std::string TokenBytes(model::TokenId id, bool special) const override {
    constexpr const char* kNames[] = {"<s>", "<end>", "<user>", "<answer>"};
    if (id >= kBos) return special ? kNames[id - kBos] : "";
    return std::string(1, static_cast<char>(id));
  }
  std::string Decode(absl::Span<const model::TokenId> ids, bool special) const override {
    std::string text;
    for (model::TokenId id : ids) text += TokenBytes(id, special);
    return text;
  }
  int vocab_size() const override { return kVocab; }
  bool has_vocab() const override { return has_vocab_; }
  std::optional<model::TokenId> bos() const override { return kBos; }
  std::optional<model::TokenId> eos() const override { return kEnd; }
  bool add_bos() const override { return true; }
  absl::Span<const model::TokenId> end_of_generation() const override { return ends_; }
  std::optional<model::TokenId> FindToken(absl::string_view) const override { return {}; }
  bool IsSpecial(model::TokenId id) const override { return id >= kBos; }

 private:
  const bool has_vocab_;
  const std::vector<model::TokenId> ends_ = {kEnd};
};

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_TESTING_BYTE_TOKENIZER_H_
