// The syntax tree of a template. Built by the parser, then never changed, so that any number of
// threads may render from it.
//
// Names of variables are numbered (`NameTable`), so that looking one up compares integers.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_AST_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "model/chat_template/lexer.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

using NameId = int;

class NameTable {
 public:
  NameId Intern(absl::string_view name);
  NameId Find(absl::string_view name) const;  // -1 where absent
  const Value& name(NameId id) const { return names_[id]; }
  int size() const { return static_cast<int>(names_.size()); }

 private:
  std::vector<Value> names_;
  absl::flat_hash_map<std::string, NameId> ids_;
};

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

enum class ExpressionKind : uint8_t {
  kLiteral,      // value
  kName,         // name
  kList,         // items
  kTuple,        // items
  kDict,         // items: key, value, key, value ...
  kAttribute,    // base.value
  kItem,         // base[items[0]]
  kSlice,        // base[items[0]:items[1]:items[2]], each may be null
  kCall,         // base(items, named, *items.back() and **named.back() as the flags say)
  kFilter,       // base|text(items, named); base is null in {% filter %} and {% set %}...
  kTest,         // base is text(items, named)
  kNot,          // not base
  kNegative,     // -base
  kPositive,     // +base
  kAnd,          // items
  kOr,           // items
  kCompare,      // items[0] operators[0] items[1] operators[1] ...
  kArithmetic,   // the same, from the left
  kConcat,       // items[0] ~ items[1] ...
  kConditional,  // items[1] if items[0] else items[2], which may be null
};

enum class Operator : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};
absl::string_view OperatorText(Operator op);

struct NamedArgument {
  std::string name;
  ExpressionPtr value;
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kLiteral;
  SourcePosition at;
  NameId name = -1;
  bool star_positional = false;  // the last of items is *args
  bool star_named = false;       // the last of named is **kwargs
  std::string text;              // name of a filter or test
  Value value;                   // literal, or an attribute's name
  ExpressionPtr base;
  std::vector<ExpressionPtr> items;
  std::vector<NamedArgument> named;
  std::vector<Operator> operators;
};

// Where a value is put: a name, an attribute of a namespace, or a tuple of these.
struct Target {
  SourcePosition at;
  NameId name = -1;
  Value attribute;  // a string if it is name.attribute
  bool is_tuple = false;
  std::vector<Target> parts;
};

struct Statement;
using StatementList = std::vector<std::unique_ptr<Statement>>;

enum class StatementKind : uint8_t {
  kText,         // text
  kPrint,        // expression
  kIf,           // branches
  kFor,          // target in expression if filter: body else: otherwise
  kSet,          // target = expression
  kSetBlock,     // target = expression(body), expression is null or a chain of filters
  kMacro,        // macro
  kCallBlock,    // expression is the call, macro is its caller()
  kFilterBlock,  // expression(body)
  kWith,         // assignments, then body
  kScope,        // body with variables of its own
  kBreak,
  kContinue,
};

struct Branch {
  ExpressionPtr condition;  // null: else
  StatementList body;
};

struct Parameter {
  NameId name;
  ExpressionPtr default_value;  // may be null
};

struct Macro {
  std::string name;
  NameId name_id = -1;
  std::vector<Parameter> parameters;
  bool uses_varargs = false;
  bool uses_kwargs = false;
  bool uses_caller = false;
  StatementList body;
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  SourcePosition at;
  std::string text;
  Target target;
  ExpressionPtr expression;
  ExpressionPtr filter;
  bool recursive = false;
  StatementList body;
  StatementList otherwise;
  std::vector<Branch> branches;
  std::vector<std::pair<Target, ExpressionPtr>> assignments;
  Macro macro;
};

struct TemplateTree {
  NameTable names;
  StatementList body;
};

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_AST_H_
