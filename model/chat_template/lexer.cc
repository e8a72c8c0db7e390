#include "model/chat_template/lexer.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"
#include "model/chat_template/literals.h"
#include "model/chat_template/text.h"

namespace dovetail::model::jinja {
namespace {

constexpr absl::string_view kErrorPrefix = "chat template:";

// Longest first.
constexpr absl::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                            "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                            ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsNameChar(char c) {
  return absl::ascii_isalnum(c) || c == '_' || static_cast<unsigned char>(c) >= 0x80;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) DT_RETURN_IF_ERROR(LexTextAndTag());
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::string_view Rest() const { return absl::string_view(source_).substr(at_); }

  SourcePosition Position() {
    for (; counted_ < at_; ++counted_) {
      if (source_[counted_] != '\n') continue;
      ++line_;
      line_begin_ = counted_ + 1;
    }
    return {line_, static_cast<int>(at_ - line_begin_) + 1};
  }

  absl::Status Fail(absl::string_view message) { return ErrorAt(Position(), message); }

  void Add(TokenKind kind, std::string text) {
    tokens_.push_back({kind, Position(), std::move(text)});
  }

  // Where the next tag begins, or the end.
  size_t FindTag() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      if (source_[i] != '{') continue;
      if (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#') return i;
    }
    return source_.size();
  }

  // `text` before a tag as "-" or lstrip_blocks leave it.
  absl::string_view StripBeforeTag(absl::string_view text, char sign, bool is_print) const {
    if (sign == '-') return StripText(text, /*left=*/false, /*right=*/true);
    if (sign == '+' || is_print) return text;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == absl::string_view::npos ? 0 : newline + 1;
    if (line == 0 && !line_starting_) return text;
    return StripText(text.substr(line), true, true).empty() ? text.substr(0, line) : text;
  }

  absl::Status LexTextAndTag() {
    const size_t tag = FindTag();
    const absl::string_view text = Rest().substr(0, tag - at_);
    if (tag == source_.size()) {
      AddText(text);
      at_ = tag;
      return absl::OkStatus();
    }
    const char type = source_[tag + 1];
    const char next = tag + 2 < source_.size() ? source_[tag + 2] : 0;
    const char sign = next == '-' || next == '+' ? next : 0;
    AddText(StripBeforeTag(text, sign, type == '{'));
    at_ = tag;
    if (type == '#') return SkipComment(sign);
    if (type == '%' && StartsRaw(sign)) return LexRaw(sign);
    Add(type == '{' ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, "");
    at_ = tag + 2 + (sign != 0 ? 1 : 0);
    return LexTag(type == '{');
  }

  void AddText(absl::string_view text) {
    if (!text.empty()) Add(TokenKind::kText, std::string(text));
  }

  // Moves to `end` and over what the tag's end takes with it: all white space after "-", one
  // newline after a block or comment.
  void FinishTag(size_t end, char sign, bool takes_newline) {
    at_ = end;
    if (sign == '-') {
      at_ = source_.size() - StripText(Rest(), true, false).size();
    } else if (sign == 0 && takes_newline && at_ < source_.size() && source_[at_] == '\n') {
      ++at_;
    }
    line_starting_ = source_[at_ - 1] == '\n';
  }

  absl::Status SkipComment(char sign) {
    const size_t begin = at_ + 2 + (sign != 0 ? 1 : 0);
    const size_t end = source_.find("#}", begin);
    if (end == std::string::npos) return Fail("missing end of comment");
    const char last = end > begin ? source_[end - 1] : 0;
    FinishTag(end + 2, last == '-' || last == '+' ? last : 0, true);
    return absl::OkStatus();
  }

  // Whether `word` and a block's end follow `from`; where the block ends and with which sign.
  bool ReadKeywordBlock(size_t from, absl::string_view word, size_t* end, char* sign) const {
    absl::string_view rest = absl::string_view(source_).substr(from);
    rest = StripText(rest, true, false);
    if (!absl::ConsumePrefix(&rest, word)) return false;
    rest = StripText(rest, true, false);
    *sign = !rest.empty() && (rest[0] == '-' || rest[0] == '+') ? rest[0] : 0;
    if (*sign != 0) rest.remove_prefix(1);
    if (!absl::ConsumePrefix(&rest, "%}")) return false;
    *end = source_.size() - rest.size();
    return true;
  }

  bool StartsRaw(char sign) const {
    size_t end = 0;
    char end_sign = 0;
    return ReadKeywordBlock(at_ + 2 + (sign != 0 ? 1 : 0), "raw", &end, &end_sign) &&
           end_sign != '+';
  }

  absl::Status LexRaw(char sign) {
    size_t begin = 0;
    char begin_sign = 0;
    ReadKeywordBlock(at_ + 2 + (sign != 0 ? 1 : 0), "raw", &begin, &begin_sign);
    const size_t tag = at_;
    FinishTag(begin, begin_sign, /*takes_newline=*/false);
    if (at_ == source_.size()) return absl::OkStatus();  // Jinja does not mind
    for (size_t i = source_.find("{%", at_); i != std::string::npos;
         i = source_.find("{%", i + 2)) {
      const char next = i + 2 < source_.size() ? source_[i + 2] : 0;
      const char open_sign = next == '-' || next == '+' ? next : 0;
      size_t end = 0;
      char end_sign = 0;
      if (!ReadKeywordBlock(i + 2 + (open_sign != 0 ? 1 : 0), "endraw", &end, &end_sign)) continue;
      AddText(StripBeforeTag(Rest().substr(0, i - at_), open_sign, false));
      FinishTag(end, end_sign, true);
      return absl::OkStatus();
    }
    at_ = tag;
    return Fail("missing end of raw block");
  }

  // "}}" or "%}" with its sign, if that is what stands here.
  bool FinishTagHere(bool is_print) {
    absl::string_view rest = Rest();
    char sign = 0;
    if (rest[0] == '-' || (rest[0] == '+' && !is_print)) {
      sign = rest[0];
      rest.remove_prefix(1);
    }
    if (!absl::StartsWith(rest, is_print ? "}}" : "%}")) return false;
    Add(is_print ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, "");
    FinishTag(at_ + (sign != 0 ? 3 : 2), sign, !is_print);
    return true;
  }

  absl::Status LexTag(bool is_print) {
    std::string open;  // closing brackets that are owed
    while (true) {
      at_ = source_.size() - StripText(Rest(), true, false).size();
      if (at_ >= source_.size()) return Fail("the template ends inside a tag");
      if (open.empty() && FinishTagHere(is_print)) return absl::OkStatus();
      const char c = source_[at_];
      if (absl::ascii_isdigit(c)) {
        DT_RETURN_IF_ERROR(LexNumber());
      } else if (IsNameChar(c)) {
        LexName();
      } else if (c == '\'' || c == '"') {
        DT_RETURN_IF_ERROR(LexString(c));
      } else {
        DT_RETURN_IF_ERROR(LexOperator(&open));
      }
    }
  }

  absl::Status LexNumber() {
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    const auto literal = ReadNumber(Rest(), after_dot);
    if (!literal.ok()) return Fail(literal.status().message());
    Add(literal->is_float ? TokenKind::kFloat : TokenKind::kInteger, "");
    tokens_.back().integer = literal->integer;
    tokens_.back().number = literal->number;
    at_ += literal->length;
    if (at_ < source_.size() && IsNameChar(source_[at_])) return Fail("a name begins with a digit");
    return absl::OkStatus();
  }

  void LexName() {
    size_t end = at_;
    while (end < source_.size() && IsNameChar(source_[end])) ++end;
    Add(TokenKind::kName, source_.substr(at_, end - at_));
    at_ = end;
  }

  absl::Status LexString(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Fail("missing end of string");
    auto text = UnescapeString(absl::string_view(source_).substr(at_ + 1, end - at_ - 1));
    if (!text.ok()) return Fail(text.status().message());
    Add(TokenKind::kString, std::move(text).value());
    at_ = end + 1;
    return absl::OkStatus();
  }

  absl::Status LexOperator(std::string* open) {
    for (absl::string_view op : kOperators) {
      if (!absl::StartsWith(Rest(), op)) continue;
      if (op == "(") open->push_back(')');
      if (op == "[") open->push_back(']');
      if (op == "{") open->push_back('}');
      if (op == ")" || op == "]" || op == "}") {
        if (open->empty() || open->back() != op[0]) {
          return Fail(absl::StrCat("unexpected '", op, "'"));
        }
        open->pop_back();
      }
      Add(TokenKind::kOperator, std::string(op));
      at_ += op.size();
      return absl::OkStatus();
    }
    return Fail(absl::StrCat("unexpected character '", Rest().substr(0, 1), "'"));
  }

  const std::string source_;
  size_t at_ = 0;
  size_t counted_ = 0;  // up to where lines are counted
  size_t line_begin_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // the text at at_ begins a line
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status ErrorAt(SourcePosition at, absl::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat(kErrorPrefix, at.line, ":", at.column, ": ", message));
}

absl::Status LocateError(const absl::Status& status, SourcePosition at) {
  if (status.ok() || absl::StartsWith(status.message(), kErrorPrefix)) return status;
  return ErrorAt(at, status.message());
}

absl::StatusOr<std::vector<Token>> Lex(absl::string_view source) {
  std::string normalized = absl::StrReplaceAll(source, {{"\r\n", "\n"}, {"\r", "\n"}});
  if (!normalized.empty() && normalized.back() == '\n') normalized.pop_back();
  return Lexer(std::move(normalized)).Run();
}

}  // namespace dovetail::model::jinja
