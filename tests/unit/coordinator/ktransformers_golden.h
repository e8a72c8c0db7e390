// The maps that KTransformers' own injector computed, with the files that they belong to. Empty
// where the shared data is absent.
#ifndef DOVETAIL_TESTS_UNIT_COORDINATOR_KTRANSFORMERS_GOLDEN_H_
#define DOVETAIL_TESTS_UNIT_COORDINATOR_KTRANSFORMERS_GOLDEN_H_

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "base/gzip.h"
#include "tests/testing/test_data.h"

namespace dovetail::coordinator::ktransformers {

struct GoldenMap {
  std::string path;       // of the map
  std::string rule_file;  // "ktransformers/DeepSeek-V3-Chat.yaml"
  nlohmann::ordered_json json;
  std::string tree_text;
  std::string rules_text;
};

inline std::string ReadData(const std::string& path) {
  const auto text = ReadMaybeGzipped(path, 256 << 20);
  EXPECT_TRUE(text.ok()) << text.status();
  return text.ok() ? *text : "";
}

// `wanted` chooses by the map's file name.
template <typename Wanted>
std::vector<GoldenMap> GoldenMapsIf(const Wanted& wanted) {
  const std::string readme = testing::DataPath("placement/golden/README.md");
  if (readme.empty()) return {};
  const std::filesystem::path root = std::filesystem::path(readme).parent_path();
  std::vector<std::string> paths;
  for (const char* package : {"ktransformers", "kt-sft"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / package)) {
      if (entry.is_regular_file() && wanted(entry.path().string())) {
        paths.push_back(entry.path().string());
      }
    }
  }
  std::sort(paths.begin(), paths.end());
  std::vector<GoldenMap> maps;
  for (const std::string& path : paths) {
    GoldenMap map;
    map.path = path;
    map.json = nlohmann::ordered_json::parse(ReadData(path));
    map.rule_file = map.json["rule_file"];
    map.rules_text = ReadData((root / "../ktransformers" / map.rule_file).string());
    std::string tree = (root / "trees" / map.json["tree"]).string() + ".json";
    if (!std::filesystem::exists(tree)) tree += ".gz";
    map.tree_text = ReadData(tree);
    maps.push_back(std::move(map));
  }
  return maps;
}

inline std::vector<GoldenMap> GoldenMaps() {
  return GoldenMapsIf([](const std::string&) { return true; });
}

}  // namespace dovetail::coordinator::ktransformers

#endif  // DOVETAIL_TESTS_UNIT_COORDINATOR_KTRANSFORMERS_GOLDEN_H_
