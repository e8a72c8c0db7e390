#include "coordinator/placement/bounded_regex.h"

#include <gtest/gtest.h>

#include <string>

namespace dovetail::coordinator {
namespace {

using Result = BoundedRegex::Result;

bool Finds(const std::string& pattern, const std::string& text,
           RegexSyntax syntax = RegexSyntax::kPython) {
  const auto regex = BoundedRegex::Compile(pattern, syntax);
  EXPECT_TRUE(regex.ok()) << pattern << ": " << regex.status();
  return regex.ok() && regex->Search(text) == Result::kMatch;
}

std::string ErrorOf(const std::string& pattern, RegexSyntax syntax = RegexSyntax::kPython) {
  return std::string(BoundedRegex::Compile(pattern, syntax).status().message());
}

TEST(BoundedRegex, SearchesAnywhereWithLookAhead) {
  EXPECT_TRUE(Finds("mlp\\.experts$", "model.layers.3.mlp.experts"));
  EXPECT_FALSE(Finds("^mlp", "model.layers.3.mlp"));
  EXPECT_TRUE(Finds("^model\\.layers\\.(?!.*self_attn).*$", "model.layers.3.mlp"));
  EXPECT_FALSE(Finds("^model\\.layers\\.(?!.*self_attn).*$", "model.layers.3.self_attn"));
  EXPECT_TRUE(Finds("", ""));
  EXPECT_TRUE(Finds("model.norm", "modelXnorm"));
  EXPECT_FALSE(Finds("LM_HEAD", "lm_head"));
  EXPECT_TRUE(Finds("(?i)LM_HEAD", "lm_head"));
}

TEST(BoundedRegex, HasPythonsMeaningWherePcre2HasAnother) {
  EXPECT_TRUE(Finds("^a{,2}b$", "aab"));
  EXPECT_FALSE(Finds("^a{,2}b$", "a{,2}b"));
  EXPECT_TRUE(Finds("^a{x}$", "a{x}"));
  EXPECT_TRUE(Finds("^[[]$", "["));
  EXPECT_TRUE(Finds("^[[:alpha:]$", ":"));  // a class of [ : a l p h, then the end
  EXPECT_TRUE(Finds("^[]a]+$", "]a"));
  EXPECT_TRUE(Finds("a\\Z", "a"));
  EXPECT_FALSE(Finds("a\\Z", "a\n"));
  EXPECT_TRUE(Finds("^\\u0061[\\u0062]$", "ab"));
  EXPECT_FALSE(Finds("^\\v$", "\n"));
  EXPECT_TRUE(Finds("(?P<n>a)(?P=n)", "aa"));
}

TEST(BoundedRegex, RefusesWhatPythonDoesNotKnow) {
  EXPECT_EQ(ErrorOf("a\\hb"), "bad escape \\h at offset 1");
  EXPECT_EQ(ErrorOf("[\\A]"), "bad escape \\A at offset 1");
  EXPECT_EQ(ErrorOf("(*FAIL)"), "nothing to repeat at offset 1");
  EXPECT_EQ(ErrorOf("a(?R)"), "unknown extension ?R at offset 2");
  EXPECT_EQ(ErrorOf("(?<n>a)"), "unknown extension ?< at offset 1");
  EXPECT_EQ(ErrorOf("ab[c"), "unterminated character set at offset 2");
  EXPECT_EQ(ErrorOf("abc\\"), "\\ at end of pattern at offset 3");
  EXPECT_EQ(ErrorOf("\\u00"), "incomplete escape at offset 0");
}

TEST(BoundedRegex, GivesPcre2sMessageAndThePlaceInThePattern) {
  EXPECT_EQ(ErrorOf("model.("), "missing closing parenthesis at offset 7");
  EXPECT_EQ(ErrorOf("a**"), "quantifier does not follow a repeatable item at offset 2");
  EXPECT_EQ(ErrorOf("[b-a]"), "range out of order in character class at offset 3");
  // {,2} takes one character more in PCRE2.
  EXPECT_EQ(ErrorOf("x{,2}[b-a]"), "range out of order in character class at offset 8");
}

TEST(BoundedRegex, CannotHangOrGrow) {
  const auto regex = BoundedRegex::Compile("^(([a-z.0-9]+)*)*[A-Z]$", RegexSyntax::kPython);
  ASSERT_TRUE(regex.ok());
  EXPECT_EQ(regex->Search("model.layers.0.mlp.experts.0.up_proj"), Result::kTooExpensive);
  EXPECT_FALSE(ErrorOf(std::string(200, '(') + std::string(200, ')')).empty());
  EXPECT_EQ(ErrorOf(std::string(20000, 'a')),
            "the pattern has 20000 bytes; at most 16384 are read");
  EXPECT_FALSE(ErrorOf("(((a{1000}){1000}){1000}){1000}").empty());
}

TEST(BoundedRegex, EcmaScript) {
  const auto finds = [](const std::string& pattern, const std::string& text) {
    return Finds(pattern, text, RegexSyntax::kEcmaScript);
  };
  EXPECT_TRUE(finds("exps", "blk.3.ffn_up_exps.weight"));
  EXPECT_TRUE(finds("blk\\.(?:[x]|[5-9][0-9])\\.ffn.*", "blk.53.ffn_up.weight"));
  EXPECT_TRUE(finds("blk\\.\\d+\\.attn", "blk.3.attn_q.weight"));
  EXPECT_FALSE(finds("a$", "a\n"));
  EXPECT_EQ(ErrorOf("blk\\.(?\?\?)", RegexSyntax::kEcmaScript),
            "unrecognized character after (? or (?- at offset 7");
}

}  // namespace
}  // namespace dovetail::coordinator
