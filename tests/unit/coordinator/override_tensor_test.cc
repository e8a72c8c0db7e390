#include "coordinator/placement/override_tensor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "coordinator/placement/ktransformers/builtin_tree.h"
#include "coordinator/placement/ktransformers/convert.h"
#include "coordinator/placement/rule_set.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Entries(const std::string& argument) {
  const std::string arguments[] = {argument};
  std::vector<std::string> shown;
  for (const TensorOverride& entry : ParseTensorOverrides(arguments).entries) {
    shown.push_back(absl::StrCat(entry.pattern, " -> ", entry.device));
  }
  return shown;
}

std::vector<std::string> Said(const std::string& argument) {
  const std::string arguments[] = {argument};
  std::vector<std::string> shown;
  for (const Diagnostic& d : ParseTensorOverrides(arguments).diagnostics) {
    shown.push_back(FormatDiagnostic(d));
  }
  return shown;
}

TEST(OverrideTensor, IsReadAsPeopleWriteIt) {
  EXPECT_THAT(Entries("exps=CPU"), ElementsAre("exps -> cpu"));
  EXPECT_THAT(Entries("\"ffn_down_exps=CPU, ffn_up_exps=CPU, gate_exps=CPU\""),
              ElementsAre("ffn_down_exps -> cpu", "ffn_up_exps -> cpu", "gate_exps -> cpu"));
  EXPECT_THAT(Entries("'blk\\.([0-7])\\..*_exps\\.=CUDA1'"),
              ElementsAre("blk\\.([0-7])\\..*_exps\\. -> cuda:1"));
  EXPECT_THAT(Entries("\"blk.1.ffn=CUDA1\",\"output.=CUDA14\""),
              ElementsAre("blk.1.ffn -> cuda:1", "output. -> cuda:14"));
  EXPECT_THAT(Entries("down_exps=CPU,up_exps=CPU,"),
              ElementsAre("down_exps -> cpu", "up_exps -> cpu"));
  EXPECT_THAT(Entries("blk\\.\\d{1,2}\\.ffn=CPU"), ElementsAre("blk\\.\\d{1,2}\\.ffn -> cpu"));
}

TEST(OverrideTensor, WhatCannotBeReadIsSaid) {
  EXPECT_THAT(Said("then"), ElementsAre("--override-tensor: error: `then` is not PATTERN=BUFFER, "
                                        "such as exps=CPU [bad-override]"));
  EXPECT_THAT(Said("=CPU"), ElementsAre(HasSubstr("`=CPU` is not PATTERN=BUFFER")));
  EXPECT_THAT(Said("attn=GPU0"),
              ElementsAre(HasSubstr("`attn`: unknown buffer `GPU0`; did you mean `CUDA0`?")));
  EXPECT_THAT(Said("ffn=CUDAx"),
              ElementsAre(HasSubstr("unknown buffer `CUDAx`; known: CPU, CUDA0, CUDA1, ...")));
  EXPECT_THAT(Said("ffn=$GPU1"), ElementsAre(HasSubstr("`$GPU1` is a variable of a shell")));
  EXPECT_THAT(Said("ffn=Vulkan0"), ElementsAre(HasSubstr("not for the buffer `Vulkan0`")));
  EXPECT_THAT(Said("blk\\.(?\?\?)=CPU"), ElementsAre(HasSubstr("at offset 7 [bad-regex]")));
  EXPECT_THAT(Said("blk\\.[0-10]\\.ffn=CUDA0"),
              ElementsAre(HasSubstr("warning: `blk\\.[0-10]\\.ffn`: a range in [ ] is of single "
                                    "characters; layers 0 to 10 are `([0-9]|10)` [odd-pattern]")));
  EXPECT_THAT(Said("blk\\.(1[6-9] | 2[0-9])\\.ffn=CPU"),
              ElementsAre(HasSubstr("a space is part of the pattern")));
  EXPECT_THAT(Said(""), ElementsAre(HasSubstr("is not PATTERN=BUFFER")));
}

TEST(OverrideTensor, TheFirstPatternThatMatchesAnywhereCounts) {
  const std::string arguments[] = {"blk\\.3\\.ffn=CUDA0", "ffn=CPU"};
  const TensorOverrides overrides = ParseTensorOverrides(arguments);
  EXPECT_EQ(overrides.Find("blk.3.ffn_up.weight")->device, "cuda:0");
  EXPECT_EQ(overrides.Find("blk.13.ffn_up.weight")->device, "cpu");
  EXPECT_EQ(overrides.Find("blk.3.attn_q.weight"), nullptr);
}

// Every argument that people have shared becomes rules of our form, or the reason is said.
TEST(OverrideTensor, EveryArgumentOfTheCorpusIsTranslatedOrRefusedWithAReason) {
  DT_REQUIRE_DATA(path, "placement/override-tensor-corpus.txt");
  namespace kt = ktransformers;
  const kt::TreeShape shape =
      kt::ShapeFromHuggingFace(
          R"({"model_type": "deepseek_v3", "num_hidden_layers": 61, "first_k_dense_replace": 3,
              "n_routed_experts": 256, "n_shared_experts": 1, "kv_lora_rank": 512,
              "q_lora_rank": 1536})",
          "config.json")
          .value();
  const kt::ModuleTree tree = kt::BuildTree(shape);
  const DeviceMap no_map;
  const std::string text = testing::ReadFileOrDie(path);
  int translated = 0, refused = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    if (line[0] == '#') continue;
    // "     20 -ot "blk...=CUDA0"": a count, the flag, the argument.
    const std::vector<std::string> words =
        absl::StrSplit(absl::StripAsciiWhitespace(line), absl::MaxSplits(' ', 2));
    const std::string argument[] = {words.size() > 2 ? words[2] : words[1].substr(4)};
    const kt::Converted converted = kt::ConvertOverrides(argument, {shape, tree, no_map, nullptr});
    if (HasErrors(converted.diagnostics)) {
      EXPECT_TRUE(converted.text.empty());
      ++refused;
      continue;
    }
    ++translated;
    const auto rules = ParseRules(converted.text, "converted");
    EXPECT_TRUE(rules.ok()) << argument[0] << "\n" << converted.text << rules.status();
  }
  EXPECT_EQ(translated + refused, 368);
  EXPECT_GT(translated, 310);
  std::printf("translated %d, refused %d\n", translated, refused);
}

}  // namespace
}  // namespace dovetail::coordinator
