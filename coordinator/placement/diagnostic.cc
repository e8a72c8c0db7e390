#include "coordinator/placement/diagnostic.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace dovetail::coordinator {

absl::string_view SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return "error";
    case Severity::kWarning:
      return "warning";
    case Severity::kNote:
      return "note";
  }
  return "";
}

std::string LocationOf(const Diagnostic& diagnostic) {
  if (diagnostic.line == 0) return diagnostic.file;
  return absl::StrCat(diagnostic.file, ":", diagnostic.line, ":", diagnostic.col);
}

std::string FormatDiagnostic(const Diagnostic& diagnostic) {
  const std::string where = LocationOf(diagnostic);
  return absl::StrCat(where, where.empty() ? "" : ": ", SeverityName(diagnostic.severity), ": ",
                      diagnostic.message, " [", diagnostic.code, "]");
}

void SortDiagnostics(std::vector<Diagnostic>* diagnostics) {
  std::map<std::string, int> files;
  for (const Diagnostic& d : *diagnostics) {
    files.emplace(d.file, static_cast<int>(files.size()));
  }
  std::stable_sort(diagnostics->begin(), diagnostics->end(),
                   [&](const Diagnostic& a, const Diagnostic& b) {
                     return std::make_tuple(files.at(a.file), a.line, a.col) <
                            std::make_tuple(files.at(b.file), b.line, b.col);
                   });
  diagnostics->erase(std::unique(diagnostics->begin(), diagnostics->end()), diagnostics->end());
}

bool HasErrors(absl::Span<const Diagnostic> diagnostics) {
  return std::any_of(diagnostics.begin(), diagnostics.end(),
                     [](const Diagnostic& d) { return d.severity == Severity::kError; });
}

absl::Status ErrorsToStatus(absl::Span<const Diagnostic> diagnostics) {
  std::vector<std::string> lines;
  for (const Diagnostic& d : diagnostics) {
    if (d.severity != Severity::kError) continue;
    const std::string where = LocationOf(d);
    lines.push_back(absl::StrCat(where, where.empty() ? "" : ": ", d.message));
  }
  if (lines.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(lines, "\n"));
}

std::string DiagnosticsJson(absl::Span<const Diagnostic> diagnostics) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Diagnostic& d : diagnostics) {
    list.push_back({{"code", d.code},
                    {"severity", std::string(SeverityName(d.severity))},
                    {"file", d.file},
                    {"line", d.line},
                    {"col", d.col},
                    {"message", d.message}});
  }
  // Names and messages quote files, which may hold anything.
  return list.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace dovetail::coordinator
