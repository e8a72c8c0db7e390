// The SIMT shim itself: threads, waits and warp operations do what a GPU's do, and each kind of
// mistake that it is there to find is found.
#include <numeric>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cuda/device.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::kernels::cuda {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::HasSubstr;

constexpr uint64_t kSeeds = 20;

// The status of one launch of `fn` with a seed.
template <typename Fn>
absl::Status LaunchOnce(uint64_t seed, Grid grid, uint32_t block, const Fn& fn) {
  simt::Stream stream;
  stream.seed = seed;
  simt::Launch(&stream, "Kernel", grid, block, fn);
  return stream.status;
}

// That every order of threads finds what is wrong.
template <typename Fn>
void ExpectFound(const std::string& what, uint32_t block, const Fn& fn) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    EXPECT_THAT(LaunchOnce(seed, {1, 1}, block, fn),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(what)))
        << "seed " << seed;
  }
}

TEST(SimtTest, EveryThreadOfEveryBlockRunsOnce) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<int> count(3 * 2 * 70);
    ASSERT_OK(LaunchOnce(seed, {3, 2}, 70, [&] {
      EXPECT_EQ(BlockThreads(), 70);
      ++count[(BlockIndexY() * 3 + BlockIndex()) * 70 + ThreadIndex()];
    }));
    EXPECT_THAT(count, ::testing::Each(1));
  }
}

TEST(SimtTest, ASeedChangesTheOrder) {
  const auto order = [](uint64_t seed) {
    std::vector<int> seen;
    EXPECT_OK(
        LaunchOnce(seed, {2, 1}, 64, [&] { seen.push_back(BlockIndex() * 64 + ThreadIndex()); }));
    return seen;
  };
  std::vector<int> ascending(2 * 64);
  std::iota(ascending.begin(), ascending.end(), 0);
  EXPECT_EQ(order(0), ascending);
  EXPECT_NE(order(1), order(2));
  EXPECT_EQ(order(3), order(3));
}

TEST(SimtTest, SharedMemoryAcrossABarrier) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    std::vector<int> out(2 * 96);
    ASSERT_OK(LaunchOnce(seed, {2, 1}, 96, [&] {
      DT_SHARED(int32_t, values, 96);
      values[ThreadIndex()] = 100 * BlockIndex() + ThreadIndex();
      SyncBlock();
      const int next = values[(ThreadIndex() + 1) % 96];
      SyncBlock();
      values[ThreadIndex()] = next + 1;  // the readers are past
      out[BlockIndex() * 96 + ThreadIndex()] = values[ThreadIndex()];
    }));
    for (int i = 0; i < 2 * 96; ++i) EXPECT_EQ(out[i], i / 96 * 100 + (i + 1) % 96 + 1);
  }
}

TEST(SimtTest, WarpOperations) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    ASSERT_OK(LaunchOnce(seed, {1, 1}, 64, [&] {
      const int lane = Lane();
      EXPECT_EQ(Shuffle(10 * lane, lane ^ 5), 10 * (lane ^ 5));
      EXPECT_EQ(ShuffleXor(static_cast<float>(lane), 16), static_cast<float>(lane ^ 16));
      EXPECT_EQ(Ballot(lane % 3 == 0), 0x49249249u);
      EXPECT_EQ(WarpMax(lane), 31);
      EXPECT_EQ(TreeSum(1.0f), 32.0f);
    }));
  }
}

TEST(SimtTest, ATreeSumHasTheReferencesOrder) {
  float expected[32], values[32];
  for (int i = 0; i < 32; ++i) expected[i] = values[i] = 1.0f / static_cast<float>(3 * i + 1);
  for (int half = 16; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) expected[i] += expected[i + half];
  }
  ASSERT_OK(LaunchOnce(1, {1, 1}, 32, [&] { EXPECT_EQ(TreeSum(values[Lane()]), expected[0]); }));
}

// c = a b from whole matrices, by the fragments' layout.
template <int kK>
void ExpectProduct(int capability) {
  int8_t a[16][kK], b[kK][8];
  int32_t expected[16][8] = {}, actual[16][8] = {};
  for (int k = 0; k < kK; ++k) {
    for (int row = 0; row < 16; ++row) a[row][k] = static_cast<int8_t>(37 * row + 11 * k - 128);
    for (int col = 0; col < 8; ++col) b[k][col] = static_cast<int8_t>(53 * col + 29 * k - 7);
  }
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) {
      for (int k = 0; k < kK; ++k) expected[row][col] += a[row][k] * b[k][col];
      expected[row][col] += 1000 * row + col;
    }
  }
  const auto quad = [](auto at) {
    uint32_t bytes = 0;
    for (int i = 0; i < 4; ++i)
      bytes |= static_cast<uint32_t>(static_cast<uint8_t>(at(i))) << 8 * i;
    return static_cast<int32_t>(bytes);
  };
  const auto multiply = [&] {
    const int g = Lane() / 4, t = Lane() % 4;
    int32_t fa[kK / 8], fb[kK / 16], c[4];
    for (int h = 0; h < kK / 16; ++h) {
      for (int r = 0; r < 2; ++r) {
        fa[2 * h + r] = quad([&](int i) { return a[g + 8 * r][4 * (t + 4 * h) + i]; });
      }
      fb[h] = quad([&](int i) { return b[4 * (t + 4 * h) + i][g]; });
    }
    for (int j = 0; j < 4; ++j) c[j] = 1000 * (g + 8 * (j / 2)) + 2 * t + j % 2;
    if constexpr (kK == 32) {
      MmaK32(c, fa, fb);
    } else {
      MmaK16(c, fa, fb);
    }
    for (int j = 0; j < 4; ++j) actual[g + 8 * (j / 2)][2 * t + j % 2] = c[j];
  };
  simt::Stream stream;
  stream.seed = 1;
  stream.capability = capability;
  simt::Launch(&stream, "multiply", {1, 1}, 32, multiply);
  ASSERT_OK(stream.status);
  for (int row = 0; row < 16; ++row) {
    for (int col = 0; col < 8; ++col) EXPECT_EQ(actual[row][col], expected[row][col]);
  }
}

TEST(SimtTest, TensorCoreProducts) {
  for (int capability : {75, 80}) {
    ExpectProduct<32>(capability);
    ExpectProduct<16>(capability);
  }
}

TEST(SimtTest, ByteArithmetic) {
  EXPECT_EQ(Dp4a(0x7f80ff01, 0x02030405, 10), 127 * 2 - 128 * 3 - 1 * 4 + 1 * 5 + 10);
  EXPECT_EQ(BytePermute(0x33221100u, 0x77665544u, 0x7041u), 0x77004411u);
  EXPECT_EQ(SubtractBytes(0x00100203u, 0x01010303u), 0xff0fff00u);
}

TEST(SimtTest, CopiesAreThereWhenTheyAreWaitedFor) {
  alignas(16) int32_t from[128];
  for (int i = 0; i < 128; ++i) from[i] = i;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    ASSERT_OK(LaunchOnce(seed, {1, 1}, 32, [&] {
      DT_SHARED(int32_t, values, 128);
      CopyAsync16(values, 4 * ThreadIndex(), from + 4 * ThreadIndex());
      CommitCopies();
      WaitCopies<0>();
      SyncBlock();
      EXPECT_EQ(values[127 - ThreadIndex()], 127 - ThreadIndex());
    }));
  }
}

// --- findings

TEST(SimtFindingsTest, ARace) {
  ExpectFound("values[0]: written while another thread writes", 64, [] {
    DT_SHARED(int32_t, values, 64);
    values[0] = ThreadIndex();
  });
  // Which access comes first is the seed's choice; that one of them is found is not.
  ExpectFound("values[", 64, [] {
    DT_SHARED(int32_t, values, 64);
    values[ThreadIndex()] = 1;
    SyncBlock();
    values[ThreadIndex()] = values[(ThreadIndex() + 1) % 64] + 1;
  });
  ExpectFound("read while another thread writes", 32, [] {
    DT_SHARED(int32_t, values, 1);
    if (ThreadIndex() == 0) values[0] = 1;
    Ballot(true);  // waits, but not for memory
    const int seen = values[0];
    (void)seen;
  });
}

TEST(SimtFindingsTest, AWarpsWaitIsNotABlocks) {
  const auto kernel = [](uint32_t threads) {
    return [threads] {
      DT_SHARED(int32_t, values, 64);
      values[ThreadIndex()] = 1;
      SyncWarp();
      const int other = values[(ThreadIndex() + 1) % static_cast<int>(threads)];
      (void)other;
    };
  };
  for (uint64_t seed = 0; seed < kSeeds; ++seed)
    EXPECT_OK(LaunchOnce(seed, {1, 1}, 32, kernel(32)));
  ExpectFound("values[", 64, kernel(64));
}

TEST(SimtFindingsTest, MemoryThatNobodyWrote) {
  ExpectFound("values[3]: read before it was written", 32, [] {
    DT_SHARED(int32_t, values, 4);
    const int seen = values[3];
    (void)seen;
  });
  // Another block's values are gone.
  EXPECT_THAT(LaunchOnce(0, {2, 1}, 1,
                         [] {
                           DT_SHARED(int32_t, values, 4);
                           if (BlockIndex() == 0) values[0] = 1;
                           const int seen = values[0];
                           (void)seen;
                         }),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("block 1,0 thread 0: values[0]: read before it was written")));
}

TEST(SimtFindingsTest, AnIndexOutside) {
  ExpectFound("values[32]: the array has 32 elements", 33, [] {
    DT_SHARED(int32_t, values, 32);
    values[ThreadIndex()] = 0;
  });
}

TEST(SimtFindingsTest, ADivergentBarrier) {
  ExpectFound("of 64 threads 63 are at SyncBlock and 1 have ended", 64, [] {
    if (ThreadIndex() != 7) SyncBlock();
  });
  ExpectFound(
      "63 are at SyncBlock and 0 have ended; 1 wait for lanes of their warp, thread 7 in "
      "Ballot with mask ffffffff",
      64, [] {
        if (ThreadIndex() != 7) {
          SyncBlock();
        } else {
          Ballot(true);
        }
      });
}

TEST(SimtFindingsTest, LanesThatDoNotMeet) {
  ExpectFound("31 wait for lanes of their warp", 32, [] {
    if (ThreadIndex() != 3) Shuffle(1, 0);
  });
  ExpectFound("wait for lanes of their warp", 32, [] {
    if (ThreadIndex() < 16) {
      Shuffle(1, 0);
    } else {
      Ballot(true);
    }
  });
}

TEST(SimtFindingsTest, AMissingWait) {
  alignas(16) static const int32_t from[4] = {1, 2, 3, 4};
  ExpectFound("values[1]: read before its copy was waited for", 1, [] {
    DT_SHARED(int32_t, values, 4);
    CopyAsync16(values, 0, from);
    CommitCopies();
    SyncBlock();
    const int seen = values[1];
    (void)seen;
  });
  // Of two groups the newer one may still be on its way.
  ExpectFound("values[4]: read before its copy was waited for", 1, [] {
    DT_SHARED(int32_t, values, 8);
    CopyAsync16(values, 0, from);
    CommitCopies();
    CopyAsync16(values, 4, from);
    CommitCopies();
    WaitCopies<1>();
    const int first = values[0];
    const int second = values[4];
    (void)first;
    (void)second;
  });
  // Waited for by the thread that copies, but not by the one that reads.
  ExpectFound("values[0]: read", 64, [] {
    DT_SHARED(int32_t, values, 4);
    if (ThreadIndex() == 0) {
      CopyAsync16(values, 0, from);
      CommitCopies();
      WaitCopies<0>();
    }
    const int seen = values[0];
    (void)seen;
  });
}

TEST(SimtFindingsTest, AddressesThatAreNotAligned) {
  alignas(16) static const int32_t from[8] = {};
  ExpectFound("a load that is not aligned", 1, [] { LoadVector<Int4>(from + 1); });
  ExpectFound("values[2]: a vector of 16 bytes not aligned", 1, [] {
    DT_SHARED(int32_t, values, 8);
    WriteShared<Int4>(values, 2, Int4{});
  });
}

TEST(SimtFindingsTest, NothingRunsAfterAFinding) {
  simt::Stream stream;
  simt::Launch(&stream, "First", {1, 1}, 2, [] {
    if (ThreadIndex() == 0) SyncBlock();
  });
  bool ran = false;
  simt::Launch(&stream, "Second", {1, 1}, 1, [&] { ran = true; });
  EXPECT_FALSE(ran);
  EXPECT_THAT(stream.status, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("First: ")));
}

}  // namespace
}  // namespace dovetail::kernels::cuda
