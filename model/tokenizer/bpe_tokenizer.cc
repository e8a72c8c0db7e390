#include "model/tokenizer/bpe_tokenizer.h"

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "model/tokenizer/base_tokenizer.h"
#include "model/tokenizer/byte_level.h"
#include "model/tokenizer/pre_tokenizer.h"
#include "model/tokenizer/unicode_nfc.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model {
namespace {

// Words of one text come again and again: where their ids stand in the output.
struct WordRange {
  uint32_t begin = 0;
  uint32_t count = 0;
};
using WordCache = absl::flat_hash_map<absl::string_view, WordRange>;
constexpr size_t kLongestCachedWord = 32;
constexpr size_t kMostCachedWords = 1 << 16;

class BpeTokenizer final : public BaseTokenizer {
 public:
  explicit BpeTokenizer(VocabData vocab) : BaseTokenizer(std::move(vocab)) {}

  absl::Status Init(const PreTokenizerSpec& spec);

 protected:
  absl::Status EncodePlain(absl::string_view text, bool starts_part, EncodeScratch* scratch,
                           std::vector<TokenId>* ids) const override;

 private:
  struct RankedMerge {
    int32_t rank;
    int32_t id;
  };

  // Symbols are token ids; texts that are no token but parts of merges get ids above the
  // vocabulary.
  int32_t SymbolId(absl::string_view text);
  absl::Status AddMerge(absl::string_view merge, int32_t rank);
  absl::Status EncodeComposed(absl::string_view text, EncodeScratch* scratch,
                              std::vector<TokenId>* ids) const;
  absl::Status EncodeWord(absl::string_view word, EncodeScratch* scratch,
                          std::vector<TokenId>* ids) const;
  absl::Status AppendBytes(absl::string_view bytes, std::vector<TokenId>* ids) const;

  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  bool ignore_merges_ = false;
  bool nfc_ = false;
  std::array<int32_t, 256> byte_symbols_{};
  absl::flat_hash_map<uint64_t, RankedMerge> merges_;  // left << 32 | right
  absl::flat_hash_map<std::string, int32_t> extra_symbols_;
  absl::flat_hash_map<absl::string_view, TokenId> whole_words_;  // with ignore_merges
};

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

absl::Status BpeTokenizer::Init(const PreTokenizerSpec& spec) {
  DT_ASSIGN_OR_RETURN(pre_tokenizer_, PreTokenizer::Create(spec));
  nfc_ = spec.nfc;
  ignore_merges_ = vocab().ignore_merges.value_or(spec.ignore_merges);
  bytes_.reserve(vocab().tokens.size());
  for (size_t i = 0; i < vocab().tokens.size(); ++i) {
    const bool plain = vocab().types[i] == TokenType::kNormal;
    bytes_.push_back(plain ? FromByteLevel(vocab().tokens[i]) : vocab().tokens[i]);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    byte_symbols_[byte] = SymbolId(ToByteLevel(absl::string_view(&text, 1)));
  }
  merges_.reserve(vocab().merges.size());
  for (size_t rank = 0; rank < vocab().merges.size(); ++rank) {
    DT_RETURN_IF_ERROR(AddMerge(vocab().merges[rank], static_cast<int32_t>(rank)));
  }
  if (ignore_merges_) {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (vocab().types[i] != TokenType::kNormal) continue;
      whole_words_.try_emplace(bytes_[i], static_cast<TokenId>(i));
    }
  }
  return absl::OkStatus();
}

int32_t BpeTokenizer::SymbolId(absl::string_view text) {
  if (const std::optional<TokenId> id = FindToken(text)) return *id;
  const auto next = static_cast<int32_t>(vocab().tokens.size() + extra_symbols_.size());
  return extra_symbols_.try_emplace(std::string(text), next).first->second;
}

absl::Status BpeTokenizer::AddMerge(absl::string_view merge, int32_t rank) {
  const size_t space = merge.find(' ', 1);  // a token may itself start with a space
  if (space == absl::string_view::npos || space + 1 >= merge.size()) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.merges[", rank, "]: '", merge,
                                                   "' is not two tokens with a space between"));
  }
  const absl::string_view left = merge.substr(0, space);
  const absl::string_view right = merge.substr(space + 1);
  const uint64_t key = PairKey(SymbolId(left), SymbolId(right));
  merges_.try_emplace(key, RankedMerge{rank, SymbolId(absl::StrCat(left, right))});
  return absl::OkStatus();
}

absl::Status BpeTokenizer::AppendBytes(absl::string_view bytes, std::vector<TokenId>* ids) const {
  for (char byte : bytes) {
    const int32_t symbol = byte_symbols_[static_cast<uint8_t>(byte)];
    if (InVocab(symbol)) {
      ids->push_back(symbol);
    } else if (vocab().unknown.has_value()) {
      ids->push_back(*vocab().unknown);
    } else {
      return absl::InvalidArgumentError(
          absl::StrFormat("the vocabulary has no token for byte 0x%02X, and no unknown token",
                          static_cast<uint8_t>(byte)));
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodeWord(absl::string_view word, EncodeScratch* scratch,
                                      std::vector<TokenId>* ids) const {
  if (ignore_merges_) {
    const auto whole = whole_words_.find(word);
    if (whole != whole_words_.end()) {
      ids->push_back(whole->second);
      return absl::OkStatus();
    }
  }
  std::vector<Symbol>& symbols = scratch->symbols;
  symbols.clear();
  for (size_t i = 0; i < word.size(); ++i) {
    symbols.push_back({static_cast<uint32_t>(i), 1, byte_symbols_[static_cast<uint8_t>(word[i])]});
  }
  const auto lookup = [this](const Symbol& left, const Symbol& right) {
    const auto found = merges_.find(PairKey(left.id, right.id));
    if (found == merges_.end()) return MergeResult();
    return MergeResult{static_cast<double>(found->second.rank), found->second.id};
  };
  MergeByPriority(lookup, &symbols, &scratch->merge);
  for (const Symbol& symbol : symbols) {
    if (InVocab(symbol.id)) {
      ids->push_back(symbol.id);
    } else {
      DT_RETURN_IF_ERROR(AppendBytes(word.substr(symbol.begin, symbol.length), ids));
    }
  }
  return absl::OkStatus();
}

absl::Status BpeTokenizer::EncodePlain(absl::string_view text, bool /*starts_part*/,
                                       EncodeScratch* scratch, std::vector<TokenId>* ids) const {
  if (!nfc_ || !MayNeedNfc(text)) return EncodeComposed(text, scratch, ids);
  return EncodeComposed(ComposeNfc(text), scratch, ids);
}

absl::Status BpeTokenizer::EncodeComposed(absl::string_view text, EncodeScratch* scratch,
                                          std::vector<TokenId>* ids) const {
  DT_RETURN_IF_ERROR(pre_tokenizer_->Split(text, &scratch->ends));
  WordCache cache;
  size_t begin = 0;
  for (size_t end : scratch->ends) {
    const absl::string_view word = text.substr(begin, end - begin);
    begin = end;
    const bool cacheable = word.size() <= kLongestCachedWord;
    if (cacheable) {
      if (const auto seen = cache.find(word); seen != cache.end()) {
        const WordRange range = seen->second;
        for (uint32_t i = 0; i < range.count; ++i) ids->push_back((*ids)[range.begin + i]);
        continue;
      }
    }
    const auto first = static_cast<uint32_t>(ids->size());
    DT_RETURN_IF_ERROR(EncodeWord(word, scratch, ids));
    if (cacheable && cache.size() < kMostCachedWords) {
      cache.emplace(word, WordRange{first, static_cast<uint32_t>(ids->size()) - first});
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> CreateBpeTokenizer(VocabData vocab) {
  DT_ASSIGN_OR_RETURN(const PreTokenizerSpec* spec,
                      FindPreTokenizer(vocab.pre.empty() ? "default" : vocab.pre));
  if (!vocab.add_bos.has_value()) vocab.add_bos = spec->add_bos && vocab.bos.has_value();
  if (!vocab.add_eos.has_value()) vocab.add_eos = false;
  DT_RETURN_IF_ERROR(CheckAddedTokens(vocab));
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocab));
  DT_RETURN_IF_ERROR(tokenizer->Init(*spec));
  return tokenizer;
}

}  // namespace dovetail::model
