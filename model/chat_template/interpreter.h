// Interpreter: renders a syntax tree. One per Render(), one thread.
//
// Every evaluated node is a step, every call and nesting a level; both are bounded, and so are the
// output and, by Runtime, memory.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/chat_template/ast.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

class Interpreter {
 public:
  // `context` is indexed by NameId and holds what the caller gives the template.
  Interpreter(const TemplateTree& tree, std::vector<Value> context, Runtime* runtime);

  absl::Status Run(std::string* out);

 private:
  // Variables of a template, a loop's round, a macro's call. Macros keep the scope they are made
  // in.
  struct Scope : Object {
    Scope* parent = nullptr;
    std::vector<std::pair<NameId, Value>> variables;
    bool is_kept = false;

    Value* Find(NameId name);
    void Set(NameId name, Value value);
  };
  enum class Flow { kNext, kBreak, kContinue };

  class Level;  // one level of nesting while it lives

  // interpreter.cc
  absl::StatusOr<Flow> Execute(const StatementList& body, std::string* out);
  absl::StatusOr<Flow> Execute(const Statement& statement, std::string* out);
  absl::StatusOr<Flow> ExecuteIf(const Statement& statement, std::string* out);
  absl::Status ExecuteFor(const Statement& statement, std::string* out);
  absl::Status RunLoop(const Statement& statement, const Value& iterable, int64_t depth,
                       std::string* out);
  absl::StatusOr<const std::vector<Value>*> LoopItems(const Statement& statement,
                                                      const Value& iterable);
  absl::StatusOr<Flow> ExecuteSetBlock(const Statement& statement, std::string* out);
  absl::StatusOr<Flow> ExecuteFilterBlock(const Statement& statement, std::string* out);
  absl::StatusOr<Flow> ExecuteWith(const Statement& statement, std::string* out);
  absl::Status ExecuteCallBlock(const Statement& statement, std::string* out);
  absl::Status Print(const Value& value, std::string* out);
  absl::Status Append(absl::string_view text, std::string* out);
  absl::Status Assign(const Target& target, Value value);
  CallableObject* MakeMacro(const Macro& macro);
  absl::StatusOr<Value> CallMacro(const Macro& macro, Scope* scope, const CallArguments& arguments);
  absl::Status BindParameters(const Macro& macro, const CallArguments& arguments);
  Scope* NewScope(Scope* parent);

  // interpreter_expressions.cc
  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateKind(const Expression& expression);
  absl::StatusOr<Value> EvaluateName(const Expression& expression);
  absl::StatusOr<Value> EvaluateItems(const Expression& expression, ListKind kind);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression, CallArguments extra);
  absl::StatusOr<Value> EvaluateFilter(const Expression& expression, const Value* block);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression);
  absl::StatusOr<Value> EvaluateArithmetic(const Expression& expression);
  absl::StatusOr<Value> EvaluateConcat(const Expression& expression);
  absl::StatusOr<Value> EvaluateConditional(const Expression& expression);
  absl::StatusOr<CallArguments> EvaluateArguments(const Expression& expression);
  absl::StatusOr<Value> Call(const Value& callee, const CallArguments& arguments);

  const TemplateTree& tree_;
  const std::vector<Value> context_;
  Runtime* runtime_;
  Scope* scope_ = nullptr;
  int level_ = 0;  // of nested evaluation
  int calls_ = 0;  // macros that are running
  NameId loop_name_ = -1;
};

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_H_
