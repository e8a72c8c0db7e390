// Filters that take a sequence as a whole.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/sort_keys.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result LengthFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  switch (input.kind()) {
    case Kind::kUndefined:
      return Value::Int(0);
    case Kind::kString:
      DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(input.text().size()) / 64));
      return Value::Int(CodePointCount(input.text()));
    case Kind::kDict:
      return Value::Int(static_cast<int64_t>(input.dict()->entries.size()));
    case Kind::kList:
      if (input.list()->list_kind == ListKind::kGenerator) break;
      return Value::Int(static_cast<int64_t>(input.list()->items.size()));
    default:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("object of type '", TypeName(input), "' has no len()"));
}

Result ListFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  DT_RETURN_IF_ERROR(runtime->CheckRoom(static_cast<int64_t>(items->size()) * kValueBytes));
  return runtime->List(*items);
}

Result FirstFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  return items->empty() ? Value() : items->front();
}

Result LastFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  if (input.kind() == Kind::kList && input.list()->list_kind == ListKind::kGenerator) {
    return absl::InvalidArgumentError("'generator' object is not reversible");
  }
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  return items->empty() ? Value() : items->back();
}

Result ReverseFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  std::vector<Value> reversed(items->rbegin(), items->rend());
  if (!input.is_string()) return runtime->List(std::move(reversed), ListKind::kGenerator);
  std::string text;
  for (const Value& character : reversed) text += character.text();
  return runtime->String(std::move(text));
}

Result JoinFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "join", {"d", "attribute"}, 0));
  std::string separator;
  if (bound[0] != nullptr) {
    DT_ASSIGN_OR_RETURN(separator, ToText(*bound[0], runtime));
  }
  const AttributePath path(bound[1], runtime);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  std::string out;
  for (size_t i = 0; i < items->size(); ++i) {
    DT_ASSIGN_OR_RETURN(const Value item, path.Get((*items)[i]));
    DT_ASSIGN_OR_RETURN(const std::string text, ToText(item, runtime));
    if (i > 0) out += separator;
    out += text;
    DT_RETURN_IF_ERROR(runtime->Spend(1 + static_cast<int64_t>(text.size()) / 64));
    DT_RETURN_IF_ERROR(runtime->CheckRoom(2 * static_cast<int64_t>(out.size())));
  }
  return runtime->String(std::move(out));
}

Result ItemsFilter(const Value& input, const CallArguments&, Runtime* runtime) {
  if (input.is_undefined()) return runtime->List({}, ListKind::kGenerator);
  if (input.kind() != Kind::kDict) {
    return absl::InvalidArgumentError("Can only get item pairs from a mapping.");
  }
  DT_ASSIGN_OR_RETURN(const Value pairs, FindMethod(input, "items")(input, {}, runtime));
  return runtime->List(pairs.list()->items, ListKind::kGenerator);
}

Result SortFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, "sort", {"reverse", "case_sensitive", "attribute"}, 0));
  const AttributePath path(bound[2], runtime);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  DT_ASSIGN_OR_RETURN(std::vector<KeyedItem> keyed,
                      MakeKeys(*items, path, TruthOr(bound[1], false), runtime));
  DT_RETURN_IF_ERROR(SortByKey(TruthOr(bound[0], false), runtime, &keyed));
  std::vector<Value> sorted;
  for (KeyedItem& item : keyed) sorted.push_back(std::move(item.value));
  return runtime->List(std::move(sorted));
}

Result DictSortFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "dictsort", {"case_sensitive", "by", "reverse"}, 0));
  if (input.kind() != Kind::kDict) {
    return absl::InvalidArgumentError(
        absl::StrCat("dictsort: '", TypeName(input), "' object is no mapping"));
  }
  DT_ASSIGN_OR_RETURN(const std::string by, StringOr(bound[1], "key", "by"));
  if (by != "key" && by != "value") {
    return absl::InvalidArgumentError("dictsort: 'by' must be 'key' or 'value'");
  }
  DT_ASSIGN_OR_RETURN(const Value pairs, FindMethod(input, "items")(input, {}, runtime));
  const Value index = Value::Int(by == "key" ? 0 : 1);
  const AttributePath path(&index, runtime);
  DT_ASSIGN_OR_RETURN(std::vector<KeyedItem> keyed,
                      MakeKeys(pairs.list()->items, path, TruthOr(bound[0], false), runtime));
  DT_RETURN_IF_ERROR(SortByKey(TruthOr(bound[2], false), runtime, &keyed));
  std::vector<Value> sorted;
  for (KeyedItem& item : keyed) sorted.push_back(std::move(item.value));
  return runtime->List(std::move(sorted));
}

Result UniqueFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "unique", {"case_sensitive", "attribute"}, 0));
  const AttributePath path(bound[1], runtime);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  DT_ASSIGN_OR_RETURN(const std::vector<KeyedItem> keyed,
                      MakeKeys(*items, path, TruthOr(bound[0], false), runtime));
  std::vector<Value> unique;
  std::vector<const Value*> seen;
  for (const KeyedItem& item : keyed) {
    bool is_new = true;
    for (size_t i = 0; i < seen.size() && is_new; ++i) {
      DT_ASSIGN_OR_RETURN(const bool same, Equal(*seen[i], item.key, runtime));
      is_new = !same;
    }
    if (!is_new) continue;
    seen.push_back(&item.key);
    unique.push_back(item.value);
  }
  return runtime->List(std::move(unique), ListKind::kGenerator);
}

template <bool kMax>
Result ExtremeFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, kMax ? "max" : "min",
                                                      {"case_sensitive", "attribute"}, 0));
  const AttributePath path(bound[1], runtime);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  DT_ASSIGN_OR_RETURN(const std::vector<KeyedItem> keyed,
                      MakeKeys(*items, path, TruthOr(bound[0], false), runtime));
  const KeyedItem* best = nullptr;
  for (const KeyedItem& item : keyed) {
    if (best == nullptr) {
      best = &item;
      continue;
    }
    DT_ASSIGN_OR_RETURN(const int order, Compare(item.key, best->key, kMax ? ">" : "<", runtime));
    if (kMax ? order > 0 : order < 0) best = &item;
  }
  return best == nullptr ? Value() : best->value;
}

Result SumFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "sum", {"attribute", "start"}, 0));
  const AttributePath path(bound[0], runtime);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  Value sum = bound[1] == nullptr ? Value::Int(0) : *bound[1];
  for (const Value& item : *items) {
    DT_ASSIGN_OR_RETURN(const Value value, path.Get(item));
    DT_ASSIGN_OR_RETURN(sum, Calculate(Operator::kAdd, sum, value, runtime));
  }
  return sum;
}

Result BatchFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound,
                      BindArguments(arguments, "batch", {"linecount", "fill_with"}, 1));
  DT_ASSIGN_OR_RETURN(const int64_t size, IntegerOr(bound[0], 1, "linecount"));
  if (size < 1) return absl::InvalidArgumentError("batch: linecount must be positive");
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  std::vector<Value> batches;
  for (size_t at = 0; at < items->size(); at += size) {
    const size_t end = std::min<size_t>(items->size(), at + size);
    std::vector<Value> batch(items->begin() + at, items->begin() + end);
    if (bound[1] != nullptr && !bound[1]->is_none()) {
      DT_RETURN_IF_ERROR(runtime->CheckRoom(size * kValueBytes));
      batch.resize(size, *bound[1]);
    }
    batches.push_back(runtime->List(std::move(batch)));
  }
  return runtime->List(std::move(batches), ListKind::kGenerator);
}

Result GroupByFilter(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(
      const auto bound,
      BindArguments(arguments, "groupby", {"attribute", "default", "case_sensitive"}, 1));
  const AttributePath path(bound[0], runtime, bound[1]);
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(input, runtime));
  DT_ASSIGN_OR_RETURN(std::vector<KeyedItem> keyed,
                      MakeKeys(*items, path, TruthOr(bound[2], false), runtime));
  DT_RETURN_IF_ERROR(SortByKey(false, runtime, &keyed));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    for (; end < keyed.size(); ++end) {
      DT_ASSIGN_OR_RETURN(const bool same, Equal(keyed[begin].key, keyed[end].key, runtime));
      if (!same) break;
      members.push_back(keyed[end].value);
    }
    DT_ASSIGN_OR_RETURN(const Value key, path.Get(keyed[begin].value));
    groups.push_back(runtime->List({key, runtime->List(std::move(members))}, ListKind::kTuple));
    begin = end;
  }
  return runtime->List(std::move(groups));
}

constexpr NamedFilter kFilters[] = {
    {"batch", BatchFilter},     {"count", LengthFilter},      {"dictsort", DictSortFilter},
    {"first", FirstFilter},     {"groupby", GroupByFilter},   {"items", ItemsFilter},
    {"join", JoinFilter},       {"last", LastFilter},         {"length", LengthFilter},
    {"list", ListFilter},       {"max", ExtremeFilter<true>}, {"min", ExtremeFilter<false>},
    {"reverse", ReverseFilter}, {"sort", SortFilter},         {"sum", SumFilter},
    {"unique", UniqueFilter},
};

}  // namespace

FilterFunction FindSequenceFilter(absl::string_view name) {
  for (const NamedFilter& filter : kFilters) {
    if (filter.name == name) return filter.function;
  }
  return nullptr;
}

}  // namespace dovetail::model::jinja
