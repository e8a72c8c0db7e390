// Small vocabularies made by hand, for tests that must not depend on data files.
#ifndef DOVETAIL_TESTS_UNIT_MODEL_TOKENIZER_FIXTURE_H_
#define DOVETAIL_TESTS_UNIT_MODEL_TOKENIZER_FIXTURE_H_

#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/vocab_data.h"

namespace dovetail::testing {

inline void AddToken(const std::string& text, model::TokenType type, float score,
                     model::VocabData* vocab) {
  vocab->tokens.push_back(text);
  vocab->types.push_back(type);
  if (vocab->model == "llama") vocab->scores.push_back(score);
}

// Ids 0-255 are the bytes; then the merges' products in order; then <|im_start|>, <|im_end|>
// (control) and <tool> (user defined).
inline model::VocabData SmallBpe(const std::vector<std::string>& merges) {
  model::VocabData vocab;
  vocab.model = "gpt2";
  vocab.pre = "gpt-2";
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    AddToken(model::ToByteLevel(absl::string_view(&text, 1)), model::TokenType::kNormal, 0, &vocab);
  }
  for (const std::string& merge : merges) {
    std::string product = merge;
    product.erase(product.find(' ', 1), 1);
    AddToken(product, model::TokenType::kNormal, 0, &vocab);
  }
  vocab.merges = merges;
  AddToken("<|im_start|>", model::TokenType::kControl, 0, &vocab);
  AddToken("<|im_end|>", model::TokenType::kControl, 0, &vocab);
  AddToken("<tool>", model::TokenType::kUserDefined, 0, &vocab);
  vocab.bos = static_cast<model::TokenId>(vocab.tokens.size() - 3);
  vocab.eos = static_cast<model::TokenId>(vocab.tokens.size() - 2);
  return vocab;
}

// 0 <unk>, 1 <s>, 2 </s>, 3-258 bytes, then the pieces, the earlier the better.
inline model::VocabData SmallSpm(const std::vector<std::string>& pieces) {
  model::VocabData vocab;
  vocab.model = "llama";
  AddToken("<unk>", model::TokenType::kUnknown, 0, &vocab);
  AddToken("<s>", model::TokenType::kControl, 0, &vocab);
  AddToken("</s>", model::TokenType::kControl, 0, &vocab);
  for (int byte = 0; byte < 256; ++byte) {
    AddToken(absl::StrFormat("<0x%02X>", byte), model::TokenType::kByte, 0, &vocab);
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    AddToken(pieces[i], model::TokenType::kNormal, -static_cast<float>(i), &vocab);
  }
  return vocab;
}

}  // namespace dovetail::testing

#endif  // DOVETAIL_TESTS_UNIT_MODEL_TOKENIZER_FIXTURE_H_
