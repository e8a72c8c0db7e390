#include "base/work_share.h"

#include <atomic>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace dovetail {
namespace {

std::vector<Range> AllPieces(int64_t total, int64_t grain, int num_threads) {
  WorkShare work(total, grain, num_threads);
  std::vector<Range> pieces;
  Range piece;
  while (work.Take(&piece)) pieces.push_back(piece);
  EXPECT_FALSE(work.Take(&piece)) << "what is finished stays finished";
  return pieces;
}

TEST(WorkShareTest, PiecesCoverEverythingInOrderInWholeGrains) {
  for (int64_t total : {0, 1, 2, 7, 64, 1000, 12345}) {
    for (int64_t grain : {1, 2, 4, 1000}) {
      for (int n : {1, 2, 3, 64}) {
        int64_t at = 0, largest = total;
        for (const Range& piece : AllPieces(total, grain, n)) {
          EXPECT_EQ(piece.begin, at);
          EXPECT_GT(piece.size(), 0);
          EXPECT_LE(piece.size(), largest) << "large pieces come first";
          EXPECT_TRUE(piece.end == total || piece.end % grain == 0);
          at = piece.end;
          largest = piece.size();
        }
        EXPECT_EQ(at, total);
      }
    }
  }
}

TEST(WorkShareTest, PiecesAreFewAndTheLastOnesSmall) {
  EXPECT_EQ(AllPieces(1000, 2, 1), std::vector<Range>({{0, 1000}}));
  const std::vector<Range> pieces = AllPieces(96, 2, 2);
  EXPECT_EQ(pieces.front(), (Range{0, 24}));
  EXPECT_EQ(pieces.back().size(), 2);
  EXPECT_LE(pieces.size(), 16u);
}

TEST(WorkShareTest, ThreadsTakeEveryUnitOnce) {
  const int64_t total = 20000;
  std::vector<int> taken(total, 0);  // no two threads share a unit: TSan would say so
  WorkShare work(total, 1, 4);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      Range piece;
      while (work.Take(&piece)) {
        for (int64_t u = piece.begin; u < piece.end; ++u) ++taken[u];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int t : taken) ASSERT_EQ(t, 1);
}

}  // namespace
}  // namespace dovetail
