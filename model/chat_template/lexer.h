// Jinja's lexer as Hugging Face sets it up: trim_blocks, lstrip_blocks, no trailing newline kept.
// White space control is done here, so that the parser sees the text as it will be printed.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_LEXER_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_LEXER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::model::jinja {

struct SourcePosition {
  int line = 1;
  int column = 1;
};

// InvalidArgument "chat template:LINE:COL: message".
absl::Status ErrorAt(SourcePosition at, absl::string_view message);
// The same, unless `status` already names a place.
absl::Status LocateError(const absl::Status& status, SourcePosition at);

enum class TokenKind : uint8_t {
  kText,        // outside of tags
  kPrintBegin,  // {{
  kPrintEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  SourcePosition at;
  std::string text;  // text, name, operator or the value of a string
  int64_t integer = 0;
  double number = 0;
};

// The last token is kEnd.
absl::StatusOr<std::vector<Token>> Lex(absl::string_view source);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_LEXER_H_
