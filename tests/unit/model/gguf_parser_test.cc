#include "model/gguf/gguf_parser.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::model {
namespace {

using ::dovetail::testing::GgufWriter;
using ::dovetail::testing::IsOk;
using ::dovetail::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<GgufShard> Parse(const std::string& bytes) {
  return ParseGguf({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()}, "m.gguf");
}
absl::StatusOr<GgufShard> Parse(const GgufWriter& writer) { return Parse(writer.Serialize()); }

std::string Zeros(size_t count) { return std::string(count, '\0'); }

// One F32 tensor of 8 elements.
GgufWriter OneTensor() {
  GgufWriter writer;
  writer.AddTensor("a", WeightType::kF32, {8}, Zeros(32));
  return writer;
}

TEST(GgufParser, ReadsVersions2And3) {
  for (uint32_t version : {2, 3}) {
    GgufWriter writer = OneTensor();
    writer.version = version;
    ASSERT_OK_AND_ASSIGN(const GgufShard shard, Parse(writer));
    EXPECT_EQ(shard.version, version);
    ASSERT_EQ(shard.tensors.size(), 1u);
    EXPECT_EQ(shard.tensors[0].name, "a");
    EXPECT_EQ(shard.tensors[0].bytes, 32);
    EXPECT_EQ(shard.tensors[0].offset, 64u);  // header of 57 bytes, aligned to 32
    EXPECT_EQ(shard.header_bytes, 57u);
  }
}

TEST(GgufParser, RefusesOtherVersionsAndByteOrders) {
  GgufWriter writer = OneTensor();
  writer.version = 1;
  EXPECT_THAT(Parse(writer),
              StatusIs(kInvalid, Eq("m.gguf: at byte 4: GGUF version 1 is not supported; expected "
                                    "2 or 3")));
  writer.version = 4;
  EXPECT_THAT(Parse(writer), StatusIs(kInvalid, HasSubstr("GGUF version 4 is not supported")));
  writer.version = 0x03000000;
  EXPECT_THAT(Parse(writer),
              StatusIs(kInvalid, Eq("m.gguf: at byte 4: a big-endian GGUF file (version 3); only "
                                    "little-endian files can be read")));
}

TEST(GgufParser, RefusesWrongMagic) {
  EXPECT_THAT(Parse(std::string("PK\x03\x04 and more", 14)),
              StatusIs(kInvalid, Eq("m.gguf: at byte 0: not a GGUF file: it begins with "
                                    "\"PK\\x03\\x04\" instead of \"GGUF\"")));
  EXPECT_THAT(Parse("version https://git-lfs.github.com/spec/v1"),
              StatusIs(kInvalid, HasSubstr("a Git LFS pointer?")));
  EXPECT_THAT(Parse(std::string("\x40\x01\0\0\0\0\0\0{\"__metadata__\":{}}", 26)),
              StatusIs(kInvalid, HasSubstr("(a safetensors file? convert it to GGUF")));
  EXPECT_THAT(Parse("GG"), StatusIs(kInvalid, HasSubstr("begins with \"GG\"")));
}

TEST(GgufParser, SaysWhereTheFileEnds) {
  GgufWriter writer;
  writer.AddUint32("general.alignment", 32);
  writer.AddString("general.name", "a long enough name");
  const std::string bytes = writer.Serialize();
  EXPECT_THAT(Parse(bytes.substr(0, 10)),
              StatusIs(kInvalid, Eq("m.gguf: at byte 8: the file ends inside the header (2 bytes "
                                    "are left); is it complete?")));
  EXPECT_THAT(Parse(bytes.substr(0, bytes.size() - 20)),
              StatusIs(kInvalid, Eq("m.gguf: at byte 81: the file ends inside metadata entry 2 of "
                                    "2 (\"general.name\") (6 bytes are left); is it complete?")));
  EXPECT_THAT(Parse(bytes.substr(0, bytes.size() - 1)),
              StatusIs(kInvalid, Eq("m.gguf: at byte 81: a string of 18 bytes in metadata entry 2 "
                                    "of 2 (\"general.name\"), but only 17 bytes are left in the "
                                    "file")));
}

TEST(GgufParser, BelievesNoCount) {
  GgufWriter writer = OneTensor();
  writer.claimed_tensors = uint64_t{1} << 63;
  EXPECT_THAT(Parse(writer),
              StatusIs(kInvalid, HasSubstr("at byte 8: the header claims 9223372036854775808 "
                                           "tensors, more than the remaining")));
  writer.claimed_tensors.reset();
  writer.claimed_metadata = 1000000;
  EXPECT_THAT(Parse(writer), StatusIs(kInvalid, HasSubstr("claims 1000000 metadata entries")));

  GgufWriter arrays;
  arrays.AddRaw("k", 9, GgufWriter::Bytes(uint32_t{8}) + GgufWriter::Bytes(uint64_t{1} << 40));
  EXPECT_THAT(Parse(arrays), StatusIs(kInvalid, HasSubstr("an array of 1099511627776 elements")));
  GgufWriter strings;
  strings.AddRaw("k", 8, GgufWriter::Bytes(~uint64_t{0}) + "x");
  EXPECT_THAT(Parse(strings),
              StatusIs(kInvalid, HasSubstr("a string of 18446744073709551615 bytes")));
}

TEST(GgufParser, RefusesBadMetadata) {
  GgufWriter twice;
  twice.AddUint8("k", 1);
  twice.AddUint8("k", 1);
  EXPECT_THAT(Parse(twice),
              StatusIs(kInvalid, Eq("m.gguf: at byte 38: metadata key \"k\" appears twice")));
  GgufWriter unknown;
  unknown.AddRaw("k", 13, Zeros(8));
  EXPECT_THAT(Parse(unknown),
              StatusIs(kInvalid, Eq("m.gguf: at byte 33: unknown value type 13 in metadata entry "
                                    "1 of 1 (\"k\")")));
  GgufWriter nested;
  nested.AddRaw("k", 9, GgufWriter::Bytes(uint32_t{9}) + Zeros(16));
  EXPECT_THAT(Parse(nested), StatusIs(kInvalid, HasSubstr("an array of arrays in metadata entry")));
  GgufWriter element;
  element.AddRaw("k", 9, GgufWriter::Bytes(uint32_t{77}) + Zeros(16));
  EXPECT_THAT(Parse(element), StatusIs(kInvalid, HasSubstr("unknown element type 77")));
  GgufWriter flag;
  flag.AddRaw("k", 7, "\x02");
  EXPECT_THAT(Parse(flag), StatusIs(kInvalid, HasSubstr("a bool with value 2")));
  GgufWriter flags;
  flags.AddArray<uint8_t>("k", 7, {0, 1, 9});
  EXPECT_THAT(Parse(flags), StatusIs(kInvalid, HasSubstr("at byte 51: a bool with value 9")));
}

TEST(GgufParser, ChecksTheAlignment) {
  for (uint32_t alignment : {0u, 3u, 0x80000000u}) {
    GgufWriter writer = OneTensor();
    writer.AddUint32("general.alignment", alignment);
    EXPECT_THAT(Parse(writer),
                StatusIs(kInvalid, Eq(absl::StrCat("m.gguf: general.alignment is not a power of "
                                                   "two up to 1073741824: ",
                                                   alignment))));
  }
  GgufWriter text = OneTensor();
  text.AddString("general.alignment", "32");
  EXPECT_THAT(Parse(text), StatusIs(kInvalid, HasSubstr("general.alignment is not a power")));
  GgufWriter wide = OneTensor();
  wide.alignment = 128;
  wide.AddUint32("general.alignment", 128);
  ASSERT_OK_AND_ASSIGN(const GgufShard shard, Parse(wide));
  EXPECT_EQ(shard.tensors[0].offset, 128u);
}

TEST(GgufParser, ListsAllTensorsWithProblems) {
  GgufWriter writer;
  writer.AddTensor("good", WeightType::kF32, {8}, Zeros(32));
  writer.AddTensor("good", WeightType::kF32, {8}, Zeros(32));
  writer.AddTensor("empty", WeightType::kF32, {8, 0}, Zeros(32));
  writer.AddTensor("rows", WeightType::kQ4_K, {128, 2}, Zeros(32));
  writer.AddTensor("huge", WeightType::kF32, {uint64_t{1} << 33, uint64_t{1} << 33}, Zeros(32));
  writer.AddTensor("bytes", WeightType::kF64, {uint64_t{1} << 31, uint64_t{1} << 31}, Zeros(32));
  writer.AddTensor("old", WeightType::kF32, {8}, Zeros(32)).type_id = 4;
  writer.AddTensor("foreign", WeightType::kF32, {8}, Zeros(32)).type_id = 139;
  writer.AddTensor("odd", WeightType::kF32, {8}, Zeros(32)).offset = 5;
  writer.AddTensor("far", WeightType::kF32, {8}, Zeros(32)).offset = 4096;
  writer.AddTensor("wrap", WeightType::kF32, {8}, Zeros(32)).offset = ~uint64_t{0} - 31;
  writer.AddTensor("over", WeightType::kF32, {8}, Zeros(32)).offset = 0;
  const absl::StatusOr<GgufShard> shard = Parse(writer);
  const size_t size = writer.Serialize().size();
  const size_t data = size - 12 * 32;
  EXPECT_THAT(
      shard,
      StatusIs(kInvalid,
               Eq(absl::StrCat(
                   "m.gguf: 11 of 12 tensors cannot be used:\n"
                   "  tensor \"good\": its name appears twice\n"
                   "  tensor \"empty\": shape [8, 0] has a dimension of 0\n"
                   "  tensor \"rows\": shape [128, 2]: rows of Q4_K are multiples of 256 "
                   "elements\n"
                   "  tensor \"huge\": shape [8589934592, 8589934592] has more elements than 64 "
                   "bits can count\n"
                   "  tensor \"bytes\": shape [2147483648, 2147483648] of type F64 needs more than "
                   "2^63 bytes\n"
                   "  tensor \"old\": its type cannot be read: removed type 4 (Q4_2)\n"
                   "  tensor \"foreign\": its type cannot be read: ik_llama.cpp type IQ4_K (139)\n"
                   "  tensor \"odd\": offset 5 is not a multiple of the alignment 32\n"
                   "  tensor \"far\": its data are bytes ",
                   data + 4096, " to ", data + 4096 + 32, ", but the file ends at byte ", size,
                   "\n"
                   "  tensor \"wrap\": offset 18446744073709551584 overflows 64 bits\n"
                   "  tensor \"over\": its data at byte ",
                   data, " overlap those of \"good\", which end at byte ", data + 32))));
}

TEST(GgufParser, CountsProblemsBeyondTheList) {
  GgufWriter writer;
  for (int i = 0; i < 25; ++i) {
    writer.AddTensor(absl::StrCat("t", i), WeightType::kF32, {0}, Zeros(4));
  }
  EXPECT_THAT(Parse(writer), StatusIs(kInvalid, HasSubstr("\n  tensor \"t19\": shape [0] has a "
                                                          "dimension of 0\n  and 5 more")));
}

TEST(GgufParser, RefusesDimensionsAndNamesThatNoFileHas) {
  GgufWriter many;
  many.AddTensor("a", WeightType::kF32, {1, 1, 1, 1, 1}, Zeros(4));
  EXPECT_THAT(Parse(many), StatusIs(kInvalid, HasSubstr("the description of tensor 1 of 1 (\"a\") "
                                                        "has 5 dimensions; expected 1 to 4")));
  GgufWriter none;
  none.AddTensor("a", WeightType::kF32, {}, Zeros(64));
  EXPECT_THAT(Parse(none), StatusIs(kInvalid, HasSubstr("has 0 dimensions")));
  GgufWriter name;
  name.AddTensor(std::string(70000, 'n'), WeightType::kF32, {1}, Zeros(4));
  EXPECT_THAT(Parse(name), StatusIs(kInvalid, HasSubstr("a name of 70000 bytes")));
}

TEST(GgufParser, KeepsOddOffsetsThatAreSound) {
  GgufWriter writer;  // out of order, with a gap
  writer.AddTensor("late", WeightType::kF32, {8}, Zeros(32)).offset = 96;
  writer.AddTensor("early", WeightType::kF16, {4, 4}, Zeros(96)).offset = 0;
  ASSERT_OK_AND_ASSIGN(const GgufShard shard, Parse(writer));
  EXPECT_EQ(shard.tensors[0].offset, shard.tensors[1].offset + 96);
  EXPECT_THAT(shard.tensors[1].shape, ElementsAre(4, 4));
}

TEST(GgufParser, EscapesNames) {
  EXPECT_EQ(QuoteName("a\x1b[31m\n"), "\"a\\x1b[31m\\n\"");
  EXPECT_EQ(QuoteName(std::string(101, 'x')), "\"" + std::string(100, 'x') + "...\"");
}

}  // namespace
}  // namespace dovetail::model
