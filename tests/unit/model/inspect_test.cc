#include "model/inspect.h"

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::GgufWriter;
using ::dovetail::testing::IsOk;
using ::nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

std::unique_ptr<GgufFile> OpenWritten(const GgufWriter& writer) {
  const std::string path = ::testing::TempDir() + "/inspect_test.gguf";
  writer.Write(path);
  return GgufFile::Open(path).value();
}

GgufWriter Example() {
  GgufWriter w;
  w.AddString("general.architecture", "llama");
  w.AddUint32("k.u32", 7);
  w.AddInt64("k.i64", -7);
  w.AddFloat32("k.f32", 0.5f);
  w.AddFloat64("k.nan", std::nan(""));
  w.AddBool("k.bool", true);
  w.AddString("k.bad", "x\xff\x1b[31m");
  w.AddStrings("k.texts", {"a", "\xc3", "c", "d", "e", "f", "g"});
  w.AddString("k.utf8", "\u0120a\u202e");
  w.AddInt32s("k.ints", {1, -2});
  w.AddArray<uint8_t>("k.bools", 7, {1, 0});
  w.AddTensor("t.weight", WeightType::kQ8_0, {64, 2}, std::string(136, 'x'));
  w.AddTensor("v", WeightType::kF32, {3}, std::string(12, 'x'));
  return w;
}

TEST(InspectJson, HasExactlyTheStableForm) {
  const auto file = OpenWritten(Example());
  const json got = json::parse(InspectJson(*file));
  const uint64_t data = file->FindTensor("t.weight")->offset;
  const json expected = {
      {"version", 3},
      {"metadata",
       {{"general.architecture", {{"type", "string"}, {"value", "llama"}}},
        {"k.u32", {{"type", "uint32"}, {"value", 7}}},
        {"k.i64", {{"type", "int64"}, {"value", -7}}},
        {"k.f32", {{"type", "float32"}, {"value", 0.5}}},
        {"k.nan", {{"type", "float64"}, {"value", nullptr}}},
        {"k.bool", {{"type", "bool"}, {"value", true}}},
        {"k.bad", {{"type", "string"}, {"value", "x\ufffd\x1b[31m"}}},
        {"k.texts",
         {{"type", "array[string]"}, {"value", {"a", "\ufffd", "c", "d", "e", "f", "g"}}}},
        {"k.utf8", {{"type", "string"}, {"value", "\u0120a\u202e"}}},
        {"k.ints", {{"type", "array[int32]"}, {"value", {1, -2}}}},
        {"k.bools", {{"type", "array[bool]"}, {"value", {true, false}}}}}},
      {"tensors", json::array({{{"name", "t.weight"},
                                {"type", "Q8_0"},
                                {"shape", {64, 2}},
                                {"offset", data},
                                {"bytes", 136}},
                               {{"name", "v"},
                                {"type", "F32"},
                                {"shape", {3}},
                                {"offset", data + 160},
                                {"bytes", 12}}})}};
  EXPECT_EQ(got, expected);
}

TEST(InspectJson, EmptyFile) {
  const json got = json::parse(InspectJson(*OpenWritten(GgufWriter())));
  EXPECT_EQ(got, json({{"version", 3}, {"metadata", json::object()}, {"tensors", json::array()}}));
}

TEST(InspectText, SummarisesAndStaysPrintable) {
  const auto file = OpenWritten(Example());
  ASSERT_OK_AND_ASSIGN(const std::string text, InspectText(*file));
  EXPECT_THAT(text, HasSubstr("version         GGUF 3, 1 file, "));
  EXPECT_THAT(text, HasSubstr("architecture    llama\n"));
  EXPECT_THAT(text, HasSubstr("parameters      131\n"));
  EXPECT_THAT(text, HasSubstr("bits per weight 9.038\n"));  // (136 + 12) * 8 / 131
  EXPECT_THAT(text, HasSubstr("Q8_0         1 tensors             128 weights"));
  EXPECT_THAT(text, HasSubstr("metadata (11)\n"));
  EXPECT_THAT(text, HasSubstr("\"d\", \"e\", \"f\", ...] (7 elements)"));
  EXPECT_THAT(text, HasSubstr("tensors (2)\n"));
  EXPECT_THAT(text, HasSubstr("t.weight  Q8_0     [64, 2] "));
  EXPECT_THAT(text, HasSubstr("\"x\\xff\\x1b[31m\""));
  EXPECT_THAT(text, HasSubstr("\"\u0120a\\xe2\\x80\\xae\""));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(InspectText, NamesBlocksThatAreNotDecoded) {
  ASSERT_OK_AND_ASSIGN(const std::string without, InspectText(*OpenWritten(Example())));
  EXPECT_THAT(without, Not(HasSubstr("not decoded")));
  GgufWriter w = Example();
  w.AddUint32("llama.nextn_predict_layers", 1);
  ASSERT_OK_AND_ASSIGN(const std::string with, InspectText(*OpenWritten(w)));
  EXPECT_THAT(with,
              HasSubstr("\nnot decoded     1 block at the end, for multi-token prediction\n"));
}

}  // namespace
}  // namespace dovetail::model
