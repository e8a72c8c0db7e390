// What GPU workers have and CPU workers do in other ways: products of several matrices in one
// launch, the choice of experts, sorted pairs, rows gathered for them. Byte for byte what the host
// makes.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "base/packed_layout.h"
#include "gmock/gmock.h"
#include "kernels/cpu/p16.h"
#include "kernels/kernel_table.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/random_values.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/cpu/router.h"

namespace dovetail::worker {
namespace {

using kernels::Activations;
using kernels::DeviceMatmulArgs;
using kernels::MatmulGroup;
using kernels::testing::DeviceUnderTest;
using kernels::testing::RunOnDevice;
using ::testing::ElementsAreArray;

using testing::Normal;
using testing::Rng;
using testing::SameBits;
using testing::Uniform;

// Rows of activations in the form that `type` reads, quantised by the reference.
struct Input {
  std::vector<float> f32;
  std::vector<int8_t> q;
  std::vector<float> d;
  std::vector<int16_t> bsum;
  Activations view = {};

  Input(Rng& rng, int64_t rows, int32_t cols, int32_t block)
      : f32(Normal(rng, rows * cols)), q(rows * cols), d(rows * cols / 16), bsum(rows * cols / 16) {
    view.f32 = f32.data();
    view.f32_stride = view.q_stride = cols;
    view.q = q.data();
    view.d = d.data();
    view.bsum = bsum.data();
    view.bsum_stride = cols / 16;
    view.cols = cols;
    view.block = block;
    if (block == 0) return;
    view.d_stride = cols / block;
    kernels::FindTable(kernels::Isa::kScalar)->quantize({view}, 0, rows);
  }
  Activations From(int64_t row, int64_t step = 1) const {
    Activations x = view;
    x.f32 += row * x.f32_stride;
    x.q += row * x.q_stride;
    x.d += row * x.d_stride;
    x.bsum += row * x.bsum_stride;
    for (int64_t* stride : {&x.f32_stride, &x.q_stride, &x.d_stride, &x.bsum_stride}) {
      *stride *= step;
    }
    return x;
  }
};

// `count` matrices of one shape, one after another, as a GPU has them and as the reference reads
// them, with biases and scales.
struct Matrices {
  WeightType type;
  int32_t n, k;
  int64_t raw_stride, packed_stride;
  std::string raw;
  std::vector<uint8_t> packed;
  std::vector<float> bias, scales;

  Matrices(Rng& rng, WeightType type, int count, int32_t n, int32_t k)
      : type(type),
        n(n),
        k(k),
        raw_stride(StoredBytes(type, k) * n),
        packed_stride(PackedBytes(PackedLayout::kP16Device, type, n, k)),
        packed(count * packed_stride + 64),
        bias(Normal(rng, int64_t{count} * n)),
        scales(Normal(rng, count)) {
    for (int i = 0; i < count; ++i) {
      const std::string one = testing::RandomWeights(type, n, k, 0.3, rng());
      kernels::PackP16(type, reinterpret_cast<const uint8_t*>(one.data()), n, k, 0, n,
                       Packed() + i * packed_stride);
      raw += one;
    }
  }
  uint8_t* Packed() {
    const auto address = reinterpret_cast<uintptr_t>(packed.data());
    return packed.data() + ((address + 63) / 64 * 64 - address);
  }
  // y[0 .. rows) of one matrix.
  void Reference(int matrix, const Activations& x, int32_t rows, float* y, int64_t y_stride) const {
    kernels::MatmulArgs args = {};
    args.w = reinterpret_cast<const uint8_t*>(raw.data()) + matrix * raw_stride;
    args.type = type;
    args.n = n;
    args.k = k;
    args.x = x;
    args.rows = rows;
    args.y = y;
    args.y_stride = y_stride;
    args.bias = bias.data() + int64_t{matrix} * n;
    args.scale = scales[matrix];
    kernels::FindTable(kernels::Isa::kScalar)->matmul(args, 0, (n + kPanelRows - 1) / kPanelRows);
  }
  DeviceMatmulArgs Args() {
    DeviceMatmulArgs args;
    static_cast<kernels::MatmulArgs&>(args) = {};
    args.w = Packed();
    args.type = type;
    args.n = n;
    args.k = k;
    args.w_stride = packed_stride;
    args.bias = bias.data();
    args.bias_stride = n;
    args.scales = scales.data();
    return args;
  }
};

class SeveralMatrices : public ::testing::TestWithParam<WeightType> {};

// Groups of different lengths, for matrices of which a launch has a part, in any order.
TEST_P(SeveralMatrices, EachGroupIsAProductOfItsOwn) {
  Rng rng(testing::TestSeed());
  const WeightType type = GetParam();
  const int32_t block = kernels::ActivationBlock(type);
  for (int most_rows : {1, 3, 8, 16, 64}) {
    const int num_matrices = 5;
    // Floats have tiles where there are blocks enough.
    const int32_t n = Uniform(rng, 1, 40) + (IsFloat(type) ? 450 : 0);
    const int32_t k = 256 * Uniform(rng, 1, 2);
    std::vector<MatmulGroup> groups;
    int32_t rows = 0;
    for (int i = 0; i < 7; ++i) {
      const int32_t of_group = Uniform(rng, 1, most_rows);
      groups.push_back({Uniform(rng, 0, num_matrices - 1), rows, of_group, 0});
      rows += of_group;
    }
    const int32_t y_first = 4;  // results further down than their rows
    for (MatmulGroup& group : groups) group.y_row = y_first + group.first_row;
    const bool to_y_row = most_rows % 2 == 0;
    const int64_t y_stride = n + 2;
    const Input x(rng, rows, k, block);
    Matrices matrices(rng, type, num_matrices, n, k);
    std::vector<float> expected(static_cast<size_t>((rows + y_first) * y_stride), 7.0f);
    std::vector<float> actual = expected;
    const int first_matrix = 1, past_matrix = 4;  // the others are another launch's
    for (const MatmulGroup& group : groups) {
      if (group.matrix < first_matrix || group.matrix >= past_matrix) continue;
      matrices.Reference(group.matrix, x.From(group.first_row), group.rows,
                         expected.data() + (to_y_row ? group.y_row : group.first_row) * y_stride,
                         y_stride);
    }
    DeviceMatmulArgs args = matrices.Args();
    args.w += first_matrix * args.w_stride;
    args.bias += first_matrix * args.bias_stride;
    args.scales += first_matrix;
    args.x = x.view;
    args.y = actual.data();
    args.y_stride = y_stride;
    const auto num_groups = static_cast<int32_t>(groups.size());
    args.groups = groups.data();
    args.num_groups = &num_groups;
    args.max_groups = num_groups + 3;  // those that are too many do nothing
    args.max_group_rows = most_rows;
    args.first_matrix = first_matrix;
    args.num_matrices = past_matrix - first_matrix;
    args.to_y_row = to_y_row;
    int32_t not_finite = 0;
    args.not_finite = &not_finite;
    RunOnDevice([&](void* stream) {
      DeviceUnderTest().matmul(args, 0, (n + kPanelRows - 1) / kPanelRows, stream);
    });
    EXPECT_TRUE(SameBits(expected, actual)) << most_rows << " rows at most";
    EXPECT_EQ(not_finite, 0);
  }
}

// One launch, as many products, each of another size: one, two, three matrices.
TEST_P(SeveralMatrices, BesideEachOtherAreProductsOfTheirOwn) {
  Rng rng(testing::TestSeed());
  const WeightType type = GetParam();
  if (kernels::ActivationBlock(type) == 0) GTEST_SKIP() << "of floats each is a launch";
  for (int rows : {1, 2, 7, 20, 70}) {
    const int32_t k = 256 * Uniform(rng, 1, 2);
    const Input x(rng, rows, k, kernels::ActivationBlock(type));
    const int num = 1 + rows % (DeviceMatmulArgs::kMostBeside + 1);
    std::vector<Matrices> matrices;
    std::vector<std::vector<float>> expected, actual;
    DeviceMatmulArgs args;
    for (int i = 0; i < num; ++i) {
      const int32_t n = Uniform(rng, 1, 150);
      const int64_t y_stride = n + i;
      matrices.emplace_back(rng, type, 1, n, k);
      expected.emplace_back(static_cast<size_t>(rows * y_stride), 7.0f);
      actual.push_back(expected.back());
      matrices[i].Reference(0, x.view, rows, expected[i].data(), y_stride);
    }
    for (int i = 0; i < num; ++i) {
      DeviceMatmulArgs own = matrices[i].Args();
      own.scale = own.scales[0];
      own.scales = nullptr;
      own.x = x.view;
      own.rows = rows;
      own.y = actual[i].data();
      own.y_stride = own.n + i;
      if (i == 0) {
        args = own;
      } else {
        args.beside[args.num_beside++] = {own.w, own.n, own.y, own.y_stride, own.bias, own.scale};
      }
    }
    RunOnDevice([&](void* stream) {
      DeviceUnderTest().matmul(args, 0, (args.n + kPanelRows - 1) / kPanelRows, stream);
    });
    for (int i = 0; i < num; ++i) {
      EXPECT_TRUE(SameBits(expected[i], actual[i])) << rows << " rows, matrix " << i;
    }
  }
}

void ExpectEachHeadHasItsOwn(Rng& rng, WeightType type, int heads, int rows, int32_t n) {
  const int32_t k = 256;
  const Input x(rng, int64_t{rows} * heads, k, kernels::ActivationBlock(type));
  Matrices matrices(rng, type, heads, n, k);
  const int64_t head_stride = n + 5, y_stride = heads * head_stride;
  std::vector<float> expected(static_cast<size_t>(rows * y_stride), 7.0f);
  std::vector<float> actual = expected;
  for (int head = 0; head < heads; ++head) {
    matrices.Reference(head, x.From(head, heads), rows, expected.data() + head * head_stride,
                       y_stride);
  }
  DeviceMatmulArgs args = matrices.Args();
  args.x = x.From(0, heads);
  args.rows = rows;
  args.y = actual.data();
  args.y_stride = y_stride;
  args.heads = heads;
  args.y_head_stride = head_stride;
  RunOnDevice([&](void* stream) {
    DeviceUnderTest().matmul(args, 0, (n + kPanelRows - 1) / kPanelRows, stream);
  });
  EXPECT_TRUE(SameBits(expected, actual)) << heads << " heads, " << rows << " rows";
}

TEST_P(SeveralMatrices, EachHeadHasItsOwn) {
  Rng rng(testing::TestSeed());
  for (int rows : {1, 5, 11, 70}) {
    ExpectEachHeadHasItsOwn(rng, GetParam(), 3, rows, Uniform(rng, 1, 40));
  }
}

// So many that few rows are tiles, too.
TEST_P(SeveralMatrices, ManyHeadsHaveTheirOwn) {
  Rng rng(testing::TestSeed());
  for (int rows : {3, 12, 27}) {
    ExpectEachHeadHasItsOwn(rng, GetParam(), 257, rows, Uniform(rng, 1, 20));
  }
}

INSTANTIATE_TEST_SUITE_P(Types, SeveralMatrices,
                         ::testing::Values(WeightType::kF32, WeightType::kBF16, WeightType::kQ8_0,
                                           WeightType::kQ4_K, WeightType::kQ6_K, WeightType::kMXFP4,
                                           WeightType::kNVFP4, WeightType::kIQ2_XXS),
                         [](const auto& info) { return std::string(InfoOf(info.param).name); });

TEST(DeviceKernels, AProductSaysWhatIsNotFinite) {
  Rng rng(testing::TestSeed());
  for (WeightType type : {WeightType::kF32, WeightType::kQ8_0}) {
    for (int rows : {1, 20}) {
      const int32_t n = 20, k = 64;
      Input x(rng, rows, k, kernels::ActivationBlock(type));
      Matrices matrices(rng, type, 1, n, k);
      std::vector<float> y(static_cast<size_t>(rows) * n);
      DeviceMatmulArgs args = matrices.Args();
      args.scales = nullptr;
      args.scale = 1.0f;
      args.x = x.view;
      args.rows = rows;
      args.y = y.data();
      args.y_stride = n;
      int32_t flag = 0;
      args.not_finite = &flag;
      const auto run = [&] {
        RunOnDevice([&](void* stream) { DeviceUnderTest().matmul(args, 0, 2, stream); });
        return flag;
      };
      EXPECT_EQ(run(), 0);
      matrices.bias[n - 1] = std::numeric_limits<float>::infinity();
      EXPECT_EQ(run(), 1);
    }
  }
}

// Logits with equal ones, and with what is no number.
std::vector<float> OddLogits(Rng& rng, int count, int kind) {
  std::vector<float> logits = Normal(rng, count);
  if (kind % 4 == 1) {
    for (float& v : logits) v = std::round(v);
  }
  if (kind % 4 == 2) {
    for (int i = 0; i < 3; ++i) {
      const float odd[] = {NAN, INFINITY, -INFINITY, -0.0f};
      logits[Uniform(rng, 0, count - 1)] = odd[Uniform(rng, 0, 3)];
    }
  }
  if (kind % 4 == 3) std::fill(logits.begin(), logits.end(), kind % 8 == 3 ? NAN : 1.5f);
  return logits;
}

model::ExpertConfig RandomRouter(Rng& rng) {
  model::ExpertConfig config;
  config.num_groups = std::vector<int>{1, 1, 4, 8, 40}[Uniform(rng, 0, 4)];
  config.count = config.num_groups * Uniform(rng, 1, Uniform(rng, 0, 3) == 0 ? 30 : 9);
  config.groups_used = Uniform(rng, 1, config.num_groups);
  config.num_used = Uniform(rng, 1, std::min(config.count, Uniform(rng, 0, 5) == 0 ? 40 : 12));
  config.score = static_cast<model::RouterScore>(Uniform(rng, 0, 2));
  config.group_score = static_cast<model::GroupScore>(Uniform(rng, 0, 1));
  config.normalise = Uniform(rng, 0, 1) == 1;
  config.scale = Uniform(rng, 0, 1) == 1 ? 2.5f : 1.0f;
  config.shared_intermediate_size = Uniform(rng, 0, 1);
  return config;
}

kernels::RouterArgs::Score DeviceScore(model::RouterScore score) {
  switch (score) {
    case model::RouterScore::kSoftmax:
      return kernels::RouterArgs::Score::kSoftmax;
    case model::RouterScore::kSigmoid:
      return kernels::RouterArgs::Score::kSigmoid;
    case model::RouterScore::kSoftmaxOfChosen:
      break;
  }
  return kernels::RouterArgs::Score::kSoftmaxOfChosen;
}

TEST(DeviceKernels, TheRouterChoosesAsTheHostDoes) {
  Rng rng(testing::TestSeed());
  const kernels::KernelTable& scalar = *kernels::FindTable(kernels::Isa::kScalar);
  for (int trial = 0; trial < 300; ++trial) {
    const model::ExpertConfig config = RandomRouter(rng);
    const int rows = Uniform(rng, 1, 5);
    const bool has_bias = Uniform(rng, 0, 1) == 1, has_gate = Uniform(rng, 0, 1) == 1;
    const int slots = config.num_used + (config.shared_intermediate_size > 0 ? 1 : 0);
    const std::vector<float> bias = Normal(rng, config.count), gate = Normal(rng, rows);
    std::vector<float> logits;
    for (int row = 0; row < rows; ++row) {
      const std::vector<float> one = OddLogits(rng, config.count, trial);
      logits.insert(logits.end(), one.begin(), one.end());
    }
    std::vector<int32_t> experts(rows * config.num_used), found(experts.size(), -1);
    std::vector<float> weights(rows * slots), got(weights.size());
    std::vector<float> scores = logits;
    for (int row = 0; row < rows; ++row) {
      ChooseExperts(scalar, config, has_bias ? bias.data() : nullptr,
                    scores.data() + row * config.count, experts.data() + row * config.num_used,
                    weights.data() + row * slots);
      float* shared = weights.data() + row * slots + config.num_used;
      if (slots > config.num_used) *shared = 1.0f;
      if (slots > config.num_used && has_gate) scalar.sigmoid(&gate[row], shared, 1);
    }
    const kernels::RouterArgs args = {.logits = logits.data(),
                                      .choice_bias = has_bias ? bias.data() : nullptr,
                                      .count = config.count,
                                      .num_used = config.num_used,
                                      .score = DeviceScore(config.score),
                                      .normalise = config.normalise,
                                      .scale = config.scale,
                                      .num_groups = config.num_groups,
                                      .groups_used = config.groups_used,
                                      .group_max = config.group_score == model::GroupScore::kMax,
                                      .experts = found.data(),
                                      .weights = got.data(),
                                      .slots = slots,
                                      .gate = has_gate ? gate.data() : nullptr};
    RunOnDevice([&](void* stream) { DeviceUnderTest().router(args, 0, rows, stream); });
    ASSERT_THAT(found, ElementsAreArray(experts)) << "trial " << trial;
    for (size_t i = 0; i < got.size(); ++i) {
      if (std::isnan(weights[i]) && std::isnan(got[i])) continue;
      ASSERT_EQ(std::bit_cast<uint32_t>(weights[i]), std::bit_cast<uint32_t>(got[i]))
          << "trial " << trial << " weight " << i << ": " << weights[i] << ", " << got[i];
    }
  }
}

// What the rows of experts are, by sorting pairs on the host.
TEST(DeviceKernels, PairsAreSortedByPlaceAndCutInGroups) {
  Rng rng(testing::TestSeed());
  for (int trial = 0; trial < 40; ++trial) {
    const int count = Uniform(rng, 1, trial % 4 == 0 ? 600 : 20);
    const int used = Uniform(rng, 1, std::min(count, 8)), rows = Uniform(rng, 1, 300);
    const int slots = used + Uniform(rng, 0, 1);
    const int first_pair_row = slots > used ? rows : 0;
    const int first_place = Uniform(rng, 0, count - 1);
    const int past_place = Uniform(rng, first_place + 1, count);
    const int group_rows = std::vector<int>{1, 8, 64}[Uniform(rng, 0, 2)];
    std::vector<int32_t> places(count);
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), rng);
    std::vector<int32_t> experts, all(count);
    std::iota(all.begin(), all.end(), 0);
    for (int row = 0; row < rows; ++row) {
      std::shuffle(all.begin(), all.end(), rng);
      experts.insert(experts.end(), all.begin(), all.begin() + used);
    }
    std::vector<std::vector<int>> pairs_of(count);  // by place
    for (int i = 0; i < rows * used; ++i) pairs_of[places[experts[i]]].push_back(i);
    std::vector<int32_t> begin = {0}, sources(rows * slots), pair_rows;
    std::vector<MatmulGroup> groups;
    for (int place = 0; place < count; ++place) {
      const std::vector<int>& pairs = pairs_of[place];
      const bool own = place >= first_place && place < past_place;
      const auto first_own = static_cast<int32_t>(pair_rows.size());
      for (size_t i = 0; i < pairs.size(); ++i) {
        const int32_t y_row = first_pair_row + begin.back() + static_cast<int32_t>(i);
        sources[pairs[i] / used * slots + pairs[i] % used] = y_row;
        if (!own) continue;
        pair_rows.push_back(pairs[i] / used);
        if (i % group_rows != 0) continue;
        groups.push_back({place - first_place, first_own + static_cast<int32_t>(i),
                          std::min<int32_t>(group_rows, static_cast<int32_t>(pairs.size() - i)),
                          y_row});
      }
      begin.push_back(begin.back() + static_cast<int32_t>(pairs.size()));
    }
    for (int row = 0; slots > used && row < rows; ++row) sources[row * slots + used] = row;

    std::vector<int32_t> begin_found(count + 1), sources_found(sources.size());
    std::vector<int32_t> rows_found(pair_rows.size() + 1);
    std::vector<MatmulGroup> groups_found(groups.size() + 1);
    int32_t num_groups = -1;
    const kernels::SortPairsArgs args = {.experts = experts.data(),
                                         .place_of = places.data(),
                                         .rows = rows,
                                         .num_used = used,
                                         .count = count,
                                         .slots = slots,
                                         .first_pair_row = first_pair_row,
                                         .first_place = first_place,
                                         .past_place = past_place,
                                         .max_group_rows = group_rows,
                                         .begin = begin_found.data(),
                                         .slot_sources = sources_found.data(),
                                         .pair_rows = rows_found.data(),
                                         .groups = groups_found.data(),
                                         .num_groups = &num_groups};
    RunOnDevice([&](void* stream) { DeviceUnderTest().sort_pairs(args, stream); });
    ASSERT_EQ(begin_found, begin) << "trial " << trial;
    ASSERT_EQ(sources_found, sources);
    rows_found.pop_back();
    ASSERT_EQ(rows_found, pair_rows);
    ASSERT_EQ(num_groups, static_cast<int32_t>(groups.size()));
    ASSERT_EQ(std::memcmp(groups_found.data(), groups.data(), groups.size() * sizeof(groups[0])),
              0);
  }
}

TEST(DeviceKernels, RowsAreGatheredInEveryForm) {
  Rng rng(testing::TestSeed());
  for (int32_t block : {0, 16, 32, 256}) {
    const int32_t cols = 256 * Uniform(rng, 1, 18), rows = 9, first = 3, past = 8, first_to_row = 2;
    const Input from(rng, rows, cols, block);
    Input to(rng, rows, cols, block);
    const Input before = to;
    std::vector<int32_t> index(rows);
    for (int32_t& i : index) i = Uniform(rng, 0, rows - 1);
    std::vector<float> f32(static_cast<size_t>(rows + first + first_to_row) * cols, 7.0f);
    to.view.q = to.q.data();
    to.view.d = to.d.data();
    to.view.bsum = to.bsum.data();
    const kernels::GatherRowsArgs args = {.from = from.view,
                                          .to = to.view,
                                          .to_f32 = f32.data(),
                                          .first_to_row = first_to_row,
                                          .rows = index.data(),
                                          .first = &first,
                                          .past = &past};
    RunOnDevice([&](void* stream) { DeviceUnderTest().gather_rows(args, 0, rows, stream); });
    for (int row = 0; row < rows; ++row) {
      const bool gathered = row < past - first;
      const int source = gathered ? index[row] : row;
      const Input& expected = gathered ? from : before;
      const auto same = [&](const auto& a, const auto& b, int64_t stride) {
        return std::equal(a.begin() + row * stride, a.begin() + (row + 1) * stride,
                          b.begin() + source * stride);
      };
      if (block == 0) {
        const auto at = f32.begin() + (row + first + first_to_row) * cols;
        if (gathered) {
          EXPECT_TRUE(std::equal(at, at + cols, from.f32.begin() + source * cols));
        }
        continue;
      }
      EXPECT_TRUE(same(to.q, expected.q, cols)) << block << " row " << row;
      EXPECT_TRUE(same(to.d, expected.d, cols / block)) << block << " row " << row;
      EXPECT_TRUE(same(to.bsum, expected.bsum, cols / 16)) << block << " row " << row;
    }
  }
}

// What a head's matrix in P16 gives as an embedding is what the file's rows give.
// Whatever the bytes are, of rows that fill their panels and of rows that do not.
TEST(DeviceKernels, RowsArePackedAsAProcessorDoes) {
  Rng rng(testing::TestSeed());
  for (WeightType type : SupportedWeightTypes()) {
    if (IsFloat(type)) continue;
    for (int64_t n : {1, 16, Uniform(rng, 17, 70)}) {
      const int64_t k = 256 * Uniform(rng, 1, 3);
      std::vector<uint8_t> rows(static_cast<size_t>(n * StoredBytes(type, k)));
      for (uint8_t& byte : rows) byte = static_cast<uint8_t>(rng());
      const int64_t panels = (n + kPanelRows - 1) / kPanelRows;
      const auto bytes = static_cast<size_t>(panels * kernels::P16PanelBytes(type, k));
      std::vector<uint8_t> expected(bytes + 4, 0xa5), actual = expected;  // no byte more
      kernels::PackP16(type, rows.data(), n, k, 0, n, expected.data());
      const kernels::PackArgs args = {type, rows.data(), n, k, actual.data()};
      RunOnDevice([&](void* stream) { DeviceUnderTest().pack(args, stream); });
      EXPECT_TRUE(expected == actual) << InfoOf(type).name << ", " << n << " x " << k;
    }
  }
}

TEST(DeviceKernels, RowsAreDequantisedAsTheFilesRowsAre) {
  Rng rng(testing::TestSeed());
  for (WeightType type : SupportedWeightTypes()) {
    const float scale = Uniform(rng, 0, 1) == 0 ? 1.0f : 11.3f;
    const int32_t vocab = Uniform(rng, 17, 70), cols = 256 * Uniform(rng, 1, 3), rows = 9;
    const int64_t stride = cols + 3;
    Matrices table(rng, type, 1, vocab, cols);
    std::vector<int32_t> tokens(rows);
    for (int32_t& token : tokens) token = Uniform(rng, 0, vocab - 1);
    tokens.back() = vocab - 1;
    std::vector<float> expected(static_cast<size_t>(rows * stride), 7.0f);
    std::vector<float> actual = expected;
    kernels::EmbeddingArgs args = {.table = reinterpret_cast<const uint8_t*>(table.raw.data()),
                                   .type = type,
                                   .row_bytes = StoredBytes(type, cols),
                                   .tokens = tokens.data(),
                                   .y = expected.data(),
                                   .y_stride = stride,
                                   .cols = cols,
                                   .scale = scale};
    kernels::FindTable(kernels::Isa::kScalar)->embedding(args, 1, rows);
    args.table = table.Packed();
    args.y = actual.data();
    RunOnDevice([&](void* stream) { DeviceUnderTest().embedding(args, 1, rows, stream); });
    EXPECT_TRUE(SameBits(expected, actual)) << InfoOf(type).name << ", scale " << scale;
  }
}

// Equal values, of which the first counts, values that are not numbers, nothing but infinities.

}  // namespace
}  // namespace dovetail::worker
