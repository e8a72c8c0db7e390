// Filters that apply a filter or a test to every item: map, select, reject, selectattr, rejectattr.
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/sort_keys.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// What these filters go over. Anything that is false (None too) is nothing, as in Jinja.
absl::StatusOr<const std::vector<Value>*> Items(const Value& input, Runtime* runtime) {
  return Iterate(IsTrue(input) ? input : Value(), runtime);
}

// The arguments after the first `count`, for the filter or test that they name.
CallArguments Rest(const CallArguments& arguments, size_t count) {
  CallArguments rest;
  rest.positional.assign(arguments.positional.begin() + count, arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Result MapAttribute(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  for (const auto& [name, value] : arguments.named) {
    if (name == "attribute" || name == "default") continue;
    return absl::InvalidArgumentError(absl::StrCat("map: unexpected argument '", name, "'"));
  }
  const AttributePath path(arguments.FindNamed("attribute"), runtime,
                           arguments.FindNamed("default"));
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Items(input, runtime));
  std::vector<Value> mapped;
  for (const Value& item : *items) {
    DT_ASSIGN_OR_RETURN(Value value, path.Get(item));
    mapped.push_back(std::move(value));
  }
  return runtime->List(std::move(mapped), ListKind::kGenerator);
}

Result MapFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  if (arguments.positional.empty()) {
    if (arguments.FindNamed("attribute") == nullptr) {
      return absl::InvalidArgumentError("map: needs a filter or an attribute");
    }
    return MapAttribute(input, arguments, runtime);
  }
  const Value& name = arguments.positional[0];
  const FilterFunction filter = name.is_string() ? FindFilter(name.text()) : nullptr;
  if (filter == nullptr) return absl::InvalidArgumentError("map: no such filter");
  const CallArguments rest = Rest(arguments, 1);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Items(input, runtime));
  std::vector<Value> mapped;
  for (const Value& item : *items) {
    DT_ASSIGN_OR_RETURN(Value value, filter(item, rest, runtime));
    mapped.push_back(std::move(value));
  }
  return runtime->List(std::move(mapped), ListKind::kGenerator);
}

// Items whose attribute (the first argument, if `kByAttribute`) passes the test that is named next,
// or is true if none is.
template <bool kByAttribute, bool kKeep>
Result SelectFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  constexpr size_t kTestAt = kByAttribute ? 1 : 0;
  if (arguments.positional.size() < kTestAt) {
    return absl::InvalidArgumentError("selectattr: needs the name of an attribute");
  }
  const AttributePath path(kByAttribute ? &arguments.positional[0] : nullptr, runtime);
  TestFunction test = nullptr;
  CallArguments rest;
  if (arguments.positional.size() > kTestAt) {
    const Value& name = arguments.positional[kTestAt];
    test = name.is_string() ? FindTest(name.text()) : nullptr;
    if (test == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("select: no test named '", name.is_string() ? name.text() : "", "'"));
    }
    rest = Rest(arguments, kTestAt + 1);
  }
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Items(input, runtime));
  std::vector<Value> selected;
  for (const Value& item : *items) {
    DT_ASSIGN_OR_RETURN(const Value value, path.Get(item));
    bool passes = IsTrue(value);
    if (test != nullptr) {
      DT_ASSIGN_OR_RETURN(passes, test(value, rest, runtime));
    }
    if (passes == kKeep) selected.push_back(item);
  }
  return runtime->List(std::move(selected), ListKind::kGenerator);
}

}  // namespace

FilterFunction FindSelectFilter(absl::string_view name) {
  if (name == "map") return MapFilter;
  if (name == "select") return SelectFilter<false, true>;
  if (name == "reject") return SelectFilter<false, false>;
  if (name == "selectattr") return SelectFilter<true, true>;
  if (name == "rejectattr") return SelectFilter<true, false>;
  return nullptr;
}

}  // namespace dovetail::model::jinja
