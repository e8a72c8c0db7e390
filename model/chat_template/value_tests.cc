// value is NAME
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "model/chat_template/arguments.h"
#include "model/chat_template/builtins.h"
#include "model/chat_template/operators.h"
#include "model/chat_template/text.h"
#include "model/chat_template/value_text.h"

namespace dovetail::model::jinja {
namespace {

using Result = absl::StatusOr<bool>;

// Tests of the value alone.
template <bool (*kTest)(const Value&)>
Result Simple(const Value& input, const CallArguments& arguments, Runtime*) {
  if (!arguments.positional.empty() || !arguments.named.empty()) {
    return absl::InvalidArgumentError("the test takes no argument");
  }
  return kTest(input);
}

bool IsDefined(const Value& v) { return !v.is_undefined(); }
bool IsUndefined(const Value& v) { return v.is_undefined(); }
bool IsNone(const Value& v) { return v.is_none(); }
bool IsBoolean(const Value& v) { return v.kind() == Kind::kBool; }
bool IsTrueConstant(const Value& v) { return IsBoolean(v) && v.boolean(); }
bool IsFalseConstant(const Value& v) { return IsBoolean(v) && !v.boolean(); }
bool IsInteger(const Value& v) { return v.kind() == Kind::kInt; }
bool IsFloat(const Value& v) { return v.kind() == Kind::kFloat; }
bool IsNumber(const Value& v) { return v.is_number(); }
bool IsString(const Value& v) { return v.is_string(); }
bool IsMapping(const Value& v) { return v.kind() == Kind::kDict; }
bool IsCallable(const Value& v) { return v.kind() == Kind::kCallable; }
bool IsEscaped(const Value& v) { return v.is_markup(); }
bool IsIterable(const Value& v) {
  return v.is_undefined() || v.is_string() || v.kind() == Kind::kList || v.kind() == Kind::kDict ||
         v.kind() == Kind::kLoop;
}
// What has a length and items: in Jinja, undefined too.
bool IsSequence(const Value& v) {
  if (v.kind() == Kind::kList) return v.list()->list_kind <= ListKind::kRange;
  return v.is_undefined() || v.is_string() || v.kind() == Kind::kDict;
}

template <Operator kOp>
Result CompareTest(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "test", {"other"}, 1));
  return CompareWith(kOp, input, *bound[0], runtime);
}

Result SameAsTest(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "sameas", {"other"}, 1));
  const Value& other = *bound[0];
  if (input.kind() != other.kind()) return false;
  switch (input.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kString:
      return Equal(input, other, runtime);
    default:
      return input.object() == other.object();
  }
}

template <int64_t kRemainder>
Result ParityTest(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const Value rest,
                      Calculate(Operator::kModulo, input, Value::Int(2), runtime));
  return Equal(rest, Value::Int(kRemainder), runtime);
}

Result DivisibleTest(const Value& input, const CallArguments& arguments, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const auto bound, BindArguments(arguments, "divisibleby", {"num"}, 1));
  DT_ASSIGN_OR_RETURN(const Value rest, Calculate(Operator::kModulo, input, *bound[0], runtime));
  return Equal(rest, Value::Int(0), runtime);
}

template <TextClass kClass>
Result CaseTest(const Value& input, const CallArguments&, Runtime* runtime) {
  DT_ASSIGN_OR_RETURN(const std::string text, ToText(input, runtime));
  DT_RETURN_IF_ERROR(runtime->Spend(static_cast<int64_t>(text.size()) / 16));
  return IsAll(text, kClass);
}

Result FilterExists(const Value& input, const CallArguments&, Runtime*) {
  return input.is_string() && FindFilter(input.text()) != nullptr;
}

Result TestExists(const Value& input, const CallArguments&, Runtime*) {
  return input.is_string() && FindTest(input.text()) != nullptr;
}

struct NamedTest {
  absl::string_view name;
  TestFunction function;
};

constexpr NamedTest kTests[] = {
    {"!=", CompareTest<Operator::kNotEqual>},
    {"<", CompareTest<Operator::kLess>},
    {"<=", CompareTest<Operator::kLessEqual>},
    {"==", CompareTest<Operator::kEqual>},
    {">", CompareTest<Operator::kGreater>},
    {">=", CompareTest<Operator::kGreaterEqual>},
    {"boolean", Simple<IsBoolean>},
    {"callable", Simple<IsCallable>},
    {"defined", Simple<IsDefined>},
    {"divisibleby", DivisibleTest},
    {"eq", CompareTest<Operator::kEqual>},
    {"equalto", CompareTest<Operator::kEqual>},
    {"escaped", Simple<IsEscaped>},
    {"even", ParityTest<0>},
    {"false", Simple<IsFalseConstant>},
    {"filter", FilterExists},
    {"float", Simple<IsFloat>},
    {"ge", CompareTest<Operator::kGreaterEqual>},
    {"greaterthan", CompareTest<Operator::kGreater>},
    {"gt", CompareTest<Operator::kGreater>},
    {"in", CompareTest<Operator::kIn>},
    {"integer", Simple<IsInteger>},
    {"iterable", Simple<IsIterable>},
    {"le", CompareTest<Operator::kLessEqual>},
    {"lessthan", CompareTest<Operator::kLess>},
    {"lower", CaseTest<TextClass::kLower>},
    {"lt", CompareTest<Operator::kLess>},
    {"mapping", Simple<IsMapping>},
    {"ne", CompareTest<Operator::kNotEqual>},
    {"none", Simple<IsNone>},
    {"number", Simple<IsNumber>},
    {"odd", ParityTest<1>},
    {"sameas", SameAsTest},
    {"sequence", Simple<IsSequence>},
    {"string", Simple<IsString>},
    {"test", TestExists},
    {"true", Simple<IsTrueConstant>},
    {"undefined", Simple<IsUndefined>},
    {"upper", CaseTest<TextClass::kUpper>},
};

}  // namespace

TestFunction FindTest(absl::string_view name) {
  for (const NamedTest& test : kTests) {
    if (test.name == name) return test.function;
  }
  return nullptr;
}

}  // namespace dovetail::model::jinja
