#include "coordinator/placement/ktransformers/yaml11.h"

#include <gtest/gtest.h>

#include <cmath>

namespace dovetail::coordinator::ktransformers {
namespace {

YamlNode Parsed(const std::string& text) { return ReadYaml(text, "y").value(); }

Yaml11Value Value(const std::string& text) { return ResolveYaml11(Parsed(text)); }

TEST(Yaml11, WordsThatAreNoTexts) {
  for (const char* yes : {"yes", "Yes", "YES", "true", "True", "on", "ON"}) {
    EXPECT_EQ(Value(yes), Yaml11Value(true)) << yes;
  }
  for (const char* no : {"no", "No", "false", "False", "FALSE", "off"}) {
    EXPECT_EQ(Value(no), Yaml11Value(false)) << no;
  }
  for (const char* null : {"~", "null", "Null", "NULL", ""}) {
    EXPECT_EQ(Value(null), Yaml11Value(std::monostate())) << null;
  }
  for (const char* text : {"None", "yEs", "y", "n", "nUll", "oN", "cuda"}) {
    EXPECT_EQ(Value(text), Yaml11Value(std::string(text))) << text;
  }
}

TEST(Yaml11, Numbers) {
  EXPECT_EQ(Value("30"), Yaml11Value(int64_t{30}));
  EXPECT_EQ(Value("-1_000"), Yaml11Value(int64_t{-1000}));
  EXPECT_EQ(Value("010"), Yaml11Value(int64_t{8}));
  EXPECT_EQ(Value("0x1F"), Yaml11Value(int64_t{31}));
  EXPECT_EQ(Value("0b101"), Yaml11Value(int64_t{5}));
  EXPECT_EQ(Value("1:30"), Yaml11Value(int64_t{90}));
  EXPECT_EQ(Value("1.5"), Yaml11Value(1.5));
  EXPECT_EQ(Value("-.5"), Yaml11Value(-0.5));
  EXPECT_EQ(Value("1.5e+3"), Yaml11Value(1500.0));
  EXPECT_EQ(Value("-.inf"), Yaml11Value(-INFINITY));
  for (const char* text : {"0o10", "1e3", "1.5e3", "089", "1:99", "99999999999999999999", "0x",
                           "1.2.3", "_1", "cuda:0"}) {
    EXPECT_EQ(Value(text), Yaml11Value(std::string(text))) << text;
  }
}

TEST(Yaml11, QuotedScalarsAreTexts) {
  EXPECT_EQ(Value("'no'"), Yaml11Value(std::string("no")));
  EXPECT_EQ(Value("\"0\""), Yaml11Value(std::string("0")));
  EXPECT_EQ(Value("''"), Yaml11Value(std::string()));
  EXPECT_EQ(TextOf(Parsed("'7'")), "7");
  EXPECT_EQ(TextOf(Parsed("7")), std::nullopt);
  EXPECT_EQ(TextOf(Parsed("[7]")), std::nullopt);
}

TEST(Yaml11, TruthIsPythons) {
  for (const char* yes : {"true", "1", "0.5", "'False'", "[0]", "{a: 0}"}) {
    EXPECT_TRUE(IsTrueInPython(Parsed(yes))) << yes;
  }
  for (const char* no : {"false", "0", "0.0", "''", "[]", "{}", "~"}) {
    EXPECT_FALSE(IsTrueInPython(Parsed(no))) << no;
  }
}

TEST(Yaml11, TheLastOfTwoKeysCounts) {
  EXPECT_EQ(FindLast(Parsed("{a: 1, b: 2, a: 3}"), "a")->scalar, "3");
  EXPECT_EQ(FindLast(Parsed("{a: 1}"), "b"), nullptr);
}

}  // namespace
}  // namespace dovetail::coordinator::ktransformers
