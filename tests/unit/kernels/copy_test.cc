// Several arrays copied by one launch, and the signal of its end: the bytes, and nothing beside
// them.
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gmock/gmock.h"
#include "kernels/cuda/device_table.h"
#include "tests/testing/device_under_test.h"
#include "tests/testing/random_values.h"
#include "tests/testing/test_data.h"

namespace dovetail::kernels {
namespace {

using testing::DeviceUnderTest;
using testing::RunOnDevice;

using dovetail::testing::Rng;
using dovetail::testing::Uniform;

// What a launch is to copy: pieces of a random length each, some of whose rows something counts.
struct Pieces {
  static constexpr int kMostWords = 40000, kGap = 8;
  struct alignas(16) Vector {
    int32_t words[4];
  };
  std::vector<Vector> from, to, expected;
  std::vector<int32_t> counts = std::vector<int32_t>(CopyPieces::kMost);
  kernels::CopyPieces args = {};

  Pieces(Rng& rng, int num) {
    std::vector<int32_t> words;
    for (int i = 0; i < num; ++i) {
      const int32_t all = Uniform(rng, 0, Uniform(rng, 0, 3) == 0 ? kMostWords : 40);
      counts[i] = Uniform(rng, 0, all);
      words.push_back(all);
    }
    size_t vectors = kGap;
    for (int32_t count : words) vectors += count / 4 + kGap;
    from.resize(vectors);
    to.resize(vectors);
    for (Vector& v : from) v = {{static_cast<int32_t>(rng()), 1, static_cast<int32_t>(rng()), 2}};
    expected = to;
    size_t begin = 0;
    for (int i = 0; i < num; ++i) {
      const bool counted = Uniform(rng, 0, 1) == 1;
      const int64_t fixed = words[i] - (counted ? counts[i] : 0);
      args.pieces[args.num++] = {&to[begin], &from[begin], 4 * fixed,
                                 counted ? &counts[i] : nullptr, 4};
      std::memcpy(&expected[begin], &from[begin], size_t{4} * words[i]);
      begin += words[i] / 4 + kGap;
    }
  }
  bool Copied() const {
    return std::memcmp(to.data(), expected.data(), to.size() * sizeof(Vector)) == 0;
  }
};

TEST(CopyPieces, AreCopiedAndTheirEndIsSignalled) {
  Rng rng(dovetail::testing::TestSeed());
  // Where a GPU test's host and device see it: a vector's memory, not a global's.
  struct Counters {
    uint64_t flag, raised;
    int32_t blocks;
  };
  std::vector<Counters> counters(1);
  const DoneSignal signal = {&counters[0].flag, &counters[0].raised, &counters[0].blocks};
  uint64_t signals = 0;
  for (int num = 0; num <= CopyPieces::kMost; ++num) {
    for (bool signalled : {true, false}) {
      const Pieces pieces(rng, num);
      RunOnDevice([&](void* stream) {
        DeviceUnderTest().copy_pieces(pieces.args, signalled ? signal : DoneSignal{}, stream);
      });
      signals += signalled ? 1 : 0;
      EXPECT_TRUE(pieces.Copied()) << num << " pieces";
      EXPECT_EQ(counters[0].flag, signals) << num << " pieces";
      EXPECT_EQ(counters[0].blocks, 0);
    }
  }
}

}  // namespace
}  // namespace dovetail::kernels
