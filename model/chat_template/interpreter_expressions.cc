// Expressions.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/interpreter.h"
#include "model/chat_template/interpreter_level.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/value_text.h"

namespace dovetail::model::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  if (expression.kind == ExpressionKind::kLiteral) return expression.value;
  const Level level(this);
  if (absl::Status status = level.Check(); !status.ok()) return LocateError(status, expression.at);
  absl::StatusOr<Value> value = EvaluateKind(expression);
  if (!value.ok()) return LocateError(value.status(), expression.at);
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kLiteral:
      return expression.value;
    case ExpressionKind::kName:
      return EvaluateName(expression);
    case ExpressionKind::kList:
      return EvaluateItems(expression, ListKind::kList);
    case ExpressionKind::kTuple:
      return EvaluateItems(expression, ListKind::kTuple);
    case ExpressionKind::kDict:
      return EvaluateDict(expression);
    case ExpressionKind::kAttribute: {
      DT_ASSIGN_OR_RETURN(const Value base, Evaluate(*expression.base));
      return GetAttribute(base, expression.value, runtime_);
    }
    case ExpressionKind::kItem: {
      DT_ASSIGN_OR_RETURN(const Value base, Evaluate(*expression.base));
      DT_ASSIGN_OR_RETURN(const Value index, Evaluate(*expression.items[0]));
      return GetItem(base, index, runtime_);
    }
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression);
    case ExpressionKind::kCall:
      return EvaluateCall(expression, {});
    case ExpressionKind::kFilter:
      return EvaluateFilter(expression, nullptr);
    case ExpressionKind::kTest:
      return EvaluateTest(expression);
    case ExpressionKind::kNot: {
      DT_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.base));
      return Value::Bool(!IsTrue(value));
    }
    case ExpressionKind::kNegative: {
      DT_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.base));
      return Negate(value);
    }
    case ExpressionKind::kPositive: {
      DT_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.base));
      return Calculate(Operator::kAdd, Value::Int(0), value, runtime_);
    }
    case ExpressionKind::kAnd:
    case ExpressionKind::kOr: {
      const bool stop_at = expression.kind == ExpressionKind::kOr;
      Value value;
      for (const ExpressionPtr& item : expression.items) {
        DT_ASSIGN_OR_RETURN(value, Evaluate(*item));
        if (IsTrue(value) == stop_at) break;
      }
      return value;
    }
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression);
    case ExpressionKind::kArithmetic:
      return EvaluateArithmetic(expression);
    case ExpressionKind::kConcat:
      return EvaluateConcat(expression);
    case ExpressionKind::kConditional:
      return EvaluateConditional(expression);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression) {
  for (Scope* scope = scope_; scope != nullptr; scope = scope->parent) {
    if (const Value* found = scope->Find(expression.name)) return *found;
  }
  const Value& given = context_[expression.name];
  if (!given.is_undefined()) return given;
  const Value& name = tree_.names.name(expression.name);
  const GlobalFunction function = FindGlobal(name.text());
  if (function == nullptr) return Value::Undefined(name, Kind::kUndefined);
  auto* callable = runtime_->New<CallableObject>();
  callable->name = name.text();
  callable->call = [function, runtime = runtime_](const CallArguments& arguments) {
    return function(arguments, runtime);
  };
  return Value::Of(callable);
}

absl::StatusOr<Value> Interpreter::EvaluateItems(const Expression& expression, ListKind kind) {
  std::vector<Value> items;
  items.reserve(expression.items.size());
  for (const ExpressionPtr& item : expression.items) {
    DT_ASSIGN_OR_RETURN(Value value, Evaluate(*item));
    items.push_back(std::move(value));
  }
  return runtime_->List(std::move(items), kind);
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression) {
  auto* dict = runtime_->New<DictObject>();
  for (size_t i = 0; i + 1 < expression.items.size(); i += 2) {
    DT_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.items[i]));
    DT_RETURN_IF_ERROR(CheckKey(key));
    DT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.items[i + 1]));
    dict->Set(key, std::move(value));
    runtime_->AddBytes(4 * kValueBytes);
  }
  return Value::Of(dict);
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression) {
  DT_ASSIGN_OR_RETURN(const Value base, Evaluate(*expression.base));
  Value bounds[3];
  const Value* given[3] = {nullptr, nullptr, nullptr};
  for (int i = 0; i < 3; ++i) {
    if (expression.items[i] == nullptr) continue;
    DT_ASSIGN_OR_RETURN(bounds[i], Evaluate(*expression.items[i]));
    given[i] = &bounds[i];
  }
  return GetSlice(base, given[0], given[1], given[2], runtime_);
}

absl::StatusOr<CallArguments> Interpreter::EvaluateArguments(const Expression& expression) {
  CallArguments arguments;
  for (size_t i = 0; i < expression.items.size(); ++i) {
    DT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.items[i]));
    if (expression.star_positional && i + 1 == expression.items.size()) {
      DT_ASSIGN_OR_RETURN(const std::vector<Value>* rest, Iterate(value, runtime_));
      arguments.positional.insert(arguments.positional.end(), rest->begin(), rest->end());
    } else {
      arguments.positional.push_back(std::move(value));
    }
  }
  for (size_t i = 0; i < expression.named.size(); ++i) {
    DT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.named[i].value));
    if (!expression.star_named || i + 1 != expression.named.size()) {
      arguments.named.emplace_back(expression.named[i].name, std::move(value));
      continue;
    }
    if (value.kind() != Kind::kDict) {
      return absl::InvalidArgumentError("the argument after ** must be a mapping");
    }
    for (const auto& [key, item] : value.dict()->entries) {
      if (!key.is_string()) return absl::InvalidArgumentError("keywords must be strings");
      arguments.named.emplace_back(key.text(), item);
    }
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::Call(const Value& callee, const CallArguments& arguments) {
  if (callee.is_undefined()) return absl::InvalidArgumentError(callee.UndefinedReason());
  if (callee.kind() == Kind::kLoop && callee.loop()->recurse != nullptr) {
    return callee.loop()->recurse->call(arguments);
  }
  if (callee.kind() != Kind::kCallable) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", TypeName(callee), "' object is not callable"));
  }
  return callee.callable()->call(arguments);
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression, CallArguments extra) {
  const Expression& callee = *expression.base;
  // A method is called without making a value of it first.
  if (callee.kind == ExpressionKind::kAttribute) {
    DT_ASSIGN_OR_RETURN(const Value base, Evaluate(*callee.base));
    if (const MethodFunction method = FindMethod(base, callee.value.text())) {
      DT_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(expression));
      for (auto& argument : extra.named) arguments.named.push_back(std::move(argument));
      return method(base, arguments, runtime_);
    }
    DT_ASSIGN_OR_RETURN(const Value function, GetAttribute(base, callee.value, runtime_));
    DT_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(expression));
    for (auto& argument : extra.named) arguments.named.push_back(std::move(argument));
    return Call(function, arguments);
  }
  DT_ASSIGN_OR_RETURN(const Value function, Evaluate(callee));
  DT_ASSIGN_OR_RETURN(CallArguments arguments, EvaluateArguments(expression));
  for (auto& argument : extra.named) arguments.named.push_back(std::move(argument));
  return Call(function, arguments);
}

// A filter's input is its base; the first filter of a block has none and takes the block's text.
absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expression& expression,
                                                  const Value* block) {
  Value input;
  if (expression.base == nullptr) {
    input = *block;
  } else if (block != nullptr && expression.base->kind == ExpressionKind::kFilter) {
    DT_ASSIGN_OR_RETURN(input, EvaluateFilter(*expression.base, block));
  } else {
    DT_ASSIGN_OR_RETURN(input, Evaluate(*expression.base));
  }
  const FilterFunction filter = FindFilter(expression.text);
  if (filter == nullptr) {
    return ErrorAt(expression.at, absl::StrCat("no filter named '", expression.text, "'"));
  }
  DT_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression));
  return filter(input, arguments, runtime_);
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression) {
  DT_ASSIGN_OR_RETURN(const Value input, Evaluate(*expression.base));
  const TestFunction test = FindTest(expression.text);
  if (test == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("no test named '", expression.text, "'"));
  }
  DT_ASSIGN_OR_RETURN(const CallArguments arguments, EvaluateArguments(expression));
  DT_ASSIGN_OR_RETURN(const bool passed, test(input, arguments, runtime_));
  return Value::Bool(passed);
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression) {
  DT_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.items[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    DT_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.items[i + 1]));
    DT_ASSIGN_OR_RETURN(const bool holds,
                        CompareWith(expression.operators[i], left, right, runtime_));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::EvaluateArithmetic(const Expression& expression) {
  DT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.items[0]));
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    DT_ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.items[i + 1]));
    DT_ASSIGN_OR_RETURN(value, Calculate(expression.operators[i], value, right, runtime_));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expression& expression) {
  std::string out;
  for (const ExpressionPtr& item : expression.items) {
    DT_ASSIGN_OR_RETURN(const Value value, Evaluate(*item));
    DT_ASSIGN_OR_RETURN(const std::string text, ToText(value, runtime_));
    DT_RETURN_IF_ERROR(runtime_->Spend(static_cast<int64_t>(text.size()) / 64));
    DT_RETURN_IF_ERROR(runtime_->CheckRoom(2 * static_cast<int64_t>(out.size() + text.size())));
    out += text;
  }
  return runtime_->String(std::move(out));
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const Expression& expression) {
  DT_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.items[0]));
  if (IsTrue(condition)) return Evaluate(*expression.items[1]);
  if (expression.items[2] == nullptr) return Value();
  return Evaluate(*expression.items[2]);
}

}  // namespace dovetail::model::jinja
