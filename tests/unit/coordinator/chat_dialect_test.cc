#include "coordinator/chat/chat_dialect.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gtest/gtest.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator {
namespace {

TEST(ChatDialect, FindsByName) {
  EXPECT_EQ(FindDialect("glm45")->call_begin, "<tool_call>");
  EXPECT_EQ(FindDialect("klingon"), nullptr);
  EXPECT_NE(DialectNames().find("hermes, "), std::string::npos);
}

TEST(ChatDialect, DetectsTheFamilyOfATemplate) {
  const std::string folder = testing::DataPath("chat-templates");
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << folder << " is absent";
  const struct {
    const char* file;
    const char* dialect;  // null: knows no tools
    bool thinks;
  } kCases[] = {
      {"Qwen-Qwen2.5-7B-Instruct.jinja", "hermes", false},
      {"Qwen-Qwen3-0.6B.jinja", "hermes", true},
      {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja", "hermes", false},
      {"Qwen3-Coder.jinja", "qwen3_coder", false},
      {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B.jinja", "deepseek_v3", true},
      {"deepseek-ai-DeepSeek-V3.1.jinja", "deepseek_v31", true},
      {"moonshotai-Kimi-K2.jinja", "kimi_k2", false},
      {"GLM-4.6.jinja", "glm45", true},
      {"MiniMax-M2.jinja", "minimax_m2", true},
      {"meta-llama-Llama-3.1-8B-Instruct.jinja", "llama3_json", false},
      {"openai-gpt-oss-120b.jinja", "harmony", false},
      {"mistralai-Mistral-Nemo-Instruct-2407.jinja", "mistral", false},
      {"google-gemma-2-2b-it.jinja", nullptr, false},
  };
  for (const auto& c : kCases) {
    std::ifstream file(folder + "/" + c.file);
    std::stringstream source;
    source << file.rdbuf();
    ASSERT_TRUE(file) << c.file;
    const ChatDialect* found = DetectDialect(source.str());
    EXPECT_EQ(found == nullptr ? "none" : std::string(found->name),
              c.dialect == nullptr ? "none" : c.dialect)
        << c.file;
    EXPECT_EQ(TemplateThinks(source.str()), c.thinks) << c.file;
  }
}

}  // namespace
}  // namespace dovetail::coordinator
