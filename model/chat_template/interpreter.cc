// Statements.
#include "model/chat_template/interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/interpreter_level.h"
#include "model/chat_template/value_text.h"

namespace dovetail::model::jinja {

Interpreter::Interpreter(const TemplateTree& tree, std::vector<Value> context, Runtime* runtime)
    : tree_(tree), context_(std::move(context)), runtime_(runtime) {
  loop_name_ = tree.names.Find("loop");
}

absl::Status Interpreter::Run(std::string* out) {
  scope_ = NewScope(nullptr);
  return Execute(tree_.body, out).status();
}

Value* Interpreter::Scope::Find(NameId name) {
  for (auto& [id, value] : variables) {
    if (id == name) return &value;
  }
  return nullptr;
}

void Interpreter::Scope::Set(NameId name, Value value) {
  if (Value* found = Find(name)) {
    *found = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

Interpreter::Scope* Interpreter::NewScope(Scope* parent) {
  auto* scope = runtime_->New<Scope>();
  scope->parent = parent;
  return scope;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const StatementList& body,
                                                       std::string* out) {
  for (const auto& statement : body) {
    absl::StatusOr<Flow> flow = Execute(*statement, out);
    if (!flow.ok()) return LocateError(flow.status(), statement->at);
    if (*flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Statement& statement,
                                                       std::string* out) {
  const Level level(this);
  DT_RETURN_IF_ERROR(level.Check());
  switch (statement.kind) {
    case StatementKind::kText:
      DT_RETURN_IF_ERROR(Append(statement.text, out));
      return Flow::kNext;
    case StatementKind::kPrint: {
      DT_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
      DT_RETURN_IF_ERROR(Print(value, out));
      return Flow::kNext;
    }
    case StatementKind::kIf:
      return ExecuteIf(statement, out);
    case StatementKind::kFor:
      DT_RETURN_IF_ERROR(ExecuteFor(statement, out));
      return Flow::kNext;
    case StatementKind::kSet: {
      DT_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.expression));
      DT_RETURN_IF_ERROR(Assign(statement.target, std::move(value)));
      return Flow::kNext;
    }
    case StatementKind::kSetBlock:
      return ExecuteSetBlock(statement, out);
    case StatementKind::kMacro:
      scope_->Set(statement.macro.name_id, Value::Of(MakeMacro(statement.macro)));
      return Flow::kNext;
    case StatementKind::kCallBlock:
      DT_RETURN_IF_ERROR(ExecuteCallBlock(statement, out));
      return Flow::kNext;
    case StatementKind::kFilterBlock:
      return ExecuteFilterBlock(statement, out);
    case StatementKind::kWith:
    case StatementKind::kScope:
      return ExecuteWith(statement, out);
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Statement& statement,
                                                         std::string* out) {
  for (const Branch& branch : statement.branches) {
    if (branch.condition != nullptr) {
      DT_ASSIGN_OR_RETURN(const Value condition, Evaluate(*branch.condition));
      if (!IsTrue(condition)) continue;
    }
    return Execute(branch.body, out);
  }
  return Flow::kNext;
}

absl::Status Interpreter::ExecuteFor(const Statement& statement, std::string* out) {
  DT_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.expression));
  return RunLoop(statement, iterable, 0, out);
}

// What the loop goes over: with a filter, only what passes it, and `loop` counts that.
absl::StatusOr<const std::vector<Value>*> Interpreter::LoopItems(const Statement& statement,
                                                                 const Value& iterable) {
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(iterable, runtime_));
  if (statement.filter == nullptr) return items;
  std::vector<Value> passed;
  Scope* const outer = scope_;
  scope_ = NewScope(outer);
  for (const Value& item : *items) {
    absl::Status status = Assign(statement.target, item);
    if (status.ok()) {
      const absl::StatusOr<Value> keep = Evaluate(*statement.filter);
      status = keep.status();
      if (keep.ok() && IsTrue(*keep)) passed.push_back(item);
    }
    if (!status.ok()) {
      scope_ = outer;
      return status;
    }
  }
  scope_ = outer;
  return &runtime_->List(std::move(passed)).list()->items;
}

absl::Status Interpreter::RunLoop(const Statement& statement, const Value& iterable, int64_t depth,
                                  std::string* out) {
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, LoopItems(statement, iterable));
  Scope* const outer = scope_;
  auto* loop = runtime_->New<LoopObject>();
  loop->items = items;
  loop->depth0 = depth;
  if (statement.recursive) {
    loop->recurse = runtime_->New<CallableObject>();
    loop->recurse->name = "loop";
    loop->recurse->call = [this, &statement, depth,
                           outer](const CallArguments& arguments) -> absl::StatusOr<Value> {
      if (arguments.positional.size() != 1 || !arguments.named.empty()) {
        return absl::InvalidArgumentError("loop() takes one argument");
      }
      const Level level(this, /*is_call=*/true);
      DT_RETURN_IF_ERROR(level.Check());
      Scope* const caller = scope_;
      scope_ = outer;
      std::string text;
      const absl::Status status = RunLoop(statement, arguments.positional[0], depth + 1, &text);
      scope_ = caller;
      DT_RETURN_IF_ERROR(status);
      return runtime_->String(std::move(text));
    };
  }
  Scope* round = NewScope(outer);
  for (size_t i = 0; i < items->size(); ++i) {
    if (round->is_kept) round = NewScope(outer);
    round->variables.clear();
    scope_ = round;
    loop->index0 = static_cast<int64_t>(i);
    if (loop_name_ >= 0) round->Set(loop_name_, Value::Of(loop));
    absl::Status status = Assign(statement.target, (*items)[i]);
    absl::StatusOr<Flow> flow = Flow::kNext;
    if (status.ok()) {
      flow = Execute(statement.body, out);
      status = flow.status();
    }
    scope_ = outer;
    DT_RETURN_IF_ERROR(status);
    if (*flow == Flow::kBreak) break;
  }
  if (!items->empty()) return absl::OkStatus();
  scope_ = NewScope(outer);
  const absl::Status status = Execute(statement.otherwise, out).status();
  scope_ = outer;
  return status;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteSetBlock(const Statement& statement,
                                                               std::string* /*out*/) {
  std::string text;
  Scope* const outer = scope_;
  scope_ = NewScope(outer);
  absl::StatusOr<Flow> flow = Execute(statement.body, &text);
  scope_ = outer;
  if (!flow.ok() || *flow != Flow::kNext) return flow;
  Value value = runtime_->String(std::move(text));
  if (statement.expression != nullptr) {
    DT_ASSIGN_OR_RETURN(value, EvaluateFilter(*statement.expression, &value));
  }
  DT_RETURN_IF_ERROR(Assign(statement.target, std::move(value)));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFilterBlock(const Statement& statement,
                                                                  std::string* out) {
  std::string text;
  Scope* const outer = scope_;
  scope_ = NewScope(outer);
  absl::StatusOr<Flow> flow = Execute(statement.body, &text);
  scope_ = outer;
  if (!flow.ok() || *flow != Flow::kNext) return flow;
  const Value block = runtime_->String(std::move(text));
  DT_ASSIGN_OR_RETURN(const Value value, EvaluateFilter(*statement.expression, &block));
  DT_RETURN_IF_ERROR(Print(value, out));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const Statement& statement,
                                                           std::string* out) {
  Scope* const outer = scope_;
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.assignments) {
    DT_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  scope_ = NewScope(outer);
  absl::Status status;
  for (size_t i = 0; i < values.size() && status.ok(); ++i) {
    status = Assign(statement.assignments[i].first, std::move(values[i]));
  }
  absl::StatusOr<Flow> flow = status.ok() ? Execute(statement.body, out) : status;
  scope_ = outer;
  return flow;
}

absl::Status Interpreter::ExecuteCallBlock(const Statement& statement, std::string* out) {
  CallArguments extra;
  extra.named.emplace_back("caller", Value::Of(MakeMacro(statement.macro)));
  DT_ASSIGN_OR_RETURN(const Value value, EvaluateCall(*statement.expression, std::move(extra)));
  return Print(value, out);
}

absl::Status Interpreter::Print(const Value& value, std::string* out) {
  if (value.is_string()) return Append(value.text(), out);
  DT_ASSIGN_OR_RETURN(const std::string text, ToText(value, runtime_));
  return Append(text, out);
}

absl::Status Interpreter::Append(absl::string_view text, std::string* out) {
  const int64_t limit = runtime_->limits().max_output_bytes;
  if (static_cast<int64_t>(out->size() + text.size()) > limit) {
    return absl::InvalidArgumentError(
        absl::StrCat("the template prints more than ", limit, " bytes"));
  }
  DT_RETURN_IF_ERROR(runtime_->Spend(static_cast<int64_t>(text.size()) / 64));
  out->append(text.data(), text.size());
  return absl::OkStatus();
}

absl::Status Interpreter::Assign(const Target& target, Value value) {
  if (!target.is_tuple && target.attribute.is_undefined()) {
    scope_->Set(target.name, std::move(value));
    return absl::OkStatus();
  }
  if (!target.is_tuple) {
    const Value* found = nullptr;
    for (Scope* scope = scope_; scope != nullptr && found == nullptr; scope = scope->parent) {
      found = scope->Find(target.name);
    }
    if (found == nullptr || found->kind() != Kind::kNamespace) {
      return ErrorAt(target.at, "cannot assign attribute on non-namespace object");
    }
    runtime_->AddBytes(kValueBytes / 4);
    found->ns()->values.Set(target.attribute, std::move(value));
    return absl::OkStatus();
  }
  const absl::StatusOr<const std::vector<Value>*> items = Iterate(value, runtime_);
  if (!items.ok()) return LocateError(items.status(), target.at);
  if ((*items)->size() != target.parts.size()) {
    return ErrorAt(target.at, absl::StrCat("cannot unpack ", (*items)->size(), " values into ",
                                           target.parts.size()));
  }
  for (size_t i = 0; i < target.parts.size(); ++i) {
    DT_RETURN_IF_ERROR(Assign(target.parts[i], (**items)[i]));
  }
  return absl::OkStatus();
}

CallableObject* Interpreter::MakeMacro(const Macro& macro) {
  for (Scope* scope = scope_; scope != nullptr && !scope->is_kept; scope = scope->parent) {
    scope->is_kept = true;
  }
  auto* callable = runtime_->New<CallableObject>();
  callable->name = macro.name;
  callable->call = [this, &macro, scope = scope_](const CallArguments& arguments) {
    return CallMacro(macro, scope, arguments);
  };
  return callable;
}

absl::Status Interpreter::BindParameters(const Macro& macro, const CallArguments& arguments) {
  const size_t count = macro.parameters.size();
  std::vector<bool> given(count, false);
  std::vector<Value> rest;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    if (i < count) {
      scope_->Set(macro.parameters[i].name, arguments.positional[i]);
      given[i] = true;
    } else {
      rest.push_back(arguments.positional[i]);
    }
  }
  if (!rest.empty() && !macro.uses_varargs) {
    return absl::InvalidArgumentError(
        absl::StrCat("macro '", macro.name, "' takes not more than ", count, " arguments"));
  }
  auto* named_rest = runtime_->New<DictObject>();
  Value caller = Value::Undefined(Value::Literal("caller"), Kind::kUndefined);
  for (const auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < count && tree_.names.name(macro.parameters[i].name).text() != name) ++i;
    if (i < count) {
      if (given[i]) {
        return absl::InvalidArgumentError(
            absl::StrCat("macro '", macro.name, "' was given '", name, "' twice"));
      }
      scope_->Set(macro.parameters[i].name, value);
      given[i] = true;
    } else if (name == "caller" && macro.uses_caller) {
      caller = value;
    } else if (macro.uses_kwargs) {
      named_rest->Set(runtime_->String(name), value);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("macro '", macro.name, "' takes no argument '", name, "'"));
    }
  }
  for (size_t i = 0; i < count; ++i) {
    if (given[i]) continue;
    const Parameter& parameter = macro.parameters[i];
    Value value = Value::Undefined(tree_.names.name(parameter.name), Kind::kUndefined);
    if (parameter.default_value != nullptr) {
      DT_ASSIGN_OR_RETURN(value, Evaluate(*parameter.default_value));
    }
    scope_->Set(parameter.name, std::move(value));
  }
  if (macro.uses_varargs) {
    scope_->Set(tree_.names.Find("varargs"), runtime_->List(std::move(rest), ListKind::kTuple));
  }
  if (macro.uses_kwargs) scope_->Set(tree_.names.Find("kwargs"), Value::Of(named_rest));
  if (macro.uses_caller) scope_->Set(tree_.names.Find("caller"), caller);
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallMacro(const Macro& macro, Scope* scope,
                                             const CallArguments& arguments) {
  const Level level(this, /*is_call=*/true);
  DT_RETURN_IF_ERROR(level.Check());
  Scope* const caller = scope_;
  scope_ = NewScope(scope);
  std::string text;
  absl::Status status = BindParameters(macro, arguments);
  if (status.ok()) status = Execute(macro.body, &text).status();
  scope_ = caller;
  DT_RETURN_IF_ERROR(status);
  return runtime_->String(std::move(text));
}

}  // namespace dovetail::model::jinja
