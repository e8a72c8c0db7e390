#include "worker/source_reader.h"

#include <algorithm>
#include <utility>

namespace dovetail::worker {
namespace {

constexpr int64_t kPieceBytes = int64_t{8} << 20;

}  // namespace

SourceReader::SourceReader(const model::GgufFile& file, std::vector<Part> parts)
    : file_(file), parts_(std::move(parts)), thread_([this] { Run(); }) {}

SourceReader::~SourceReader() {
  {
    absl::MutexLock lock(&mutex_);
    stops_ = true;
  }
  thread_.join();
}

void SourceReader::SetPacked(int64_t bytes) {
  absl::MutexLock lock(&mutex_);
  packed_ = bytes;
}

bool SourceReader::AwaitTurn(int64_t asked) {
  absl::MutexLock lock(&mutex_);
  const auto has_turn = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stops_ || asked < packed_ + kMostAhead;
  };
  mutex_.Await(absl::Condition(&has_turn));
  return !stops_;
}

void SourceReader::Run() {
  int64_t asked = 0;
  for (const Part& part : parts_) {
    for (int64_t begin = part.begin; begin < part.end; begin += kPieceBytes) {
      if (!AwaitTurn(asked)) return;
      const int64_t end = std::min(begin + kPieceBytes, part.end);
      file_.ReadAhead(*part.tensor, begin, end);
      asked += end - begin;
    }
  }
}

}  // namespace dovetail::worker
