#include "coordinator/placement/plan_json.h"

#include <nlohmann/json.hpp>

#include "gmock/gmock.h"
#include "tests/unit/coordinator/plan_fixture.h"

namespace dovetail::coordinator {
namespace {

using ::testing::ElementsAre;
using Json = nlohmann::ordered_json;

class PlanJsonTest : public PlanFixture {
 protected:
  Json Of(const std::string& rules, const std::vector<DeviceInfo>& devices) {
    const RuleSet set = ParseRules(rules, "r.yaml").value();
    const Plan plan = PlanByRules(config_, *file_, &set, devices, shape_);
    if (HasErrors(plan.diagnostics)) return Json::parse(PlanJson(config_, plan, {}, {}));
    return Json::parse(
        PlanJson(config_, plan, PredictSpeed(config_, plan), NearestFits(config_, *file_, plan)));
  }
  static std::vector<std::string> Keys(const Json& object) {
    std::vector<std::string> keys;
    for (const auto& [key, value] : object.items()) keys.push_back(key);
    return keys;
  }
};

constexpr char kRules[] =
    "- {match: {layers: 0-3}, place: cpu:0}\n"
    "- {match: {role: embedding}, place: cpu:0}\n"
    "- {match: {}, place: cpu:1}\n";

TEST_F(PlanJsonTest, HasTheKeysOfTheContract) {
  const Json json = Of(kRules, Devices(2));
  EXPECT_THAT(Keys(json), ElementsAre("version", "fits", "devices", "modules", "route", "speed",
                                      "diagnostics", "suggestions"));
  EXPECT_EQ(json["version"], 1);
  EXPECT_EQ(json["fits"], true);
  ASSERT_EQ(json["devices"].size(), 2u);
  EXPECT_THAT(Keys(json["devices"][0]),
              ElementsAre("name", "capacity", "weights_stored", "weights_packed", "weights_mapped",
                          "kv", "workspace", "communication", "runtime", "peak_load", "peak_run"));
  EXPECT_THAT(Keys(json["modules"][0]), ElementsAre("name", "device", "split", "op", "rule"));
  EXPECT_THAT(Keys(json["modules"][0]["rule"]), ElementsAre("file", "line", "index"));
  EXPECT_EQ(json["modules"][0]["rule"]["line"], 2);
  EXPECT_EQ(json["modules"][0]["rule"]["index"], 1);
  EXPECT_EQ(json["modules"][1]["name"], "model.layers.0.self_attn");
  EXPECT_EQ(json["modules"][1]["op"], "attention.p16");
  ASSERT_EQ(json["route"].size(), 2u);
  EXPECT_THAT(Keys(json["route"][1]), ElementsAre("device", "split", "modules", "hop_bytes"));
  EXPECT_EQ(json["route"][0]["hop_bytes"], 0);
  EXPECT_EQ(json["route"][1]["hop_bytes"], 64 * 4);
  EXPECT_EQ(json["route"][1]["modules"],
            Json::parse(R"(["model.layers.4-7", "model.norm", "lm_head"])"));
  EXPECT_GT(json["speed"]["decode_tokens_per_s"], 0);
  EXPECT_TRUE(json["diagnostics"].empty());
  EXPECT_TRUE(json["suggestions"].empty());
  int64_t sum = 0;
  const Json& device = json["devices"][0];
  for (const char* key : {"weights_packed", "kv", "workspace", "communication", "runtime"}) {
    sum += device[key].get<int64_t>();
  }
  EXPECT_EQ(device["peak_run"], sum);
}

TEST_F(PlanJsonTest, WhatDoesNotFitHasSuggestions) {
  std::vector<DeviceInfo> devices = Devices(2);
  devices[1].memory_bytes = (int64_t{10} << 20) + (1 << 19);
  const Json json = Of(kRules, devices);
  EXPECT_EQ(json["fits"], false);
  ASSERT_FALSE(json["suggestions"].empty());
  EXPECT_THAT(Keys(json["suggestions"][0]), ElementsAre("settings", "message"));
}

TEST_F(PlanJsonTest, MistakesAreDiagnosticsWithoutAPlan) {
  const Json json = Of("- {match: {layers: 0-3}, place: cpu:9}\n", Devices(1));
  EXPECT_EQ(json["fits"], false);
  EXPECT_TRUE(json["devices"].empty());
  EXPECT_TRUE(json["speed"].is_null());
  ASSERT_EQ(json["diagnostics"].size(), 2u);
  EXPECT_THAT(Keys(json["diagnostics"][1]),
              ElementsAre("code", "severity", "file", "line", "col", "message"));
  EXPECT_EQ(json["diagnostics"][1]["code"], "unknown-device");
  EXPECT_EQ(json["diagnostics"][1]["line"], 1);
}

TEST_F(PlanJsonTest, WithoutRulesTheRuleIsNull) {
  const Plan plan = PlanByRules(config_, *file_, nullptr, Devices(1), shape_);
  const Json json = Json::parse(PlanJson(config_, plan, PredictSpeed(config_, plan), {}));
  EXPECT_TRUE(json["modules"][0]["rule"].is_null());
}

}  // namespace
}  // namespace dovetail::coordinator
