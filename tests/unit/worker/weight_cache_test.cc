#include "worker/weight_cache.h"

#include <fcntl.h>
#include <sys/file.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "base/posix.h"
#include "gmock/gmock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/temp_dir.h"
#include "tests/testing/test_data.h"
#include "tests/testing/tiny_llama.h"
#include "worker/weight_loader.h"

namespace dovetail::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using testing::StatusIs;

std::vector<fs::path> FilesIn(const std::string& dir) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(dir)) files.push_back(entry.path());
  return files;
}

void ChangeByte(const fs::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(at);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(at);
  file.put(byte);
  ASSERT_TRUE(file.good());
}

class WeightCacheTest : public ::testing::Test {
 protected:
  absl::Status Read(uint64_t key, std::vector<uint8_t>* weights) {
    return ReadWeightCache(path(), key, absl::MakeSpan(*weights), &pool_, nullptr);
  }
  std::string path() const { return dir_ + "/sub/weights"; }

  const testing::TempDir temp_;
  const std::string dir_ = temp_.path();
  ThreadPool pool_{3, {}};
};

// Several chunks, several slices of them, a last one that is not full, and none at all.
TEST_F(WeightCacheTest, GivesBackWhatWasWritten) {
  for (const size_t bytes : {size_t{64}, size_t{4} << 20, (size_t{70} << 20) + 192}) {
    std::vector<uint8_t> weights(bytes), copied(bytes, 0xaa);
    for (size_t i = 0; i < bytes; ++i) weights[i] = static_cast<uint8_t>((i * 2654435761) >> 13);
    ASSERT_OK(WriteWeightCache(path(), 7, weights, &pool_));
    uint64_t last = 0;
    ASSERT_OK(ReadWeightCache(path(), 7, absl::MakeSpan(copied), &pool_,
                              [&](uint64_t done, uint64_t total) {
                                EXPECT_GT(done, last);
                                EXPECT_EQ(total, bytes);
                                last = done;
                                return true;
                              }));
    EXPECT_EQ(last, bytes);
    EXPECT_TRUE(weights == copied);
  }
  EXPECT_EQ(FilesIn(dir_ + "/sub").size(), 1u) << "no temporary file is left";
}

TEST_F(WeightCacheTest, OfOtherWeightsIsNotFound) {
  std::vector<uint8_t> weights(128, 1), more(192);
  EXPECT_THAT(Read(7, &weights), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path())));
  ASSERT_OK(WriteWeightCache(path(), 7, weights, &pool_));
  EXPECT_THAT(Read(8, &weights), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path())));
  EXPECT_THAT(Read(7, &more), StatusIs(absl::StatusCode::kNotFound, HasSubstr(path())));
  EXPECT_OK(Read(7, &weights));
}

// Header, checksums, weights: whatever is changed, and wherever the file ends, it is not taken.
TEST_F(WeightCacheTest, DamageIsFoundAndNamed) {
  std::vector<uint8_t> weights((size_t{5} << 20) + 64, 3), room(weights.size());
  ASSERT_OK(WriteWeightCache(path(), 7, weights, &pool_));
  const auto whole = static_cast<std::streamoff>(fs::file_size(path()));
  for (const std::streamoff at : {std::streamoff{0}, std::streamoff{16}, std::streamoff{24},
                                  std::streamoff{40}, std::streamoff{50}, std::streamoff{4096},
                                  std::streamoff{4096 + (4 << 20) + 5}, whole - 1}) {
    ChangeByte(path(), at);
    EXPECT_THAT(Read(7, &room), StatusIs(absl::StatusCode::kDataLoss, StartsWith(path()))) << at;
    ChangeByte(path(), at);
  }
  ASSERT_OK(Read(7, &room));
  ChangeByte(path(), 8);
  EXPECT_THAT(Read(7, &room), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       AllOf(StartsWith(path()), HasSubstr("version"))));
  ChangeByte(path(), 8);
  for (const auto size : {whole - 1, std::streamoff{4096}, std::streamoff{50}, std::streamoff{9},
                          std::streamoff{0}}) {
    fs::resize_file(path(), static_cast<uintmax_t>(size));
    EXPECT_THAT(Read(7, &room), StatusIs(absl::StatusCode::kDataLoss, StartsWith(path()))) << size;
  }
}

TEST_F(WeightCacheTest, OneOfSeveralWritersWrites) {
  std::vector<uint8_t> weights(4096, 1), room(4096);
  fs::create_directories(dir_ + "/sub");
  {
    ASSERT_OK_AND_ASSIGN(const UniqueFd other, OpenFile(path() + ".tmp", O_RDWR | O_CREAT));
    ASSERT_EQ(flock(other.get(), LOCK_EX), 0);
    EXPECT_THAT(WriteWeightCache(path(), 7, weights, &pool_),
                StatusIs(absl::StatusCode::kAborted, HasSubstr("another process")));
    EXPECT_FALSE(fs::exists(path()));
  }
  // What a process left that died while it wrote is written over.
  ASSERT_TRUE(fs::exists(path() + ".tmp"));
  fs::resize_file(path() + ".tmp", 1 << 20);
  ASSERT_OK(WriteWeightCache(path(), 7, weights, &pool_));
  EXPECT_OK(Read(7, &room));
  EXPECT_FALSE(fs::exists(path() + ".tmp"));
}

// A worker that loads with a cache.
class CachedLoadTest : public WeightCacheTest {
 protected:
  void SetUp() override {
    WeightCacheTest::SetUp();
    plan_.model_path = dir_ + "/model.gguf";
    testing::WriteTinyLlama(plan_.model_path,
                            {.hidden = 256, .ffn = 512, .type = WeightType::kQ4_K});
    const auto file = model::GgufFile::Open(plan_.model_path).value();
    plan_.model_fingerprint = file->fingerprint();
    plan_.step_shape = {.max_rows = 8,
                        .max_sequences = 2,
                        .max_logit_rows = 8,
                        .context_length = 64,
                        .num_kv_blocks = 4};
    const std::vector<Op> ops = model::OpsOf(model::LoadModelConfig(*file).value());
    plan_.route = {{"cpu:0", {ops.begin(), ops.begin() + 3}},
                   {"cpu:1", {ops.begin() + 3, ops.end()}}};
    options_.worker = "cpu:0";
    options_.kernels = *kernels::SelectTable("");
    packed_ = BytesOf(*Load());
    options_.cache_dir = dir_ + "/cache";
  }

  std::unique_ptr<WeightStore> Load() {
    auto store = LoadWeights(plan_, options_, &pool_);
    EXPECT_OK(store);
    return *std::move(store);
  }
  static std::vector<uint8_t> BytesOf(const WeightStore& store) {
    return {store.weights->data(), store.weights->data() + store.weights->bytes()};
  }
  // Loads, says whether from the cache, and compares what was loaded.
  bool LoadsFromCache() {
    const auto store = Load();
    EXPECT_TRUE(BytesOf(*store) == packed_);
    return store->from_cache;
  }
  fs::path CacheFile() const {
    const std::vector<fs::path> files = FilesIn(options_.cache_dir);
    EXPECT_EQ(files.size(), 1u);
    return files.at(0);
  }

  transport::WorkerPlan plan_;
  LoadOptions options_;
  std::vector<uint8_t> packed_;
};

TEST_F(CachedLoadTest, TheSecondStartCopies) {
  EXPECT_FALSE(LoadsFromCache());
  EXPECT_TRUE(LoadsFromCache());
  EXPECT_THAT(CacheFile().filename().string(),
              AllOf(StartsWith("model-"), ::testing::EndsWith(".cpu-0.weights")));
}

TEST_F(CachedLoadTest, TiedEmbeddingsAreInTheFileOnce) {
  testing::WriteTinyLlama(plan_.model_path,
                          {.hidden = 256, .ffn = 512, .type = WeightType::kQ4_K, .tied = true});
  const auto file = model::GgufFile::Open(plan_.model_path).value();
  plan_.model_fingerprint = file->fingerprint();
  plan_.route = {{"cpu:0", {{OpKind::kEmbedding}, {OpKind::kNorm}, {OpKind::kLmHead}}}};
  options_.cache_dir.clear();
  packed_ = BytesOf(*Load());
  options_.cache_dir = dir_ + "/cache";
  EXPECT_FALSE(LoadsFromCache());
  EXPECT_TRUE(LoadsFromCache());
  const auto head = PackedBytes(options_.kernels->layout, WeightType::kQ4_K, 320, 256);
  EXPECT_EQ(packed_.size(), static_cast<size_t>(head) + 256 * sizeof(float)) << "and the norm";
  EXPECT_LT(fs::file_size(CacheFile()), packed_.size() + 2 * 4096);
}

TEST_F(CachedLoadTest, DamageIsPackedAnewAndRepaired) {
  EXPECT_FALSE(LoadsFromCache());
  const auto spoil = [&](const std::function<void(const fs::path&)>& how) {
    how(CacheFile());
    ::testing::internal::CaptureStderr();
    EXPECT_FALSE(LoadsFromCache());
    const std::string log = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(log, AllOf(HasSubstr("weight cache: "), HasSubstr(CacheFile().string())));
    EXPECT_EQ(log.find("weight cache"), log.rfind("weight cache")) << "said once";
    EXPECT_TRUE(LoadsFromCache());
  };
  spoil([](const fs::path& file) { ChangeByte(file, 5000); });
  spoil([](const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 1); });
  spoil([](const fs::path& file) { fs::resize_file(file, 0); });
  spoil([](const fs::path& file) { ChangeByte(file, 8); });  // version
}

TEST_F(CachedLoadTest, ADirectoryThatCannotBeWrittenIsNoFailure) {
  std::ofstream(dir_ + "/file") << "x";
  options_.cache_dir = dir_ + "/file/cache";
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(LoadsFromCache());
  EXPECT_FALSE(LoadsFromCache());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("weight cache: not written"));
}

// A model that was written again has the same headers, and other weights.
TEST_F(CachedLoadTest, AFileThatWasChangedIsPackedAnew) {
  EXPECT_FALSE(LoadsFromCache());
  fs::last_write_time(plan_.model_path,
                      fs::last_write_time(plan_.model_path) + std::chrono::seconds(1));
  EXPECT_FALSE(LoadsFromCache());
  EXPECT_TRUE(LoadsFromCache());
  CacheFile();  // is one
}

TEST_F(CachedLoadTest, EachWorkerHasAFileThatAnotherShareReplaces) {
  EXPECT_FALSE(LoadsFromCache());
  options_.worker = "cpu:1";
  EXPECT_FALSE(Load()->from_cache);
  EXPECT_TRUE(Load()->from_cache);
  EXPECT_EQ(FilesIn(options_.cache_dir).size(), 2u);
  std::swap(plan_.route[0].worker, plan_.route[1].worker);
  EXPECT_FALSE(Load()->from_cache);
  EXPECT_TRUE(Load()->from_cache);
  EXPECT_EQ(FilesIn(options_.cache_dir).size(), 2u);
}

TEST_F(CachedLoadTest, ASegmentIsFoundBeforeTheCache) {
  options_.weights_path = dir_ + "/weights";
  options_.kv_path = dir_ + "/kv";
  EXPECT_FALSE(LoadsFromCache());
  const auto store = Load();
  EXPECT_TRUE(store->reattached);
  EXPECT_FALSE(store->from_cache);
}

TEST_F(CachedLoadTest, CanBeStopped) {
  EXPECT_FALSE(LoadsFromCache());
  options_.progress = [](uint64_t, uint64_t) { return false; };
  EXPECT_THAT(LoadWeights(plan_, options_, &pool_),
              StatusIs(absl::StatusCode::kCancelled, ::testing::_));
}

}  // namespace
}  // namespace dovetail::worker
