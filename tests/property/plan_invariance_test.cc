// The promise: logits do not depend on how a model is cut, on threads, on chunks, on the
// instruction set, nor on what else is in the batch; and they are those of the published model.
//
// Real executors run as threads over in-process rings, on the golden models and on random ones of
// every weight type.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/weight_type.h"
#include "gmock/gmock.h"
#include "model/gguf/gguf_file.h"
#include "model/model_config.h"
#include "tests/testing/local_pipeline.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"

namespace dovetail {
namespace {

using testing::DataPath;
using testing::LocalPipeline;
using testing::LocalPipelineOptions;
using testing::Logits;
using testing::SharedRoute;
using Sequences = std::vector<std::vector<int32_t>>;

struct Case {
  std::vector<int32_t> tokens;
  int first_row = 0;
  int rows = 0;
  std::vector<int32_t> greedy;
  std::vector<double> greedy_margin;
};

std::vector<Case> ReadCases(const std::string& family) {
  const auto golden = nlohmann::json::parse(
      testing::ReadFileOrDie(DataPath(absl::StrCat("golden/", family, "/golden.json"))));
  std::vector<Case> cases;
  for (const auto& c : golden["cases"]) {
    cases.push_back({c["tokens"], c["first_row"], c["rows"], c["greedy"], c["greedy_margin"]});
  }
  return cases;
}

Sequences TokensOf(const std::vector<Case>& cases) {
  Sequences sequences;
  for (const Case& c : cases) sequences.push_back(c.tokens);
  return sequences;
}

// The stored rows of all cases, from a file of f32.
Logits ReadRows(const std::string& path, const std::vector<Case>& cases, int vocab) {
  const std::string bytes = testing::ReadFileOrDie(path);
  Logits rows;
  size_t offset = 0;
  for (const Case& c : cases) {
    for (int i = 0; i < c.rows; ++i, offset += vocab * sizeof(float)) {
      rows.emplace_back(vocab);
      std::memcpy(rows.back().data(), bytes.data() + offset, vocab * sizeof(float));
    }
  }
  EXPECT_EQ(offset, bytes.size()) << path;
  return rows;
}

// Those rows out of what we computed.
Logits SelectRows(const std::vector<Logits>& logits, const std::vector<Case>& cases) {
  Logits rows;
  for (size_t i = 0; i < cases.size(); ++i) {
    const auto first = logits[i].begin() + cases[i].first_row;
    rows.insert(rows.end(), first, first + cases[i].rows);
  }
  return rows;
}

double RowRms(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

double Rms(const Logits& a, const Logits& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(RowRms(a[i], b[i]), 2);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// The mean of the two middle values for an even number of rows, as numpy has it.
double MedianRowRms(const Logits& a, const Logits& b) {
  std::vector<double> rms;
  for (size_t i = 0; i < a.size(); ++i) rms.push_back(RowRms(a[i], b[i]));
  std::sort(rms.begin(), rms.end());
  return (rms[(rms.size() - 1) / 2] + rms[rms.size() / 2]) / 2;
}

// Mean over rows of the Kullback-Leibler divergence of `actual`'s distribution from `expected`'s.
double MeanKl(const Logits& expected, const Logits& actual) {
  const auto log_softmax = [](const std::vector<float>& row) {
    const double max = *std::max_element(row.begin(), row.end());
    double sum = 0;
    for (float x : row) sum += std::exp(x - max);
    std::vector<double> log_p;
    for (float x : row) log_p.push_back(x - max - std::log(sum));
    return log_p;
  };
  double total = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const std::vector<double> p = log_softmax(expected[i]), q = log_softmax(actual[i]);
    for (size_t j = 0; j < p.size(); ++j) total += std::exp(p[j]) * (p[j] - q[j]);
  }
  return total / static_cast<double>(expected.size());
}

absl::StatusOr<std::vector<Logits>> Evaluate(const LocalPipelineOptions& options,
                                             const Sequences& sequences, int chunk) {
  auto pipeline = LocalPipeline::Start(options);
  if (!pipeline.ok()) return pipeline.status();
  return (*pipeline)->Evaluate(sequences, chunk);
}

// Byte for byte: -0 and 0 are different bytes.
::testing::AssertionResult SameBytes(const std::vector<Logits>& a, const std::vector<Logits>& b) {
  for (size_t s = 0; s < a.size(); ++s) {
    for (size_t r = 0; r < a[s].size(); ++r) {
      if (std::memcmp(a[s][r].data(), b[s][r].data(), a[s][r].size() * sizeof(float)) != 0) {
        return ::testing::AssertionFailure()
               << "sequence " << s << ", row " << r << " differ, RMS " << RowRms(a[s][r], b[s][r]);
      }
    }
  }
  return ::testing::AssertionSuccess();
}

struct Variation {
  std::string name;
  LocalPipelineOptions options;
  int chunk = 512;
};

class PlanInvariance : public ::testing::TestWithParam<std::string> {
 protected:
  std::string path() const { return DataPath(absl::StrCat("golden/", GetParam())); }
  std::string family() const { return GetParam().substr(0, GetParam().find('/')); }
};

model::ModelConfig ConfigOf(const std::string& path) {
  const auto file = model::GgufFile::Open(path).value();
  return model::LoadModelConfig(*file).value();
}

// Which worker has an op; asked with ranges of one expert each, in an order that is given.
using WorkerOf = std::function<int(const Op&)>;
Route RouteWithExperts(const model::ModelConfig& config, const std::vector<int>& expert_order,
                       const WorkerOf& worker_of) {
  Route route;
  const auto add = [&](const Op& op) {
    const std::string worker = absl::StrCat("cpu:", worker_of(op));
    if (route.empty() || route.back().worker != worker) route.push_back({worker, {}});
    route.back().ops.push_back(op);
  };
  for (const Op& op : model::OpsOf(config)) {
    if (op.kind != OpKind::kExperts) {
      add(op);
      continue;
    }
    for (const int e : expert_order) add({OpKind::kExperts, op.layer, e, e + 1});
  }
  return route;
}

// The parts of layers with experts on different workers.
void AddExpertVariations(const LocalPipelineOptions& base, const model::ModelConfig& config,
                         bool thorough, std::vector<Variation>* variations) {
  const int count = config.experts.count;
  std::vector<int> ascending(count), by_worker;
  std::iota(ascending.begin(), ascending.end(), 0);
  for (int worker = 0; worker < 3; ++worker) {
    for (int e = worker; e < count; e += 3) by_worker.push_back(e);
  }
  const std::vector<int> descending(ascending.rbegin(), ascending.rend());
  const auto add = [&](const std::string& name, int chunk, int threads,
                       const std::vector<int>& order, const WorkerOf& worker_of) {
    LocalPipelineOptions options = base;
    options.num_threads = threads;
    options.make_route = [=](const model::ModelConfig& c) {
      return RouteWithExperts(c, order, worker_of);
    };
    variations->push_back({name, options, chunk});
  };
  const auto kind = [](const Op& op, OpKind wanted) { return op.kind == wanted ? 1 : 0; };
  add("router, shared experts and experts apart", 512, 1, ascending, [](const Op& op) {
    return op.kind == OpKind::kRouter          ? 1
           : op.kind == OpKind::kExperts       ? 2
           : op.kind == OpKind::kSharedExperts ? 3
                                               : 0;
  });
  add("experts over 3 workers", 50, 1, by_worker,
      [](const Op& op) { return op.kind == OpKind::kExperts ? op.expert_begin % 3 : 0; });
  if (!thorough) return;
  add("experts apart", 7, 2, descending, [=](const Op& op) { return kind(op, OpKind::kExperts); });
  add("router apart", 64, 1, ascending, [=](const Op& op) { return kind(op, OpKind::kRouter); });
  if (config.experts.shared_intermediate_size > 0) {
    add("shared experts apart", 512, 1, ascending,
        [=](const Op& op) { return kind(op, OpKind::kSharedExperts); });
  }
  add("experts of a layer over 2 workers", 512, 2, ascending, [=](const Op& op) {
    return op.kind == OpKind::kExperts && op.expert_begin >= count / 2 ? 1 : 0;
  });
  add("experts over 3 workers, visited again and again", 512, 1, ascending,
      [](const Op& op) { return op.kind == OpKind::kExperts ? op.expert_begin % 3 : 1; });
  add("experts over 3 workers, backwards, chunk 1", 1, 1, descending,
      [](const Op& op) { return op.kind == OpKind::kExperts ? op.expert_begin % 3 : 2; });
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    add(absl::StrCat("experts over 2 workers, ", table->name), 33, 1, ascending,
        [](const Op& op) { return op.kind == OpKind::kExperts ? op.expert_begin % 2 : 0; });
    variations->back().options.kernels = table;
  }
}

void AddSharedVariations(const LocalPipelineOptions& base, std::vector<Variation>* variations) {
  const auto add = [&](const std::string& name, const std::vector<Member>& members, int threads,
                       int chunk) {
    LocalPipelineOptions options = base;
    options.num_threads = threads;
    options.make_route = [route = SharedRoute(base.gguf, members)](const model::ModelConfig&) {
      return route;
    };
    variations->push_back({name, options, chunk});
  };
  add("rows shared by 2", {{"cpu:0", 1}, {"cpu:1", 1}}, 1, 512);
  add("rows shared by 2, 5 to 2, 2 threads", {{"cpu:1", 5}, {"cpu:0", 2}}, 2, 33);
  add("rows shared by 3, unevenly, chunk 7", {{"cpu:0", 1}, {"cpu:2", 3}, {"cpu:1", 1.5}}, 1, 7);
  add("rows shared by 3, 2 threads", {{"cpu:0", 1}, {"cpu:1", 1}, {"cpu:2", 1}}, 2, 512);
}

// Some of each kind once more, with weights that stay in the file.
void AddInPlaceVariations(std::vector<Variation>* variations) {
  constexpr size_t kEvery = 4;
  const size_t packed = variations->size();
  for (size_t i = packed % kEvery; i < packed; i += kEvery) {
    Variation variation = (*variations)[i];
    variation.name += ", weights in place";
    variation.options.in_place = true;
    variations->push_back(std::move(variation));
  }
}

// Without experts ops are 0 embedding, 1 + 2 l attention, 2 + 2 l mlp of layer l, then norm and
// lm_head.
std::vector<Variation> Variations(const LocalPipelineOptions& base, bool thorough) {
  const model::ModelConfig config = ConfigOf(base.gguf);
  const int num_ops = static_cast<int>(model::OpsOf(config).size());
  const int norm = num_ops - 2, lm_head = num_ops - 1, last_mlp = num_ops - 3;
  std::vector<Variation> variations;
  const auto add = [&](const std::string& name, int chunk, const auto& change) {
    LocalPipelineOptions options = base;
    change(options);
    variations.push_back({name, options, chunk});
  };
  const auto same = [](LocalPipelineOptions&) {};
  add("2 workers", 512, [&](auto& o) { o.cuts = {num_ops / 2 | 1}; });
  add("3 workers, cut inside layers", 512, [&](auto& o) { o.cuts = {2, last_mlp}; });
  add("embedding, norm and lm_head apart", 64, [&](auto& o) { o.cuts = {1, norm, lm_head}; });
  add("2 workers, visited again and again", 512, [&](auto& o) {
    for (int op = 1; op <= norm; ++op) o.cuts.push_back(op);
    o.num_workers = 2;
  });
  add("2 threads", 512, [](auto& o) { o.num_threads = 2; });
  add("5 threads", 7, [](auto& o) { o.num_threads = 5; });
  add("chunk 1", 1, same);
  add("chunk 7", 7, same);
  add("chunk 64", 64, same);
  for (const kernels::KernelTable* table : kernels::AvailableTables()) {
    add(table->name, 512, [&](auto& o) { o.kernels = table; });
  }
  add("3 workers, 2 threads, chunk 7", 7, [](auto& o) {
    o.cuts = {3, 4};
    o.num_threads = 2;
  });
  if (config.experts.count > 0) AddExpertVariations(base, config, thorough, &variations);
  AddSharedVariations(base, &variations);
  AddInPlaceVariations(&variations);
  return variations;
}

// The rarer types for one family of each kind of attention.
std::vector<KvType> KvTypesFor(const std::string& model) {
  for (const char* kind : {"llama/model-bf16", "deepseek2/model-bf16"}) {
    if (absl::StartsWith(model, kind)) return {std::begin(kKvTypes), std::end(kKvTypes)};
  }
  return {KvType::kF32, KvType::kF16};
}

TEST_P(PlanInvariance, SameBytesForEveryPlan) {
  if (path().empty()) GTEST_SKIP() << "no shared data: golden/" << GetParam();
  const Sequences sequences = TokensOf(ReadCases(family()));
  for (const KvType kv : KvTypesFor(GetParam())) {
    LocalPipelineOptions base;
    base.gguf = path();
    base.shape.kv_type = kv;
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> expected, Evaluate(base, sequences, 512));
    ASSERT_EQ(expected.back().size(), 160u);
    for (const Variation& v : Variations(base, /*thorough=*/true)) {
      ASSERT_OK_AND_ASSIGN(const std::vector<Logits> actual,
                           Evaluate(v.options, sequences, v.chunk));
      EXPECT_TRUE(SameBytes(expected, actual)) << v.name << ", KV " << KvTypeName(kv);
    }
  }
}

TEST_P(PlanInvariance, SameBytesAloneAndInABatch) {
  if (path().empty()) GTEST_SKIP() << "no shared data: golden/" << GetParam();
  const Sequences sequences = TokensOf(ReadCases(family()));
  std::mt19937 random(static_cast<uint32_t>(testing::TestSeed()));
  LocalPipelineOptions options;
  options.gguf = path();
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options));
  std::vector<Logits> alone;
  for (const std::vector<int32_t>& tokens : sequences) {
    ASSERT_OK_AND_ASSIGN(std::vector<Logits> logits, pipeline->Evaluate({tokens}, 512));
    alone.push_back(logits[0]);
  }
  for (int chunk : {3, 50}) {
    Sequences batch;
    for (int i = 0; i < 8; ++i) {
      batch.emplace_back(1 + random() % 120);
      for (int32_t& token : batch.back()) token = static_cast<int32_t>(random() % 512);
    }
    // Ours in the middle of the others.
    batch.insert(batch.begin() + 3, sequences.begin(), sequences.end());
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> all, pipeline->Evaluate(batch, chunk));
    EXPECT_TRUE(SameBytes(alone, {all[3], all[4], all[5]})) << "chunk " << chunk;
  }
}

// How far from exact arithmetic on the same quantised weights we are, relative to what llama.cpp's
// int8 activations cost: every file of quantised.json. Where a flipped choice of experts makes the
// divergence noise, only the median row counts.
class GoldenQuantised : public ::testing::TestWithParam<std::string> {};

TEST_P(GoldenQuantised, NoFurtherFromExactThanLlamaCpp) {
  const std::string folder = absl::StrCat("golden/", GetParam(), "/");
  DT_REQUIRE_DATA(list, folder + "quantised.json");
  const std::vector<Case> cases = ReadCases(GetParam());
  const auto peers = nlohmann::json::parse(testing::ReadFileOrDie(list));
  const bool has_experts = GetParam() != "llama" && GetParam() != "gemma3";
  double log_kl_ratios = 0;
  for (const auto& [name, peer] : peers.items()) {
    LocalPipelineOptions options;
    options.gguf = DataPath(folder + peer["file"].get<std::string>());
    options.shape.kv_type = KvType::kF32;
    const Logits expected =
        ReadRows(DataPath(folder + peer["logits"].get<std::string>()), cases, 512);
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> all, Evaluate(options, TokensOf(cases), 512));
    const Logits actual = SelectRows(all, cases);
    const double rms = MedianRowRms(expected, actual), kl = MeanKl(expected, actual);
    const double rms_ratio = rms / peer["peer_row_rms_median"].get<double>();
    const double kl_ratio = kl / peer["peer_kl"].get<double>();
    std::printf("%s %-14s row-median RMS %.5f: %.3f x llama.cpp; KL %.6f: %.3f x\n",
                GetParam().c_str(), name.c_str(), rms, rms_ratio, kl, kl_ratio);
    EXPECT_LE(rms_ratio, has_experts ? 1.15 : 1.05) << name;
    EXPECT_TRUE(has_experts || kl_ratio <= 1.25) << name;
    log_kl_ratios += std::log(kl_ratio);
  }
  const double mean = std::exp(log_kl_ratios / static_cast<double>(peers.size()));
  std::printf("%s: geometric mean of the KL ratios %.3f\n", GetParam().c_str(), mean);
  EXPECT_TRUE(has_experts || mean <= 1.05);
}

class GoldenFloat : public PlanInvariance {};

// References have f32 KV.
TEST_P(GoldenFloat, LogitsOfTheGolden) {
  if (path().empty()) GTEST_SKIP() << "no shared data: golden/" << GetParam();
  const std::vector<Case> cases = ReadCases(family());
  LocalPipelineOptions options;
  options.gguf = path();
  const Logits expected =
      ReadRows(DataPath(absl::StrCat("golden/", family(), "/logits.f32")), cases, 512);
  std::map<KvType, double> median;
  for (const KvType kv : kKvTypes) {
    options.shape.kv_type = kv;
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> all, Evaluate(options, TokensOf(cases), 512));
    const Logits actual = SelectRows(all, cases);
    const double rms = Rms(expected, actual);
    median[kv] = MedianRowRms(expected, actual);
    std::printf("%s, %s KV: RMS %.3g, of the median row %.3g\n", GetParam().c_str(), KvTypeName(kv),
                rms, median[kv]);
    const double gate = kv == KvType::kF32 ? 1e-4 : kv == KvType::kF16 ? 5e-3 : 1.0;
    EXPECT_LE(rms, gate) << KvTypeName(kv);
  }
  // bf16 rounds 8 times as coarsely as f16; a 254th of the largest of 32 is some 30 times as
  // coarse. Other experts may be chosen, so the median row counts.
  EXPECT_LE(median[KvType::kBF16], 12 * median[KvType::kF16]);
  EXPECT_LE(median[KvType::kQ8_0], 60 * median[KvType::kF16]);
}

TEST_P(GoldenFloat, GreedyTokensOfTheGolden) {
  if (path().empty()) GTEST_SKIP() << "no shared data: golden/" << GetParam();
  LocalPipelineOptions options;
  options.gguf = path();
  options.cuts = {4};
  options.num_threads = 2;
  ASSERT_OK_AND_ASSIGN(auto pipeline, LocalPipeline::Start(options));
  for (const Case& c : ReadCases(family())) {
    ASSERT_OK_AND_ASSIGN(const std::vector<int32_t> tokens,
                         pipeline->Greedy(c.tokens, static_cast<int>(c.greedy.size())));
    EXPECT_THAT(tokens, ::testing::ElementsAreArray(c.greedy));
  }
}

// Files from before 2025 have one tensor for the keys and values of all heads.
TEST(LatentAttention, BothLayoutsGiveTheSameBytes) {
  DT_REQUIRE_DATA(two, "golden/deepseek2-lite/model-bf16.gguf");
  DT_REQUIRE_DATA(merged, "golden/deepseek2-lite/model-bf16-kv_b.gguf");
  const Sequences sequences = TokensOf(ReadCases("deepseek2-lite"));
  LocalPipelineOptions options;
  options.gguf = two;
  ASSERT_OK_AND_ASSIGN(const std::vector<Logits> expected, Evaluate(options, sequences, 512));
  options.gguf = merged;
  ASSERT_OK_AND_ASSIGN(const std::vector<Logits> actual, Evaluate(options, sequences, 512));
  EXPECT_TRUE(SameBytes(expected, actual));
}

// Each layer with its own KV type: the same everywhere, and neither type's logits.
TEST(KvTypes, LayersMayDiffer) {
  DT_REQUIRE_DATA(path, "golden/deepseek3/model-bf16.gguf");
  const Sequences sequences = TokensOf(ReadCases("deepseek3"));
  LocalPipelineOptions base;
  base.gguf = path;
  base.shape.kv_type = KvType::kQ8_0;
  ASSERT_OK_AND_ASSIGN(const std::vector<Logits> all_q8, Evaluate(base, sequences, 512));
  base.shape.layer_kv_types = {KvType::kF16, KvType::kQ8_0, KvType::kBF16};
  ASSERT_OK_AND_ASSIGN(const std::vector<Logits> expected, Evaluate(base, sequences, 512));
  EXPECT_FALSE(SameBytes(all_q8, expected));
  for (const Variation& v : Variations(base, /*thorough=*/false)) {
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> actual, Evaluate(v.options, sequences, v.chunk));
    EXPECT_TRUE(SameBytes(expected, actual)) << v.name;
  }
}

// Random models need no shared data: every supported weight type, rows that are no multiple of 256
// where the type allows it, and a sequence that is longer than attention's split.
class SyntheticInvariance : public ::testing::TestWithParam<std::tuple<WeightType, int>> {};

TEST_P(SyntheticInvariance, SameBytesForEveryPlan) {
  const auto [type, experts] = GetParam();
  const int block = InfoOf(type).block_elements;
  LocalPipelineOptions base;
  base.gguf = testing::TempFile("plan_invariance.gguf");
  base.shape.kv_type = KvType::kF16;
  testing::WriteTinyLlama(base.gguf, {.layers = 3,
                                      .hidden = block == 256  ? 256
                                                : block == 64 ? 320
                                                              : 288,
                                      .ffn = block == 256  ? 768
                                             : block == 64 ? 576
                                                           : 544,
                                      .experts = experts,
                                      .experts_used = 3,
                                      .context = 512,
                                      .type = type,
                                      .tied = experts == 0});
  std::mt19937 random(static_cast<uint32_t>(testing::TestSeed()));
  Sequences sequences;
  for (int length : {300, 1, 33}) {
    sequences.emplace_back(length);
    for (int32_t& token : sequences.back()) token = static_cast<int32_t>(random() % 320);
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<Logits> expected, Evaluate(base, sequences, 512));
  ASSERT_EQ(expected[0].size(), 300u);
  for (const Variation& v : Variations(base, /*thorough=*/false)) {
    ASSERT_OK_AND_ASSIGN(const std::vector<Logits> actual, Evaluate(v.options, sequences, v.chunk));
    EXPECT_TRUE(SameBytes(expected, actual)) << v.name;
  }
  std::filesystem::remove(base.gguf);
}

std::string NameOfSynthetic(const ::testing::TestParamInfo<std::tuple<WeightType, int>>& info) {
  const auto [type, experts] = info.param;
  return std::string(InfoOf(type).name) + (experts > 0 ? "_experts" : "");
}

INSTANTIATE_TEST_SUITE_P(AllTypes, SyntheticInvariance,
                         ::testing::Combine(::testing::ValuesIn(SupportedWeightTypes().begin(),
                                                                SupportedWeightTypes().end()),
                                            ::testing::Values(0, 5)),
                         NameOfSynthetic);

std::string NameOf(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param.substr(0, info.param.rfind('.'));
  for (char& c : name) c = std::isalnum(c) ? c : '_';
  return name;
}

const std::string kFloatModels[] = {
    "llama/model-bf16.gguf",          "llama-tied/model-bf16.gguf",
    "mixtral/model-bf16.gguf",        "qwen2/model-bf16.gguf",
    "qwen2moe/model-bf16.gguf",       "qwen3/model-bf16.gguf",
    "qwen3moe/model-bf16.gguf",       "glm4moe/model-bf16.gguf",
    "glm4moe/model-bf16-nextn.gguf",  "minimax-m2/model-bf16.gguf",
    "gemma3/model-bf16.gguf",         "gpt-oss/model-bf16.gguf",
    "deepseek2-lite/model-bf16.gguf", "deepseek2-lite/model-bf16-kv_b.gguf",
    "deepseek2/model-bf16.gguf",      "deepseek2/split/split-bf16-00001-of-00003.gguf",
    "deepseek3/model-bf16.gguf",      "kimi-k2/model-bf16.gguf"};
// One file for every way to unpack; each mixes several types.
const std::string kQuantisedModels[] = {
    "llama/model-q4_0.gguf",          "llama/model-q4_1.gguf",      "llama/model-q5_1.gguf",
    "llama/model-q8_0.gguf",          "llama/model-q2_k.gguf",      "llama/model-q3_k_m.gguf",
    "llama/model-q4_k_m.gguf",        "llama/model-q5_k_m.gguf",    "llama/model-q6_k.gguf",
    "llama/model-iq4_nl.gguf",        "llama/model-iq4_xs.gguf",    "llama/model-iq1_m.gguf",
    "llama/model-iq2_xs.gguf",        "llama/model-iq2_s.gguf",     "llama/model-iq3_s.gguf",
    "llama/model-tq1_0.gguf",         "qwen3moe/model-q4_k_m.gguf", "gemma3/model-q4_0.gguf",
    "deepseek2-lite/model-q4_0.gguf", "deepseek3/model-iq1_s.gguf", "deepseek3/model-q4_k_m.gguf"};

INSTANTIATE_TEST_SUITE_P(Golden, PlanInvariance, ::testing::ValuesIn(kFloatModels), NameOf);
INSTANTIATE_TEST_SUITE_P(Quantised, PlanInvariance, ::testing::ValuesIn(kQuantisedModels), NameOf);
INSTANTIATE_TEST_SUITE_P(Golden, GoldenFloat, ::testing::ValuesIn(kFloatModels), NameOf);
INSTANTIATE_TEST_SUITE_P(Families, GoldenQuantised,
                         ::testing::Values("llama", "gemma3", "mixtral", "qwen3moe",
                                           "deepseek2-lite", "deepseek3"),
                         NameOf);

}  // namespace
}  // namespace dovetail
