// Global functions: Jinja's range, dict and namespace, Hugging Face's raise_exception and
// strftime_now.
#include <ctime>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/value_text.h"
#include "model/tokenizer/utf8.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

constexpr int64_t kLongestRange = 100'000;  // Jinja's sandbox refuses more

Result Range(const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "range", {"a", "b", "step"}, 1));
  const bool has_start = bound[1] != nullptr;
  DT_ASSIGN_OR_RETURN(const int64_t first, IntegerOr(bound[0], 0, "start"));
  DT_ASSIGN_OR_RETURN(const int64_t second, IntegerOr(bound[1], 0, "stop"));
  DT_ASSIGN_OR_RETURN(const int64_t step, IntegerOr(bound[2], 1, "step"));
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  const int64_t start = has_start ? first : 0;
  const int64_t stop = has_start ? second : first;
  std::vector<Value> items;
  for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
    if (static_cast<int64_t>(items.size()) >= kLongestRange) {
      return absl::InvalidArgumentError(
          absl::StrCat("range of more than ", kLongestRange, " numbers"));
    }
    items.push_back(Value::Int(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(items.size())));
  return runtime->List(std::move(items), ListKind::kRange);
}

// dict(mapping or pairs, **named)
absl::Status FillDict(const CallArguments& arguments, Runtime* runtime, DictObject* dict) {
  if (arguments.positional.size() > 1) {
    return absl::InvalidArgumentError("dict expected at most 1 argument");
  }
  const auto set = [&](const Value& key, const Value& value) -> absl::Status {
    DT_RETURN_IF_ERROR(CheckKey(key));
    DT_RETURN_IF_ERROR(
        runtime->Spend(key.is_string() ? 1 : 1 + static_cast<int64_t>(dict->entries.size())));
    runtime->AddBytes(4 * kValueBytes);
    dict->Set(key, value);
    return absl::OkStatus();
  };
  if (!arguments.positional.empty()) {
    const Value& source = arguments.positional[0];
    if (source.kind() == Kind::kDict) {
      for (const auto& [key, value] : source.dict()->entries) DT_RETURN_IF_ERROR(set(key, value));
    } else {
      DT_ASSIGN_OR_RETURN(const std::vector<Value>* pairs, Iterate(source, runtime));
      for (const Value& pair : *pairs) {
        DT_ASSIGN_OR_RETURN(const std::vector<Value>* parts, Iterate(pair, runtime));
        if (parts->size() != 2) return absl::InvalidArgumentError("dict() needs pairs");
        DT_RETURN_IF_ERROR(set((*parts)[0], (*parts)[1]));
      }
    }
  }
  for (const auto& [name, value] : arguments.named) {
    DT_RETURN_IF_ERROR(set(runtime->String(name), value));
  }
  return absl::OkStatus();
}

Result Dict(const CallArguments& arguments, Runtime* runtime) {
  auto* dict = runtime->New<DictObject>();
  DT_RETURN_IF_ERROR(FillDict(arguments, runtime, dict));
  return Value::Of(dict);
}

Result Namespace(const CallArguments& arguments, Runtime* runtime) {
  auto* ns = runtime->New<NamespaceObject>();
  DT_RETURN_IF_ERROR(FillDict(arguments, runtime, &ns->values));
  return Value::Of(ns);
}

Result RaiseException(const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "raise_exception", {"message"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string message, ToText(*bound[0], runtime));
  return absl::InvalidArgumentError(message);
}

Result StrftimeNow(const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "strftime_now", {"format"}, 1));
  DT_ASSIGN_OR_RETURN(const std::string format, StringOr(bound[0], "", "format"));
  if (format.size() > 1000) return absl::InvalidArgumentError("strftime_now: format too long");
  const std::time_t now = runtime->now();
  std::tm local{};
  localtime_r(&now, &local);
  std::string out(format.size() * 64 + 64, '\0');
  out.resize(std::strftime(out.data(), out.size(), format.c_str(), &local));
  if (FindInvalidUtf8(out) != absl::string_view::npos) {
    return absl::InvalidArgumentError("strftime_now: the result is not UTF-8");
  }
  return runtime->String(std::move(out));
}

}  // namespace

GlobalFunction FindGlobal(absl::string_view name) {
  if (name == "range") return Range;
  if (name == "dict") return Dict;
  if (name == "namespace") return Namespace;
  if (name == "raise_exception") return RaiseException;
  if (name == "strftime_now") return StrftimeNow;
  return nullptr;
}

}  // namespace dovetail::model::jinja
