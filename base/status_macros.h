// DT_RETURN_IF_ERROR and DT_ASSIGN_OR_RETURN: the early-return forms for absl::Status.
// Debian 12's Abseil has none of its own; the names are chosen so that a newer one replaces this
// file.
#ifndef DOVETAIL_BASE_STATUS_MACROS_H_
#define DOVETAIL_BASE_STATUS_MACROS_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

#define DT_RETURN_IF_ERROR(expr)                                            \
  do {                                                                      \
    if (absl::Status dt_status = (expr); !dt_status.ok()) return dt_status; \
  } while (false)

#define DT_CONCAT_INNER(a, b) a##b
#define DT_CONCAT(a, b) DT_CONCAT_INNER(a, b)
#define DT_ASSIGN_OR_RETURN(lhs, expr) \
  DT_ASSIGN_OR_RETURN_IMPL(DT_CONCAT(dt_or_, __LINE__), lhs, expr)
#define DT_ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                             \
  if (!tmp.ok()) return tmp.status();            \
  lhs = std::move(tmp).value()

namespace dovetail {

// The same status with "context: " in front of its message.
inline absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(context, ": ", status.message()));
}

}  // namespace dovetail

#endif  // DOVETAIL_BASE_STATUS_MACROS_H_
