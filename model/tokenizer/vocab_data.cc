#include "model/tokenizer/vocab_data.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::model {
namespace {

constexpr absl::string_view kPrefix = "tokenizer.ggml.";

std::string Key(absl::string_view name) { return absl::StrCat(kPrefix, name); }

absl::Status WrongType(absl::string_view name, const GgufValue& found, absl::string_view wanted) {
  return absl::InvalidArgumentError(
      absl::StrCat(Key(name), ": expected ", wanted, ", found ", GgufValueTypeName(found.type)));
}

absl::Status ReadStrings(const GgufFile& file, absl::string_view name,
                         std::vector<std::string>* out) {
  const GgufValue* value = file.Find(Key(name));
  if (value == nullptr) return absl::OkStatus();
  const auto* strings = std::get_if<std::vector<std::string>>(&value->value);
  if (strings == nullptr) return WrongType(name, *value, "an array of strings");
  *out = *strings;
  return absl::OkStatus();
}

absl::Status ReadScores(const GgufFile& file, std::vector<float>* out) {
  const GgufValue* value = file.Find(Key("scores"));
  if (value == nullptr) return absl::OkStatus();
  const auto* numbers = std::get_if<std::vector<double>>(&value->value);
  if (numbers == nullptr) return WrongType("scores", *value, "an array of float32");
  out->reserve(numbers->size());
  for (double number : *numbers) out->push_back(static_cast<float>(number));
  return absl::OkStatus();
}

absl::Status AddType(int64_t number, size_t index, std::vector<TokenType>* out) {
  if (number < 1 || number > 6) {
    return absl::InvalidArgumentError(absl::StrCat(Key("token_type"), "[", index, "]: ", number,
                                                   " is not a token type (1 to 6)"));
  }
  out->push_back(static_cast<TokenType>(number));
  return absl::OkStatus();
}

absl::Status ReadTypes(const GgufFile& file, std::vector<TokenType>* out) {
  const GgufValue* value = file.Find(Key("token_type"));
  if (value == nullptr) return absl::OkStatus();
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(&value->value)) {
    for (size_t i = 0; i < numbers->size(); ++i) {
      DT_RETURN_IF_ERROR(AddType((*numbers)[i], i, out));
    }
  } else if (const auto* unsigned_numbers = std::get_if<std::vector<uint64_t>>(&value->value)) {
    for (size_t i = 0; i < unsigned_numbers->size(); ++i) {
      const uint64_t number = std::min<uint64_t>((*unsigned_numbers)[i], 255);
      DT_RETURN_IF_ERROR(AddType(static_cast<int64_t>(number), i, out));
    }
  } else {
    return WrongType("token_type", *value, "an array of int32");
  }
  return absl::OkStatus();
}

absl::Status ReadId(const GgufFile& file, absl::string_view name, std::optional<TokenId>* out) {
  if (file.Find(Key(name)) == nullptr) return absl::OkStatus();
  DT_ASSIGN_OR_RETURN(const uint64_t id, file.GetUint(Key(name)));
  // Written by some converters for "none".
  if (id == std::numeric_limits<uint32_t>::max()) return absl::OkStatus();
  if (id > static_cast<uint64_t>(std::numeric_limits<TokenId>::max())) {
    return absl::InvalidArgumentError(absl::StrCat(Key(name), ": ", id, " is not a token id"));
  }
  *out = static_cast<TokenId>(id);
  return absl::OkStatus();
}

absl::Status ReadFlag(const GgufFile& file, absl::string_view name, std::optional<bool>* out) {
  if (file.Find(Key(name)) == nullptr) return absl::OkStatus();
  DT_ASSIGN_OR_RETURN(*out, file.GetBool(Key(name)));
  return absl::OkStatus();
}

absl::Status CheckId(absl::string_view name, const std::optional<TokenId>& id, size_t size) {
  if (!id.has_value() || (*id >= 0 && static_cast<size_t>(*id) < size)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Key(name), ": ", *id, " is outside the vocabulary of ", size, " tokens"));
}

absl::Status CheckSize(absl::string_view name, size_t found, size_t wanted) {
  if (found == wanted) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(Key(name), ": ", found, " entries for ", wanted, " tokens"));
}

// For files from before token_type: byte tokens are known by their form.
std::vector<TokenType> GuessTypes(const VocabData& vocab) {
  std::vector<TokenType> types(vocab.tokens.size(), TokenType::kNormal);
  if (vocab.model != "llama") return types;
  for (size_t i = 0; i < types.size(); ++i) {
    const std::string& text = vocab.tokens[i];
    if (text.size() == 6 && text.compare(0, 3, "<0x") == 0) types[i] = TokenType::kByte;
  }
  return types;
}

}  // namespace

absl::StatusOr<VocabData> ReadVocabData(const GgufFile& file) {
  VocabData vocab;
  DT_ASSIGN_OR_RETURN(vocab.model, file.GetString(Key("model")));
  if (file.Find(Key("pre")) != nullptr) {
    DT_ASSIGN_OR_RETURN(vocab.pre, file.GetString(Key("pre")));
  }
  DT_RETURN_IF_ERROR(ReadStrings(file, "tokens", &vocab.tokens));
  DT_RETURN_IF_ERROR(ReadStrings(file, "merges", &vocab.merges));
  DT_RETURN_IF_ERROR(ReadScores(file, &vocab.scores));
  DT_RETURN_IF_ERROR(ReadTypes(file, &vocab.types));
  DT_RETURN_IF_ERROR(ReadId(file, "bos_token_id", &vocab.bos));
  DT_RETURN_IF_ERROR(ReadId(file, "eos_token_id", &vocab.eos));
  DT_RETURN_IF_ERROR(ReadId(file, "eot_token_id", &vocab.eot));
  DT_RETURN_IF_ERROR(ReadId(file, "eom_token_id", &vocab.eom));
  DT_RETURN_IF_ERROR(ReadId(file, "unknown_token_id", &vocab.unknown));
  DT_RETURN_IF_ERROR(ReadFlag(file, "add_bos_token", &vocab.add_bos));
  DT_RETURN_IF_ERROR(ReadFlag(file, "add_eos_token", &vocab.add_eos));
  DT_RETURN_IF_ERROR(ReadFlag(file, "add_space_prefix", &vocab.add_space_prefix));
  DT_RETURN_IF_ERROR(ReadFlag(file, "remove_extra_whitespaces", &vocab.remove_extra_whitespaces));
  return vocab;
}

absl::Status CheckVocabData(VocabData* vocab) {
  const size_t size = vocab->tokens.size();
  if (size == 0) return absl::InvalidArgumentError("tokenizer.ggml.tokens: missing or empty");
  if (size > static_cast<size_t>(std::numeric_limits<TokenId>::max() / 4)) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.ggml.tokens: ", size, " entries"));
  }
  if (vocab->types.empty()) vocab->types = GuessTypes(*vocab);
  DT_RETURN_IF_ERROR(CheckSize("token_type", vocab->types.size(), size));
  if (!vocab->scores.empty()) DT_RETURN_IF_ERROR(CheckSize("scores", vocab->scores.size(), size));
  for (size_t i = 0; i < vocab->scores.size(); ++i) {
    if (std::isfinite(vocab->scores[i])) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tokenizer.ggml.scores[", i, "]: not a finite number"));
  }
  DT_RETURN_IF_ERROR(CheckId("bos_token_id", vocab->bos, size));
  DT_RETURN_IF_ERROR(CheckId("eos_token_id", vocab->eos, size));
  DT_RETURN_IF_ERROR(CheckId("eot_token_id", vocab->eot, size));
  DT_RETURN_IF_ERROR(CheckId("eom_token_id", vocab->eom, size));
  return CheckId("unknown_token_id", vocab->unknown, size);
}

}  // namespace dovetail::model
