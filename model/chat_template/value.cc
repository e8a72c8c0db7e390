#include "model/chat_template/value.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "model/chat_template/runtime.h"

namespace dovetail::model::jinja {
namespace {

constexpr int kDeepestComparison = 100;
constexpr size_t kSmallDict = 8;

absl::StatusOr<bool> EqualAt(const Value& a, const Value& b, int depth, Runtime* runtime);

absl::StatusOr<bool> ListsEqual(const ListObject& a, const ListObject& b, int depth,
                                Runtime* runtime) {
  if (&a == &b) return true;
  if (a.list_kind != b.list_kind || a.items.size() != b.items.size()) return false;
  if (a.list_kind == ListKind::kGenerator) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    DT_ASSIGN_OR_RETURN(const bool same, EqualAt(a.items[i], b.items[i], depth + 1, runtime));
    if (!same) return false;
  }
  return true;
}

absl::StatusOr<bool> DictsEqual(const DictObject& a, const DictObject& b, int depth,
                                Runtime* runtime) {
  if (&a == &b) return true;
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    DT_ASSIGN_OR_RETURN(const bool same, EqualAt(value, *other, depth + 1, runtime));
    if (!same) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualAt(const Value& a, const Value& b, int depth, Runtime* runtime) {
  if (depth > kDeepestComparison) {
    return absl::InvalidArgumentError("comparison of values that are nested too deeply");
  }
  if (runtime != nullptr) {
    const int64_t bytes = a.is_string() ? static_cast<int64_t>(a.text().size()) : 0;
    DT_RETURN_IF_ERROR(runtime->Spend(1 + bytes / 256));
  }
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) return a.integer() == b.integer();
    return a.number() == b.number();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString:
      return a.text() == b.text();
    case Kind::kList:
      return ListsEqual(*a.list(), *b.list(), depth, runtime);
    case Kind::kDict:
      return DictsEqual(*a.dict(), *b.dict(), depth, runtime);
    default:
      return a.object() == b.object();
  }
}

absl::StatusOr<int> CompareAt(const Value& a, const Value& b, absl::string_view op, int depth,
                              Runtime* runtime) {
  if (depth > kDeepestComparison) {
    return absl::InvalidArgumentError("comparison of values that are nested too deeply");
  }
  for (const Value* value : {&a, &b}) {
    if (value->is_undefined()) return absl::InvalidArgumentError(value->UndefinedReason());
  }
  if (a.is_number() && b.is_number()) {
    if (a.is_integral() && b.is_integral()) {
      return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
    }
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (a.is_string() && b.is_string()) return a.text().compare(b.text());
  const bool lists = a.kind() == Kind::kList && b.kind() == Kind::kList &&
                     a.list()->list_kind == b.list()->list_kind &&
                     a.list()->list_kind <= ListKind::kTuple;
  if (!lists) {
    return absl::InvalidArgumentError(absl::StrCat("'", op,
                                                   "' not supported between instances of '",
                                                   TypeName(a), "' and '", TypeName(b), "'"));
  }
  const std::vector<Value>& left = a.list()->items;
  const std::vector<Value>& right = b.list()->items;
  for (size_t i = 0; i < left.size() && i < right.size(); ++i) {
    DT_ASSIGN_OR_RETURN(const bool same, EqualAt(left[i], right[i], depth + 1, runtime));
    if (!same) return CompareAt(left[i], right[i], op, depth + 1, runtime);
  }
  return left.size() < right.size() ? -1 : left.size() > right.size();
}

}  // namespace

StringData::StringData(std::string text_in, bool markup, std::shared_ptr<MemoryUse> use_in)
    : text(std::move(text_in)), is_markup(markup), use(std::move(use_in)) {
  if (use != nullptr) use->bytes += static_cast<int64_t>(text.capacity() + sizeof(StringData));
}

StringData::~StringData() {
  if (use != nullptr) use->bytes -= static_cast<int64_t>(text.capacity() + sizeof(StringData));
}

Value Value::Of(ListObject* list) { return Value(Kind::kList, list); }
Value Value::Of(DictObject* dict) { return Value(Kind::kDict, dict); }
Value Value::Of(NamespaceObject* ns) { return Value(Kind::kNamespace, ns); }
Value Value::Of(CallableObject* callable) { return Value(Kind::kCallable, callable); }
Value Value::Of(LoopObject* loop) { return Value(Kind::kLoop, loop); }

Value Value::Bool(bool b) {
  Value value(Kind::kBool);
  value.data_.integer = b ? 1 : 0;
  return value;
}

Value Value::Int(int64_t i) {
  Value value(Kind::kInt);
  value.data_.integer = i;
  return value;
}

Value Value::Float(double d) {
  Value value(Kind::kFloat);
  value.data_.number = d;
  return value;
}

Value Value::String(std::shared_ptr<const StringData> data) {
  Value value(Kind::kString);
  value.text_ = std::move(data);
  return value;
}

Value Value::Literal(std::string text) {
  return String(std::make_shared<const StringData>(std::move(text), false, nullptr));
}

Value Value::Undefined(const Value& name, Kind owner) {
  Value value;
  value.owner_ = owner;
  value.text_ = name.text_;
  return value;
}

double Value::number() const {
  return kind_ == Kind::kFloat ? data_.number : static_cast<double>(data_.integer);
}

ListObject* Value::list() const {
  DT_CHECK(kind_ == Kind::kList);
  return static_cast<ListObject*>(data_.object);
}
DictObject* Value::dict() const {
  DT_CHECK(kind_ == Kind::kDict);
  return static_cast<DictObject*>(data_.object);
}
NamespaceObject* Value::ns() const {
  DT_CHECK(kind_ == Kind::kNamespace);
  return static_cast<NamespaceObject*>(data_.object);
}
CallableObject* Value::callable() const {
  DT_CHECK(kind_ == Kind::kCallable);
  return static_cast<CallableObject*>(data_.object);
}
LoopObject* Value::loop() const {
  DT_CHECK(kind_ == Kind::kLoop);
  return static_cast<LoopObject*>(data_.object);
}

std::string Value::UndefinedReason() const {
  if (text_ == nullptr) return "a value is undefined";
  const std::string name = text_->text.substr(0, 200);
  if (owner_ == Kind::kUndefined) return absl::StrCat("'", name, "' is undefined");
  return absl::StrCat("'", TypeName(Value(owner_)), " object' has no attribute '", name, "'");
}

const Value* CallArguments::FindNamed(absl::string_view name) const {
  for (const auto& [key, value] : named) {
    if (key == name) return &value;
  }
  return nullptr;
}

int64_t DictObject::FindIndex(const Value& key) const {
  if (key.is_string() && entries.size() > kSmallDict) {
    const auto found = index_.find(key.text());
    return found == index_.end() ? -1 : static_cast<int64_t>(found->second);
  }
  for (size_t i = 0; i < entries.size(); ++i) {
    const absl::StatusOr<bool> same = Equal(entries[i].first, key, nullptr);
    if (same.ok() && *same) return static_cast<int64_t>(i);
  }
  return -1;
}

const Value* DictObject::Find(const Value& key) const {
  const int64_t at = FindIndex(key);
  return at < 0 ? nullptr : &entries[at].second;
}

const Value* DictObject::Find(absl::string_view key) const {
  if (entries.size() > kSmallDict) {
    const auto found = index_.find(key);
    return found == index_.end() ? nullptr : &entries[found->second].second;
  }
  for (const auto& [name, value] : entries) {
    if (name.is_string() && name.text() == key) return &value;
  }
  return nullptr;
}

void DictObject::Set(const Value& key, Value value) {
  if (const int64_t at = FindIndex(key); at >= 0) {
    entries[at].second = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
  if (entries.size() <= kSmallDict) return;
  // The first time there are many, the earlier ones are indexed too.
  const size_t from = entries.size() == kSmallDict + 1 ? 0 : entries.size() - 1;
  for (size_t i = from; i < entries.size(); ++i) {
    const Value& name = entries[i].first;
    if (name.is_string()) index_.try_emplace(name.text(), static_cast<uint32_t>(i));
  }
}

absl::string_view TypeName(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      break;
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kCallable:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
  }
  if (value.object() == nullptr) return "list";  // the owner of something undefined
  switch (value.list()->list_kind) {
    case ListKind::kList:
      return "list";
    case ListKind::kTuple:
      return "tuple";
    case ListKind::kRange:
      return "range";
    case ListKind::kGenerator:
      return "generator";
    case ListKind::kDictView:
      return "dict_view";
  }
  return "list";
}

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.integer() != 0;
    case Kind::kFloat:
      return value.number() != 0;
    case Kind::kString:
      return !value.text().empty();
    case Kind::kList:
      return value.list()->list_kind == ListKind::kGenerator || !value.list()->items.empty();
    case Kind::kDict:
      return !value.dict()->entries.empty();
    default:
      return true;
  }
}

absl::StatusOr<bool> Equal(const Value& a, const Value& b, Runtime* runtime) {
  return EqualAt(a, b, 0, runtime);
}

absl::StatusOr<int> Compare(const Value& a, const Value& b, absl::string_view op,
                            Runtime* runtime) {
  return CompareAt(a, b, op, 0, runtime);
}

}  // namespace dovetail::model::jinja
