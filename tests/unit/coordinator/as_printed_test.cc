#include "coordinator/placement/ktransformers/as_printed.h"

#include <gtest/gtest.h>

namespace dovetail::coordinator::ktransformers {
namespace {

constexpr const char* kRestored =
    "- match:\n    name: \"^lm: head\"\n    class: torch.nn.Linear\n  replace:\n    class: "
    "default\n"
    "    kwargs:\n      generate_device: \"cuda:0\"\n  recursive: False\n";

TEST(AsPrinted, LinesWithoutIndentation) {
  const auto restored = RestoreIndentation(
      "- match:\nname: \"^lm: head\"  # the output\nclass: torch.nn.Linear\nreplace:\n"
      "class: default\nkwargs:\ngenerate_device: \"cuda:0\"\nrecursive: False\n");
  ASSERT_TRUE(restored.has_value());
  EXPECT_EQ(restored->line, 2);
  EXPECT_EQ(restored->col, 1);
  EXPECT_EQ(restored->key, "name");
  EXPECT_EQ(restored->text, kRestored);
}

TEST(AsPrinted, AllOnOneLine) {
  const auto restored = RestoreIndentation(
      "- match: name: \"^lm: head\" class: torch.nn.Linear replace: class: default kwargs: "
      "generate_device: \"cuda:0\" recursive: False -\n- match: class: a.B replace: class: c.D\n");
  ASSERT_TRUE(restored.has_value());
  EXPECT_EQ(restored->col, 10);
  EXPECT_EQ(restored->text,
            std::string(kRestored) + "- match:\n    class: a.B\n  replace:\n    class: c.D\n");
}

TEST(AsPrinted, ALaterLineThatSlipped) {
  const auto restored = RestoreIndentation("- match:\n    name: a\n  replace:\n  class: default\n");
  ASSERT_TRUE(restored.has_value());
  EXPECT_EQ(restored->line, 4);
  EXPECT_EQ(restored->col, 3);
}

TEST(AsPrinted, LeavesOtherTextAlone) {
  for (const char* text : {kRestored, "", "hello: world", "match", "- match: {name: a}\n",
                           "- match:\nlayers: 3\nplace: cpu:0\n\"", "name: a\nmatch: b\n"}) {
    EXPECT_FALSE(RestoreIndentation(text).has_value()) << text;
  }
}

TEST(AsPrinted, IsAnErrorThatQuotesTheProbableForm) {
  const auto lost = LostIndentation("- match:\nname: a\nreplace:\nclass: default\n", "r.yaml");
  ASSERT_TRUE(lost.has_value());
  EXPECT_EQ(FormatDiagnostic(*lost),
            "r.yaml:2:1: error: `name:` stands where it cannot: the text has lost its indentation, "
            "which probably was\n- match:\n    name: a\n  replace:\n    class: default\n "
            "[lost-indentation]");
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
