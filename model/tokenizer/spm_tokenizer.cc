#include "model/tokenizer/spm_tokenizer.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/tokenizer/base_tokenizer.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model {
namespace {

constexpr absl::string_view kSpace = "\xE2\x96\x81";  // U+2581
constexpr size_t kLongestCachedWord = 48;
constexpr size_t kMostCachedWords = 1 << 16;

class SpmTokenizer final : public BaseTokenizer {
 public:
  explicit SpmTokenizer(VocabData vocab) : BaseTokenizer(std::move(vocab)) {}
  absl::Status Init();
  bool drops_leading_space() const override { return *vocab().add_space_prefix; }

 protected:
  absl::Status EncodePlain(absl::string_view text, bool starts_part, EncodeScratch* scratch,
                           std::vector<TokenId>* ids) const override;

 private:
  absl::Status AddByteToken(TokenId id);
  // What SentencePiece's normaliser does to the text of one part.
  std::string Normalize(absl::string_view text, bool starts_part) const;
  absl::Status EncodeWord(absl::string_view word, EncodeScratch* scratch,
                          std::vector<TokenId>* ids) const;
  absl::Status AppendUnknown(absl::string_view bytes, std::vector<TokenId>* ids) const;

  absl::flat_hash_map<absl::string_view, TokenId> pieces_;  // that text may become
  std::array<TokenId, 256> byte_tokens_{};
  // No piece has a space after another character, so merges never cross the start of a word, and
  // words can be done one by one: the same ids, and the same word is done once.
  bool words_are_independent_ = true;
};

// "<0x0A>" -> 10
std::optional<uint8_t> ParseByteToken(absl::string_view text) {
  uint32_t byte = 0;
  if (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>') return std::nullopt;
  if (!absl::SimpleHexAtoi(text.substr(3, 2), &byte)) return std::nullopt;
  return static_cast<uint8_t>(byte);
}

// Whether U+2581 comes after any other character.
bool HasInnerSpace(absl::string_view piece) {
  size_t at = 0;
  while (piece.substr(at, kSpace.size()) == kSpace) at += kSpace.size();
  return piece.find(kSpace, at) != absl::string_view::npos;
}

absl::Status SpmTokenizer::AddByteToken(TokenId id) {
  const std::optional<uint8_t> byte = ParseByteToken(vocab().tokens[id]);
  if (!byte.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.tokens[", id, "]: '", vocab().tokens[id],
                     "' is a byte token, but not of the form <0xNN>"));
  }
  byte_tokens_[*byte] = id;
  bytes_.emplace_back(1, static_cast<char>(*byte));
  return absl::OkStatus();
}

absl::Status SpmTokenizer::Init() {
  byte_tokens_.fill(-1);
  const auto count = static_cast<TokenId>(vocab().tokens.size());
  bytes_.reserve(count);
  for (TokenId id = 0; id < count; ++id) {
    const std::string& text = vocab().tokens[id];
    switch (type(id)) {
      case TokenType::kByte:
        DT_RETURN_IF_ERROR(AddByteToken(id));
        break;
      case TokenType::kNormal:
        pieces_.try_emplace(text, id);
        if (HasInnerSpace(text)) words_are_independent_ = false;
        bytes_.push_back(absl::StrReplaceAll(text, {{kSpace, " "}}));
        break;
      case TokenType::kUserDefined:
        bytes_.push_back(absl::StrReplaceAll(text, {{kSpace, " "}}));
        break;
      default:
        bytes_.push_back(text);
    }
  }
  return absl::OkStatus();
}

std::string SpmTokenizer::Normalize(absl::string_view text, bool starts_part) const {
  std::string plain;
  if (vocab().remove_extra_whitespaces.value_or(false)) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    for (char c : text) {
      if (c != ' ' || plain.empty() || plain.back() != ' ') plain.push_back(c);
    }
    text = plain;
  }
  if (text.empty()) return "";
  const bool prefix = starts_part && *vocab().add_space_prefix;
  return absl::StrCat(prefix ? kSpace : "", absl::StrReplaceAll(text, {{" ", kSpace}}));
}

absl::Status SpmTokenizer::AppendUnknown(absl::string_view bytes, std::vector<TokenId>* ids) const {
  bool all_bytes = true;
  for (char byte : bytes) all_bytes = all_bytes && byte_tokens_[static_cast<uint8_t>(byte)] >= 0;
  if (all_bytes) {
    for (char byte : bytes) ids->push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
    return absl::OkStatus();
  }
  if (!vocab().unknown.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat("the vocabulary has no token for '", bytes,
                                                   "', no bytes for it and no unknown token"));
  }
  ids->push_back(*vocab().unknown);
  return absl::OkStatus();
}

absl::Status SpmTokenizer::EncodeWord(absl::string_view word, EncodeScratch* scratch,
                                      std::vector<TokenId>* ids) const {
  std::vector<Symbol>& symbols = scratch->symbols;
  symbols.clear();
  for (size_t at = 0; at < word.size();) {
    const auto length = static_cast<uint32_t>(Utf8Length(word[at]));
    const auto found = pieces_.find(word.substr(at, length));
    const TokenId id = found == pieces_.end() ? -1 : found->second;
    symbols.push_back({static_cast<uint32_t>(at), length, id});
    at += length;
  }
  const auto lookup = [&](const Symbol& left, const Symbol& right) {
    const auto found = pieces_.find(word.substr(left.begin, left.length + right.length));
    if (found == pieces_.end()) return MergeResult();
    return MergeResult{-static_cast<double>(vocab().scores[found->second]), found->second};
  };
  MergeByPriority(lookup, &symbols, &scratch->merge);
  for (const Symbol& symbol : symbols) {
    if (symbol.id >= 0) {
      ids->push_back(symbol.id);
    } else {
      DT_RETURN_IF_ERROR(AppendUnknown(word.substr(symbol.begin, symbol.length), ids));
    }
  }
  return absl::OkStatus();
}

// The end of the word that begins at `begin`: before the next space that follows another character.
size_t WordEnd(absl::string_view text, size_t begin) {
  size_t at = begin;
  while (text.substr(at, kSpace.size()) == kSpace) at += kSpace.size();
  const size_t next = text.find(kSpace, at);
  return next == absl::string_view::npos ? text.size() : next;
}

absl::Status SpmTokenizer::EncodePlain(absl::string_view text, bool starts_part,
                                       EncodeScratch* scratch, std::vector<TokenId>* ids) const {
  scratch->text = Normalize(text, starts_part);
  const absl::string_view normalized = scratch->text;
  if (!words_are_independent_) return EncodeWord(normalized, scratch, ids);
  absl::flat_hash_map<absl::string_view, std::pair<uint32_t, uint32_t>> cache;
  for (size_t begin = 0; begin < normalized.size();) {
    const size_t end = WordEnd(normalized, begin);
    const absl::string_view word = normalized.substr(begin, end - begin);
    begin = end;
    const bool cacheable = word.size() <= kLongestCachedWord;
    if (const auto seen = cacheable ? cache.find(word) : cache.end(); seen != cache.end()) {
      const auto [first, count] = seen->second;
      for (uint32_t i = 0; i < count; ++i) ids->push_back((*ids)[first + i]);
      continue;
    }
    const auto first = static_cast<uint32_t>(ids->size());
    DT_RETURN_IF_ERROR(EncodeWord(word, scratch, ids));
    if (cacheable && cache.size() < kMostCachedWords) {
      cache.try_emplace(word, first, static_cast<uint32_t>(ids->size()) - first);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateSpmTokenizer(VocabData vocab) {
  if (vocab.scores.empty()) {
    return absl::InvalidArgumentError("tokenizer.ggml.scores: missing, and model 'llama' needs it");
  }
  // SentencePiece's own numbering where the file is silent.
  if (!vocab.unknown.has_value() && vocab.types[0] == TokenType::kUnknown) vocab.unknown = 0;
  if (vocab.tokens.size() > 2) {
    if (!vocab.bos.has_value() && vocab.types[1] == TokenType::kControl) vocab.bos = 1;
    if (!vocab.eos.has_value() && vocab.types[2] == TokenType::kControl) vocab.eos = 2;
  }
  if (!vocab.add_bos.has_value()) vocab.add_bos = vocab.bos.has_value();
  if (!vocab.add_eos.has_value()) vocab.add_eos = false;
  if (!vocab.add_space_prefix.has_value()) vocab.add_space_prefix = true;
  DT_RETURN_IF_ERROR(CheckAddedTokens(vocab));
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(vocab));
  DT_RETURN_IF_ERROR(tokenizer->Init());
  return tokenizer;
}

}  // namespace dovetail::model
