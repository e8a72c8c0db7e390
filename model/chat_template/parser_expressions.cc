// Expressions, from the loosest binding to the tightest.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/parser.h"

namespace dovetail::model::jinja {
namespace {

// x.a.b|f|g ...: a chain nests to the left, and is bounded like all nesting.
constexpr int kLongestChain = 100;

}  // namespace

absl::StatusOr<ExpressionPtr> Parser::ParseExpression() { return ParseConditional(); }

bool Parser::IsTupleEnd(bool parenthesized) const {
  const TokenKind kind = Current().kind;
  if (kind == TokenKind::kPrintEnd || kind == TokenKind::kBlockEnd) return true;
  if (IsOperator(")")) return true;
  return !parenthesized && (IsName("recursive") || IsOperator("="));
}

absl::StatusOr<ExpressionPtr> Parser::ParseTuple(bool with_conditional, bool parenthesized) {
  ExpressionPtr tuple = NewExpression(ExpressionKind::kTuple);
  bool has_comma = false;
  while (!IsTupleEnd(parenthesized)) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr item, with_conditional ? ParseConditional() : ParseOr());
    tuple->items.push_back(std::move(item));
    if (!SkipOperator(",")) break;
    has_comma = true;
  }
  if (!has_comma && tuple->items.size() == 1) return std::move(tuple->items[0]);
  if (tuple->items.empty() && !parenthesized) return Unexpected("an expression");
  return tuple;
}

absl::StatusOr<ExpressionPtr> Parser::ParseConditional() {
  const Nesting nesting(this);
  DT_RETURN_IF_ERROR(CheckDepth());
  // The condition comes after the value: only then is it known that the value is conditional.
  const size_t unknown = unknown_.size();
  const bool outer_conditional = conditional_;
  DT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
  while (IsName("if")) {
    unknown_.resize(unknown);
    conditional_ = true;
    ExpressionPtr conditional = NewExpression(ExpressionKind::kConditional);
    Take();
    conditional->items.resize(3);
    conditional->items[1] = std::move(value);
    DT_ASSIGN_OR_RETURN(conditional->items[0], ParseOr());
    if (SkipName("else")) {
      DT_ASSIGN_OR_RETURN(conditional->items[2], ParseConditional());
    }
    value = std::move(conditional);
  }
  conditional_ = outer_conditional;
  return value;
}

absl::StatusOr<ExpressionPtr> Parser::ParseOr() {
  DT_ASSIGN_OR_RETURN(ExpressionPtr first, ParseAnd());
  if (!IsName("or")) return first;
  ExpressionPtr chain = NewExpression(ExpressionKind::kOr);
  chain->items.push_back(std::move(first));
  while (SkipName("or")) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr next, ParseAnd());
    chain->items.push_back(std::move(next));
  }
  return chain;
}

absl::StatusOr<ExpressionPtr> Parser::ParseAnd() {
  DT_ASSIGN_OR_RETURN(ExpressionPtr first, ParseNot());
  if (!IsName("and")) return first;
  ExpressionPtr chain = NewExpression(ExpressionKind::kAnd);
  chain->items.push_back(std::move(first));
  while (SkipName("and")) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr next, ParseNot());
    chain->items.push_back(std::move(next));
  }
  return chain;
}

absl::StatusOr<ExpressionPtr> Parser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  const Nesting nesting(this);
  DT_RETURN_IF_ERROR(CheckDepth());
  ExpressionPtr expression = NewExpression(ExpressionKind::kNot);
  Take();
  DT_ASSIGN_OR_RETURN(expression->base, ParseNot());
  return expression;
}

absl::StatusOr<ExpressionPtr> Parser::ParseCompare() {
  static constexpr OperatorToken kComparisons[] = {
      {"==", Operator::kEqual},     {"!=", Operator::kNotEqual}, {"<", Operator::kLess},
      {"<=", Operator::kLessEqual}, {">", Operator::kGreater},   {">=", Operator::kGreaterEqual}};
  ExpressionPtr chain = NewExpression(ExpressionKind::kCompare);
  DT_ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
  chain->items.push_back(std::move(first));
  while (true) {
    const size_t count = chain->operators.size();
    if (IsName("in")) {
      Take();
      chain->operators.push_back(Operator::kIn);
    } else if (IsName("not") && Next().kind == TokenKind::kName && Next().text == "in") {
      Take();
      Take();
      chain->operators.push_back(Operator::kNotIn);
    } else {
      for (const OperatorToken& comparison : kComparisons) {
        if (!IsOperator(comparison.text)) continue;
        Take();
        chain->operators.push_back(comparison.op);
        break;
      }
    }
    if (chain->operators.size() == count) break;
    DT_ASSIGN_OR_RETURN(ExpressionPtr next, ParseSum());
    chain->items.push_back(std::move(next));
  }
  if (chain->operators.empty()) return std::move(chain->items[0]);
  return chain;
}

absl::StatusOr<ExpressionPtr> Parser::ParseChain(ExpressionKind kind, ParseMethod parse,
                                                 std::initializer_list<OperatorToken> table) {
  ExpressionPtr chain = NewExpression(kind);
  DT_ASSIGN_OR_RETURN(ExpressionPtr first, (this->*parse)());
  chain->items.push_back(std::move(first));
  while (true) {
    const OperatorToken* found = nullptr;
    for (const OperatorToken& candidate : table) {
      if (IsOperator(candidate.text)) found = &candidate;
    }
    if (found == nullptr) break;
    Take();
    chain->operators.push_back(found->op);
    DT_ASSIGN_OR_RETURN(ExpressionPtr next, (this->*parse)());
    chain->items.push_back(std::move(next));
  }
  if (chain->operators.empty()) return std::move(chain->items[0]);
  return chain;
}

absl::StatusOr<ExpressionPtr> Parser::ParseSum() {
  return ParseChain(ExpressionKind::kArithmetic, &Parser::ParseConcat,
                    {{"+", Operator::kAdd}, {"-", Operator::kSubtract}});
}

absl::StatusOr<ExpressionPtr> Parser::ParseConcat() {
  return ParseChain(ExpressionKind::kConcat, &Parser::ParseProduct, {{"~", Operator::kAdd}});
}

absl::StatusOr<ExpressionPtr> Parser::ParseProduct() {
  return ParseChain(ExpressionKind::kArithmetic, &Parser::ParsePower,
                    {{"*", Operator::kMultiply},
                     {"/", Operator::kDivide},
                     {"//", Operator::kFloorDivide},
                     {"%", Operator::kModulo}});
}

absl::StatusOr<ExpressionPtr> Parser::ParsePower() {
  ExpressionPtr chain = NewExpression(ExpressionKind::kArithmetic);
  DT_ASSIGN_OR_RETURN(ExpressionPtr first, ParseUnary(/*with_filter=*/true));
  chain->items.push_back(std::move(first));
  while (SkipOperator("**")) {
    chain->operators.push_back(Operator::kPower);
    DT_ASSIGN_OR_RETURN(ExpressionPtr next, ParseUnary(/*with_filter=*/true));
    chain->items.push_back(std::move(next));
  }
  if (chain->operators.empty()) return std::move(chain->items[0]);
  return chain;
}

absl::StatusOr<ExpressionPtr> Parser::ParseUnary(bool with_filter) {
  const Nesting nesting(this);
  DT_RETURN_IF_ERROR(CheckDepth());
  ExpressionPtr expression;
  if (IsOperator("-") || IsOperator("+")) {
    expression =
        NewExpression(IsOperator("-") ? ExpressionKind::kNegative : ExpressionKind::kPositive);
    Take();
    DT_ASSIGN_OR_RETURN(expression->base, ParseUnary(/*with_filter=*/false));
  } else {
    DT_ASSIGN_OR_RETURN(expression, ParsePrimary());
  }
  DT_ASSIGN_OR_RETURN(expression, ParsePostfix(std::move(expression)));
  if (with_filter) return ParseFilters(std::move(expression));
  return expression;
}

absl::StatusOr<ExpressionPtr> Parser::ParsePrimary() {
  const Token& token = Current();
  switch (token.kind) {
    case TokenKind::kName:
      return ParseNameOrConstant();
    case TokenKind::kString: {
      ExpressionPtr literal = NewExpression(ExpressionKind::kLiteral);
      std::string text;
      while (Current().kind == TokenKind::kString) text += Take().text;
      literal->value = Value::Literal(std::move(text));
      return literal;
    }
    case TokenKind::kInteger:
    case TokenKind::kFloat: {
      ExpressionPtr literal = NewExpression(ExpressionKind::kLiteral);
      literal->value = token.kind == TokenKind::kInteger ? Value::Int(token.integer)
                                                         : Value::Float(token.number);
      Take();
      return literal;
    }
    default:
      break;
  }
  if (SkipOperator("(")) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr inner, ParseTuple(true, /*parenthesized=*/true));
    DT_RETURN_IF_ERROR(ExpectOperator(")"));
    return inner;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  return Unexpected("an expression");
}

absl::StatusOr<ExpressionPtr> Parser::ParseNameOrConstant() {
  const std::string& name = Current().text;
  ExpressionPtr expression = NewExpression(ExpressionKind::kLiteral);
  if (name == "true" || name == "True") {
    expression->value = Value::Bool(true);
  } else if (name == "false" || name == "False") {
    expression->value = Value::Bool(false);
  } else if (name == "none" || name == "None") {
    expression->value = Value::None();
  } else {
    expression->kind = ExpressionKind::kName;
    expression->name = UseName(name);
  }
  Take();
  return expression;
}

absl::StatusOr<ExpressionPtr> Parser::ParseList() {
  ExpressionPtr list = NewExpression(ExpressionKind::kList);
  DT_RETURN_IF_ERROR(ExpectOperator("["));
  while (!IsOperator("]")) {
    if (!list->items.empty()) DT_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("]")) break;
    DT_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    list->items.push_back(std::move(item));
  }
  DT_RETURN_IF_ERROR(ExpectOperator("]"));
  return list;
}

absl::StatusOr<ExpressionPtr> Parser::ParseDict() {
  ExpressionPtr dict = NewExpression(ExpressionKind::kDict);
  DT_RETURN_IF_ERROR(ExpectOperator("{"));
  while (!IsOperator("}")) {
    if (!dict->items.empty()) DT_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("}")) break;
    DT_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    DT_RETURN_IF_ERROR(ExpectOperator(":"));
    DT_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    dict->items.push_back(std::move(key));
    dict->items.push_back(std::move(value));
  }
  DT_RETURN_IF_ERROR(ExpectOperator("}"));
  return dict;
}

absl::StatusOr<ExpressionPtr> Parser::ParsePostfix(ExpressionPtr base) {
  for (int length = 0;; ++length) {
    if (length > kLongestChain) return ErrorAt(Current().at, "too long a chain of accesses");
    if (IsOperator(".")) {
      DT_ASSIGN_OR_RETURN(base, ParseAttribute(std::move(base)));
    } else if (IsOperator("[")) {
      DT_ASSIGN_OR_RETURN(base, ParseSubscript(std::move(base)));
    } else if (IsOperator("(")) {
      DT_ASSIGN_OR_RETURN(base, ParseCall(std::move(base)));
    } else {
      return base;
    }
  }
}

absl::StatusOr<ExpressionPtr> Parser::ParseFilters(ExpressionPtr base) {
  for (int length = 0;; ++length) {
    if (length > kLongestChain) return ErrorAt(Current().at, "too long a chain of filters");
    if (SkipOperator("|")) {
      DT_ASSIGN_OR_RETURN(base, ParseFilter(std::move(base)));
    } else if (IsName("is")) {
      DT_ASSIGN_OR_RETURN(base, ParseTest(std::move(base)));
    } else if (IsOperator("(")) {  // what a filter or test gave may be called
      DT_ASSIGN_OR_RETURN(base, ParseCall(std::move(base)));
    } else {
      return base;
    }
  }
}

absl::StatusOr<ExpressionPtr> Parser::ParseAttribute(ExpressionPtr base) {
  DT_RETURN_IF_ERROR(ExpectOperator("."));
  if (Current().kind == TokenKind::kInteger) {
    ExpressionPtr item = NewExpression(ExpressionKind::kItem);
    ExpressionPtr index = NewExpression(ExpressionKind::kLiteral);
    index->value = Value::Int(Take().integer);
    item->base = std::move(base);
    item->items.push_back(std::move(index));
    return item;
  }
  ExpressionPtr attribute = NewExpression(ExpressionKind::kAttribute);
  DT_ASSIGN_OR_RETURN(std::string name, TakeName("the name of an attribute"));
  attribute->value = Value::Literal(std::move(name));
  attribute->base = std::move(base);
  return attribute;
}

absl::StatusOr<ExpressionPtr> Parser::ParseSubscriptPart(bool* is_slice) {
  ExpressionPtr slice = NewExpression(ExpressionKind::kSlice);
  slice->items.resize(3);
  if (!IsOperator(":")) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr index, ParseExpression());
    if (!IsOperator(":")) return index;
    slice->items[0] = std::move(index);
  }
  *is_slice = true;
  for (int part = 1; part < 3 && SkipOperator(":"); ++part) {
    if (IsOperator(":") || IsOperator("]") || IsOperator(",")) continue;
    DT_ASSIGN_OR_RETURN(slice->items[part], ParseExpression());
  }
  return slice;
}

absl::StatusOr<ExpressionPtr> Parser::ParseSubscript(ExpressionPtr base) {
  ExpressionPtr item = NewExpression(ExpressionKind::kItem);
  DT_RETURN_IF_ERROR(ExpectOperator("["));
  if (IsOperator("]")) return Unexpected("an index");
  bool is_slice = false;
  DT_ASSIGN_OR_RETURN(ExpressionPtr index, ParseSubscriptPart(&is_slice));
  if (IsOperator(",")) return ErrorAt(item->at, "an index of several parts is not supported");
  DT_RETURN_IF_ERROR(ExpectOperator("]"));
  if (is_slice) {
    index->base = std::move(base);
    return index;
  }
  item->base = std::move(base);
  item->items.push_back(std::move(index));
  return item;
}

absl::StatusOr<ExpressionPtr> Parser::ParseCall(ExpressionPtr base) {
  ExpressionPtr call = NewExpression(ExpressionKind::kCall);
  call->base = std::move(base);
  DT_RETURN_IF_ERROR(ParseArguments(call.get()));
  return call;
}

absl::Status Parser::ParseArguments(Expression* call) {
  DT_RETURN_IF_ERROR(ExpectOperator("("));
  bool first = true;
  while (!IsOperator(")")) {
    if (!first) DT_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator(")")) break;
    first = false;
    if (call->star_named) return Unexpected("')'");
    if (SkipOperator("**")) {
      call->star_named = true;
      call->named.emplace_back();
      DT_ASSIGN_OR_RETURN(call->named.back().value, ParseExpression());
    } else if (SkipOperator("*")) {
      if (call->star_positional || !call->named.empty()) return Unexpected("a named argument");
      call->star_positional = true;
      DT_ASSIGN_OR_RETURN(ExpressionPtr rest, ParseExpression());
      call->items.push_back(std::move(rest));
    } else if (Current().kind == TokenKind::kName && Next().kind == TokenKind::kOperator &&
               Next().text == "=") {
      NamedArgument argument;
      argument.name = Take().text;
      Take();
      DT_ASSIGN_OR_RETURN(argument.value, ParseExpression());
      call->named.push_back(std::move(argument));
    } else {
      if (call->star_positional || !call->named.empty()) return Unexpected("a named argument");
      DT_ASSIGN_OR_RETURN(ExpressionPtr argument, ParseExpression());
      call->items.push_back(std::move(argument));
    }
  }
  return ExpectOperator(")");
}

absl::StatusOr<std::string> Parser::ParseDottedName(absl::string_view what) {
  DT_ASSIGN_OR_RETURN(std::string name, TakeName(what));
  while (SkipOperator(".")) {
    DT_ASSIGN_OR_RETURN(const std::string part, TakeName(what));
    absl::StrAppend(&name, ".", part);
  }
  return name;
}

absl::StatusOr<ExpressionPtr> Parser::ParseFilter(ExpressionPtr base) {
  ExpressionPtr filter = NewExpression(ExpressionKind::kFilter);
  DT_ASSIGN_OR_RETURN(filter->text, ParseDottedName("the name of a filter"));
  if (!conditional_ && FindFilter(filter->text) == nullptr) {
    unknown_.push_back(ErrorAt(filter->at, absl::StrCat("no filter named '", filter->text, "'")));
  }
  filter->base = std::move(base);
  if (IsOperator("(")) DT_RETURN_IF_ERROR(ParseArguments(filter.get()));
  return filter;
}

absl::StatusOr<ExpressionPtr> Parser::ParseFilterChain(ExpressionPtr base) {
  int length = 0;
  do {
    if (++length > kLongestChain) return ErrorAt(Current().at, "too long a chain of filters");
    DT_ASSIGN_OR_RETURN(base, ParseFilter(std::move(base)));
  } while (SkipOperator("|"));
  return base;
}

absl::StatusOr<ExpressionPtr> Parser::ParseTest(ExpressionPtr base) {
  DT_RETURN_IF_ERROR(ExpectName("is"));
  const bool negated = SkipName("not");
  ExpressionPtr test = NewExpression(ExpressionKind::kTest);
  DT_ASSIGN_OR_RETURN(test->text, ParseDottedName("the name of a test"));
  if (!conditional_ && FindTest(test->text) == nullptr) {
    unknown_.push_back(ErrorAt(test->at, absl::StrCat("no test named '", test->text, "'")));
  }
  test->base = std::move(base);
  const TokenKind kind = Current().kind;
  const bool starts_operand = kind == TokenKind::kName || kind == TokenKind::kString ||
                              kind == TokenKind::kInteger || kind == TokenKind::kFloat ||
                              IsOperator("[") || IsOperator("{");
  const bool ends_test = IsName("else") || IsName("or") || IsName("and");
  if (IsOperator("(")) {
    DT_RETURN_IF_ERROR(ParseArguments(test.get()));
  } else if (IsName("is")) {
    return ErrorAt(Current().at, "tests cannot be chained with 'is'");
  } else if (starts_operand && !ends_test) {
    DT_ASSIGN_OR_RETURN(ExpressionPtr operand, ParsePrimary());
    DT_ASSIGN_OR_RETURN(operand, ParsePostfix(std::move(operand)));
    test->items.push_back(std::move(operand));
  }
  if (!negated) return test;
  ExpressionPtr expression = NewExpression(ExpressionKind::kNot);
  expression->base = std::move(test);
  return expression;
}

}  // namespace dovetail::model::jinja
