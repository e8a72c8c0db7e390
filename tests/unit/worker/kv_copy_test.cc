#include "worker/cpu/kv_copy.h"

#include <vector>

#include "gtest/gtest.h"

namespace dovetail::worker {
namespace {

// Every byte says which block it came from and where in it it lies.
std::vector<uint8_t> Blocks(int count, int64_t bytes) {
  std::vector<uint8_t> data(count * bytes);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7 + i / bytes);
  return data;
}

TEST(KvCopyTest, CopiesInOrderInEveryRegion) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads, {});
    for (int64_t bytes : {1, 64, 1000}) {
      std::vector<uint8_t> a = Blocks(6, bytes);
      std::vector<uint8_t> b = Blocks(6, bytes);
      b[0] ^= 1;
      const std::vector<transport::BlockCopy> copies = {{0, 4}, {1, 0}, {4, 5}, {0, 2}};
      std::vector<std::vector<uint8_t>> expected = {a, b};
      for (std::vector<uint8_t>& region : expected) {
        for (const transport::BlockCopy& copy : copies) {
          std::copy_n(region.begin() + copy.from * bytes, bytes, region.begin() + copy.to * bytes);
        }
      }
      CopyBlocks({{a.data(), bytes}, {b.data(), bytes}}, copies, &pool);
      EXPECT_EQ(a, expected[0]);
      EXPECT_EQ(b, expected[1]);
    }
  }
}

TEST(KvCopyTest, NothingToCopyTouchesNothing) {
  ThreadPool pool(1, {});
  std::vector<uint8_t> a = Blocks(2, 8);
  const std::vector<uint8_t> before = a;
  CopyBlocks({{a.data(), 8}}, {}, &pool);
  EXPECT_EQ(a, before);
  CopyBlocks({}, {{0, 1}}, &pool);
}

}  // namespace
}  // namespace dovetail::worker
