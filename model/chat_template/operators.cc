#include "model/chat_template/operators.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/status_macros.h"
#include "model/chat_template/access.h"
#include "model/chat_template/builtins.h"

namespace dovetail::model::jinja {
namespace {

absl::Status TooLarge() { return absl::InvalidArgumentError("an integer of more than 64 bits"); }

absl::Status Unsupported(Operator op, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) return absl::InvalidArgumentError(value->UndefinedReason());
  }
  return absl::InvalidArgumentError(absl::StrCat("unsupported operand types for ", OperatorText(op),
                                                 ": '", TypeName(left), "' and '", TypeName(right),
                                                 "'"));
}

// Python rounds down where C rounds to zero.
int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) return Value::Float(std::pow(static_cast<double>(base), exponent));
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) return TooLarge();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return TooLarge();
  }
  return Value::Int(result);
}

absl::StatusOr<Value> CalculateIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  const bool divides =
      op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo;
  if (divides && b == 0) return absl::InvalidArgumentError("division by zero");
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    case Operator::kSubtract:
      if (__builtin_sub_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    case Operator::kMultiply:
      if (__builtin_mul_overflow(a, b, &result)) return TooLarge();
      return Value::Int(result);
    case Operator::kDivide:
      return Value::Float(static_cast<double>(a) / static_cast<double>(b));
    case Operator::kFloorDivide:
      if (b == -1) return CalculateIntegers(Operator::kSubtract, 0, a);
      return Value::Int(FloorDivide(a, b));
    case Operator::kModulo:
      return Value::Int(b == -1 ? 0 : a - FloorDivide(a, b) * b);
    default:
      return IntegerPower(a, b);
  }
}

absl::StatusOr<Value> CalculateFloats(Operator op, double a, double b) {
  const bool divides =
      op == Operator::kDivide || op == Operator::kFloorDivide || op == Operator::kModulo;
  if (divides && b == 0) return absl::InvalidArgumentError("float division by zero");
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kDivide:
      return Value::Float(a / b);
    case Operator::kFloorDivide:
      return Value::Float(std::floor(a / b));
    case Operator::kModulo: {
      const double remainder = std::fmod(a, b);
      return Value::Float(remainder != 0 && (remainder < 0) != (b < 0) ? remainder + b : remainder);
    }
    default:
      return Value::Float(std::pow(a, b));
  }
}

absl::StatusOr<Value> AddStrings(const Value& left, const Value& right, Runtime* runtime) {
  const auto size = static_cast<int64_t>(left.text().size() + right.text().size());
  DT_RETURN_IF_ERROR(runtime->CheckRoom(6 * size));
  DT_RETURN_IF_ERROR(runtime->Spend(size / 64));
  if (!left.is_markup() && !right.is_markup()) {
    return runtime->String(absl::StrCat(left.text(), right.text()));
  }
  const auto safe = [](const Value& value) {
    return value.is_markup() ? value.text() : EscapeHtml(value.text());
  };
  return runtime->Markup(absl::StrCat(safe(left), safe(right)));
}

absl::StatusOr<Value> AddLists(const Value& left, const Value& right, Runtime* runtime) {
  std::vector<Value> items = left.list()->items;
  const auto& more = right.list()->items;
  const auto size = static_cast<int64_t>(items.size() + more.size());
  DT_RETURN_IF_ERROR(runtime->CheckRoom(size * kValueBytes));
  DT_RETURN_IF_ERROR(runtime->Spend(size));
  items.insert(items.end(), more.begin(), more.end());
  return runtime->List(std::move(items), left.list()->list_kind);
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t times, Runtime* runtime) {
  times = std::max<int64_t>(times, 0);
  const auto size =
      static_cast<int64_t>(value.is_string() ? value.text().size() : value.list()->items.size());
  const int64_t unit = value.is_string() ? 1 : kValueBytes;
  int64_t bytes = 0;
  if (__builtin_mul_overflow(size * unit, times, &bytes)) return TooLarge();
  DT_RETURN_IF_ERROR(runtime->CheckRoom(bytes));
  DT_RETURN_IF_ERROR(runtime->Spend(bytes / 64));
  if (value.is_string()) {
    std::string text;
    text.reserve(bytes);
    for (int64_t i = 0; i < times && size > 0; ++i) text += value.text();
    return runtime->String(std::move(text));
  }
  std::vector<Value> items;
  const auto& unit_items = value.list()->items;
  for (int64_t i = 0; i < times && size > 0; ++i) {
    items.insert(items.end(), unit_items.begin(), unit_items.end());
  }
  return runtime->List(std::move(items), value.list()->list_kind);
}

bool IsPlainList(const Value& value) {
  return value.kind() == Kind::kList && value.list()->list_kind <= ListKind::kTuple;
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Runtime* runtime) {
  if (container.is_string()) {
    if (item.is_string()) {
      DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(container.text().size()) / 64));
      return container.text().find(item.text()) != std::string::npos;
    }
    if (item.is_undefined()) return absl::InvalidArgumentError(item.UndefinedReason());
    return absl::InvalidArgumentError(
        absl::StrCat("'in <string>' requires string as left operand, not ", TypeName(item)));
  }
  if (container.kind() == Kind::kDict) {
    DT_RETURN_IF_ERROR(CheckKey(item));
    DT_RETURN_IF_ERROR(runtime->Spend(
        item.is_string() ? 1 : static_cast<int64_t>(container.dict()->entries.size())));
    return container.dict()->Find(item) != nullptr;
  }
  if (container.kind() != Kind::kList && !container.is_undefined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("argument of type '", TypeName(container), "' is not iterable"));
  }
  DT_ASSIGN_OR_RETURN(const std::vector<Value>* items, Iterate(container, runtime));
  for (const Value& candidate : *items) {
    DT_ASSIGN_OR_RETURN(const bool same, Equal(candidate, item, runtime));
    if (same) return true;
  }
  return false;
}

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  return absl::StrReplaceAll(
      text, {{"&", "&amp;"}, {">", "&gt;"}, {"<", "&lt;"}, {"'", "&#39;"}, {"\"", "&#34;"}});
}

absl::StatusOr<Value> Calculate(Operator op, const Value& left, const Value& right,
                                Runtime* runtime) {
  if (left.is_number() && right.is_number()) {
    if (left.is_integral() && right.is_integral()) {
      return CalculateIntegers(op, left.integer(), right.integer());
    }
    return CalculateFloats(op, left.number(), right.number());
  }
  if (op == Operator::kModulo && left.is_string()) return FormatPercent(left, right, runtime);
  if (op == Operator::kAdd) {
    if (left.is_string() && right.is_string()) return AddStrings(left, right, runtime);
    if (IsPlainList(left) && IsPlainList(right) &&
        left.list()->list_kind == right.list()->list_kind) {
      return AddLists(left, right, runtime);
    }
  }
  if (op == Operator::kMultiply) {
    if (right.is_integral() && (left.is_string() || IsPlainList(left))) {
      return Repeat(left, right.integer(), runtime);
    }
    if (left.is_integral() && (right.is_string() || IsPlainList(right))) {
      return Repeat(right, left.integer(), runtime);
    }
  }
  return Unsupported(op, left, right);
}

absl::StatusOr<bool> CompareWith(Operator op, const Value& left, const Value& right,
                                 Runtime* runtime) {
  if (op == Operator::kIn) return Contains(right, left, runtime);
  if (op == Operator::kNotIn) {
    DT_ASSIGN_OR_RETURN(const bool contained, Contains(right, left, runtime));
    return !contained;
  }
  if (op == Operator::kEqual || op == Operator::kNotEqual) {
    DT_ASSIGN_OR_RETURN(const bool same, Equal(left, right, runtime));
    return same == (op == Operator::kEqual);
  }
  DT_ASSIGN_OR_RETURN(const int order, Compare(left, right, OperatorText(op), runtime));
  const bool unordered = left.is_number() && right.is_number() &&
                         (std::isnan(left.number()) || std::isnan(right.number()));
  if (unordered) return false;
  switch (op) {
    case Operator::kLess:
      return order < 0;
    case Operator::kLessEqual:
      return order <= 0;
    case Operator::kGreater:
      return order > 0;
    default:
      return order >= 0;
  }
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_integral()) return CalculateIntegers(Operator::kSubtract, 0, value.integer());
  if (value.is_number()) return Value::Float(-value.number());
  if (value.is_undefined()) return absl::InvalidArgumentError(value.UndefinedReason());
  return absl::InvalidArgumentError(
      absl::StrCat("bad operand type for unary -: '", TypeName(value), "'"));
}

}  // namespace dovetail::model::jinja
