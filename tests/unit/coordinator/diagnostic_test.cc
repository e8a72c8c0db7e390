#include "coordinator/placement/diagnostic.h"

#include <gtest/gtest.h>

namespace dovetail::coordinator {
namespace {

std::vector<Diagnostic> Some() {
  return {{"b", Severity::kWarning, "r.yaml", 7, 3, "second"},
          {"a", Severity::kError, "r.yaml", 2, 5, "first"},
          {"a", Severity::kError, "r.yaml", 2, 5, "first"},
          {"c", Severity::kNote, "", 0, 0, "of no file"}};
}

TEST(Diagnostic, IsShownWithPlaceSeverityAndCode) {
  EXPECT_EQ(FormatDiagnostic(Some()[0]), "r.yaml:7:3: warning: second [b]");
  EXPECT_EQ(FormatDiagnostic(Some()[3]), "note: of no file [c]");
  EXPECT_EQ(LocationOf({"x", Severity::kNote, "r.yaml", 0, 0, ""}), "r.yaml");
}

TEST(Diagnostic, AreSortedByPlaceAndOnlyOnce) {
  std::vector<Diagnostic> all = Some();
  SortDiagnostics(&all);
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].message, "first");
  EXPECT_EQ(all[1].message, "second");
  EXPECT_EQ(all[2].message, "of no file");
}

TEST(Diagnostic, OnlyErrorsMakeAStatus) {
  std::vector<Diagnostic> all = Some();
  EXPECT_TRUE(HasErrors(all));
  EXPECT_EQ(ErrorsToStatus({all.data() + 1, 1}).message(), "r.yaml:2:5: first");
  all.erase(all.begin() + 1, all.begin() + 3);
  EXPECT_FALSE(HasErrors(all));
  EXPECT_TRUE(ErrorsToStatus(all).ok());
}

TEST(Diagnostic, BecomesJsonWhateverItQuotes) {
  const Diagnostic odd{"a", Severity::kError, "r.yaml", 1, 2, "bad \xff byte"};
  EXPECT_EQ(
      DiagnosticsJson({&odd, 1}),
      "[\n  {\n    \"code\": \"a\",\n    \"severity\": \"error\",\n    \"file\": \"r.yaml\",\n"
      "    \"line\": 1,\n    \"col\": 2,\n    \"message\": \"bad \xef\xbf\xbd byte\"\n  }\n]");
  EXPECT_EQ(DiagnosticsJson({}), "[]");
}

}  // namespace
}  // namespace dovetail::coordinator
