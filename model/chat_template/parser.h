// Parser: tokens to a syntax tree, by Jinja's grammar.
//
// Nesting is bounded, so that neither parsing, rendering nor freeing the tree can overflow the
// stack.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_PARSER_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_PARSER_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat_template/ast.h"
#include "model/chat_template/lexer.h"

namespace dovetail::model::jinja {

// InvalidArgument "chat template:LINE:COL: message". `max_depth` bounds the nesting of blocks and
// of parentheses.
absl::StatusOr<TemplateTree> ParseTemplate(absl::string_view source, int max_depth);

// The parser's state and helpers; statements and expressions are in files of their own.
class Parser {
 public:
  Parser(std::vector<Token> tokens, int max_depth);
  absl::StatusOr<TemplateTree> Run();

 private:
  // Counts one level of nesting while it lives.
  class Nesting {
   public:
    explicit Nesting(Parser* parser) : parser_(parser) { ++parser_->depth_; }
    ~Nesting() { --parser_->depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    Parser* parser_;
  };
  absl::Status CheckDepth() const;

  const Token& Current() const { return tokens_[at_]; }
  const Token& Next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool IsOperator(absl::string_view op) const {
    return Current().kind == TokenKind::kOperator && Current().text == op;
  }
  bool IsName(absl::string_view name) const {
    return Current().kind == TokenKind::kName && Current().text == name;
  }
  bool SkipOperator(absl::string_view op);
  bool SkipName(absl::string_view name);
  absl::Status ExpectOperator(absl::string_view op);
  absl::Status ExpectName(absl::string_view name);
  absl::Status ExpectBlockEnd();
  absl::StatusOr<std::string> TakeName(absl::string_view what);
  absl::Status Unexpected(absl::string_view expected) const;
  ExpressionPtr NewExpression(ExpressionKind kind) const;
  NameId UseName(const std::string& name);

  // parser.cc
  using EndNames = std::vector<absl::string_view>;
  // Statements up to {% NAME, where NAME is one of `ends` and is taken; "" is the template's end.
  absl::StatusOr<std::string> ParseBody(const EndNames& ends, StatementList* body);
  absl::Status ParseBlock(const std::string& name, SourcePosition at, StatementList* body);
  absl::Status ParseIf(Statement* statement);
  absl::Status ParseFor(Statement* statement);
  absl::Status ParseSet(Statement* statement);
  absl::Status ParseMacro(Statement* statement);
  absl::Status ParseCallBlock(Statement* statement);
  absl::Status ParseFilterBlock(Statement* statement);
  absl::Status ParseWith(Statement* statement);
  absl::Status ParseParameters(Macro* macro);
  // A macro's body: in it, loops outside cannot be left.
  absl::Status ParseMacroBody(absl::string_view end, Macro* macro);
  absl::StatusOr<Target> ParseTarget(bool with_attributes);
  absl::StatusOr<Target> ParseSingleTarget(bool with_attributes);

  // parser_expressions.cc
  absl::StatusOr<ExpressionPtr> ParseExpression();
  absl::StatusOr<ExpressionPtr> ParseTuple(bool with_conditional, bool parenthesized);
  bool IsTupleEnd(bool parenthesized) const;
  absl::StatusOr<ExpressionPtr> ParseConditional();
  absl::StatusOr<ExpressionPtr> ParseOr();
  absl::StatusOr<ExpressionPtr> ParseAnd();
  absl::StatusOr<ExpressionPtr> ParseNot();
  absl::StatusOr<ExpressionPtr> ParseCompare();
  absl::StatusOr<ExpressionPtr> ParseSum();
  absl::StatusOr<ExpressionPtr> ParseConcat();
  absl::StatusOr<ExpressionPtr> ParseProduct();
  absl::StatusOr<ExpressionPtr> ParsePower();
  absl::StatusOr<ExpressionPtr> ParseUnary(bool with_filter);
  absl::StatusOr<ExpressionPtr> ParsePrimary();
  absl::StatusOr<ExpressionPtr> ParseNameOrConstant();
  absl::StatusOr<ExpressionPtr> ParseList();
  absl::StatusOr<ExpressionPtr> ParseDict();
  absl::StatusOr<ExpressionPtr> ParsePostfix(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseFilters(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseAttribute(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseSubscript(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseSubscriptPart(bool* is_slice);
  absl::StatusOr<ExpressionPtr> ParseCall(ExpressionPtr base);
  absl::Status ParseArguments(Expression* call);
  absl::StatusOr<ExpressionPtr> ParseFilter(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseFilterChain(ExpressionPtr base);
  absl::StatusOr<ExpressionPtr> ParseTest(ExpressionPtr base);
  // a op b op c ... where both sides are `parse`'s; the operators are looked up in `table`.
  using ParseMethod = absl::StatusOr<ExpressionPtr> (Parser::*)();
  struct OperatorToken {
    absl::string_view text;
    Operator op;
  };
  absl::StatusOr<ExpressionPtr> ParseChain(ExpressionKind kind, ParseMethod parse,
                                           std::initializer_list<OperatorToken> table);
  absl::StatusOr<std::string> ParseDottedName(absl::string_view what);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  const int max_depth_;
  int depth_ = 0;
  int loops_ = 0;  // that {% break %} could leave
  // In conditional parts an unknown filter is an error only when it is reached.
  bool conditional_ = false;
  std::vector<absl::Status> unknown_;  // filters and tests outside of conditional parts
  std::vector<Macro*> macros_;         // that are being parsed
  TemplateTree tree_;
};

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_PARSER_H_
