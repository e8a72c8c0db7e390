#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "kernels/bandwidth.h"
#include "kernels/kernel_table.h"
#include "tests/testing/kernel_tables.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::kernels {
namespace {

using ::dovetail::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::HasSubstr;

TEST(TablesTest, ScalarIsAlwaysThereAndTheBestIsTheDefault) {
  ASSERT_NE(FindTable(Isa::kScalar), nullptr);
  const auto tables = AvailableTables();
  ASSERT_FALSE(tables.empty());
  EXPECT_EQ(tables.front(), FindTable(Isa::kScalar));
  ASSERT_OK_AND_ASSIGN(const KernelTable* best, SelectTable(""));
  EXPECT_EQ(best, tables.back());
  for (const KernelTable* table : tables) {
    ASSERT_OK_AND_ASSIGN(const KernelTable* found, SelectTable(table->name));
    EXPECT_EQ(found, table);
    EXPECT_EQ(FindTable(table->isa), table);
  }
}

TEST(TablesTest, UnknownIsaNamesTheAcceptedOnes) {
  EXPECT_THAT(SelectTable("sse9"), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr("sse9 is not known; use one of scalar, "
                                                      "avx2, avxvnni, avx512, amx, or leave")));
  // Tiles in software are for tests alone.
  EXPECT_THAT(SelectTable("amx-software"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is not known")));
}

TEST(TablesTest, AnIsaThatIsAbsentHereNamesWhatIsMissing) {
  for (const char* name : {"avx2", "avxvnni", "avx512", "amx"}) {
    const auto table = SelectTable(name);
    if (table.ok()) continue;
    EXPECT_THAT(table, StatusIs(absl::StatusCode::kFailedPrecondition,
                                AnyOf(HasSubstr("lacks"), HasSubstr("Linux does not permit"))));
  }
}

// The emulated processor (emulated_avx2_test.sh) must be the one that is meant.
TEST(TablesTest, AreThoseThatTheEnvironmentExpects) {
  const char* expected = std::getenv("DOVETAIL_EXPECTED_TABLES");
  if (expected == nullptr) GTEST_SKIP() << "nobody expects particular ones";
  std::string names;
  for (const KernelTable* t : AvailableTables()) absl::StrAppend(&names, t->name, " ");
  EXPECT_EQ(names, absl::StrCat(expected, " "));
}

TEST(TablesTest, EveryEntryIsFilled) {
  for (const KernelTable* t : testing::TablesUnderTest()) {
    EXPECT_TRUE(t->pack && t->rms_norm && t->quantize && t->matmul && t->silu_mul && t->gelu_mul &&
                t->swiglu_oai && t->sigmoid && t->combine && t->rope && t->kv_append &&
                t->attention && t->embedding && t->packed_embedding && t->softmax && t->argmax &&
                t->all_finite && t->read_stream)
        << t->name;
  }
}

TEST(BandwidthTest, IsPlausible) {
  ThreadPool pool(2, {});
  const double gb_per_s = MeasureReadBandwidth(&pool, 32 << 20);
  EXPECT_GT(gb_per_s, 0.1);
  EXPECT_LT(gb_per_s, 1e4);
}

}  // namespace
}  // namespace dovetail::kernels
