#include "model/gguf/gguf_file.h"

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/gguf/shard_paths.h"
#include "tests/testing/gguf_writer.h"
#include "tests/testing/status_matchers.h"

namespace dovetail::model {
namespace {

namespace fs = std::filesystem;
using ::dovetail::testing::GgufWriter;
using ::dovetail::testing::IsOk;
using ::dovetail::testing::StatusIs;
using ::dovetail::testing::WriteFileOrDie;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

class GgufFileTest : public ::testing::Test {
 protected:
  GgufFileTest() {
    std::string name = ::testing::TempDir() + "/gguf_file_test.XXXXXX";
    dir_ = ::mkdtemp(name.data());
  }
  ~GgufFileTest() override { fs::remove_all(dir_); }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  // Shard `no` of `count`, with one tensor named after it, `total` as the number of all tensors.
  std::string WriteShard(int no, int count, int total, const std::string& stem = "m") {
    GgufWriter writer;
    if (no == 0) writer.AddString("general.architecture", "llama");
    writer.AddUint16("split.no", static_cast<uint16_t>(no));
    writer.AddUint16("split.count", static_cast<uint16_t>(count));
    writer.AddInt32("split.tensors.count", total);
    writer.AddTensor(absl::StrCat("t", no), WeightType::kF32, {1}, GgufWriter::Bytes(float(no)));
    const std::string path = ShardPath({Path(stem), 0, count}, no);
    writer.Write(path);
    return path;
  }

  std::string dir_;
};

TEST_F(GgufFileTest, ReadsAllValueTypes) {
  GgufWriter w;
  w.AddUint8("u8", 255);
  w.AddInt8("i8", -128);
  w.AddUint16("u16", 65535);
  w.AddInt16("i16", -32768);
  w.AddUint32("u32", 4294967295u);
  w.AddInt32("i32", std::numeric_limits<int32_t>::min());
  w.AddUint64("u64", ~uint64_t{0});
  w.AddInt64("i64", std::numeric_limits<int64_t>::min());
  w.AddFloat32("f32", 0.1f);
  w.AddFloat64("f64", 0.1);
  w.AddBool("yes", true);
  w.AddBool("no", false);
  w.AddString("text", std::string("a\0b\xff", 4));
  w.AddString("empty", "");
  w.AddArray<int8_t>("i8s", 1, {-1, 2});
  w.AddArray<uint64_t>("u64s", 10, {~uint64_t{0}});
  w.AddFloat32s("f32s", {0.5f, -2.0f});
  w.AddArray<uint8_t>("bools", 7, {1, 0, 1});
  w.AddStrings("texts", {"", "x", "yz"});
  w.AddStrings("none", {});
  w.Write(Path("m.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(Path("m.gguf")));

  const auto get = [&](const char* key) { return file->Find(key)->value; };
  EXPECT_EQ(std::get<uint64_t>(get("u8")), 255u);
  EXPECT_EQ(std::get<int64_t>(get("i8")), -128);
  EXPECT_EQ(std::get<uint64_t>(get("u16")), 65535u);
  EXPECT_EQ(std::get<int64_t>(get("i16")), -32768);
  EXPECT_EQ(std::get<uint64_t>(get("u32")), 4294967295u);
  EXPECT_EQ(std::get<int64_t>(get("i32")), std::numeric_limits<int32_t>::min());
  EXPECT_EQ(std::get<uint64_t>(get("u64")), ~uint64_t{0});
  EXPECT_EQ(std::get<int64_t>(get("i64")), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(std::get<double>(get("f32")), static_cast<double>(0.1f));
  EXPECT_EQ(std::get<double>(get("f64")), 0.1);
  EXPECT_EQ(std::get<bool>(get("yes")), true);
  EXPECT_EQ(std::get<bool>(get("no")), false);
  EXPECT_EQ(std::get<std::string>(get("text")), std::string("a\0b\xff", 4));
  EXPECT_EQ(std::get<std::string>(get("empty")), "");
  EXPECT_THAT(std::get<std::vector<int64_t>>(get("i8s")), ElementsAre(-1, 2));
  EXPECT_THAT(std::get<std::vector<uint64_t>>(get("u64s")), ElementsAre(~uint64_t{0}));
  EXPECT_THAT(std::get<std::vector<double>>(get("f32s")), ElementsAre(0.5, -2.0));
  EXPECT_THAT(std::get<std::vector<bool>>(get("bools")), ElementsAre(true, false, true));
  EXPECT_THAT(std::get<std::vector<std::string>>(get("texts")), ElementsAre("", "x", "yz"));
  EXPECT_TRUE(std::get<std::vector<std::string>>(get("none")).empty());
  EXPECT_EQ(file->metadata()[4].first, "u32");
  EXPECT_EQ(file->Find("u8s"), nullptr);
}

TEST_F(GgufFileTest, TypedAccessSaysWhatItFound) {
  GgufWriter w;
  w.AddInt16("small", 7);
  w.AddInt16("negative", -7);
  w.AddFloat32("half", 0.5f);
  w.AddBool("flag", true);
  w.AddStrings("list", {"a"});
  w.Write(Path("m.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(Path("m.gguf")));
  const std::string at = Path("m.gguf") + ": metadata key ";
  EXPECT_THAT(file->GetUint("small").value(), 7u);
  EXPECT_THAT(file->GetFloat("small").value(), 7.0);
  EXPECT_THAT(file->GetFloat("half").value(), 0.5);
  EXPECT_THAT(file->GetBool("flag").value(), true);
  EXPECT_THAT(file->GetUint("absent"), StatusIs(kNotFound, Eq(at + "absent is missing")));
  EXPECT_THAT(file->GetUint("negative"),
              StatusIs(kInvalid, Eq(at + "negative is -7, expected 0 or more")));
  EXPECT_THAT(file->GetUint("half"),
              StatusIs(kInvalid, Eq(at + "half is float32, expected an integer")));
  EXPECT_THAT(file->GetFloat("flag"),
              StatusIs(kInvalid, Eq(at + "flag is bool, expected a number")));
  EXPECT_THAT(file->GetString("list"),
              StatusIs(kInvalid, Eq(at + "list is array[string], expected a string")));
  EXPECT_THAT(file->GetBool("small"),
              StatusIs(kInvalid, Eq(at + "small is int16, expected a bool")));
}

TEST_F(GgufFileTest, MapsTensorData) {
  GgufWriter w;
  w.AddTensor("a", WeightType::kF32, {2, 3}, "abcdefghijklmnopqrstuvwx");
  w.AddTensor("b", WeightType::kQ8_0, {32}, std::string(34, 'q'));
  w.Write(Path("m.gguf"));
  ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(Path("m.gguf")));
  const GgufTensor* a = file->FindTensor("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->columns(), 2);
  EXPECT_EQ(a->rows(), 3);
  const absl::Span<const uint8_t> data = file->Data(*a);
  ASSERT_EQ(data.size(), 24u);
  EXPECT_EQ(std::memcmp(data.data(), "abcdefghijklmnopqrstuvwx", 24), 0);
  EXPECT_EQ(file->Data(*file->FindTensor("b"))[33], 'q');
  file->DropPages(*a);  // the bytes can still be read
  EXPECT_EQ(file->Data(*a)[1], 'b');
  EXPECT_EQ(file->FindTensor("c"), nullptr);
  EXPECT_EQ(file->file_bytes(), static_cast<int64_t>(fs::file_size(Path("m.gguf"))));
}

TEST_F(GgufFileTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(GgufFile::Open(Path("none.gguf")),
              StatusIs(kNotFound, Eq(Path("none.gguf") + ": No such file or directory")));
  WriteFileOrDie(Path("empty.gguf"), "");
  EXPECT_THAT(GgufFile::Open(Path("empty.gguf")),
              StatusIs(kInvalid, Eq(Path("empty.gguf") + ": the file is empty")));
  EXPECT_THAT(GgufFile::Open("/dev/null"), StatusIs(kInvalid, Eq("/dev/null: not a regular file")));
}

TEST_F(GgufFileTest, OpensAllShardsFromAnyOfThem) {
  std::vector<std::string> paths;
  for (int i = 0; i < 3; ++i) paths.push_back(WriteShard(i, 3, 3));
  for (const std::string& path : {paths[0], paths[2], dir_}) {
    ASSERT_OK_AND_ASSIGN(const auto file, GgufFile::Open(path));
    EXPECT_EQ(file->path(), path);
    EXPECT_THAT(file->shard_paths(), ElementsAre(paths[0], paths[1], paths[2]));
    ASSERT_EQ(file->tensors().size(), 3u);
    EXPECT_EQ(file->FindTensor("t2")->shard, 2);
    float value;
    std::memcpy(&value, file->Data(*file->FindTensor("t2")).data(), 4);
    EXPECT_EQ(value, 2.0f);
    EXPECT_EQ(file->GetString("general.architecture").value(), "llama");
    EXPECT_EQ(file->GetUint("split.no").value(), 0u);
  }
}

TEST_F(GgufFileTest, ListsMissingShards) {
  const std::string path = WriteShard(1, 4, 4);
  EXPECT_THAT(GgufFile::Open(path),
              StatusIs(kNotFound, Eq(Path("m-*.gguf") +
                                     ": shards 1, 3, 4 of 4 are missing (named "
                                     "like " +
                                     Path("m-00001-of-00004.gguf") + ")")));
  EXPECT_THAT(GgufFile::Open(dir_), StatusIs(kNotFound, HasSubstr("shards 1, 3, 4 of 4")));
  WriteShard(0, 4, 4);
  WriteShard(2, 4, 4);
  EXPECT_THAT(GgufFile::Open(path), StatusIs(kNotFound, HasSubstr("shard 4 of 4 is missing")));
  EXPECT_THAT(GgufFile::Open(Path("x-00001-of-00002.gguf")),
              StatusIs(kNotFound, HasSubstr("No such file")));
}

TEST_F(GgufFileTest, RefusesShardsThatDisagree) {
  WriteShard(0, 2, 2);
  const std::string second = WriteShard(1, 2, 2);
  fs::copy_file(Path("m-00001-of-00002.gguf"), second, fs::copy_options::overwrite_existing);
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, Eq(second + ": the name says shard 2, split.no says shard 1")));

  WriteShard(1, 2, 2);
  WriteShard(0, 2, 5);
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, HasSubstr("the 2 shards hold 2 tensors, split.tensors.count of "
                                           "the first says 5")));

  const std::string odd = Path("renamed.gguf");
  fs::rename(Path("m-00001-of-00002.gguf"), odd);
  EXPECT_THAT(GgufFile::Open(odd),
              StatusIs(kInvalid, HasSubstr("split.count is 2, but the file is not named like a "
                                           "shard")));
}

TEST_F(GgufFileTest, RefusesTensorsInTwoShards) {
  for (int i = 0; i < 2; ++i) {
    GgufWriter writer;
    writer.AddUint16("split.no", i);
    writer.AddUint16("split.count", 2);
    writer.AddInt32("split.tensors.count", 2);
    writer.AddTensor("same", WeightType::kF32, {1}, GgufWriter::Bytes(1.0f));
    writer.Write(Path(absl::StrCat("m-0000", i + 1, "-of-00002.gguf")));
  }
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, AllOf(HasSubstr("shards repeat tensors:\n  tensor \"same\" again "
                                                 "in "),
                                       HasSubstr("m-00002-of-00002.gguf"))));
}

TEST_F(GgufFileTest, ADirectoryHoldsExactlyOneModel) {
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kNotFound, Eq(dir_ + ": no .gguf file in this directory")));
  WriteFileOrDie(Path("model-00001-of-00002.safetensors"), "");
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kNotFound, HasSubstr("its safetensors must be converted to GGUF")));
  for (const char* name : {"meta-llama/Llama-3.1-8B", "hf://Qwen/Qwen3-8B/m.gguf"}) {
    EXPECT_THAT(GgufFile::Open(name), StatusIs(kNotFound, HasSubstr("not by its name on a hub")));
  }
  GgufWriter().Write(Path("b.gguf"));
  WriteFileOrDie(Path("README.md"), "hello");
  EXPECT_OK(GgufFile::Open(dir_));
  WriteShard(0, 2, 2, "a");
  WriteShard(1, 2, 2, "a");
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, Eq(dir_ + ": the directory holds 2 models; name one of them: "
                                           "a-00001-of-00002.gguf, b.gguf")));
  fs::remove(Path("a-00002-of-00002.gguf"));
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, HasSubstr("a-00001-of-00002.gguf [shard 2 of 2 is missing (named "
                                           "like ")));
}

TEST_F(GgufFileTest, NamesEveryShardThatCannotBeRead) {
  for (int i = 0; i < 3; ++i) WriteShard(i, 3, 3);
  WriteFileOrDie(Path("m-00001-of-00003.gguf"), "GGUF");
  WriteFileOrDie(Path("m-00003-of-00003.gguf"), "");
  EXPECT_THAT(GgufFile::Open(dir_),
              StatusIs(kInvalid, AllOf(HasSubstr(Path("m-00001-of-00003.gguf") + ": "),
                                       HasSubstr("\n" + Path("m-00003-of-00003.gguf") +
                                                 ": the file is empty"))));
}

TEST_F(GgufFileTest, FingerprintFollowsHeaderAndSize) {
  const auto fingerprint = [&](uint32_t value, size_t data_bytes) {
    GgufWriter w;
    w.AddUint32("k", value);
    w.AddTensor("a", WeightType::kI8, {4}, std::string(data_bytes, 'x'));
    w.Write(Path("f.gguf"));
    return GgufFile::Open(Path("f.gguf")).value()->fingerprint();
  };
  const uint64_t first = fingerprint(1, 4);
  EXPECT_EQ(fingerprint(1, 4), first);
  EXPECT_NE(fingerprint(2, 4), first);
  EXPECT_NE(fingerprint(1, 100), first);  // the file is longer
}

TEST(ShardName, Parses) {
  ShardName name;
  EXPECT_TRUE(ParseShardName("d/a-b-00002-of-00010.gguf", &name));
  EXPECT_EQ(name.stem, "d/a-b");
  EXPECT_EQ(name.index, 1);
  EXPECT_EQ(name.count, 10);
  for (const char* path :
       {"a.gguf", "a-00000-of-00002.gguf", "a-00003-of-00002.gguf", "a-0001-of-00002.gguf",
        "a-00001-of-0000x.gguf", "-of-.gguf", "a-00001-of-00002.ggu"}) {
    EXPECT_FALSE(ParseShardName(path, &name)) << path;
  }
}

}  // namespace
}  // namespace dovetail::model
