// Diagnostic: one thing that a person should know about a rules file or a plan, and where it is.
//
// Everything that reads rules or makes plans reports in this form; it is collected, shown all at
// once ("file:line:col: warning: message [code]") and put into JSON by the same names. Plain data
// and pure functions.
#ifndef DOVETAIL_COORDINATOR_PLACEMENT_DIAGNOSTIC_H_
#define DOVETAIL_COORDINATOR_PLACEMENT_DIAGNOSTIC_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace dovetail::coordinator {

// kError: nothing starts. kWarning: probably not what was meant. kNote: good to know.
enum class Severity { kError, kWarning, kNote };

struct Diagnostic {
  std::string code;  // stable, for scripts: "shadowed-rule"
  Severity severity = Severity::kError;
  std::string file;  // empty: not about a file
  int line = 0;      // from 1; 0: the whole file
  int col = 0;
  std::string message;
  bool operator==(const Diagnostic&) const = default;
};

absl::string_view SeverityName(Severity severity);  // "error", "warning", "note"

// "file:line:col", "file", or "" where the diagnostic names no file.
std::string LocationOf(const Diagnostic& diagnostic);

// "file:line:col: warning: message [code]".
std::string FormatDiagnostic(const Diagnostic& diagnostic);

// By file (in the order in which files first appear), line and column; equal ones once.
void SortDiagnostics(std::vector<Diagnostic>* diagnostics);

bool HasErrors(absl::Span<const Diagnostic> diagnostics);

// Ok without errors, else InvalidArgument with "file:line:col: message", one error a line.
absl::Status ErrorsToStatus(absl::Span<const Diagnostic> diagnostics);

// A JSON list of {"code", "severity", "file", "line", "col", "message"}.
std::string DiagnosticsJson(absl::Span<const Diagnostic> diagnostics);

}  // namespace dovetail::coordinator

#endif  // DOVETAIL_COORDINATOR_PLACEMENT_DIAGNOSTIC_H_
