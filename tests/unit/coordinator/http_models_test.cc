// A server with several models: every API finds the one that a request names.
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/coordinator/http_test_server.h"

namespace dovetail::coordinator {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kChoices[] = "`model` is required: this server has `org/tiny`, `second`";

RawResponse Get(int port, const std::string& path) {
  return Ask(port, absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n\r\n"));
}

class HttpModelsTest : public ::testing::Test {
 protected:
  HttpModelsTest() : server_(TwoModels()) {}
  static TestServerOptions TwoModels() {
    TestServerOptions options;
    options.more_models = {"second"};
    return options;
  }
  RawResponse PostFor(const std::string& path, const std::string& model, json body) {
    if (!model.empty()) body["model"] = model;
    return Post(server_.port(), path, body.dump());
  }
  TestServer server_;
};

TEST_F(HttpModelsTest, AllAreListed) {
  const json list = json::parse(Get(server_.port(), "/v1/models").body).at("data");
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].at("id"), kTestModel);
  EXPECT_EQ(list[1].at("id"), "second");
  EXPECT_EQ(json::parse(Get(server_.port(), "/v1/models/second").body).at("id"), "second");
  EXPECT_EQ(json::parse(Get(server_.port(), "/v1/models/test-alias").body).at("id"), kTestModel);
  EXPECT_EQ(Get(server_.port(), "/v1/models/").status, 404);
  for (const char* path : {"/api/tags", "/api/ps"}) {
    const json models = json::parse(Get(server_.port(), path).body).at("models");
    ASSERT_EQ(models.size(), 2u) << path;
    EXPECT_EQ(models[1].at("name"), "second") << path;
  }
}

TEST_F(HttpModelsTest, AnswersSayWhoTheyAreOf) {
  const json prompt = {{"prompt", "abc"}, {"max_tokens", 2}};
  const json chat = {{"messages", {{{"role", "user"}, {"content", "x"}}}}, {"max_tokens", 2}};
  for (const std::string model : {"second", kTestModel}) {
    EXPECT_EQ(json::parse(PostFor("/v1/completions", model, prompt).body).at("model"), model);
    EXPECT_EQ(json::parse(PostFor("/v1/chat/completions", model, chat).body).at("model"), model);
    EXPECT_EQ(json::parse(PostFor("/v1/messages", model, chat).body).at("model"), model);
    EXPECT_EQ(PostFor("/v1/messages/count_tokens", model, chat).status, 200);
    EXPECT_EQ(PostFor("/api/generate", model + ":latest", {{"prompt", "x"}}).status, 200);
    EXPECT_EQ(PostFor("/api/show", model, json::object()).status, 200);
    EXPECT_EQ(PostFor("/tokenize", model, prompt).status, 200);
    EXPECT_EQ(PostFor("/detokenize", model, {{"tokens", {70}}}).status, 200);
  }
  EXPECT_EQ(json::parse(PostFor("/v1/completions", "test-alias", prompt).body).at("model"),
            kTestModel);
  EXPECT_EQ(Get(server_.port(), "/tokenizer_info?a=b&model=org%2Ftiny").status, 200);
}

TEST_F(HttpModelsTest, OneMustBeNamed) {
  const json chat = {{"messages", {{{"role", "user"}, {"content", "x"}}}},
                     {"max_tokens", 2},
                     {"prompt", "x"},
                     {"input", "x"},
                     {"tokens", {70}}};
  for (const char* path :
       {"/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens",
        "/v1/embeddings", "/api/generate", "/api/chat", "/api/embed", "/tokenize", "/detokenize"}) {
    const RawResponse missing = PostFor(path, "", chat);
    EXPECT_EQ(missing.status, 400) << path << " " << missing.body;
    EXPECT_THAT(missing.body, HasSubstr(kChoices)) << path;
    const RawResponse unknown = PostFor(path, "third", chat);
    EXPECT_EQ(unknown.status, 404) << path << " " << unknown.body;
    EXPECT_THAT(unknown.body, HasSubstr("The model `third` does not exist")) << path;
  }
  EXPECT_EQ(Get(server_.port(), "/tokenizer_info").status, 400);
  EXPECT_EQ(PostFor("/api/show", "", json::object()).status, 404);
}

}  // namespace
}  // namespace dovetail::coordinator
