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
    const std::lock_guard lock(mutex_);
    stops_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void SourceReader::SetPacked(int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    packed_ = bytes;
  }
  changed_.notify_one();
}

bool SourceReader::AwaitTurn(int64_t asked) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stops_ || asked < packed_ + kMostAhead; });
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
