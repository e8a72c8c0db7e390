#include "model/chat_template/context.h"

#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/tokenizer/utf8.h"
#include "nlohmann/json.hpp"

namespace dovetail::model::jinja {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kDeepestJson = 64;

absl::StatusOr<Value> MakeString(const std::string& text, Runtime* runtime) {
  if (FindInvalidUtf8(text) != absl::string_view::npos) {
    return absl::InvalidArgumentError("a string is not valid UTF-8");
  }
  DT_RETURN_IF_ERROR(runtime->CheckRoom(static_cast<int64_t>(text.size())));
  return runtime->String(text);
}

absl::StatusOr<Value> Convert(const Json& json, int depth, Runtime* runtime) {
  if (depth > kDeepestJson) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kDeepestJson, " levels of nesting"));
  }
  DT_RETURN_IF_ERROR(runtime->Spend(1));
  switch (json.type()) {
    case Json::value_t::null:
      return Value::None();
    case Json::value_t::boolean:
      return Value::Bool(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::Int(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return absl::InvalidArgumentError("an integer of more than 63 bits");
      }
      return Value::Int(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::Float(json.get<double>());
    case Json::value_t::string:
      return MakeString(json.get_ref<const std::string&>(), runtime);
    case Json::value_t::array: {
      std::vector<Value> items;
      items.reserve(json.size());
      for (const Json& item : json) {
        DT_ASSIGN_OR_RETURN(Value value, Convert(item, depth + 1, runtime));
        items.push_back(std::move(value));
      }
      return runtime->List(std::move(items));
    }
    case Json::value_t::object: {
      auto* dict = runtime->New<DictObject>();
      for (const auto& [name, item] : json.items()) {
        DT_ASSIGN_OR_RETURN(const Value key, MakeString(name, runtime));
        DT_ASSIGN_OR_RETURN(Value value, Convert(item, depth + 1, runtime));
        dict->Set(key, std::move(value));
        runtime->AddBytes(4 * kValueBytes);
      }
      return Value::Of(dict);
    }
    default:
      return absl::InvalidArgumentError("a value of an unknown kind");
  }
}

}  // namespace

absl::StatusOr<std::vector<Value>> MakeContext(const Json& context, const NameTable& names,
                                               Runtime* runtime) {
  std::vector<Value> values(names.size());
  if (!context.is_object()) {
    return absl::InvalidArgumentError("the context of a chat template must be an object");
  }
  for (const auto& [name, item] : context.items()) {
    const NameId id = names.Find(name);
    if (id < 0) continue;
    absl::StatusOr<Value> value = Convert(item, 0, runtime);
    if (!value.ok()) return Annotate(value.status(), absl::StrCat("chat template: ", name));
    values[id] = *std::move(value);
  }
  return values;
}

}  // namespace dovetail::model::jinja
