#include "base/work_share.h"

#include <algorithm>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace dovetail {
namespace {

// What thread `thread` takes while no other takes anything.
std::vector<Range> AllPieces(WorkShare* work, int thread) {
  std::vector<Range> pieces;
  Range piece;
  while (work->Take(thread, &piece)) pieces.push_back(piece);
  EXPECT_FALSE(work->Take(thread, &piece)) << "what is finished stays finished";
  return pieces;
}

void ExpectCovered(std::vector<Range> pieces, int64_t total, int64_t grain) {
  std::sort(pieces.begin(), pieces.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  int64_t at = 0;
  for (const Range& piece : pieces) {
    EXPECT_EQ(piece.begin, at);
    EXPECT_GT(piece.size(), 0);
    EXPECT_TRUE(piece.end == total || piece.end % grain == 0);
    at = piece.end;
  }
  EXPECT_EQ(at, total);
}

TEST(WorkShareTest, PiecesCoverEverythingInWholeGrains) {
  for (int64_t total : {0, 1, 2, 7, 64, 1000, 12345}) {
    for (int64_t grain : {1, 2, 4, 1000}) {
      for (int n : {1, 2, 3, 64, 200}) {
        WorkShare work(total, grain, n);
        ExpectCovered(AllPieces(&work, n / 2), total, grain);
      }
    }
  }
}

TEST(WorkShareTest, AThreadTakesItsOwnPartFromTheFront) {
  WorkShare alone(1000, 2, 1);
  EXPECT_EQ(AllPieces(&alone, 0), std::vector<Range>({{0, 1000}}));
  WorkShare work(96, 2, 2);
  std::vector<Range> pieces;
  Range piece;
  for (int64_t at = 48; at < 96; at = piece.end) {
    ASSERT_TRUE(work.Take(1, &piece));
    EXPECT_EQ(piece.begin, at) << "one piece follows another";
    pieces.push_back(piece);
  }
  EXPECT_EQ(pieces.front(), (Range{48, 72}));
  EXPECT_EQ(pieces.back().size(), 2);
  EXPECT_LE(pieces.size(), 6u);
}

TEST(WorkShareTest, WhoIsDoneHelpsFromTheBackOfTheFullestPart) {
  WorkShare work(96, 2, 3);
  Range piece;
  ASSERT_TRUE(work.Take(1, &piece));
  EXPECT_EQ(piece, (Range{32, 48}));
  for (int64_t at = 0; at < 32; at = piece.end) ASSERT_TRUE(work.Take(0, &piece));
  ASSERT_TRUE(work.Take(0, &piece));
  EXPECT_EQ(piece, (Range{80, 96})) << "thread 2 has not begun";
  ASSERT_TRUE(work.Take(2, &piece));
  EXPECT_EQ(piece, (Range{64, 72}));
}

TEST(WorkShareTest, ThreadsTakeEveryUnitOnce) {
  const int64_t total = 20000;
  for (int threads : {2, 4, 7}) {
    std::vector<int> taken(total, 0);  // no two threads share a unit: TSan would say so
    WorkShare work(total, 3, threads);
    std::vector<std::thread> running;
    for (int i = 0; i < threads; ++i) {
      running.emplace_back([&, i] {
        Range piece;
        while (work.Take(i, &piece)) {
          for (int64_t u = piece.begin; u < piece.end; ++u) ++taken[u];
        }
      });
    }
    for (std::thread& thread : running) thread.join();
    for (int t : taken) ASSERT_EQ(t, 1);
  }
}

}  // namespace
}  // namespace dovetail
