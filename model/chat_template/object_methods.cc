// Methods of dict, list, tuple and loop. Those that would change a value do not exist: a context is
// shared with the caller, and Hugging Face's sandbox refuses them too.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result DictGet(const Value& self, const CallArguments& arguments, Runtime*) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "get", {"key", "default"}, 1));
  DT_RETURN_IF_ERROR(CheckKey(*bound[0]));
  if (const Value* found = self.dict()->Find(*bound[0])) return *found;
  return bound[1] == nullptr ? Value::None() : *bound[1];
}

enum class Part { kKeys, kValues, kItems };

template <Part kPart>
Result DictView(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "dict method", {}, 0).status());
  const auto& entries = self.dict()->entries;
  const auto count = static_cast<int64_t>(entries.size());
  DT_RETURN_IF_ERROR(runtime->Spend(count));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(count * 6 * kValueBytes));
  std::vector<Value> items;
  items.reserve(entries.size());
  for (const auto& [key, value] : entries) {
    switch (kPart) {
      case Part::kKeys:
        items.push_back(key);
        break;
      case Part::kValues:
        items.push_back(value);
        break;
      case Part::kItems:
        items.push_back(runtime->List({key, value}, ListKind::kTuple));
        break;
    }
  }
  return runtime->List(std::move(items), ListKind::kDictView);
}

Result Copy(const Value& self, const CallArguments& arguments, Runtime*) {
  DT_RETURN_IF_ERROR(BindArguments(arguments, "copy", {}, 0).status());
  return self;  // values do not change, so one is as good as two
}

Result ListIndex(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "index", {"value"}, 1));
  const auto& items = self.list()->items;
  for (size_t i = 0; i < items.size(); ++i) {
    DT_ASSIGN_OR_RETURN(const bool same, Equal(items[i], *bound[0], runtime));
    if (same) return Value::Int(static_cast<int64_t>(i));
  }
  return absl::InvalidArgumentError("the value is not in the list");
}

Result ListCount(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "count", {"value"}, 1));
  int64_t count = 0;
  for (const Value& item : self.list()->items) {
    DT_ASSIGN_OR_RETURN(const bool same, Equal(item, *bound[0], runtime));
    count += same;
  }
  return Value::Int(count);
}

Result LoopCycle(const Value& self, const CallArguments& arguments, Runtime*) {
  const auto& values = arguments.positional;
  if (values.empty()) return absl::InvalidArgumentError("no items for cycling given");
  return values[self.loop()->index0 % static_cast<int64_t>(values.size())];
}

Result LoopChanged(const Value& self, const CallArguments& arguments, Runtime* runtime) {
  LoopObject* loop = self.loop();
  bool same = loop->has_changed && loop->last_changed.size() == arguments.positional.size();
  for (size_t i = 0; same && i < arguments.positional.size(); ++i) {
    DT_ASSIGN_OR_RETURN(same, Equal(loop->last_changed[i], arguments.positional[i], runtime));
  }
  loop->has_changed = true;
  loop->last_changed = arguments.positional;
  return Value::Bool(!same);
}

}  // namespace

MethodFunction FindMethod(const Value& value, absl::string_view name) {
  switch (value.kind()) {
    case Kind::kString:
      return FindStringMethod(name);
    case Kind::kDict:
      if (name == "get") return DictGet;
      if (name == "items") return DictView<Part::kItems>;
      if (name == "keys") return DictView<Part::kKeys>;
      if (name == "values") return DictView<Part::kValues>;
      if (name == "copy") return Copy;
      return nullptr;
    case Kind::kList:
      if (value.list()->list_kind > ListKind::kRange) return nullptr;
      if (name == "index") return ListIndex;
      if (name == "count") return ListCount;
      if (name == "copy" && value.list()->list_kind == ListKind::kList) return Copy;
      return nullptr;
    case Kind::kLoop:
      if (name == "cycle") return LoopCycle;
      if (name == "changed") return LoopChanged;
      return nullptr;
    default:
      return nullptr;
  }
}

}  // namespace dovetail::model::jinja
