// Value: what a template computes with: Jinja's undefined and Python's None, bool, int, float, str,
// list, tuple, dict, and the few objects that templates make (namespace, loop, macros).
//
// Containers belong to the Runtime of one Render() and live until it ends, so that cycles cost
// nothing; a Value only points at them. Strings are shared and immutable. Integers are 64 bits, and
// what does not fit is an error. Not thread-safe: one Render() is one thread.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dovetail::model::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,  // and tuple, range, generator, dict view: see ListKind
  kDict,
  kNamespace,
  kCallable,
  kLoop,
};

// The bytes of all strings that are alive, counted against the memory limit.
struct MemoryUse {
  int64_t bytes = 0;
};

struct StringData {
  StringData(std::string text, bool is_markup, std::shared_ptr<MemoryUse> use);
  ~StringData();
  StringData(const StringData&) = delete;
  StringData& operator=(const StringData&) = delete;

  const std::string text;
  const bool is_markup;                  // marked safe: "+" escapes what is added to it
  const std::shared_ptr<MemoryUse> use;  // null for the template's own strings
};

class Runtime;

struct Object {
  virtual ~Object() = default;
};
struct ListObject;
struct DictObject;
struct NamespaceObject;
struct CallableObject;
struct LoopObject;

class Value {
 public:
  Value() = default;  // undefined
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool b);
  static Value Int(int64_t i);
  static Value Float(double d);
  static Value String(std::shared_ptr<const StringData> data);
  static Value Of(ListObject* list);
  static Value Of(DictObject* dict);
  static Value Of(NamespaceObject* ns);
  static Value Of(CallableObject* callable);
  static Value Of(LoopObject* loop);
  // A string of the template itself, outside of any Runtime.
  static Value Literal(std::string text);
  // Undefined with a reason: `name` was looked up in a value of kind `owner`; for a variable, the
  // owner is kUndefined.
  static Value Undefined(const Value& name, Kind owner);

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_number() const {
    return kind_ == Kind::kBool || kind_ == Kind::kInt || kind_ == Kind::kFloat;
  }
  // bool counts as an integer, as in Python.
  bool is_integral() const { return kind_ == Kind::kBool || kind_ == Kind::kInt; }

  bool boolean() const { return data_.integer != 0; }
  int64_t integer() const { return data_.integer; }  // of kBool and kInt
  double number() const;                             // of any number
  const std::string& text() const { return text_->text; }
  bool is_markup() const { return is_string() && text_->is_markup; }
  ListObject* list() const;
  DictObject* dict() const;
  NamespaceObject* ns() const;
  CallableObject* callable() const;
  LoopObject* loop() const;
  const Object* object() const { return data_.object; }

  // Why it is undefined: "'x' is undefined", "'dict object' has no attribute 'y'".
  std::string UndefinedReason() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Value(Kind kind, Object* object) : kind_(kind) { data_.object = object; }

  Kind kind_ = Kind::kUndefined;
  Kind owner_ = Kind::kUndefined;
  union {
    int64_t integer;
    double number;
    Object* object;
  } data_ = {0};
  std::shared_ptr<const StringData> text_;  // of strings; the name of what is undefined
};

enum class ListKind : uint8_t { kList, kTuple, kRange, kGenerator, kDictView };

struct ListObject : Object {
  ListKind list_kind = ListKind::kList;
  std::vector<Value> items;
  bool used_up = false;  // a generator gives its items once
};

// Keeps the order of insertion. Keys are strings, numbers, None or tuples of these.
struct DictObject : Object {
  std::vector<std::pair<Value, Value>> entries;

  const Value* Find(const Value& key) const;  // nullptr where absent
  const Value* Find(absl::string_view key) const;
  void Set(const Value& key, Value value);

 private:
  int64_t FindIndex(const Value& key) const;
  absl::flat_hash_map<std::string, uint32_t> index_;  // of string keys, once there are many
};

struct NamespaceObject : Object {
  DictObject values;
};

struct CallArguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* FindNamed(absl::string_view name) const;
};

struct CallableObject : Object {
  std::string name;
  std::function<absl::StatusOr<Value>(const CallArguments&)> call;
};

struct LoopObject : Object {
  const std::vector<Value>* items = nullptr;
  int64_t index0 = 0;
  int64_t depth0 = 0;
  std::vector<Value> last_changed;
  bool has_changed = false;
  CallableObject* recurse = nullptr;  // of "recursive" loops
};

// Python's type name: "str", "NoneType", "dict".
absl::string_view TypeName(const Value& value);
bool IsTrue(const Value& value);

// ==, as Python has it: 1 == 1.0 == True. The steps are counted by `runtime`, which may be null for
// values that are known to be small. An error where values nest too deeply.
absl::StatusOr<bool> Equal(const Value& a, const Value& b, Runtime* runtime);
// <0, 0, >0; an error for types without an order. `op` is for its message.
absl::StatusOr<int> Compare(const Value& a, const Value& b, absl::string_view op, Runtime* runtime);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_VALUE_H_
