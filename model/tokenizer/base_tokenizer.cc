#include "model/tokenizer/base_tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model {
namespace {

// Tokens that end a turn or a text in the families' own vocabularies, whatever the file's ids say.
constexpr absl::string_view kEnders[] = {"<|eot_id|>",
                                         "<|im_end|>",
                                         "<|end|>",
                                         "<end_of_turn>",
                                         "<|endoftext|>",
                                         "<|eom_id|>",
                                         "<|end_of_text|>",
                                         "<EOT>",
                                         "_<EOT>",
                                         "<|return|>",
                                         "<|call|>",
                                         "<｜end▁of▁sentence｜>",
                                         "<|eot|>",
                                         "<|eom|>",
                                         "<|END_OF_TURN_TOKEN|>",
                                         "<end_of_utterance>",
                                         "[EOS]",
                                         "[e~[",
                                         "<|endofturn|>",
                                         "<|end_of_turn|>",
                                         "<turn|>",
                                         "<|end_of_role|>",
                                         "<|user|>"};

bool IsSpecialType(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown;
}

// gpt-oss ends a message inside a turn with <|end|>; the turn itself ends with the other two.
bool EndsMessagesOnly(absl::string_view text,
                      const absl::flat_hash_map<absl::string_view, TokenId>& ids) {
  return text == "<|end|>" && ids.contains("<|return|>") && ids.contains("<|call|>");
}

// <|user|> begins the next turn, and GLM-4 and its kin have no other end of a turn.
bool EndsOnlyInGlm(absl::string_view text,
                   const absl::flat_hash_map<absl::string_view, TokenId>& ids) {
  return text == "<|user|>" && !(ids.contains("[gMASK]") && ids.contains("<|observation|>"));
}

std::vector<TokenId> FindEnders(const VocabData& vocab,
                                const absl::flat_hash_map<absl::string_view, TokenId>& ids) {
  std::vector<TokenId> enders;
  for (const auto& id : {vocab.eos, vocab.eot, vocab.eom}) {
    if (id.has_value()) enders.push_back(*id);
  }
  for (absl::string_view text : kEnders) {
    const auto found = ids.find(text);
    if (found == ids.end()) continue;
    const TokenType type = vocab.types[found->second];
    if (type != TokenType::kControl && type != TokenType::kUserDefined) continue;
    if (EndsMessagesOnly(text, ids) || EndsOnlyInGlm(text, ids)) continue;
    enders.push_back(found->second);
  }
  std::sort(enders.begin(), enders.end());
  enders.erase(std::unique(enders.begin(), enders.end()), enders.end());
  return enders;
}

}  // namespace

absl::Status CheckAddedTokens(const VocabData& vocab) {
  if (vocab.add_bos.value_or(false) && !vocab.bos.has_value()) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_bos_token: true, but the file has no tokenizer.ggml.bos_token_id");
  }
  if (vocab.add_eos.value_or(false) && !vocab.eos.has_value()) {
    return absl::InvalidArgumentError(
        "tokenizer.ggml.add_eos_token: true, but the file has no tokenizer.ggml.eos_token_id");
  }
  return absl::OkStatus();
}

BaseTokenizer::BaseTokenizer(VocabData vocab) : vocab_(std::move(vocab)) {
  DT_CHECK(vocab_.add_bos.has_value() && vocab_.add_eos.has_value());
  ids_.reserve(vocab_.tokens.size());
  for (size_t i = 0; i < vocab_.tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    ids_.try_emplace(vocab_.tokens[i], id);  // the same text twice: the lower id stays
    const TokenType type = vocab_.types[i];
    if (IsSpecialType(type) || type == TokenType::kUserDefined) {
      splitter_.Add(vocab_.tokens[i], id, type == TokenType::kUserDefined);
    }
  }
  end_of_generation_ = FindEnders(vocab_, ids_);
}

absl::StatusOr<std::vector<TokenId>> BaseTokenizer::Encode(absl::string_view text,
                                                           const EncodeOptions& options) const {
  if (const size_t at = FindInvalidUtf8(text); at != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not valid UTF-8 at byte ", at));
  }
  if (text.size() > std::numeric_limits<int32_t>::max() / 4) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", text.size(), " bytes is too long"));
  }
  std::vector<TokenId> ids;
  EncodeScratch scratch;
  if (options.add_special && *vocab_.add_bos) ids.push_back(*vocab_.bos);
  bool starts_part = true;
  for (size_t at = 0; at < text.size();) {
    const SpecialSplitter::Match match = splitter_.Find(text, at, options.parse_special);
    if (match.begin > at) {
      DT_RETURN_IF_ERROR(
          EncodePlain(text.substr(at, match.begin - at), starts_part, &scratch, &ids));
      starts_part = false;
    }
    if (match.length > 0) {
      ids.push_back(match.id);
      starts_part = true;
    }
    at = match.begin + match.length;
  }
  if (options.add_special && *vocab_.add_eos) ids.push_back(*vocab_.eos);
  return ids;
}

std::string BaseTokenizer::TokenBytes(TokenId id, bool special) const {
  if (!InVocab(id)) return "";
  if (!special && IsSpecialType(type(id))) return "";
  return bytes_[id];
}

std::string BaseTokenizer::Decode(absl::Span<const TokenId> ids, bool special) const {
  StreamingDetokenizer detokenizer(this, special, /*at_start=*/true);
  std::string text;
  for (TokenId id : ids) text += detokenizer.Push(id);
  text += detokenizer.Finish();
  return text;
}

std::optional<TokenId> BaseTokenizer::FindToken(absl::string_view text) const {
  const auto found = ids_.find(text);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

bool BaseTokenizer::IsSpecial(TokenId id) const { return InVocab(id) && IsSpecialType(type(id)); }

}  // namespace dovetail::model
