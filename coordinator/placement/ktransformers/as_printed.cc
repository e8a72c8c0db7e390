#include "coordinator/placement/ktransformers/as_printed.h"

#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/yaml_reader.h"
#include "coordinator/placement/ktransformers/rule_file.h"

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr size_t kLongestText = 1 << 20;

// A `key:` of the text, and the value up to the next one.
struct Token {
  std::string key;
  std::string value;
  int line = 0;
  int col = 0;
  bool dash = false;           // "- " stands before it
  bool first_on_line = false;  // a dash aside
};

bool IsKeyStart(char c) { return absl::ascii_isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsKeyChar(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

class Tokenizer {
 public:
  explicit Tokenizer(absl::string_view text) : text_(text) {}

  std::vector<Token> Run() {
    while (at_ < text_.size()) Step();
    return std::move(tokens_);
  }

 private:
  void Step() {
    const char c = text_[at_];
    if (c == '\n') {
      NewLine();
    } else if (c == '#' && (at_ == 0 || absl::ascii_isspace(text_[at_ - 1]))) {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (c == '"' || c == '\'') {
      TakeQuoted(c);
    } else if (IsKeyStart(c) && (at_ == 0 || !IsKeyChar(text_[at_ - 1])) && TakeKey()) {
      return;
    } else if (c == '-' && (at_ + 1 == text_.size() || absl::ascii_isspace(text_[at_ + 1])) &&
               (at_ == line_start_ || absl::ascii_isspace(text_[at_ - 1]))) {
      dash_ = true;
      ++at_;
    } else {
      if (!absl::ascii_isspace(static_cast<unsigned char>(c))) empty_line_ = false;
      AppendToValue(text_.substr(at_, 1));
      ++at_;
    }
  }

  void NewLine() {
    AppendToValue(" ");
    ++at_;
    ++line_;
    line_start_ = at_;
    empty_line_ = true;
  }

  void TakeQuoted(char quote) {
    const size_t begin = at_++;
    while (at_ < text_.size() && text_[at_] != quote && text_[at_] != '\n') {
      at_ += text_[at_] == '\\' && quote == '"' && at_ + 1 < text_.size() ? 2 : 1;
    }
    if (at_ < text_.size() && text_[at_] == quote) ++at_;
    at_ = at_ < text_.size() ? at_ : text_.size();
    empty_line_ = false;
    AppendToValue(text_.substr(begin, at_ - begin));
  }

  // "key:" before a space or the end of a line.
  bool TakeKey() {
    size_t end = at_;
    while (end < text_.size() && IsKeyChar(text_[end])) ++end;
    const bool is_key = end < text_.size() && text_[end] == ':' &&
                        (end + 1 == text_.size() || absl::ascii_isspace(text_[end + 1]));
    if (!is_key) return false;
    Token token;
    token.key = std::string(text_.substr(at_, end - at_));
    token.line = line_;
    token.col = static_cast<int>(at_ - line_start_) + 1;
    token.dash = dash_;
    token.first_on_line = empty_line_;
    tokens_.push_back(std::move(token));
    dash_ = false;
    empty_line_ = false;
    at_ = end + 1;
    return true;
  }

  void AppendToValue(absl::string_view piece) {
    if (!tokens_.empty()) absl::StrAppend(&tokens_.back().value, piece);
  }

  const absl::string_view text_;
  size_t at_ = 0;
  size_t line_start_ = 0;
  int line_ = 1;
  bool empty_line_ = true;
  bool dash_ = false;
  std::vector<Token> tokens_;
};

// How deep a key belongs: 0 in the rule, 1 in match or replace, 2 in kwargs.
int DepthOf(const std::string& key, bool in_replace) {
  if (key == "match" || key == "replace" || key == "recursive") return 0;
  if (key == "name" || key == "class") return 1;
  if (key == "kwargs") return 1;
  return in_replace ? 2 : 1;
}

}  // namespace

std::optional<RestoredRules> RestoreIndentation(absl::string_view text) {
  if (text.size() > kLongestText) return std::nullopt;
  std::vector<Token> tokens = Tokenizer(text).Run();
  if (tokens.empty() || tokens[0].key != "match") return std::nullopt;
  for (const Token& token : tokens) {  // {a: b} needs no indentation
    if (absl::StartsWith(absl::StripAsciiWhitespace(token.value), "{")) return std::nullopt;
  }
  RestoredRules restored;
  int columns[] = {0, 0, 0};  // of the last key of each depth in this rule
  bool in_replace = false;
  for (const Token& token : tokens) {
    const bool begins_rule = token.key == "match";
    if (begins_rule) in_replace = false;
    if (token.key == "replace") in_replace = true;
    const int depth = DepthOf(token.key, in_replace);
    const bool misplaced =
        (!begins_rule && !token.first_on_line) || (depth > 0 && token.col <= columns[depth - 1]);
    if (misplaced && restored.line == 0) {
      restored.line = token.line;
      restored.col = token.col;
      restored.key = token.key;
    }
    columns[depth] = token.col;
    constexpr absl::string_view kIndents[] = {"  ", "    ", "      "};
    const absl::string_view value = absl::StripAsciiWhitespace(token.value);
    absl::StrAppend(&restored.text, begins_rule ? "- " : kIndents[depth], token.key, ":",
                    value.empty() ? "" : " ", value, "\n");
  }
  if (restored.line == 0) return std::nullopt;
  const auto root = ReadYaml(restored.text, "restored");
  if (!root.ok() || root->kind != YamlKind::kList || !LooksLikeRuleFile(*root)) return std::nullopt;
  return restored;
}

std::optional<Diagnostic> LostIndentation(absl::string_view text, const std::string& file) {
  const std::optional<RestoredRules> restored = RestoreIndentation(text);
  if (!restored) return std::nullopt;
  return Diagnostic{"lost-indentation",
                    Severity::kError,
                    file,
                    restored->line,
                    restored->col,
                    absl::StrCat("`", restored->key,
                                 ":` stands where it cannot: the text has lost "
                                 "its indentation, which probably was\n",
                                 restored->text)};
}

}  // namespace dovetail::coordinator::ktransformers
