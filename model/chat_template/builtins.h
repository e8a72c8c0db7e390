// The functions that templates may name: filters, tests, methods of values, global functions.
//
// All are plain functions in tables; a table is found by name, and nullptr means there is none.
#ifndef DOVETAIL_MODEL_CHAT_TEMPLATE_BUILTINS_H_
#define DOVETAIL_MODEL_CHAT_TEMPLATE_BUILTINS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/chat_template/runtime.h"
#include "model/chat_template/value.h"

namespace dovetail::model::jinja {

using FilterFunction = absl::StatusOr<Value> (*)(const Value& input, const CallArguments& arguments,
                                                 Runtime* runtime);
using TestFunction = absl::StatusOr<bool> (*)(const Value& input, const CallArguments& arguments,
                                              Runtime* runtime);
using GlobalFunction = absl::StatusOr<Value> (*)(const CallArguments& arguments, Runtime* runtime);
using MethodFunction = FilterFunction;  // `input` is the object

struct NamedFilter {
  absl::string_view name;
  FilterFunction function;
};

// value|NAME
FilterFunction FindFilter(absl::string_view name);
FilterFunction FindTextFilter(absl::string_view name);      // text_filters.cc
FilterFunction FindSequenceFilter(absl::string_view name);  // sequence_filters.cc
FilterFunction FindSelectFilter(absl::string_view name);    // select_filters.cc

// value is NAME
TestFunction FindTest(absl::string_view name);

// range, dict, namespace, raise_exception, strftime_now
GlobalFunction FindGlobal(absl::string_view name);

// value.NAME(...); methods that would change the value do not exist, as in Jinja's sandbox.
MethodFunction FindMethod(const Value& value, absl::string_view name);
MethodFunction FindStringMethod(absl::string_view name);

// "..." % values and "...".format(values), in the forms that templates use.
absl::StatusOr<Value> FormatPercent(const Value& format, const Value& values, Runtime* runtime);
absl::StatusOr<Value> FormatBraces(const Value& format, const CallArguments& values,
                                   Runtime* runtime);

}  // namespace dovetail::model::jinja

#endif  // DOVETAIL_MODEL_CHAT_TEMPLATE_BUILTINS_H_
