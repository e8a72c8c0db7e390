// Runtime: what one Render() may use up, and what it owns: steps, memory, containers, the clock.
//
// One per Render(), one thread. Everything that can grow asks first: a template in a model file may
// be written to hurt.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_RUNTIME_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_RUNTIME_H_

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat_template/chat_template.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

class Runtime {
 public:
  Runtime(const TemplateLimits& limits, std::time_t now) : limits_(limits), now_(now) {}

  const TemplateLimits& limits() const { return limits_; }
  std::time_t now() const { return now_; }

  // Counts `steps` of work; an error once there were too many, or too much memory is in use.
  absl::Status Spend(int64_t steps);
  // An error if `bytes` more would be too much. To be asked before building something large.
  absl::Status CheckRoom(int64_t bytes) const;

  Value String(std::string text) { return MakeString(std::move(text), false); }
  Value String(absl::string_view text) { return MakeString(std::string(text), false); }
  Value String(const char* text) { return MakeString(text, false); }
  Value Markup(std::string text) { return MakeString(std::move(text), true); }
  Value MakeString(std::string text, bool is_markup) {
    return Value::String(std::make_shared<const StringData>(std::move(text), is_markup, memory_));
  }

  Value List(std::vector<Value> items, ListKind kind = ListKind::kList);
  template <typename T>
  T* New() {
    auto object = std::make_unique<T>();
    T* result = object.get();
    objects_.push_back(std::move(object));
    memory_->bytes += static_cast<int64_t>(sizeof(T)) + 16;
    return result;
  }
  // Accounts for what a container has grown by.
  void AddBytes(int64_t bytes) { memory_->bytes += bytes; }

 private:
  const TemplateLimits limits_;
  const std::time_t now_;
  int64_t steps_ = 0;
  std::shared_ptr<MemoryUse> memory_ = std::make_shared<MemoryUse>();
  std::vector<std::unique_ptr<Object>> objects_;
};

inline constexpr int64_t kValueBytes = sizeof(Value);

// The items of anything that can be iterated: a list's own, a dict's keys, a string's characters.
// A generator is used up. TypeError for the rest.
absl::StatusOr<const std::vector<Value>*> Iterate(const Value& value, Runtime* runtime);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_RUNTIME_H_
