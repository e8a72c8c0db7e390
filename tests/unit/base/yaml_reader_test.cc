#include "base/yaml_reader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/status_matchers.h"

namespace dovetail {
namespace {

using ::testing::_;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::StatusIs;

absl::Status ErrorOf(const std::string& text, const YamlLimits& limits = {}) {
  return ReadYaml(text, "f.yaml", limits).status();
}

TEST(YamlReaderTest, KeepsOrderAndPlaces) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root, ReadYaml("b: 1\na:\n  - x\n  - [y, z]\nc:\n", "f"));
  ASSERT_EQ(root.kind, YamlKind::kMap);
  ASSERT_EQ(root.entries.size(), 3u);
  EXPECT_EQ(root.entries[0].key, "b");
  EXPECT_EQ(root.entries[1].line, 2);
  EXPECT_EQ(root.entries[1].col, 1);
  const YamlNode* a = root.Find("a");
  ASSERT_EQ(a->kind, YamlKind::kList);
  EXPECT_EQ(a->items[0].scalar, "x");
  EXPECT_EQ(a->items[0].line, 3);
  EXPECT_EQ(a->items[0].col, 5);
  EXPECT_EQ(a->items[1].items[1].scalar, "z");
  EXPECT_EQ(root.Find("c")->kind, YamlKind::kNull);
  EXPECT_EQ(root.Find("d"), nullptr);
}

TEST(YamlReaderTest, EmptyTextIsNull) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root, ReadYaml("# nothing\n", "f"));
  EXPECT_EQ(root.kind, YamlKind::kNull);
}

TEST(YamlReaderTest, SyntaxErrorsHaveAPlace) {
  EXPECT_THAT(ErrorOf("a: 1\nb: [1, 2\n"), StatusIs(absl::StatusCode::kInvalidArgument,
                                                    StartsWith("f.yaml:3:1: not valid YAML")));
  EXPECT_THAT(ErrorOf("a: 1\n  b: 2\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, StartsWith("f.yaml:2:")));
}

TEST(YamlReaderTest, RefusesASecondDocumentAndKeysThatAreNoWords) {
  EXPECT_THAT(ErrorOf("a: 1\n---\nb: 2\n"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "f.yaml:3:1: only one YAML document is expected"));
  EXPECT_THAT(ErrorOf("[1, 2]: x\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, "f.yaml:1:1: a key must be a word"));
}

TEST(YamlReaderTest, ExpandsAliasesAtTheirOwnPlace) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root, ReadYaml("a: &x [1, 2]\nb: *x\n", "f"));
  const YamlNode* b = root.Find("b");
  ASSERT_EQ(b->items.size(), 2u);
  EXPECT_EQ(b->items[1].scalar, "2");
  EXPECT_EQ(b->line, 2);
}

TEST(YamlReaderTest, RefusesAliasBombs) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    absl::StrAppend(&text, "a", i, ": &a", i, " [");
    for (int j = 0; j < 9; ++j) absl::StrAppend(&text, j > 0 ? ", " : "", "*a", i - 1);
    absl::StrAppend(&text, "]\n");
  }
  EXPECT_THAT(ErrorOf(text),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("more than 100000 values")));
  const std::string long_text(100'000, 'x');
  text = "a: &a " + long_text + "\nb: [";
  for (int i = 0; i < 1000; ++i) absl::StrAppend(&text, "*a, ");
  EXPECT_THAT(ErrorOf(text + "x]\n"), StatusIs(absl::StatusCode::kInvalidArgument,
                                               HasSubstr("16777216 bytes once aliases")));
}

TEST(YamlReaderTest, RefusesAnAliasInItsOwnAnchor) {
  EXPECT_THAT(ErrorOf("a: &a [1, *a]\n"), StatusIs(absl::StatusCode::kInvalidArgument,
                                                   StartsWith("f.yaml:1:11: an alias may")));
  EXPECT_THAT(ErrorOf("a: *nobody\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, StartsWith("f.yaml:1:")));
}

TEST(YamlReaderTest, BoundsDepthAndSize) {
  const std::string deep = std::string(70, '[') + std::string(70, ']');
  EXPECT_THAT(ErrorOf(deep), StatusIs(absl::StatusCode::kInvalidArgument,
                                      "f.yaml:1:65: nested more than 64 levels deep"));
  EXPECT_FALSE(ErrorOf(std::string(100'000, '[')).ok());
  EXPECT_FALSE(ErrorOf(std::string(100'000, '{')).ok());
  YamlLimits limits;
  limits.max_text_bytes = 10;
  EXPECT_THAT(
      ErrorOf("a: 123456789", limits),
      StatusIs(absl::StatusCode::kInvalidArgument, "f.yaml: has 12 bytes; at most 10 are read"));
  // An alias must not smuggle depth in either.
  const std::string nested = "a: &a " + std::string(40, '[') + std::string(40, ']') + "\nb: ";
  EXPECT_THAT(ErrorOf(nested + std::string(40, '[') + "*a" + std::string(40, ']') + "\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("64 levels deep")));
}

TEST(MistakesTest, AreListedInTheOrderOfLines) {
  Mistakes mistakes("f.yaml");
  mistakes.Add(9, 1, "late");
  mistakes.Add(2, 5, "early");
  Mistakes flags("--port");
  flags.Add(0, 0, "bad");
  mistakes.Append(flags);
  mistakes.Add(3, 1, "between");
  EXPECT_EQ(mistakes.size(), 4);
  EXPECT_THAT(mistakes.ToStatus(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "f.yaml:2:5: early\nf.yaml:3:1: between\nf.yaml:9:1: late\n--port: bad"));
  EXPECT_OK(Mistakes("x").ToStatus());
}

TEST(MistakesTest, ShowsAHundredAndCountsTheRest) {
  Mistakes mistakes("f");
  for (int line = 1; line <= 150; ++line) mistakes.Add(line, 1, "wrong");
  const std::string text(mistakes.ToStatus().message());
  EXPECT_THAT(text, HasSubstr("f:100:1: wrong\nf: and 50 more mistakes"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 100);
}

TEST(CheckMapTest, ReportsKindDuplicatesAndUnknownKeys) {
  ASSERT_OK_AND_ASSIGN(const YamlNode root,
                       ReadYaml("port: 1\nprt: 2\nport: 3\nzzzzzz: 4\n", "f.yaml"));
  Mistakes mistakes("f.yaml");
  EXPECT_TRUE(CheckMap(root, "the file", {"port", "listen"}, &mistakes));
  EXPECT_FALSE(CheckMap(MakeScalar("x"), "the file", {"port"}, &mistakes));
  EXPECT_EQ(mistakes.ToStatus().message(),
            "f.yaml: the file must be a map, got `x`\n"
            "f.yaml:2:1: unknown key `prt` in the file; did you mean `port`?\n"
            "f.yaml:3:1: `port` is given twice, first at f.yaml:1:1\n"
            "f.yaml:4:1: unknown key `zzzzzz` in the file; known: port, listen");
}

TEST(ReadScalarTest, ReadsAndRefuses) {
  Mistakes mistakes("--x");
  EXPECT_EQ(ReadInt(MakeScalar("42"), "n", 0, 100, &mistakes), 42);
  EXPECT_EQ(ReadBool(MakeScalar("yes"), "b", &mistakes), true);
  EXPECT_EQ(ReadBool(MakeScalar("false"), "b", &mistakes), false);
  EXPECT_EQ(ReadText(MakeScalar("t"), "t", &mistakes), "t");
  EXPECT_TRUE(mistakes.empty());
  EXPECT_EQ(ReadInt(MakeScalar("101"), "n", 0, 100, &mistakes), std::nullopt);
  EXPECT_EQ(ReadInt(MakeScalar("4x"), "n", 0, 100, &mistakes), std::nullopt);
  EXPECT_EQ(ReadInt(MakeScalar("99999999999999999999"), "n", 0, 100, &mistakes), std::nullopt);
  EXPECT_EQ(ReadBool(MakeScalar("2"), "b", &mistakes), std::nullopt);
  EXPECT_EQ(ReadText(YamlNode(), "t", &mistakes), std::nullopt);
  EXPECT_EQ(mistakes.size(), 5);
  EXPECT_THAT(mistakes.ToStatus().message(),
              AllOf(HasSubstr("--x: `n` must be a number from 0 to 100, got `4x`"),
                    HasSubstr("--x: `t` must be a word, got nothing")));
}

TEST(NearestNameTest, FindsMisspellingsOnly) {
  EXPECT_EQ(NearestName("chunksize", {"port", "chunk_size"}), "chunk_size");
  EXPECT_EQ(NearestName("layer", {"layers", "role"}), "layers");
  EXPECT_EQ(NearestName("xyz", {"layers", "role"}), "");
  EXPECT_EQ(NearestName(std::string(1000, 'a'), {"layers"}), "");
}

}  // namespace
}  // namespace dovetail
