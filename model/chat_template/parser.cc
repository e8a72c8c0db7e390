// Statements.
#include "model/chat_template/parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace dovetail::model::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kText:
      return "text";
    case TokenKind::kPrintBegin:
      return "'{{'";
    case TokenKind::kPrintEnd:
      return "'}}'";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kEnd:
      return "the end of the template";
    default:
      return absl::StrCat("'", token.text.substr(0, 100), "'");
  }
}

template <typename T>
class Restore {
 public:
  Restore(T* variable, T value) : variable_(variable), old_(*variable) { *variable = value; }
  ~Restore() { *variable_ = old_; }
  Restore(const Restore&) = delete;
  Restore& operator=(const Restore&) = delete;

 private:
  T* variable_;
  T old_;
};

}  // namespace

absl::StatusOr<TemplateTree> ParseTemplate(absl::string_view source, int max_depth) {
  DT_ASSIGN_OR_RETURN(std::vector<Token> tokens, Lex(source));
  return Parser(std::move(tokens), max_depth).Run();
}

Parser::Parser(std::vector<Token> tokens, int max_depth)
    : tokens_(std::move(tokens)), max_depth_(max_depth) {}

absl::StatusOr<TemplateTree> Parser::Run() {
  DT_RETURN_IF_ERROR(ParseBody({""}, &tree_.body).status());
  if (!unknown_.empty()) return unknown_.front();
  return std::move(tree_);
}

absl::Status Parser::CheckDepth() const {
  if (depth_ <= max_depth_) return absl::OkStatus();
  return ErrorAt(Current().at, absl::StrCat("more than ", max_depth_, " levels of nesting"));
}

absl::Status Parser::Unexpected(absl::string_view expected) const {
  return ErrorAt(Current().at,
                 absl::StrCat("expected ", expected, ", found ", Describe(Current())));
}

bool Parser::SkipOperator(absl::string_view op) {
  if (!IsOperator(op)) return false;
  Take();
  return true;
}

bool Parser::SkipName(absl::string_view name) {
  if (!IsName(name)) return false;
  Take();
  return true;
}

absl::Status Parser::ExpectOperator(absl::string_view op) {
  if (SkipOperator(op)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", op, "'"));
}

absl::Status Parser::ExpectName(absl::string_view name) {
  if (SkipName(name)) return absl::OkStatus();
  return Unexpected(absl::StrCat("'", name, "'"));
}

absl::Status Parser::ExpectBlockEnd() {
  if (Current().kind != TokenKind::kBlockEnd) return Unexpected("'%}'");
  Take();
  return absl::OkStatus();
}

absl::StatusOr<std::string> Parser::TakeName(absl::string_view what) {
  if (Current().kind != TokenKind::kName) return Unexpected(what);
  return Take().text;
}

ExpressionPtr Parser::NewExpression(ExpressionKind kind) const {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->at = Current().at;
  return expression;
}

NameId Parser::UseName(const std::string& name) {
  for (Macro* macro : macros_) {
    macro->uses_varargs = macro->uses_varargs || name == "varargs";
    macro->uses_kwargs = macro->uses_kwargs || name == "kwargs";
    macro->uses_caller = macro->uses_caller || name == "caller";
  }
  return tree_.names.Intern(name);
}

absl::StatusOr<std::string> Parser::ParseBody(const EndNames& ends, StatementList* body) {
  const Nesting nesting(this);
  DT_RETURN_IF_ERROR(CheckDepth());
  while (true) {
    const Token token = Take();
    switch (token.kind) {
      case TokenKind::kEnd:
        if (ends.front().empty()) return std::string();
        return ErrorAt(token.at, absl::StrCat("the template ends without '", ends.back(), "'"));
      case TokenKind::kText: {
        auto statement = std::make_unique<Statement>();
        statement->at = token.at;
        statement->text = token.text;
        body->push_back(std::move(statement));
        break;
      }
      case TokenKind::kPrintBegin: {
        auto statement = std::make_unique<Statement>();
        statement->kind = StatementKind::kPrint;
        statement->at = token.at;
        DT_ASSIGN_OR_RETURN(statement->expression, ParseTuple(true, false));
        if (Current().kind != TokenKind::kPrintEnd) return Unexpected("'}}'");
        Take();
        body->push_back(std::move(statement));
        break;
      }
      case TokenKind::kBlockBegin: {
        const SourcePosition at = Current().at;
        DT_ASSIGN_OR_RETURN(const std::string name, TakeName("the name of a block"));
        if (std::find(ends.begin(), ends.end(), name) != ends.end()) return name;
        DT_RETURN_IF_ERROR(ParseBlock(name, at, body));
        break;
      }
      default:
        return ErrorAt(token.at, absl::StrCat("unexpected ", Describe(token)));
    }
  }
}

absl::Status Parser::ParseBlock(const std::string& name, SourcePosition at, StatementList* body) {
  auto statement = std::make_unique<Statement>();
  statement->at = at;
  absl::Status status;
  if (name == "if") {
    status = ParseIf(statement.get());
  } else if (name == "for") {
    status = ParseFor(statement.get());
  } else if (name == "set") {
    status = ParseSet(statement.get());
  } else if (name == "macro") {
    status = ParseMacro(statement.get());
  } else if (name == "call") {
    status = ParseCallBlock(statement.get());
  } else if (name == "filter") {
    status = ParseFilterBlock(statement.get());
  } else if (name == "with") {
    status = ParseWith(statement.get());
  } else if (name == "generation") {  // Hugging Face: what the assistant said, for training masks
    statement->kind = StatementKind::kScope;
    const Restore<int> no_loops(&loops_, 0);
    DT_RETURN_IF_ERROR(ExpectBlockEnd());
    status = ParseBody({"endgeneration"}, &statement->body).status();
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) return ErrorAt(at, absl::StrCat("'", name, "' outside of a loop"));
    statement->kind = name == "break" ? StatementKind::kBreak : StatementKind::kContinue;
  } else {
    return ErrorAt(at, absl::StrCat("unknown or unsupported block '", name, "'"));
  }
  DT_RETURN_IF_ERROR(status);
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  body->push_back(std::move(statement));
  return absl::OkStatus();
}

absl::Status Parser::ParseIf(Statement* statement) {
  statement->kind = StatementKind::kIf;
  const Restore<bool> conditional(&conditional_, true);
  std::string end = "elif";
  while (end == "elif") {
    Branch branch;
    DT_ASSIGN_OR_RETURN(branch.condition, ParseTuple(/*with_conditional=*/false, false));
    DT_RETURN_IF_ERROR(ExpectBlockEnd());
    DT_ASSIGN_OR_RETURN(end, ParseBody({"elif", "else", "endif"}, &branch.body));
    statement->branches.push_back(std::move(branch));
  }
  if (end == "else") {
    DT_RETURN_IF_ERROR(ExpectBlockEnd());
    statement->branches.emplace_back();
    DT_RETURN_IF_ERROR(ParseBody({"endif"}, &statement->branches.back().body).status());
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseFor(Statement* statement) {
  statement->kind = StatementKind::kFor;
  DT_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_attributes=*/false));
  DT_RETURN_IF_ERROR(ExpectName("in"));
  DT_ASSIGN_OR_RETURN(statement->expression, ParseTuple(/*with_conditional=*/false, false));
  const Restore<bool> conditional(&conditional_, false);
  if (SkipName("if")) {
    DT_ASSIGN_OR_RETURN(statement->filter, ParseExpression());
  }
  statement->recursive = SkipName("recursive");
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  std::string end;
  {
    const Restore<int> in_loop(&loops_, loops_ + 1);
    DT_ASSIGN_OR_RETURN(end, ParseBody({"else", "endfor"}, &statement->body));
  }
  if (end == "else") {
    DT_RETURN_IF_ERROR(ExpectBlockEnd());
    DT_RETURN_IF_ERROR(ParseBody({"endfor"}, &statement->otherwise).status());
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseSet(Statement* statement) {
  DT_ASSIGN_OR_RETURN(statement->target, ParseTarget(/*with_attributes=*/true));
  if (SkipOperator("=")) {
    statement->kind = StatementKind::kSet;
    DT_ASSIGN_OR_RETURN(statement->expression, ParseTuple(true, false));
    return absl::OkStatus();
  }
  statement->kind = StatementKind::kSetBlock;
  if (SkipOperator("|")) {
    DT_ASSIGN_OR_RETURN(statement->expression, ParseFilterChain(nullptr));
  }
  const Restore<bool> conditional(&conditional_, false);
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  return ParseBody({"endset"}, &statement->body).status();
}

absl::Status Parser::ParseParameters(Macro* macro) {
  DT_RETURN_IF_ERROR(ExpectOperator("("));
  while (!IsOperator(")")) {
    if (!macro->parameters.empty()) DT_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator(")")) break;
    const SourcePosition at = Current().at;
    DT_ASSIGN_OR_RETURN(const std::string name, TakeName("the name of a parameter"));
    Parameter parameter{UseName(name), nullptr};
    if (SkipOperator("=")) {
      DT_ASSIGN_OR_RETURN(parameter.default_value, ParseExpression());
    } else if (!macro->parameters.empty() && macro->parameters.back().default_value != nullptr) {
      return ErrorAt(at, "a parameter without a default follows one that has one");
    }
    macro->parameters.push_back(std::move(parameter));
  }
  return ExpectOperator(")");
}

absl::Status Parser::ParseMacroBody(absl::string_view end, Macro* macro) {
  const Restore<int> no_loops(&loops_, 0);
  const Restore<bool> conditional(&conditional_, false);
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  macros_.push_back(macro);
  const absl::Status status = ParseBody({end}, &macro->body).status();
  macros_.pop_back();
  return status;
}

absl::Status Parser::ParseMacro(Statement* statement) {
  statement->kind = StatementKind::kMacro;
  DT_ASSIGN_OR_RETURN(statement->macro.name, TakeName("the name of a macro"));
  statement->macro.name_id = UseName(statement->macro.name);
  DT_RETURN_IF_ERROR(ParseParameters(&statement->macro));
  return ParseMacroBody("endmacro", &statement->macro);
}

absl::Status Parser::ParseCallBlock(Statement* statement) {
  statement->kind = StatementKind::kCallBlock;
  statement->macro.name = "caller";
  if (IsOperator("(")) DT_RETURN_IF_ERROR(ParseParameters(&statement->macro));
  DT_ASSIGN_OR_RETURN(statement->expression, ParseExpression());
  if (statement->expression->kind != ExpressionKind::kCall) {
    return ErrorAt(statement->at, "expected a call");
  }
  return ParseMacroBody("endcall", &statement->macro);
}

absl::Status Parser::ParseFilterBlock(Statement* statement) {
  statement->kind = StatementKind::kFilterBlock;
  DT_ASSIGN_OR_RETURN(statement->expression, ParseFilterChain(nullptr));
  const Restore<bool> conditional(&conditional_, false);
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  return ParseBody({"endfilter"}, &statement->body).status();
}

absl::Status Parser::ParseWith(Statement* statement) {
  statement->kind = StatementKind::kWith;
  while (Current().kind != TokenKind::kBlockEnd) {
    if (!statement->assignments.empty()) DT_RETURN_IF_ERROR(ExpectOperator(","));
    DT_ASSIGN_OR_RETURN(Target target, ParseTarget(/*with_attributes=*/false));
    DT_RETURN_IF_ERROR(ExpectOperator("="));
    DT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    statement->assignments.emplace_back(std::move(target), std::move(value));
  }
  const Restore<bool> conditional(&conditional_, false);
  DT_RETURN_IF_ERROR(ExpectBlockEnd());
  return ParseBody({"endwith"}, &statement->body).status();
}

absl::StatusOr<Target> Parser::ParseSingleTarget(bool with_attributes) {
  const Nesting nesting(this);
  DT_RETURN_IF_ERROR(CheckDepth());
  Target target;
  target.at = Current().at;
  if (SkipOperator("(")) {
    DT_ASSIGN_OR_RETURN(target, ParseTarget(with_attributes));
    DT_RETURN_IF_ERROR(ExpectOperator(")"));
    return target;
  }
  DT_ASSIGN_OR_RETURN(const std::string name, TakeName("the name of a variable"));
  for (absl::string_view constant : {"true", "false", "none", "True", "False", "None"}) {
    if (name == constant) return ErrorAt(target.at, absl::StrCat("cannot assign to '", name, "'"));
  }
  target.name = UseName(name);
  if (with_attributes && SkipOperator(".")) {
    DT_ASSIGN_OR_RETURN(std::string attribute, TakeName("the name of an attribute"));
    target.attribute = Value::Literal(std::move(attribute));
  }
  return target;
}

absl::StatusOr<Target> Parser::ParseTarget(bool with_attributes) {
  DT_ASSIGN_OR_RETURN(Target first, ParseSingleTarget(with_attributes));
  if (!IsOperator(",")) return first;
  Target tuple;
  tuple.at = first.at;
  tuple.is_tuple = true;
  tuple.parts.push_back(std::move(first));
  while (SkipOperator(",")) {
    if (Current().kind != TokenKind::kName && !IsOperator("(")) break;
    if (IsName("in")) break;
    DT_ASSIGN_OR_RETURN(Target part, ParseSingleTarget(with_attributes));
    tuple.parts.push_back(std::move(part));
  }
  return tuple;
}

}  // namespace dovetail::model::jinja
