// Interpreter::Level: one level of nested evaluation, counted as a step too.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_LEVEL_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_LEVEL_H_

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/interpreter.h"

namespace dovetail::model::jinja {

// Nodes within nodes and macros within macros together; a level takes about a kilobyte of stack.
inline constexpr int kDeepestLevel = 1000;

class Interpreter::Level {
 public:
  explicit Level(Interpreter* interpreter, bool is_call = false)
      : interpreter_(interpreter), is_call_(is_call) {
    ++interpreter_->level_;
    interpreter_->calls_ += is_call_ ? 1 : 0;
  }
  ~Level() {
    --interpreter_->level_;
    interpreter_->calls_ -= is_call_ ? 1 : 0;
  }
  Level(const Level&) = delete;
  Level& operator=(const Level&) = delete;

  absl::Status Check() const {
    const int max_calls = interpreter_->runtime_->limits().max_depth;
    if (interpreter_->level_ > kDeepestLevel || interpreter_->calls_ > max_calls) {
      return absl::InvalidArgumentError(
          absl::StrCat("calls are nested too deeply (more than ", max_calls, ")"));
    }
    return interpreter_->runtime_->Spend(1);
  }

 private:
  Interpreter* interpreter_;
  const bool is_call_;
};

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_INTERPRETER_LEVEL_H_
